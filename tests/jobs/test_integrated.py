"""IntegratedVideoEditor: from a video and a style to files, with the names and defaults of the original."""

import asyncio
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.video.test_sound import film, packets
from wanedit import IntegratedVideoEditor, save_video
from wanedit.errors import InputError, MissingWeightsError
from wanedit.jobs.edit.config import EditConfig
from wanedit.stylists.protocol import Estimate, Request, Styled, StyleGuide, StyleReference, Verdict
from wanedit.video import load_image, probe, read_frames, write_lossless, write_png
from wanedit.video.sound import silent
from wanedit.wan.catalog import find_known

PLAIN = Image.new("RGB", (32, 32), (90, 40, 160))


class Negative:
    """A stylist of somebody else: everything in negative."""

    settings: dict[str, Any] = {"name": "negative"}  # noqa: RUF012  (as the protocol has it)

    async def analyse(self, reference: StyleReference, keyframes: tuple[Any, ...]) -> StyleGuide:
        return StyleGuide(summary="negative")

    async def restyle(self, request: Request) -> Styled:
        return Styled(255 - request.source)

    async def verify(self, request: Request, styled: Styled, previous: Any) -> Verdict:
        return Verdict(structure_kept=True, style_matched=True, consistent=True)

    def estimate(self, keyframes: int, retries: int) -> Estimate:
        return Estimate((0, 0), (0.0, 0.0))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    (tmp_path / "video").mkdir()
    for k in range(9):
        frame = np.full((32, 48, 3), (40, 90, 160), np.uint8)
        frame[8:20, 2 + 2 * k : 14 + 2 * k] = (230, 200, 40)
        write_png(tmp_path / "video" / f"{k:04d}.png", frame)
    return tmp_path / "video"


def test_it_has_the_names_and_defaults_of_the_original() -> None:
    styled = inspect.signature(IntegratedVideoEditor.generate_styled_keyframes).parameters
    assert (styled["target_fps"].default, styled["max_frames"].default) == (1.0, 10)
    edited = inspect.signature(IntegratedVideoEditor.run_video_editing).parameters
    # None is the editor's own; what that is when nobody says it, see below.
    assert {edited[name].default for name in ("alpha", "beta", "cfg_scale", "num_inference_steps")} == {None}
    assert [*edited][2:5] == ["source_frames", "styled_keyframes", "keyframe_indices"]
    assert all(find_known(name) for name in ("tiny", "1.3B", "14B"))


def test_from_a_video_and_a_style_to_files(video: Path, tmp_path: Path) -> None:
    settings = {"controller": "exponential", "cpu_threads": 1}
    editor = IntegratedVideoEditor("tiny", stylist=Negative(), output_dir=tmp_path / "run", **settings)
    keyframes, indices, metadata = asyncio.run(
        editor.generate_styled_keyframes(
            video, {"description": "negative"}, indices=np.array([0, 8]), fps=16.0, verbose=False
        )
    )
    assert indices == [0, 8]
    assert metadata["stylist"] == {"name": "negative"}
    source = editor.load_source_video(video, fps=16.0)
    assert np.array_equal(np.asarray(keyframes[0]), 255 - source[0])
    frames = editor.run_video_editing(
        "a bar", source, keyframes, indices, guidance_scale=1.0, num_inference_steps=2, seed=3
    )
    assert len(frames) == 9
    # A restored edit meets its keyframes exactly.
    assert np.array_equal(np.asarray(frames[8]), 255 - source[8])
    saved = editor.save_results(frames, tmp_path / "out" / "film.mp4", keyframes, indices, metadata, source)
    assert read_frames(saved.video).shape == (9, 32, 48, 3)
    assert sorted(saved.keyframes) == [0, 8]
    assert np.array_equal(load_image(saved.keyframes[8]).pixels, 255 - source[8])
    assert json.loads(saved.metadata.read_text())["guide"]["summary"] == "negative"
    assert load_image(saved.contact_sheet).pixels.std() > 10


@pytest.fixture
def edits(monkeypatch: pytest.MonkeyPatch) -> list[EditConfig]:
    """The configurations of the edits that were asked for; none is made."""
    asked: list[EditConfig] = []

    def noted(config: EditConfig, **_: Any) -> SimpleNamespace:
        asked.append(config)
        return SimpleNamespace(frames=[], sound_of=silent)

    monkeypatch.setattr("wanedit.jobs.edit.pipeline.edit", noted)
    return asked


@pytest.mark.parametrize(
    ("given", "called", "expected"),
    [
        ({}, {}, (10.0, 0.0, None, None, None)),
        (
            {"alpha": 2.0, "beta": 0.5, "cfg_scale": 1.0, "num_inference_steps": 4, "base_seed": 3},
            {},
            (2.0, 0.5, 1.0, 4, 3),
        ),
        (
            {"alpha": 2.0, "guidance_scale": 1.0, "base_seed": 3},
            {"alpha": 0.0, "cfg_scale": 7.5, "seed": 0},
            (0.0, 0.0, 7.5, None, 0),
        ),
    ],
    ids=["original", "editor", "call"],
)
def test_settings_of_the_editor_reach_its_edits(
    edits: list[EditConfig], video: Path, given: dict[str, Any], called: dict[str, Any], expected: tuple
) -> None:
    editor = IntegratedVideoEditor("tiny", **given)
    editor.run_video_editing("a bar", str(video), [PLAIN], [0], **called)
    made = edits[0]
    assert (made.alpha, made.beta, made.guidance_scale, made.num_inference_steps, made.base_seed) == expected


def test_settings_of_the_editor_reach_all_that_reads_and_writes(
    edits: list[EditConfig], video: Path, tmp_path: Path
) -> None:
    editor = IntegratedVideoEditor(
        "tiny", stylist=Negative(), output_dir=tmp_path / "run", start=2, num_frames=5, fps=8.0, crf=51
    )
    _, _, metadata = asyncio.run(editor.generate_styled_keyframes(video, {"description": "negative"}))
    assert (metadata["start"], metadata["num_frames"], metadata["fps"]) == (2, 5, 8.0)
    source = editor.load_source_video(video)
    assert (len(source), editor.fps) == (5, 8)
    # Frames in memory were cut when they were loaded; of a file they are cut now.
    editor.run_video_editing("a bar", source, [PLAIN], [0])
    editor.run_video_editing("a bar", video, [PLAIN], [0])
    assert [(made.start, made.num_frames, made.fps) for made in edits] == [(0, None, 8.0), (2, 5, 8.0)]
    assert len(editor.load_source_video(video, start=0, num_frames=9)) == 9
    editor.run_video_editing("a bar", video, [PLAIN], [0])  # what was loaded last
    assert (edits[2].start, edits[2].num_frames) == (0, 9)
    # At the worst quality a file is much smaller than at the best.
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    worst = editor.save_results(noise, tmp_path / "a.mp4").video
    best = editor.save_results(noise, tmp_path / "b.mp4", crf=0).video
    assert worst.stat().st_size < best.stat().st_size / 2
    assert probe(worst).fps == 8


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    """A grey film of 90 frames at 30 fps."""
    frames = np.full((90, 32, 48, 3), 90, np.uint8) + np.arange(90, dtype=np.uint8)[:, None, None, None]
    write_lossless(tmp_path / "long.mkv", frames, 30)
    return tmp_path / "long.mkv"


def test_keyframes_are_frames_that_are_edited(
    edits: list[EditConfig], long_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    editor = IntegratedVideoEditor("tiny", stylist=Negative(), output_dir=tmp_path / "run")
    words = {"description": "negative"}
    keyframes, indices, metadata = asyncio.run(
        editor.generate_styled_keyframes(long_video, words, target_fps=2.0)
    )
    # wan-tiny is good for 33 of the 90 frames, and everybody works on the same ones.
    assert metadata["num_frames"] == 33
    assert max(indices) < 33
    assert "frames 0 to 32 are edited" in capsys.readouterr().out
    source = editor.load_source_video(long_video)
    assert len(source) == 33
    editor.run_video_editing("a bar", source, keyframes, indices)
    _, indices, _ = asyncio.run(
        editor.generate_styled_keyframes(long_video, words, target_fps=2.0, num_frames=90)
    )
    assert max(indices) > 33
    assert len(editor.load_source_video(long_video)) == 90
    with pytest.raises(
        InputError, match="is none of the 33 frames that were loaded; expected the same num_fr"
    ):
        editor.run_video_editing("a bar", source, keyframes, indices[-len(keyframes) :])


def test_a_folder_gets_the_film_and_every_frame(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)
    editor, place = IntegratedVideoEditor(), tmp_path / "outputs" / "final"
    saved = editor.save_results(frames, place, [PLAIN.resize((48, 32))], [1], fps=8)
    assert Path(saved) == saved.video == place / "output_final.mp4"
    assert np.array_equal(np.stack([load_image(path).pixels for path in saved.frames]), frames)
    names = {"output_final.mp4", "contact_sheet.png", "keyframe_0001.png", "metadata.json", "frames"}
    assert {path.name for path in place.iterdir()} == names
    # Again, with fewer frames: nothing of before is left among them.
    assert len(editor.save_results(frames[:2], str(place), fps=8).frames) == 2
    assert sorted(path.name for path in (place / "frames").iterdir()) == ["0000.png", "0001.png"]
    (place / "frames" / "holiday.png").touch()
    with pytest.raises(InputError, match=r"holiday\.png was not written by save_results"):
        editor.save_results(frames, place, fps=8)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(InputError, match="holds a run"):
        editor.save_results(frames, tmp_path / "run", fps=8)


@pytest.mark.parametrize("name", ["video", "keyframes", "prompt"])
def test_what_each_edit_is_given_is_no_setting_of_the_editor(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is no setting of the editor"):
        IntegratedVideoEditor("tiny", **{name: "x"})


def test_an_odd_side_is_cut_only_in_the_file(tmp_path: Path) -> None:
    frames = np.zeros((2, 33, 47, 3), np.uint8)
    with pytest.warns(UserWarning, match="47x33 has an odd side"):
        saved = IntegratedVideoEditor().save_results(frames, tmp_path / "a.mp4", fps=8)
    assert saved.metadata.name == "a_metadata.json"
    assert json.loads(saved.metadata.read_text())["written_size"] == [46, 32]
    assert read_frames(saved.video).shape == (2, 32, 46, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_path": "a.avi"}, r"with the ending .avi; expected a film"),
        ({"frames": []}, "no frames for"),
        ({"fps": None}, "fps is None and no source was loaded"),
        ({"indices": [0]}, "0 keyframes and 1 indices"),
        ({"fps": float("nan")}, "expected a number above 0"),
        ({"fps": 0.0}, "expected a number above 0"),
        ({"frames": [PLAIN, Image.new("RGB", (16, 32))]}, "frame 1"),
        ({"frames": [np.zeros((32, 32), np.uint8)]}, "expected a uint8 array"),
        ({"keyframes": [PLAIN], "indices": [1]}, "indices hold 1; expected each once, of the frames 0 to 0"),
        ({"keyframes": [PLAIN, PLAIN], "indices": [0, 0]}, "indices hold 0"),
        ({"keyframes": [PLAIN], "indices": [0.5]}, "expected a whole number"),
        ({"metadata": {"loss": float("nan")}}, "metadata: "),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    given = {"frames": [Image.new("RGB", (32, 32))], "output_path": "a.mp4", "fps": 8.0} | arguments
    given["output_path"] = tmp_path / given["output_path"]
    with pytest.raises(InputError, match=message):
        IntegratedVideoEditor().save_results(**given)
    assert not list(tmp_path.iterdir())


def test_pictures_of_other_modes_become_rgb(tmp_path: Path) -> None:
    grey, clear = PLAIN.convert("L"), PLAIN.convert("RGBA")
    saved = IntegratedVideoEditor().save_results([grey, clear], tmp_path / "a.mp4", [clear], [1], fps=8)
    assert read_frames(saved.video).shape == (2, 32, 32, 3)
    assert load_image(saved.keyframes[1]).pixels.shape == (32, 32, 3)


def test_no_source_is_overwritten(video: Path, tmp_path: Path) -> None:
    editor = IntegratedVideoEditor()
    film = editor.save_results([PLAIN], tmp_path / "film.mp4", fps=8).video
    before = film.read_bytes()
    editor.load_source_video(film)
    editor.load_source_video(video)
    for place in (film, video / "new.mp4"):
        with pytest.raises(InputError, match="is also an input"):
            editor.save_results([PLAIN], place)
    assert film.read_bytes() == before
    assert not (video / "new.mp4").exists()


def sounding(tmp_path: Path) -> tuple[Path, IntegratedVideoEditor]:
    """A film with sound, and an editor whose method asks the model nothing."""
    settings = {"method": "copy_source", "cpu_threads": 1}
    return film(tmp_path / "film.mp4"), IntegratedVideoEditor("tiny", output_dir=tmp_path / "run", **settings)


def test_frames_in_memory_keep_the_sound_of_the_film_that_they_were_loaded_from(tmp_path: Path) -> None:
    source, editor = sounding(tmp_path)
    frames = editor.load_source_video(source, num_frames=24)
    edited = editor.run_video_editing("a bar", frames, [Image.fromarray(frames[0])], [0], verbose=False)
    kept = packets(tmp_path / "run" / "output_final.mp4")
    assert 45 <= len(kept) <= 49  # a second of packets of 1024 samples
    assert kept == packets(source)[: len(kept)]
    saved = [
        save_video(edited, tmp_path / "a.mp4", 24),
        editor.save_results(list(edited), tmp_path / "b.mp4").video,
    ]
    saved.append(editor.save_results(frames, tmp_path / "folder").video)
    assert [packets(path) for path in saved] == [kept] * 3


def test_an_edit_of_a_path_gives_its_frames_their_sound(tmp_path: Path) -> None:
    source, editor = sounding(tmp_path)
    keyframe = Image.fromarray(read_frames(source, [12])[0])
    edited = editor.pipe(
        "a bar", source, [keyframe], [0], start=12, num_frames=24, output=tmp_path / "run", verbose=False
    )
    save_video(edited, tmp_path / "a.mp4", 24)
    assert packets(tmp_path / "a.mp4") == packets(tmp_path / "run" / "output_final.mp4")


def test_sound_that_does_not_fit_is_left_out_in_so_many_words(tmp_path: Path) -> None:
    source, editor = sounding(tmp_path)
    frames = editor.load_source_video(source, num_frames=48)
    with pytest.warns(UserWarning, match="it belongs to 48 frames, and 47 are shown"):
        editor.save_results(frames[1:], tmp_path / "a.mp4")
    with pytest.warns(UserWarning, match="at 12 fps frames are shown up to 2 s off their time"):
        editor.save_results(frames, tmp_path / "b.mp4", fps=12)
    with pytest.warns(UserWarning, match="a film in gif has none"):
        editor.save_results(frames, tmp_path / "c.gif")
    source.unlink()
    with pytest.warns(UserWarning, match=r"no sound is written: .*film\.mp4: does not exist"):
        editor.save_results(frames, tmp_path / "d.mp4")
    assert [packets(path) for path in (tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "d.mp4")] == [
        []
    ] * 3


def test_wrong_names_are_refused(video: Path) -> None:
    with pytest.raises(InputError, match="style_reference has 'path'"):
        asyncio.run(IntegratedVideoEditor().generate_styled_keyframes(video, {"path": "a.png"}))
    with pytest.raises(InputError, match="no style"):
        asyncio.run(IntegratedVideoEditor().generate_styled_keyframes(video, {}))
    wrong: Any = None
    with pytest.raises(InputError, match="style_reference is None"):
        asyncio.run(IntegratedVideoEditor().generate_styled_keyframes(video, wrong))
    words, indices = {"description": "ink"}, [0, 4.7]
    with pytest.raises(InputError, match=r"indices\[1\] is 4.7; expected a whole number"):
        asyncio.run(IntegratedVideoEditor().generate_styled_keyframes(video, words, indices=indices))
    with pytest.raises(InputError, match="alpa is no setting of EditConfig; did you mean 'alpha'"):
        IntegratedVideoEditor(alpa=3.0).load_wan_pipeline()
    with pytest.raises(InputError):
        IntegratedVideoEditor("2B").load_wan_pipeline()
    with pytest.raises(MissingWeightsError):
        IntegratedVideoEditor("1.3B").load_wan_pipeline()


def test_the_pipeline_is_made_once() -> None:
    editor = IntegratedVideoEditor()
    assert editor.load_wan_pipeline() is editor.load_wan_pipeline()
