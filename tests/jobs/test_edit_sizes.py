"""Results in the source's own size, and sources longer than the model: from end to end."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.runs import EditRun, moving_square
from wanedit import EditConfig, edit
from wanedit.errors import InputError
from wanedit.jobs.edit.pictures import original_size
from wanedit.jobs.edit.plan import EditPlan, make_edit_plan
from wanedit.runtime.record import recorded
from wanedit.video import fit, write_lossless
from wanedit.video.source import DONE, same_shape

Config = Callable[..., EditConfig]


@pytest.fixture
def large(tmp_path: Path) -> dict[str, object]:
    """A source of 96 x 128 pixels, and its first frame with a blue square; the model is to see 48 x 64 of them."""
    red, blue = (
        np.stack([np.kron(f, np.ones((3, 4, 1), np.uint8)) for f in moving_square(9, colour)])
        for colour in ((250, 60, 20), (20, 60, 250))
    )
    write_lossless(tmp_path / "large.mkv", np.ascontiguousarray(red), 16)
    Image.fromarray(blue[0]).save(tmp_path / "blue.png")
    Image.fromarray(red[0]).save(tmp_path / "red.png")
    return {"video": str(tmp_path / "large.mkv"), "keyframes": [[str(tmp_path / "blue.png"), 0]]}


def test_an_edit_has_the_size_of_its_source(
    run_edit: EditRun, large: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wanedit.jobs.edit.plan.own_size", lambda *sizes: (48, 64))
    result = run_edit(**large, size=None)
    assert result.frames.shape == (9, 96, 128, 3)
    assert np.array_equal(result.frames[0], np.array(Image.open(large["keyframes"][0][0])))
    again = run_edit(**large, size=None)
    assert (again.edited, again.digest) == (False, result.digest)


def test_the_recorded_configuration_gives_that_size_again(edit_config: Config, large: dict) -> None:
    plan = make_edit_plan(edit_config(**large, size="64*48", output_size="source"))
    assert plan.task.pictures.frames.shape == (9, 96, 128, 3)
    assert plan.task.frames.shape == (9, 48, 64, 3)
    recorded = make_edit_plan(EditConfig(**asdict(plan.config)))
    assert recorded.task.digest == plan.task.digest
    auto = make_edit_plan(edit_config(**large, size="64*48"))
    assert auto.task.originals is None
    assert (auto.config.output_size, auto.config.restore) == ("model", "fused")
    assert auto.task.digest != plan.task.digest


def test_methods_that_make_pixels_make_the_models_size(edit_config: Config, large: dict) -> None:
    with pytest.raises(InputError, match="warp makes pixels of the model's size; expected auto or model"):
        make_edit_plan(edit_config(**large, output_size="source", controller="residual", method="warp"))


def test_a_source_smaller_than_the_models_frames_keeps_its_size(edit_config: Config, large: dict) -> None:
    plan = make_edit_plan(edit_config(**large, size="256*192", output_size="source"))
    assert plan.task.pictures.frames.shape == (9, 96, 128, 3)
    same = make_edit_plan(edit_config(**large, size="128*96", output_size="source"))
    assert same.task.originals is None


@pytest.mark.parametrize("changes", [{"restore": "none"}, {"method": "sdedit"}])
def test_the_sources_size_needs_its_detail(edit_config: Config, large: dict, changes: dict) -> None:
    config = replace(edit_config(**large, output_size="source", controller="residual"), **changes)
    with pytest.raises(InputError, match=r"output_size is source, but .* leaves the model's own pixels"):
        make_edit_plan(config)


@pytest.mark.parametrize(
    ("sides", "policy", "notes"),
    [
        ((77, 101), "auto", ["101x77 has an odd side, which H.264 cannot have: 100x76 are written"]),
        ((72, 128), "auto", []),
        ((40, 90), "stretch", []),
        ((77, 101), "crop", ["cut off (resize_policy stretch keeps it)", "has an odd side"]),
    ],
)
def test_a_result_has_the_very_size_of_its_source(
    edit_config: Config, tmp_path: Path, sides: tuple[int, int], policy: str, notes: list[str]
) -> None:
    """Whatever its shape; only the H.264 file leaves out what it cannot hold."""
    frames = np.stack([fit(frame, sides, "stretch")[0] for frame in moving_square(5)])
    write_lossless(tmp_path / "source.mkv", frames, 16)
    Image.fromarray(frames[0]).save(tmp_path / "first.png")
    settings = {"video": str(tmp_path / "source.mkv"), "keyframes": [[str(tmp_path / "first.png"), 0]]}
    settings |= {"size": None, "resize_policy": policy, "restore": "source", "source_prompt": "a blue square"}
    said: list[str] = []
    result = edit(edit_config(**settings), say=said.append)
    warned = [line for line in said if line.startswith("warning: ")]
    assert len(warned) == len(notes)
    assert all(note in line for note, line in zip(notes, warned, strict=True))
    if policy != "crop":
        assert np.array_equal(result.frames, frames)
    with av.open(str(result.video)) as file:
        stream = file.streams.video[0]
        assert (stream.height, stream.width) == tuple(side // 2 * 2 for side in result.frames.shape[1:3])


@pytest.mark.parametrize("how", ["stretch", "crop", "inside"])
def test_a_keyframe_of_another_shape_is_laid_over_its_frame(
    edit_config: Config, large: dict, tmp_path: Path, how: str
) -> None:
    """An image editor stretched it, drew more of it, or cut it: which of them, its edges say."""
    picture = np.array(Image.open(large["keyframes"][0][0]))
    made = {
        "stretch": fit(picture, (120, 128), "stretch")[0],
        "crop": np.pad(picture, ((0, 0), (20, 20), (0, 0)), mode="edge"),
        "inside": np.ascontiguousarray(picture[:, 4:-4]),
    }[how]
    Image.fromarray(made).save(tmp_path / "other.png")
    large |= {"keyframes": [[str(tmp_path / "other.png"), 0]], "size": "64*48", "output_size": "source"}
    plan = make_edit_plan(edit_config(**large))
    (note,) = [line for line in plan.warnings if "is not of the source's shape" in line]
    assert DONE[how] in note  # pyright: ignore[reportArgumentType]
    assert far(plan, picture) < 1
    for other in set(DONE) - {how}:
        wrong = make_edit_plan(edit_config(**large, keyframe_fit=other))
        assert far(wrong, picture) > 2 * far(plan, picture)


def far(plan: EditPlan, picture: np.ndarray) -> float:
    return float(np.abs(plan.task.pictures.keyframes[0].astype(float) - picture).mean())


def test_an_unedited_keyframe_that_lies_inside_leaves_the_source(
    edit_config: Config, large: dict, tmp_path: Path
) -> None:
    """To rounding at its rim, under every policy: the rest of the frame is the source's own."""
    source = np.array(Image.open(tmp_path / "red.png"))
    Image.fromarray(np.ascontiguousarray(source[:, 5:-5])).save(tmp_path / "inside.png")
    for policy in ("crop", "stretch"):
        changes = {"size": "64*64", "keyframe_fit": "inside", "resize_policy": policy}
        plan = make_edit_plan(
            edit_config(**large | {"keyframes": [[str(tmp_path / "inside.png"), 0]]}, **changes)
        )
        off = np.abs(plan.task.keyframes[0].astype(int) - plan.task.frames[0])
        assert off.max() <= 2, policy


def test_a_flat_keyframe_agrees_in_no_way(edit_config: Config, large: dict, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "flat.png")
    plan = make_edit_plan(edit_config(**large | {"keyframes": [[str(tmp_path / "flat.png"), 0]]}))
    (note, _) = [line for line in plan.warnings if "flat.png" in line]
    assert "stretched to it (agreement of edges: stretch 0.00, crop 0.00, inside 0.00; none agrees" in note


@pytest.fixture
def slipped(tmp_path: Path) -> dict[str, Any]:
    """A still source of 96 x 128 pixels; an edit of its first frame, and that edit two pixels to the right."""
    rng = np.random.default_rng(0)
    small = rng.integers(30, 226, (12, 16, 3)).astype(np.uint8)
    frame = fit(small, (96, 128), "stretch")[0]
    write_lossless(tmp_path / "textured.mkv", np.tile(frame, (5, 1, 1, 1)), 16)
    frame = frame.copy()
    frame[30:60, 40:80] = (20, 220, 90)
    Image.fromarray(frame).save(tmp_path / "exact.png")
    Image.fromarray(np.roll(frame, 2, axis=1)).save(tmp_path / "slipped.png")
    return {"video": str(tmp_path / "textured.mkv"), "size": "64*48", "output_size": "source"}


def test_a_keyframe_that_slipped_is_laid_over_its_frame_in_both_sizes(
    edit_config: Config, slipped: dict[str, Any], tmp_path: Path
) -> None:
    exact, off = ([[str(tmp_path / f"{name}.png"), 0]] for name in ("exact", "slipped"))
    well = make_edit_plan(edit_config(**slipped, keyframes=exact))
    plan = make_edit_plan(edit_config(**slipped, keyframes=off))
    as_given = make_edit_plan(edit_config(**slipped, keyframes=off, keyframe_align="off"))
    (note,) = [line for line in plan.warnings if "slipped.png" in line]
    assert "was off its frame by 2.0 pixels" in note
    assert not [line for line in (*well.warnings, *as_given.warnings) if "off its frame" in line]
    inner = np.s_[:, 3:-3]
    for one, given, truth in (
        (plan.task.pictures, as_given.task.pictures, well.task.pictures),
        (plan.task, as_given.task, well.task),
    ):
        laid, before = (
            np.abs(x.keyframes[0][inner].astype(float) - truth.keyframes[0][inner]).mean()
            for x in (one, given)
        )
        assert laid < before / 4
    assert len({one.task.digest for one in (well, plan, as_given)}) == 3
    # What lies well has the bytes, and the name, that it has without being looked at.
    untouched = make_edit_plan(edit_config(**slipped, keyframes=exact, keyframe_align="off"))
    assert untouched.task.digest == well.task.digest


def test_a_cut_out_that_slipped_stays_where_it_was_put(
    edit_config: Config, slipped: dict[str, Any], tmp_path: Path
) -> None:
    cut = np.dstack([np.array(Image.open(tmp_path / "slipped.png")), np.full((96, 128), 255, np.uint8)])
    cut[:10, :, 3] = 0
    Image.fromarray(cut).save(tmp_path / "cut.png")
    keyframes = [[str(tmp_path / "cut.png"), 0]]
    plan = make_edit_plan(edit_config(**slipped, keyframes=keyframes))
    assert np.array_equal(plan.task.pictures.keyframes[0][10:], cut[10:, :, :3])


def test_a_record_taken_up_with_a_change_decides_anew(
    edit_config: Config, large: dict, tmp_path: Path
) -> None:
    first = make_edit_plan(edit_config(**large, size=None, controller="residual"))
    record: dict[str, Any] = recorded(first.asked)
    assert make_edit_plan(EditConfig(**record)).task.digest == first.task.digest
    assert first.config.restore == "fused"
    assert (
        make_edit_plan(
            EditConfig(**dict[str, Any](record, method="sdedit", num_inference_steps=8))
        ).config.restore
        == "none"
    )
    assert make_edit_plan(EditConfig(**dict[str, Any](record, restore="none"))).config.output_size == "model"


@pytest.mark.parametrize(("a", "b", "same"), [
    ((360, 640), (720, 1280), True), ((720, 1280), (181, 321), True), ((480, 832), (481, 834), True),
    ((752, 1392), (720, 1280), False), ((1, 1), (360, 640), False), ((512, 512), (500, 512), False),
])  # fmt: skip
def test_shapes_are_one_to_less_than_a_pixel(a: tuple[int, int], b: tuple[int, int], same: bool) -> None:
    assert same_shape(a, b) is same_shape(b, a) is same


def test_bars_have_no_other_size(edit_config: Config, large: dict) -> None:
    with pytest.raises(InputError, match="output_size is source and resize_policy pad"):
        make_edit_plan(edit_config(**large, output_size="source", resize_policy="pad"))
    assert make_edit_plan(edit_config(**large, resize_policy="pad", size=None)).task.originals is None


@pytest.mark.parametrize("policy", ["crop", "stretch"])
@pytest.mark.parametrize("sides", [(96, 128), (720, 1280), (202, 154)])
def test_the_two_sizes_show_the_same_part(policy: str, sides: tuple[int, int]) -> None:
    """Red is the row and green the column: brought to the model's size, each is where the source's own would be."""
    size, (rows, columns) = (48, 80), np.mgrid[: sides[0], : sides[1]]
    picture = np.stack([255 * rows / sides[0], 255 * columns / sides[1], 0 * rows], -1).astype(np.uint8)
    own = original_size(sides, size, policy)
    assert own == sides or policy == "crop"
    through, direct = fit(fit(picture, own, policy)[0], size, "stretch")[0], fit(picture, size, policy)[0]
    assert np.abs(through.astype(int) - direct).max() <= 2 + 255 / min(sides)


def test_a_long_source_is_edited_through_windows(run_edit: EditRun, tmp_path: Path, monkeypatch) -> None:
    """Of 13 frames the model sees 9 at a time; the identity holds through the windows."""
    frames = moving_square(13)
    write_lossless(tmp_path / "long.mkv", frames, 16)
    Image.fromarray(frames[0]).save(tmp_path / "first.png")
    settings = {
        "video": str(tmp_path / "long.mkv"), "keyframes": [[str(tmp_path / "first.png"), 0]],
        "source_prompt": "a blue square", "restore": "source",
    }  # fmt: skip
    whole = run_edit(**settings)
    _limit(monkeypatch, 9)
    with pytest.raises(InputError, match="13 frames; wan-tiny is good for 9"):
        run_edit(**settings, long_source="error")
    windows = run_edit(**settings)
    assert windows.digest != whole.digest
    assert windows.frames.shape == frames.shape
    assert np.array_equal(windows.frames, frames)


def _limit(monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    """Let wan-tiny be good for no more frames than these."""
    from wanedit.jobs.edit import plan as edit_plan

    opened = edit_plan.open_model

    def shorter(*asked, **settings):
        folder = opened(*asked, **settings)
        return replace(folder, sampling=replace(folder.sampling, max_frames=frames))

    monkeypatch.setattr(edit_plan, "open_model", shorter)


@pytest.mark.parametrize("size", ["44*36", "60x34"])
def test_a_size_between_multiples_of_16_is_kept_to_the_pixel(
    run_edit: EditRun, large: dict, tmp_path: Path, size: str
) -> None:
    width, height = map(int, size.replace("x", "*").split("*"))
    result = run_edit(**large, size=size)
    assert result.frames.shape == (9, height, width, 3)
    # Restored, it meets its keyframe, which was brought to that size and no other.
    picture = np.array(Image.open(large["keyframes"][0][0]))
    assert np.array_equal(result.frames[0], fit(picture, (height, width))[0])
    record = (result.video.parent / "metrics.jsonl").read_text()
    assert f"the model works on {-(-width // 16) * 16}*{-(-height // 16) * 16}" in record
    # Without an edit the source comes back, to its edges.
    same = run_edit(
        **large | {"keyframes": [[str(tmp_path / "red.png"), 0]]}, size=size, output=str(tmp_path / "same")
    )
    source = [fit(np.kron(f, np.ones((3, 4, 1), np.uint8)), (height, width))[0] for f in moving_square(9)]
    assert np.array_equal(same.frames, np.stack(source))


def test_methods_that_make_pixels_keep_such_a_size_too(run_edit: EditRun, large: dict) -> None:
    result = run_edit(
        **large, size="44*36", method="copy_source", controller="residual", controller_options={}
    )
    assert result.frames.shape == (9, 36, 44, 3)
