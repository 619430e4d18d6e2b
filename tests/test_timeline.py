"""Seconds to frames to segments to slots: exact, whatever the times, the fps and the limit."""

import math
from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanedit.errors import InputError
from wanedit.timeline import (
    MODEL_LIMIT,
    Timeline,
    frame_at,
    plan,
    renumbered,
    round_up,
    slot,
    slots,
    warnings,
)

FPS = st.one_of(
    st.integers(1, 60),
    st.sampled_from([12.5, 23.976, 29.97, Fraction(30000, 1001), Fraction(24000, 1001), 0.5]),
)
LIMITS = st.integers(0, 40).map(lambda n: 4 * n + 1)
GAPS = st.one_of(
    st.integers(1, 60).map(lambda n: Fraction(n, 10)),  # 0.1 steps, as a user writes them
    st.floats(0.04, 6.0).map(Fraction),
    st.fractions(Fraction(1, 25), 6, max_denominator=1001),
)


@st.composite
def increasing_times(draw: st.DrawFn) -> list[float] | list[Fraction]:
    times = list(accumulate(draw(st.lists(GAPS, min_size=2, max_size=10))))
    return times if draw(st.booleans()) else [float(t) for t in times]


def nearest_frame(seconds: float | Fraction, fps: float | Fraction) -> int:
    """The rounding of the design, from the decimal digits that were written, by an own route: halves go up."""
    product = Fraction(str(seconds)) * Fraction(str(fps))
    whole, rest = divmod(product, 1)
    return int(whole) + (rest >= Fraction(1, 2))


@given(increasing_times(), FPS, LIMITS, st.booleans())
def test_a_plan_is_exact(times: list, fps: float | Fraction, limit: int, stretch: bool) -> None:
    frames = [nearest_frame(t, fps) for t in times]
    lengths = [b - a + 1 for a, b in pairwise(frames)]
    try:
        timeline = plan(times, fps, limit, stretch)
    except InputError:
        assert min(lengths) == 1 or (not stretch and max(lengths) > limit)
        return
    assert min(lengths) > 1
    assert stretch or max(lengths) <= limit
    assert timeline.num_frames == frames[-1] - frames[0] + 1
    assert list(timeline.keyframe_frames) == [p - frames[0] for p in frames]
    _assert_tiles(timeline, limit)


def _assert_tiles(timeline: Timeline, limit: int) -> None:
    ends = timeline.keyframe_frames
    assert [(s.index, s.start, s.end) for s in timeline.segments] == [
        (k, a, b) for k, (a, b) in enumerate(pairwise(ends))
    ]
    for segment in timeline.segments:
        smallest = next(n for n in range(segment.frames, segment.frames + 4) if n % 4 == 1)
        assert segment.frames == segment.end - segment.start + 1
        assert segment.sampled_frames == min(smallest, limit)
        assert segment.slots == slots(segment.sampled_frames)


@pytest.mark.parametrize(
    ("seconds", "fps", "frame"),
    [
        (0.5, 1, 1),  # ties go up, not to even
        (1.5, 1, 2),
        (2.5, 1, 3),
        (0.7, 15, 11),  # 10.5
        (0.145, 100, 15),  # 14.5; in binary floats 14.499999999999998
        (1.005, 100, 101),  # 100.5; in binary floats 100.49999999999999
        (0.3, 5, 2),  # 1.5
        (0.1 * 3, 5, 2),  # 0.30000000000000004, a little above the tie
        (0.1 + 0.7, 5, 4),  # 0.7999999999999999
        (0.49999999999999994, 1, 0),  # floor(x + 0.5) in floats gives 1
        (0.03125, 16, 1),
        (5e-324, 60, 0),
        (1e15 + 0.5, 1, 10**15 + 1),
        (Fraction(1001, 60000), Fraction(30000, 1001), 1),
        (1001.0, Fraction(30000, 1001), 30000),
    ],
)
def test_rounding(seconds: float | Fraction, fps: float | Fraction, frame: int) -> None:
    assert frame_at(seconds, fps) == frame


def test_a_long_story_does_not_drift() -> None:
    times = [k * 2.5 for k in range(401)]
    assert plan(times, 29.97).keyframe_frames[-1] == 29970


def test_slot_against_a_table() -> None:
    table = {0: 0} | {p: j for j in range(1, 30) for p in range(4 * j - 3, 4 * j + 1)}
    assert {p: slot(p) for p in table} == table
    with pytest.raises(InputError, match="frame is -1; expected >= 0"):
        slot(-1)


def test_slots_counts_the_slots_of_its_frames() -> None:
    for frames in range(1, 100, 4):
        assert slots(frames) == len({slot(p) for p in range(frames)})


@pytest.mark.parametrize(
    ("frames", "said"), [(80, "77 or 81"), (82, "81 or 85"), (2, "1 or 5"), (0, "1 or 5")]
)
def test_slots_refuses_other_counts(frames: int, said: str) -> None:
    with pytest.raises(InputError, match=f"{frames} frames; expected 4n[+]1, such as {said}"):
        slots(frames)


def test_round_up() -> None:
    assert [round_up(n) for n in range(1, 11)] == [1, 5, 5, 5, 5, 9, 9, 9, 9, 13]


@pytest.mark.fault(10)
@pytest.mark.parametrize(
    ("times", "fps", "said"),
    [
        ([], 16, r"0 keyframe\(s\); expected at least two"),
        ([1.0], 16, r"1 keyframe\(s\); expected at least two"),
        ([0.0, 1.0, 1.0], 16, "keyframes 1 and 2 are both at 1 s"),
        ([0.0, 2.0, 1.0], 16, "keyframe 2 at 1 s comes before keyframe 1 at 2 s.*sort_keyframes"),
        ([0.0, 1.0, 1.01], 16, r"keyframes 1 \(1 s\) and 2 \(1.01 s\) both fall on frame 16 at 16 fps"),
        ([-0.5, 1.0], 16, "keyframe 0 is at -0.5 s; expected a finite time >= 0"),
        ([0.0, math.nan], 16, "keyframe 1 is at nan s"),
        ([0.0, math.inf], 16, "keyframe 1 is at inf s"),
        ([0.0, 1.0], 0, "fps is 0; expected a number above 0"),
        ([0.0, 1.0], -16, "fps is -16"),
        ([0.0, 1.0], math.nan, "fps is nan"),
        ([0.0, 1.0], math.inf, "fps is inf"),
    ],
)
def test_bad_times_are_named(times: list[float], fps: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(times, fps)


def test_close_times_are_told_apart() -> None:
    """A message that shows two times which differ must not print them alike."""
    with pytest.raises(InputError, match=r"1000.0001 s.*1000.0002 s"):
        plan([0.0, 1000.0001, 1000.0002], 16, stretch=True)


def test_a_segment_beyond_the_limit() -> None:
    with pytest.raises(InputError, match=r"segment 1 needs 161 frames; the model is good for 81.*stretch"):
        plan([0.0, 5.0, 15.0], 16)
    timeline = plan([0.0, 5.0, 15.0], 16, stretch=True)
    assert [s.sampled_frames for s in timeline.segments] == [MODEL_LIMIT, MODEL_LIMIT]
    assert timeline.num_frames == 241
    assert plan([0.0, 5.0], 16).num_frames == MODEL_LIMIT


@pytest.mark.parametrize("limit", [0, -3, 80])
def test_a_limit_is_4n_plus_1(limit: int) -> None:
    with pytest.raises(InputError, match=r"expected 4n[+]1"):
        plan([0.0, 1.0], 16, limit)


@pytest.mark.parametrize(
    ("frames", "said"), [(31, "stiff"), (32, None), (100, None), (101, "drifts"), (2, "stiff")]
)
def test_warnings(frames: int, said: str | None) -> None:
    found = warnings(plan([0.0, float(frames - 1)], 1, limit=121))
    assert len(found) == (said is not None)
    assert all(said in text and f"segment 0 has {frames} frames" in text for text in found if said)


def test_warnings_name_each_segment() -> None:
    assert [text[:9] for text in warnings(plan([0.0, 10.0, 60.0, 70.0], 1))] == ["segment 0", "segment 2"]


@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=12),
    st.sampled_from([5, 33, 81]),
)
def test_packed_windows_show_every_keyframe_at_its_frame(gaps: list[int], limit: int) -> None:
    """Whatever the times: windows join, no more sampled than fits, totals exact, and no division has fewer windows."""
    frames = [0, *accumulate(gaps)]
    chain = plan([Fraction(frame, 16) for frame in frames], 16, limit, stretch=True, pack=True)
    assert chain.keyframe_frames == tuple(frames)
    assert chain.num_frames == frames[-1] + 1
    assert [segment.index for segment in chain.segments] == list(range(len(chain.segments)))
    assert chain.joins == tuple(segment.end for segment in chain.segments[:-1])
    shown = [0]
    for segment in chain.segments:
        assert (segment.sampled_frames - 1) % 4 == 0
        assert segment.sampled_frames <= limit
        assert segment.inner == () or segment.sampled_frames - segment.frames in range(4)
        spans = segment.spans
        assert (spans[0].first, spans[-1].last) == (0, segment.sampled_frames - 1)
        for before, after in pairwise(spans):
            assert (before.end, before.last) == (after.start, after.first)
        # Of several, one alone is retimed: what is sampled of the others is what comes out.
        uneven = [span for span in spans if span.end - span.start != span.last - span.first]
        assert len(uneven) <= 1
        assert uneven in ([], [max(spans, key=lambda span: span.end - span.start)])
        assert all(span.last > span.first for span in spans)
        shown += [span.end for span in spans]
    assert shown == frames
    # As few as greedy filling, which is the least there is.
    least, start = 1, 0
    for k in range(1, len(frames)):
        if k - start > 1 and round_up(frames[k] - frames[start] + 1) > limit:
            least, start = least + 1, k - 1
    assert len(chain.segments) == least


def test_packed_windows_are_of_even_length() -> None:
    chain = plan([k * 20 / 16 for k in range(7)], 16, 81, pack=True)
    assert [segment.keyframes for segment in chain.segments] == [(0, 20, 40, 60), (60, 80, 100, 120)]
    assert chain.joins == (60,)


def test_a_window_beyond_the_limit_is_a_pair_and_refused_like_one() -> None:
    assert [s.inner for s in plan([0, 6, 7, 8], 16, 81, stretch=True, pack=True).segments] == [(), (112,)]
    with pytest.raises(InputError, match="segment 0 needs 97 frames"):
        plan([0, 6, 7, 8], 16, 81, pack=True)


@given(st.lists(st.integers(0, 20), min_size=2, max_size=8, unique=True), st.integers(0, 99))
def test_what_is_put_in_and_taken_out_again_leaves_all_numbers_as_they_were(
    keyframes: list[int], at: int
) -> None:
    def between(keyframes: list[object]) -> list[tuple[object, object]]:
        return list(pairwise(keyframes))

    before = between([*keyframes])
    numbers = renumbered([], before)
    assert numbers == list(range(len(before)))
    place = at % (len(keyframes) + 1)
    more = between([*keyframes[:place], "new", *keyframes[place:]])
    put = renumbered(list(zip(before, numbers, strict=True)), more)
    assert sorted(put) == list(range(len(more)))
    kept = [number for one, number in zip(more, put, strict=True) if "new" not in one]
    assert kept == [n for k, n in enumerate(numbers) if place in (0, len(keyframes)) or k != place - 1]
    assert renumbered(list(zip(more, put, strict=True)), before) == numbers


def test_a_segment_keeps_its_number_wherever_it_stands() -> None:
    before = [("ab", 0), ("bc", 1), ("cd", 2)]
    assert renumbered(before, ["ab", "bx", "xc", "cd"]) == [0, 1, 3, 2]
    assert renumbered(before, ["ac", "cd"]) == [0, 2]
    assert renumbered(before, ["ab", "by", "yd"]) == [0, 1, 2], "as those in whose place they stand"
    assert renumbered(before, ["bc", "cd", "de"]) == [1, 2, 0]
