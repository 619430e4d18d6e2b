"""Segments as one sequence of latents: which slots are decoded for whose frames, and what a stop between leaves."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.runs import Run
from wanedit import GenerationResult, timeline
from wanedit.jobs.generate.joins import Slots, decodings, sequence
from wanedit.lit.chain import SequenceDecoder
from wanedit.lit.tasks import DecodeTask, SegmentTask
from wanedit.runtime.predict import load_latents
from wanedit.timeline import Timeline
from wanedit.video import Piece, read_frames, retime, stitch, to_uint8
from wanedit.wan.load import load_vae
from wanedit.wan.vae import WARM_UP


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Keyframes at any times, packed or not, some segments beyond the model's limit."""
    fps = draw(st.sampled_from([Fraction(16), Fraction(24000, 1001), Fraction(25, 2)]))
    gaps = draw(st.lists(st.integers(1, 50), min_size=1, max_size=6))
    frames = [sum(gaps[:k]) for k in range(len(gaps) + 1)]
    limit = draw(st.sampled_from([5, 17, 33]))
    return timeline.plan(
        [frame / fps for frame in frames], fps, limit, stretch=True, pack=draw(st.booleans())
    )


def tasks_of(chain: Timeline) -> list[SegmentTask]:
    picture = torch.zeros(3, 16, 16)
    return [
        SegmentTask(one.index, one.sampled_frames, picture, picture, "", digest=f"{one.index:064x}")
        for one in chain.segments
    ]


@given(timelines(), st.booleans())
def test_frames_are_exact_for_all_lengths_and_ways_to_decode(chain: Timeline, once: bool) -> None:
    tasks = tasks_of(chain)
    whole, pieces = sequence(tasks), decodings(tasks, Path(), once)
    assert timeline.round_up(4 * len(whole) - 3) == sum(task.sampled_frames - 1 for task in tasks) + 1
    first, out = 0, []
    for segment, piece in zip(chain.segments, pieces, strict=True):
        places = list(piece.latents.places) if isinstance(piece.latents, Slots) else []
        # Of what it decodes the last frames are the segment's, from one keyframe to the next.
        assert piece.frames == segment.sampled_frames <= 4 * len(places) - 3
        end = (first + segment.sampled_frames - 1) // 4 + 1
        if once:
            assert places == whole[end - len(places) : end]
            assert len(places) in (end, segment.slots - 1 + WARM_UP)
        else:
            assert places == sequence([tasks[segment.index]])
        # Frames numbered in sampled time: what is shown at a keyframe is the frame that was sampled for it.
        numbers = np.arange(first, first + segment.sampled_frames, dtype=np.uint8)
        frames = np.broadcast_to(numbers[:, None, None, None], (len(numbers), 2, 2, 3))
        parts = []
        for span in segment.spans:
            part = retime(frames[span.first : span.last + 1], span.end - span.start + 1, "linear")
            parts.append(part[bool(parts) :])
            assert (part[0, 0, 0, 0], part[-1, 0, 0, 0]) == (numbers[span.first], numbers[span.last])
        out.append(Piece(segment.start, segment.end, np.concatenate(parts)))
        first += segment.sampled_frames - 1
    assert sum(1 for _ in stitch(out)) == chain.num_frames


def test_what_is_decoded_is_named_by_the_slots_that_it_reads() -> None:
    chain = timeline.plan([0, 2, 4, 6, 8, 10], 16, 33)
    tasks = tasks_of(chain)
    before = decodings(tasks, Path(), True)
    tasks[1] = SegmentTask(1, 33, tasks[1].first, tasks[1].last, "", digest="f" * 64)
    after = decodings(tasks, Path(), True)
    # Ten slots reach over the eight of one segment and into the one before.
    changed = [a.digest != b.digest for a, b in zip(before, after, strict=True)]
    assert changed == [False, True, True, True, False]


def test_a_join_is_decoded_with_what_goes_before_it(finished: GenerationResult) -> None:
    folder = finished.video.parent / "segments"
    journal = json.loads((folder / "progress.json").read_text())["segments"]
    latents = [load_latents(folder / journal[name]["file"]) for name in finished.segments]
    # The same, said by hand: segment 0 whole, of the others what follows their anchor; all at once.
    whole = torch.cat([latents[0], *(one[:, 1:] for one in latents[1:])], dim=1)
    wanted = to_uint8(load_vae("tiny").decode(whole[None])[0])
    pieces = sorted(folder.glob("*.mkv"))
    counts = [len(read_frames(path)) for path in pieces]
    starts = np.cumsum([0, *(count - 1 for count in counts)])
    assert starts[-1] == len(wanted) - 1
    for path, start, count in zip(pieces, starts, counts, strict=False):
        off = read_frames(path).astype(int) - wanted[start : start + count]
        assert np.abs(off).max() <= 1


def test_a_run_that_is_stopped_while_it_decodes_goes_on_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, seen = SequenceDecoder.predict_step, []

    def stopped(self: SequenceDecoder, batch: DecodeTask, batch_idx: int = 0) -> object:
        if batch.index == 1:
            raise RuntimeError("killed")
        seen.append(batch.index)
        return decode(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SequenceDecoder, "predict_step", stopped)
        with pytest.raises(RuntimeError, match="killed"):
            run()
    assert seen == [0]
    result = run()
    assert result.sampled == ()
    pixels = read_frames(result.video)
    assert run(force_regenerate=True).sampled == (0, 1, 2)
    assert np.array_equal(read_frames(result.video), pixels)


def test_a_changed_keyframe_decodes_what_reads_its_segments(run: Run, keyframes: list) -> None:
    run()
    before = {path.name for path in Path(run().video).parent.glob("segments/*.mkv")}
    # The last keyframe is another picture: what goes before its segment is as it was.
    changed = [*keyframes[:3], [keyframes[0][0], keyframes[3][1]]]
    after = run(keyframes=changed)
    assert after.sampled == (2,)
    new = {path.name[:11] for path in after.video.parent.glob("segments/*.mkv") if path.name not in before}
    assert new == {"segment_002"}
