"""Segments as one sequence of latents: which slots are decoded for whose frames, and what a stop between leaves."""

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runs import FAST, Run, draw_keyframe
from tests.video.scenes import panning
from tests.wan.folders import write_folder
from wanedit import GenerationConfig, GenerationResult, generate, timeline
from wanedit.errors import InputError
from wanedit.flow.path import Step, interpolate, schedule
from wanedit.flow.solvers import SOLVERS
from wanedit.jobs.generate.assemble import MAX_PACE, paces
from wanedit.jobs.generate.joins import Slots, bridges, co_denoising, decodings, latents_file, sequence
from wanedit.jobs.generate.plan import make_plan
from wanedit.lit.chain import FLF2VChain, SequenceDecoder, held
from wanedit.lit.tasks import DecodeTask, SegmentTask
from wanedit.rng import noise
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.runtime.leftovers import last_started, leftovers
from wanedit.runtime.predict import load_latents
from wanedit.runtime.record import read_run, read_settings, recorded_config
from wanedit.timeline import Timeline
from wanedit.video import Piece, read_frames, retime, stitch, to_uint8
from wanedit.video.motion import speed_change
from wanedit.wan.catalog import Showable
from wanedit.wan.load import load_vae, open_wan
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


def number_of(place: int) -> int:
    """Of the segment there, as after many changes to a film: 101 is prime, so that each has its own."""
    return (60 * place + 5) % 101


def place_of(task: SegmentTask) -> int:
    return next(place for place in range(101) if number_of(place) == task.index)


def tasks_of(chain: Timeline) -> list[SegmentTask]:
    picture = torch.zeros(3, 16, 16)
    return [
        SegmentTask(
            number_of(one.index), one.sampled_frames, picture, picture, "", digest=f"{one.index:064x}"
        )
        for one in chain.segments
    ]


def bridges_of(
    chain: Timeline, tasks: list[SegmentTask], shows: Literal["any", "ends"], together: bool, **changes: int
) -> tuple[list[SegmentTask], dict[int, str]]:
    """The bridges of a chain for wan-tiny, or for such a one that is shown ends alone."""
    tiny = open_wan("tiny")
    assert tiny.known is not None
    folder = replace(tiny, known=replace(tiny.known, showable=Showable(shows)))
    images: Any = {frame: Known(str(frame)) for frame in chain.keyframe_frames}
    config, texts = GenerationConfig(**cast(Any, changes)), ["x"] * len(chain.joins)
    return bridges(tasks, chain, images, texts, config, folder, Path(), together=together)


@settings(deadline=None)
@given(
    timelines(),
    st.sampled_from([("none", True), ("none", False), ("bridge", True), ("co_denoise", True)]),
    st.sampled_from(["any", "ends"]),
    st.tuples(*[st.floats(1 / MAX_PACE, MAX_PACE)] * 2),
)
def test_frames_are_exact_for_all_lengths_joins_paces_and_ways_to_decode(
    chain: Timeline, way: tuple[str, bool], shows: Literal["any", "ends"], speeds: tuple[float, float]
) -> None:
    (joins, once), tasks, between = way, tasks_of(chain), list[SegmentTask]()
    if joins == "co_denoise":
        state, tasks = co_denoising(tasks, bridges_of(chain, tasks, shows, True)[0], 0.5, Path())
        assert state.sampled_frames == sum(task.sampled_frames - 1 for task in tasks) + 1
    elif joins == "bridge":
        between, _ = bridges_of(chain, tasks, shows, False)
    whole, pieces = sequence(tasks, between), decodings(tasks, between, Path(), once)
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
            part = retime(frames[span.first : span.last + 1], span.end - span.start + 1, "linear", speeds)
            parts.append(part[bool(parts) :])
            assert (part[0, 0, 0, 0], part[-1, 0, 0, 0]) == (numbers[span.first], numbers[span.last])
        out.append(Piece(segment.start, segment.end, np.concatenate(parts)))
        first += segment.sampled_frames - 1
    assert sum(1 for _ in stitch(out)) == chain.num_frames


def test_what_is_decoded_is_named_by_the_slots_that_it_reads() -> None:
    chain = timeline.plan([0, 2, 4, 6, 8, 10], 16, 33)
    tasks = tasks_of(chain)
    before = decodings(tasks, [], Path(), True)
    tasks[1] = SegmentTask(number_of(1), 33, tasks[1].first, tasks[1].last, "", digest="f" * 64)
    after = decodings(tasks, [], Path(), True)
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
    assert seen == [2]  # the longest; the next one is told what goes before it
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


@dataclass(frozen=True)
class Known:
    """A keyframe of a plan, as far as a bridge is named by it."""

    sha256: str
    shape: tuple[int, int, int] = (3, 16, 16)

    def read(self) -> torch.Tensor:
        return torch.zeros(self.shape)


@settings(deadline=None)
@given(timelines(), st.integers(1, 4), st.integers(1, 4), st.sampled_from(["any", "ends"]))
def test_bridges_share_no_slot_and_read_two_segments(
    chain: Timeline, zone: int, context: int, shows: Literal["any", "ends"]
) -> None:
    tasks = tasks_of(chain)
    made, lacking = bridges_of(chain, tasks, shows, False, bridge_zone=zone, bridge_context=context)
    assert len(made) + len(lacking) == len(chain.joins)
    places, bare = sequence(tasks, made), sequence(tasks)
    changed = [k for k, (a, b) in enumerate(zip(places, bare, strict=True)) if a != b]
    assert len(changed) == sum(len(task.bridge.zone) for task in made if task.bridge)
    for task in made:
        assert task.bridge is not None
        (start, stop), slots = task.bridge.window, task.bridge.zone
        before, after = tasks[place_of(task) - 1], tasks[place_of(task)]
        assert task.bridge.latents.files == {latents_file(before), latents_file(after)}
        assert task.bridge.latents.slots == before.slots + after.slots - 1 >= stop
        # The anchor is no slot of the video, and beside the zone on either side something is held.
        assert start < slots[0]
        assert slots[-1] < stop
        assert task.slots == stop - start
        join, at = before.slots - 1, {frame + 4 * start: image for frame, image in task.middle.items()}
        assert shows == "any" or (join not in slots and (start, stop) == (0, task.bridge.latents.slots))
        # Every keyframe that is shown stands at the frame that was sampled for it.
        assert shows == "ends" or at[4 * join] == Known(str(chain.segments[place_of(task)].start))
        assert shows == "any" or sorted(at) == [0, 4 * (stop - 1)]


@pytest.mark.parametrize("solver", ["euler", "unipc", "dpm++", "renoise"])
def test_what_is_held_ends_at_what_is_known(solver: str) -> None:
    known, start = noise((1, 2, 5, 1, 1), 0, "known"), noise((1, 2, 5, 1, 1), 0, "start")
    goal = noise((1, 2, 5, 1, 1), 0, "goal")
    levels = replace(schedule(6, 3.0, solver), seed=1).after(0.7)
    x = interpolate(known, start, levels.sigmas[0])

    def towards(x: torch.Tensor, step: Step) -> torch.Tensor:
        return (x - goal) / step.sigma

    out = SOLVERS[solver](held(towards, known, [2, 3]), x, levels)
    assert torch.allclose(out[:, :, [0, 1, 4]], known[:, :, [0, 1, 4]], atol=1e-5)
    assert torch.allclose(out[:, :, [2, 3]], goal[:, :, [2, 3]], atol=1e-5)


@pytest.fixture
def longer(tmp_path: Path) -> list[list[Any]]:
    """Keyframes of segments of 17, 17 and 13 frames."""
    return [[str(draw_keyframe(tmp_path / f"b{k}.png", 3 * k)), t] for k, t in enumerate((0, 1, 2, 2.7))]


# Frames as they were decoded.
BARE: dict[str, Any] = {"restore": "none", "colour_correction": False, "crf": 0}
BRIDGED: dict[str, Any] = {"joins": "bridge", "num_inference_steps": 4, "bridge_sigma": 0.8}


def test_a_bridge_changes_frames_about_its_keyframe_alone(
    run: Run, longer: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = read_frames(run(keyframes=longer, num_inference_steps=4, **BARE).video)
    sample, seen = FLF2VChain.predict_step, []

    def stopped(self: FLF2VChain, batch: SegmentTask, batch_idx: int = 0) -> object:
        if batch.index == 2:
            raise RuntimeError("killed")
        seen.append(batch.name)
        return sample(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(FLF2VChain, "predict_step", stopped)
        with pytest.raises(RuntimeError, match="killed"):
            run(keyframes=longer, **BARE, **BRIDGED)
    assert seen == ["bridge 1"]
    result = run(keyframes=longer, **BARE, **BRIDGED)
    assert (result.sampled, result.num_frames) == ((), 44)
    bridged = read_frames(result.video)
    changed = np.abs(bridged.astype(int) - plain).max((1, 2, 3))
    # The slots beside the keyframes at frames 16 and 32 hold frames 13 to 20 and 29 to 36.
    assert (changed[13:21] > 2).all()
    assert (changed[29:37] > 2).all()
    assert changed[:13].max() <= 1
    assert np.array_equal(read_frames(run(keyframes=longer, **BARE, **BRIDGED).video), bridged)
    events = [json.loads(line) for line in (result.video.parent / "metrics.jsonl").read_text().splitlines()]
    assert [event["segment"] for event in events if event["event"] == "bridge"] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decode": "apart"}, "joins is bridge and decode apart; expected decode once"),
        ({"bridge_sigma": 0.1}, "bridge_sigma is 0.1; expected at least 0.4997, so that a step starts there"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_bridges_that_cannot_be_are_refused_before_a_model_is_loaded(
    run: Run, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(**BRIDGED | changes)


def test_a_model_that_is_shown_ends_alone_keeps_the_keyframes_slot(
    run: Run, longer: list[list[Any]], tmp_path: Path
) -> None:
    model = write_folder(tmp_path / "models" / "an-flf2v", "flf2v")
    plan = make_plan(GenerationConfig(keyframes=longer, model=str(model), **FAST | BRIDGED))
    assert [(task.bridge.window, task.bridge.zone) for task in plan.bridges if task.bridge] == [
        ((0, 9), (5,)),
        ((0, 8), (5,)),
    ]
    assert run(keyframes=longer, model=str(model), **BRIDGED).num_frames == 44


def test_a_take_is_sampled_once_and_going_back_samples_nothing(run: Run, longer: list[list[Any]]) -> None:
    def latents(result: GenerationResult) -> list[torch.Tensor]:
        segments = result.video.parent / "segments"
        return [load_latents(next(segments.glob(f"*_{name[:12]}.safetensors"))) for name in result.segments]

    first = run(keyframes=longer)
    frames = read_frames(first.video)
    other = run(keyframes=longer, takes="0,2,0")
    assert other.sampled == (1,)
    assert [a == b for a, b in zip(first.segments, other.segments, strict=True)] == [True, False, True]
    assert [torch.equal(a, b) for a, b in zip(latents(first), latents(other), strict=True)] == [1, 0, 1]
    directory = RunDirectory(other.video.parent, other.video)
    entry = Manifest(directory).read()[other.segments[1]]
    assert (entry.take, entry.original) == (2, first.segments[1])
    assert leftovers(directory, last_started(directory)) == []
    again = run(keyframes=longer)
    assert (again.sampled, again.segments) == ((), first.segments)
    assert np.array_equal(read_frames(again.video), frames)
    assert leftovers(directory, last_started(directory)) == []
    # By the record alone it is the take that was last asked for.
    run(keyframes=longer, takes=[0, 2, 0])
    assert read_run(directory.root).digests == other.segments
    # A take of other settings is as left over as they are.
    run(keyframes=longer, prompt="another")
    assert {left.why for left in leftovers(directory, last_started(directory))} == {"of earlier settings"}


def test_a_bridge_of_a_take_is_sampled_at_its_join_alone(run: Run, longer: list[list[Any]]) -> None:
    few: dict[str, Any] = {"keyframes": longer, "num_inference_steps": 4, "bridge_sigma": 0.8}
    plain = run(**few)
    one, other = (make_plan(GenerationConfig(**FAST | few, bridge_takes=[0, n])) for n in (1, 2))
    assert [task.index for task in one.bridges] == [2]
    assert one.bridges[0].digest != other.bridges[0].digest
    assert one.bridges[0].original == other.bridges[0].original
    bridged = run(**few, bridge_takes=[0, 1])
    assert bridged.sampled == ()
    directory = RunDirectory(bridged.video.parent, bridged.video)
    assert [path.name[:10] for path in directory.segments.glob("bridge*")] == ["bridge_002"]
    assert run(**few).segments == plain.segments
    assert leftovers(directory, last_started(directory)) == []


def test_a_bridge_between_segments_that_stay_stays_where_keyframes_are_put_in(
    longer: list[list[Any]], tmp_path: Path
) -> None:
    given: dict[str, Any] = FAST | BRIDGED | {"bridge_takes": [0, 1]}
    before = make_plan(GenerationConfig(keyframes=longer, **given))
    put = [longer[0], [str(draw_keyframe(tmp_path / "put.png", 2)), 0.5], *longer[1:]]
    given |= {"bridge_takes": [0, 0, 1]}
    after = make_plan(GenerationConfig(keyframes=put, **given, numbers=[0, 3, 1, 2]))
    assert [task.index for task in after.bridges] == [3, 1, 2]
    assert after.bridges[2].digest == before.bridges[1].digest
    assert not {task.digest for task in after.bridges[:2]} & {task.digest for task in before.bridges}
    renamed = make_plan(GenerationConfig(keyframes=put, **given))
    assert not {task.digest for task in renamed.bridges} & {task.digest for task in before.bridges}


@pytest.mark.parametrize("numbers", ["0,1", [0, 1, 1], "0,1,-1", "0,1,x"])
def test_numbers_that_are_not_one_for_each_segment_are_refused(
    longer: list[list[Any]], numbers: str | list[int]
) -> None:
    with pytest.raises(InputError, match=r"numbers (is|are) .* expected (a|3) distinct"):
        make_plan(GenerationConfig(keyframes=longer, **FAST, numbers=numbers))


def test_digests_of_take_0_are_what_they_were(longer: list[list[Any]]) -> None:
    given: dict[str, Any] = {"keyframes": longer, **FAST, **BRIDGED}
    plain = make_plan(GenerationConfig(**given))
    taken = make_plan(GenerationConfig(**given, takes=[0, 1, 0], bridge_takes=[1, 0]))
    assert set(plain.digests) < set(taken.keeps)
    assert not set(plain.digests[1:2]) & set(taken.digests)
    assert plain.keeps == plain.digests


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"takes": [0, 1]}, r"takes are \[0, 1\] for 3 segments; expected one number from 0 up for each"),
        ({"takes": "0,x,0"}, "takes is '0,x,0'; expected 3 numbers from 0 up"),
        ({"takes": "0,,1,2"}, "takes is '0,,1,2'; expected 3 numbers from 0 up"),
        ({"takes": "0,-1,0"}, r"takes are \[0, -1, 0\] for 3 segments"),
        ({"bridge_takes": [1, 0, 0]}, r"bridge_takes are \[1, 0, 0\] for 2 joins"),
        (
            {"bridge_takes": [1, 0], "decode": "apart"},
            "bridge_takes are .* decode apart; expected decode once",
        ),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_takes_that_do_not_fit_are_refused_before_a_model_is_loaded(
    run: Run, longer: list[list[Any]], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(keyframes=longer, **changes)


def test_a_natural_pace_brings_the_speeds_at_a_keyframe_together_and_moves_no_keyframe() -> None:
    chain = timeline.plan([Fraction(0), Fraction(16, 16), Fraction(24, 16)], Fraction(16), 33)
    # As far in 8 frames as in the 16 before.
    way = panning(33, 64, 96, step=1)
    sampled = {0: way[:17], 1: way[16:33:2]}
    pace = paces(chain, lambda segment: sampled[segment.index])
    assert pace == {16: pytest.approx(2**0.5, rel=0.1)}
    film = [
        retime(sampled[0], 17, "optical_flow", (1.0, pace[16])),
        retime(sampled[1], 9, "optical_flow", (1 / pace[16], 1.0)),
    ]
    for made, was in zip(film, sampled.values(), strict=True):
        np.testing.assert_array_equal(made[[0, -1]], was[[0, -1]])
    before, after = speed_change(way[15], way[16], way[18]), speed_change(film[0][-2], way[16], film[1][1])
    assert before == pytest.approx(2, rel=0.1)
    assert after == pytest.approx(1, abs=0.25)


def test_settings_of_other_joins_are_told_to_be_idle(longer: list[list[Any]]) -> None:
    given: dict[str, Any] = {
        "keyframes": longer,
        **FAST,
        "bridge_sigma": 0.9,
        "bridge_zone": 2,
        "co_sigma": 0.3,
    }

    def idle(**changes: Any) -> list[str]:
        return [
            note for note in make_plan(GenerationConfig(**given, **changes)).warnings if "not used" in note
        ]

    assert idle() == [
        "co_sigma 0.3 is not used: joins is none",
        "bridge_sigma 0.9 is not used: joins is none",
        "bridge_zone 2 is not used: joins is none",
    ]
    assert idle(joins="bridge") == ["co_sigma 0.3 is not used: joins is bridge"]
    assert idle(bridge_takes=[1, 0]) == ["co_sigma 0.3 is not used: joins is none"]
    assert idle(joins="co_denoise") == []


def test_another_pace_samples_nothing_and_keeps_count_and_keyframes(run: Run) -> None:
    literal = run()
    frames = read_frames(literal.video)
    said: list[str] = []
    folder = literal.video.parent
    config = recorded_config(GenerationConfig, read_settings(folder / "config.yaml"), folder)
    natural = generate(replace(config, pace="natural"), say=said.append)
    assert any("pace natural: speeds meet at" in line and "of 2 inner keyframes" in line for line in said)
    assert natural.sampled == ()
    assert natural.segments == literal.segments
    assert len(read_frames(natural.video)) == len(frames) == natural.num_frames
    at = list(natural.keyframe_frames)
    assert np.abs(read_frames(natural.video)[at].astype(int) - frames[at]).mean() < 1
