"""`wanedit style` as a function: the folder that it leaves, resuming, references of every kind, wrong inputs."""

import asyncio
import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.runs import EDIT
from tests.stylists.fake_stylist import PASS, FakeStylist, outage, reject
from tests.stylists.paintings import PAINTINGS
from tests.stylists.test_extract import scenery
from wanedit.errors import InputError, ResourceError, ServiceError
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.style.config import StyleConfig, StyleSource, check_style, style_config
from wanedit.jobs.style.run import StyleResult, style, style_async
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.inputs import parse_edited, parse_keyframes
from wanedit.stylists.gemini.settings import GeminiSettings
from wanedit.stylists.palette.looks import PaletteSettings
from wanedit.stylists.protocol import RejectedKeyframesError
from wanedit.video import load_image, write_lossless, write_png, write_video
from wanedit.video.arrays import Clock

FRAMES = scenery(1, 41, 1.5, (48, 64))


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("a film = ünï cødé") / "film of 41 frames.mkv"
    write_lossless(path, FRAMES, 16)
    return path


@pytest.fixture(scope="session")
def painting(film: Path) -> Path:
    path = film.parent / "a painting.png"
    Image.fromarray(PAINTINGS["dusk"]()).save(path)
    return path


def run(film: Path, out: Path, stylist: Any = None, **changes: Any) -> StyleResult:
    values = {"video": str(film), "style": StyleSource(None, "watercolour"), "output": str(out)} | changes
    return style(StyleConfig(**values), stylist=stylist, verbose=False)


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "keyframes.json").read_text(encoding="utf-8"))


@pytest.mark.fault(29)
def test_the_folder_is_what_edit_reads(film: Path, painting: Path, tmp_path: Path) -> None:
    out = tmp_path / "styled = keyframes"
    result = run(film, out, style=StyleSource(str(painting)))
    assert result.indices == (0, 16, 32)
    assert [(k.path.name, k.index) for k in parse_edited(str(out))] == [
        ("0000.png", 0), ("0016.png", 16), ("0032.png", 32),
    ]  # fmt: skip
    for entry, pixels in zip(record(out)["keyframes"], result.keyframes, strict=True):
        assert np.array_equal(load_image(out / entry["file"]).pixels, pixels)
        assert entry["size"] == [64, 48]
        assert entry["accepted"]
    assert result.metadata == record(out)
    assert record(out)["guide"]["palette"]
    assert load_image(result.contact_sheet).pixels.shape[0] > 100
    settings = {"video": str(film), "keyframes": str(out), "num_frames": 33, **EDIT}
    plan = make_edit_plan(EditConfig(**settings, output=str(tmp_path / "edit")))
    assert [k.index for k in plan.keyframes] == [0, 16, 32]


def test_frames_count_from_start_as_those_of_edit_do(film: Path, tmp_path: Path) -> None:
    result = run(film, tmp_path, FakeStylist(), start=8, num_frames=21)
    assert result.indices == (0, 16)
    entries = record(tmp_path)["keyframes"]
    assert [(e["frame"], e["source_frame"], e["seconds"]) for e in entries] == [(0, 8, 0.0), (16, 24, 1.0)]
    assert np.array_equal(result.keyframes[1][5:], 255 - FRAMES[24][5:])
    settings = {"video": str(film), "keyframes": str(tmp_path), "start": 8, "num_frames": 21, **EDIT}
    plan = make_edit_plan(EditConfig(**settings, output=str(tmp_path / "edit")))
    assert [k.index for k in plan.keyframes] == [0, 16]


@pytest.mark.parametrize("indices", ["0,20", [20, 0], " 0 , 20 "])
def test_explicit_indices(film: Path, tmp_path: Path, indices: Any) -> None:
    assert run(film, tmp_path, FakeStylist(), indices=indices).indices == (0, 20)
    assert record(tmp_path)["scene_cuts"] is None


def test_run_again_asks_nothing_and_leaves_the_same(film: Path, tmp_path: Path) -> None:
    first = run(film, tmp_path, FakeStylist())
    again = FakeStylist()
    second = run(film, tmp_path, again)
    assert not again.calls
    assert np.array_equal(first.keyframes, second.keyframes)
    assert [e["cached"] for e in record(tmp_path)["keyframes"]] == [True] * 3
    anew = FakeStylist()
    run(film, tmp_path, anew, force_regenerate=True)
    assert sum(anew.calls.values()) == 7


def test_an_outage_leaves_no_record_and_is_resumed(film: Path, tmp_path: Path) -> None:
    with pytest.raises(ServiceError):
        run(film, tmp_path, FakeStylist(break_at=outage("restyle", 2)))
    assert not (tmp_path / "keyframes.json").exists()
    resumed = FakeStylist()
    run(film, tmp_path, resumed)
    assert resumed.calls == {"restyle 2": 1, "verify 1": 1, "verify 2": 1}


def test_a_failed_run_leaves_an_earlier_result_alone(film: Path, tmp_path: Path) -> None:
    run(film, tmp_path, FakeStylist())
    before = {p: p.read_bytes() for p in (tmp_path / "keyframes.json", *(tmp_path / "keyframes").iterdir())}
    with pytest.raises(ServiceError, match=r"down\. .* still holds the keyframes of an earlier style"):
        run(film, tmp_path, FakeStylist(break_at=outage("restyle", 0), model="another"))
    with pytest.raises(ServiceError, match=r"down$"):
        run(film, tmp_path, FakeStylist(break_at=outage("restyle", 0)), force_regenerate=True)
    assert {path: path.read_bytes() for path in before} == before


def test_a_rejected_keyframe_is_an_error_or_is_kept_and_told(film: Path, tmp_path: Path) -> None:
    never = {1: [reject("too dark")]}
    with pytest.raises(RejectedKeyframesError, match="frame 16: too dark"):
        run(film, tmp_path, FakeStylist(never))
    assert not (tmp_path / "keyframes.json").exists()
    result = run(film, tmp_path, FakeStylist(never), on_reject="keep")
    entry = record(tmp_path)["keyframes"][1]
    assert (entry["accepted"], entry["reasons"]) == (False, ["too dark"])
    assert any("frame 16 passed in no attempt" in note for note in result.notes)


def test_a_smaller_run_leaves_no_keyframe_of_a_larger_one(film: Path, tmp_path: Path) -> None:
    run(film, tmp_path, FakeStylist())
    (tmp_path / "keyframes" / "notes.txt").write_text("mine")
    run(film, tmp_path, FakeStylist(), indices="0,20")
    assert sorted(p.name for p in (tmp_path / "keyframes").iterdir()) == ["0000.png", "0020.png", "notes.txt"]


def test_the_resolved_config_is_the_same_run(film: Path, painting: Path, tmp_path: Path) -> None:
    first = run(
        film, tmp_path / "a", style=StyleSource(str(painting), "ink"), palette=PaletteSettings(paper=0.3)
    )
    values = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text(encoding="utf-8"))
    second = style(style_config(values | {"output": str(tmp_path / "b")}), verbose=False)
    assert np.array_equal(first.keyframes, second.keyframes)
    assert first.indices == second.indices


def test_what_readers_say_is_told_and_recorded(film: Path, tmp_path: Path) -> None:
    def notes(source: Path, **changes: Any) -> str:
        said: list[str] = []
        values = {"video": str(source), "style": StyleSource(None, "ink"), "indices": [0, 5]} | changes
        config = StyleConfig(**values, output=str(tmp_path / f"of {source.stem}"))
        result = style(config, stylist=FakeStylist(), say=said.append)
        assert [line.removeprefix("note: ") for line in said] == record(result.folder)["notes"]
        return "; ".join(result.notes)

    assert "shown at 12 fps as asked, the file says 16" in notes(film, fps=12)
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(8):
        Image.fromarray(FRAMES[k]).save(folder / f"{k}.png")
    # One picture alone is transparent.
    (picture := Image.fromarray(FRAMES[5]).convert("RGBA")).putalpha(90)
    picture.save(folder / "5.png")
    said = notes(folder)
    assert "images have no frame rate: 16 fps taken" in said
    assert "transparent places laid over white (1 of 2 keyframes)" in said
    with av.open(str(tmp_path / "later.mkv"), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgra"
        for k in range(8):
            picture = Image.fromarray(FRAMES[k]).convert("RGBA")
            picture.putalpha(255 if k < 4 else 90)
            shown = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgba").reformat(format="bgra")
            out.mux(stream.encode(shown))
        out.mux(stream.encode(None))
    assert "transparen" in notes(tmp_path / "later.mkv")


def test_seconds_are_those_of_the_source_s_clock(film: Path, tmp_path: Path) -> None:
    clock = Clock((0, 100, 200, 240, 280, 320, 900, 1000), 1100, Fraction(1, 1000))
    write_video(tmp_path / "uneven.mkv", FRAMES[:8], Fraction(80, 11), clock=clock)
    result = run(tmp_path / "uneven.mkv", tmp_path / "out", FakeStylist(), indices=[0, 6])
    assert [entry["seconds"] for entry in record(tmp_path / "out")["keyframes"]] == [0.0, 0.9]
    assert any("variable frame rate" in note for note in result.notes)
    assert [keyframe.seconds for keyframe in parse_keyframes(str(result))] == [0.0, 0.9]


def test_it_can_be_awaited(film: Path, tmp_path: Path) -> None:
    config = StyleConfig(video=str(film), style=StyleSource(None, "ink"), output=str(tmp_path))
    assert asyncio.run(style_async(config, verbose=False)).indices == (0, 16, 32)


def test_relative_paths_are_found_beside_the_config(film: Path, painting: Path, tmp_path: Path) -> None:
    config = StyleConfig(video=film.name, style=StyleSource(painting.name), indices=[0], output=str(tmp_path))
    assert style(config, [film.parent], verbose=False).indices == (0,)


@pytest.mark.fault(32)
def test_two_runs_in_one_folder(film: Path, tmp_path: Path) -> None:
    with (
        RunDirectory(tmp_path, tmp_path / "keyframes.json").lock(),
        pytest.raises(ResourceError, match="in use"),
    ):
        run(film, tmp_path, FakeStylist())


def test_a_stylist_is_closed_whatever_happens(film: Path, tmp_path: Path) -> None:
    closed: list[bool] = []

    class Closing(FakeStylist):
        spent = (3, 0.25)

        async def aclose(self) -> None:
            closed.append(True)

    run(film, tmp_path, Closing())
    assert record(tmp_path)["spent"] == {"calls": 3, "price_usd": 0.25}
    with pytest.raises(ServiceError):
        run(film, tmp_path, Closing(break_at=outage("analyse", 0), model="x"))
    assert closed == [True, True]


def _rotated(path: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)


REFERENCES = {
    "exif.jpg": _rotated,
    "alpha.png": lambda path, p: Image.fromarray(np.dstack([p, p[..., :1]]), "RGBA").save(path),
    "grey16.png": lambda path, p: Image.fromarray(p[..., 0].astype(np.uint16) * 257).save(path),
    "cmyk.jpg": lambda path, p: Image.fromarray(p).convert("CMYK").save(path),
    "palette.gif": lambda path, p: Image.fromarray(p).quantize(16).save(path),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_references_of_every_kind(film: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    REFERENCES[name](path, PAINTINGS["meadow"]())
    result = run(film, tmp_path / "out", style=StyleSource(str(path)), indices=[0])
    assert any(note.startswith("style.image: ") for note in result.notes)


def test_a_broken_reference_is_named_before_anything_is_made(
    film: Path, tmp_path: Path, painting: Path
) -> None:
    broken, text, out = tmp_path / "broken.png", tmp_path / "text.png", tmp_path / "out"
    broken.write_bytes(painting.read_bytes()[:2000])
    text.write_text("no picture")
    for path, words in (
        (broken, "truncated"),
        (text, "not an image"),
        (tmp_path / "gone.png", "no file"),
        (tmp_path, "is a folder; expected a picture"),
    ):
        with pytest.raises(InputError, match=words):
            run(film, out, style=StyleSource(str(path)))
    assert not out.exists()


WRONG = [
    ({"video": ""}, "video is empty"),
    ({"video": "no film.mp4"}, "video: no file or folder"),
    ({"style": StyleSource()}, "no style; expected --style.image"),
    ({"style": StyleSource("")}, "style.image is empty"),
    ({"style": StyleSource(None, "in the manner of nobody")}, "it knows watercolour"),
    ({"indices": "0,41"}, "frame 41 asked for, the clip has frames 0 to 40"),
    ({"indices": "0,x"}, "indices are '0,x'"),
    ({"indices": ""}, "indices are empty"),
    ({"indices": [0, 0]}, "stands twice"),
    ({"start": 41}, "start is frame 41"),
    ({"start": -1}, "start is -1"),
    ({"num_frames": 42}, "expected 1 to 41"),
    ({"num_frames": 0}, "num_frames is 0"),
    ({"target_fps": 0.0}, "target_fps is 0.0"),
    ({"target_fps": float("nan")}, "target_fps is nan"),
    ({"max_frames": 0}, "max_frames is 0"),
    ({"retries": -1}, "retries is -1"),
    ({"concurrency": 0}, "concurrency is 0"),
    ({"palette": PaletteSettings(strength=2.0)}, "palette.strength is 2.0"),
    ({"gemini": GeminiSettings(image_size="9K")}, "image_size"),
    ({"output": ""}, "output is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_inputs_are_told_before_anything_is_made(
    film: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=words):
        run(film, out, **changes)
    assert not out.exists()


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("style", "image", 3, "style.image is 3"),
        ("palette", "posterise", "many", "palette.posterise is 'many'"),
        (None, "stylist", "nobody", "stylist is 'nobody'"),
        (None, "on_reject", "skip", "on_reject is 'skip'"),
        (None, "indices", [0.5], "indices is"),
        (None, "max_frames", "ten", "max_frames is 'ten'"),
    ],
)
def test_wrong_types(part: str | None, name: str, value: Any, words: str) -> None:
    config = StyleConfig(video="film.mkv", style=StyleSource(None, "ink"))
    target = config if part is None else getattr(config, part)
    object.__setattr__(target, name, value)  # as a caller without a type checker could
    with pytest.raises(InputError, match=words):
        check_style(config)


def test_unknown_settings_of_a_part() -> None:
    with pytest.raises(
        InputError, match=r"palette\.colour is no setting of PaletteSettings; expected one of strength"
    ):
        style_config({"palette": {"colour": 1}})
    with pytest.raises(InputError, match=r"vide is no setting of StyleConfig; did you mean 'video'\?"):
        style_config({"vide": "a"})


def test_no_input_is_overwritten(film: Path, painting: Path, tmp_path: Path) -> None:
    run(film, tmp_path, FakeStylist())
    reference = tmp_path / "keyframes" / "0000.png"
    before = hashlib.sha256(reference.read_bytes()).digest()
    with pytest.raises(InputError, match="is also an input"):
        run(film, tmp_path, style=StyleSource(str(reference)))
    with pytest.raises(InputError, match="is also an input"):
        run(tmp_path / "keyframes", tmp_path, indices=[0])
    assert hashlib.sha256(reference.read_bytes()).digest() == before


@pytest.mark.fault(28)
def test_a_name_in_a_record_cannot_lead_out_of_the_folder(film: Path, tmp_path: Path) -> None:
    run(film, tmp_path, FakeStylist())
    for name in ("../film.png", "/etc/passwd", "keyframes/../../x.png"):
        entry = {"keyframes": [{"file": name, "frame": 0}]}
        (tmp_path / "keyframes.json").write_text(json.dumps(entry))
        with pytest.raises(InputError, match="expected files inside"):
            parse_edited(str(tmp_path))
    (tmp_path / "keyframes.json").write_text('{"wanedit": "0.2", "keyframes": [{"file": "../../x.png"}]}')
    run(film, tmp_path, FakeStylist())  # an old record is replaced, never followed
    assert len(parse_edited(str(tmp_path))) == 3


THEIRS = {
    "config.yaml": b"my: project\n",
    "keyframes.json": b'{"mine": 1}',
    "contact_sheet.png": b"",
    "keyframes/0007.png": b"",
    "style/journal.jsonl": b'{"mine": 1}\n',
    ".queue": b"mine",
}


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("ours", [False, True], ids=["in a folder of theirs", "in a folder of ours"])
def test_nothing_of_another_origin_is_lost(film: Path, tmp_path: Path, name: str, ours: bool) -> None:
    if ours:
        run(film, tmp_path, FakeStylist())
    for folder in ("style/cache", "keyframes"):  # as a project of somebody's may have
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    path = tmp_path / name
    if path.suffix == ".png":
        Image.fromarray(FRAMES[0]).save(path)
    else:
        path.write_bytes(THEIRS[name])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    before[path] = path.read_bytes()
    with pytest.raises(InputError, match=rf"{path.name} (was not written by|is not a record of) wanedit"):
        run(film, tmp_path, FakeStylist(model="another"))
    assert {p: p.read_bytes() for p in before} == before


def test_a_killed_run_s_folder_is_its_own(film: Path, tmp_path: Path) -> None:
    (tmp_path / "style").mkdir()
    (tmp_path / "style" / "journal.jsonl").write_text('{"time": "2026-')
    run(film, tmp_path, FakeStylist())
    (tmp_path / "config.yaml").unlink()
    run(film, tmp_path, FakeStylist())


def test_keyframes_in_one_slot_are_told(film: Path, tmp_path: Path) -> None:
    result = run(film, tmp_path, FakeStylist(), indices=[0, 5, 7])
    assert any("frames 5 and 7 share a latent slot" in note for note in result.notes)


def test_all_pass_with_a_scripted_retry(film: Path, tmp_path: Path) -> None:
    run(film, tmp_path, FakeStylist({1: [reject("too dark"), PASS]}))
    assert [entry["attempt"] for entry in record(tmp_path)["keyframes"]] == [1, 2, 1]


@pytest.mark.parametrize("output", [".", "styled", "styled/keyframes/.."])
def test_a_source_folder_stays_one(tmp_path: Path, output: str) -> None:
    source = tmp_path / "frames"
    source.mkdir()
    for k in range(3):
        write_png(source / f"{k:04d}.png", FRAMES[k])
    with pytest.raises(InputError, match="is also an input"):
        run(source, source / output, FakeStylist(), indices=[0])
    assert sorted(p.name for p in source.iterdir()) == ["0000.png", "0001.png", "0002.png"]
    run(source, tmp_path / "out", FakeStylist(), indices=[0])
    with pytest.raises(InputError, match="is also an input"):
        run(tmp_path / "out" / "keyframes", tmp_path / "out", FakeStylist(), indices=[0])


def test_keyframes_of_another_start_are_refused(film: Path, tmp_path: Path) -> None:
    run(film, tmp_path, FakeStylist(), start=4, indices=[0])
    assert len(parse_edited(str(tmp_path), start=4)) == len(parse_edited(str(tmp_path))) == 1
    with pytest.raises(InputError, match="were made with --start 4; expected the same, not 0"):
        parse_edited(str(tmp_path), start=0)


@pytest.mark.parametrize("size", [(1, 1), (40, 30)])
def test_a_reference_without_content_is_told(film: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    write_png(tmp_path / "plain.png", np.full((*size, 3), 90, np.uint8))
    style_source = StyleSource(str(tmp_path / "plain.png"))
    result = run(film, tmp_path / "out", FakeStylist(), style=style_source, indices=[0])
    assert any("is of one colour" in note for note in result.notes)
