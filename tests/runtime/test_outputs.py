"""What may be replaced: files that wanedit wrote; never another's, and never what is read."""

import json
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.video.scenes import panning
from wanedit.errors import InputError
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import append_event
from wanedit.runtime.leftovers import leftovers
from wanedit.runtime.outputs import check_outputs, film_metadata, is_own
from wanedit.runtime.record import RECORD_MARK
from wanedit.runtime.settings import RunSettings, require_folder
from wanedit.video.decode import probe
from wanedit.video.encode import write_png, write_video
from wanedit.video.formats import FORMATS

OURS = {"comment": "made with wanedit", "wanedit_version": "0.1.0"}


def opened(*arguments: Any, **named: Any) -> Any:
    """PyAV's types do not tell what a mode opens, nor what a stream is of."""
    return av.open(*arguments, **named)


def holiday(path: Path) -> Path:
    """A film of the user's own."""
    with opened(path, "w") as film:
        stream = film.add_stream(FORMATS[path.suffix].codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, FORMATS[path.suffix].pixel_format
        for frame in panning(3, 48, 64):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=stream.pix_fmt)
            film.mux(stream.encode(picture))
        film.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("ending", [ending for ending in FORMATS if ending != ".gif"])
def test_only_our_own_films_are_replaced(tmp_path: Path, ending: str) -> None:
    theirs = holiday(tmp_path / f"holiday{ending}")
    with pytest.raises(
        InputError, match=f"holiday{ending} was not written by wanedit and would be replaced; choose"
    ):
        check_outputs([theirs])
    # A record beside it does not make it ours: it was put in our film's place.
    with pytest.raises(InputError, match="was not written by wanedit"):
        check_outputs([theirs], recorded=True)
    write_video(tmp_path / f"ours{ending}", panning(2), 16, OURS)
    check_outputs([tmp_path / f"ours{ending}", tmp_path / f"none{ending}"])


def cut(source: Path, target: Path, packets: int) -> Path:
    """A film's first packets, copied with what it says of itself, as `ffmpeg -c copy` does."""
    with opened(source) as film, opened(target, "w", options={"movflags": "use_metadata_tags"}) as made:
        made.metadata.update(film.metadata)
        track = film.streams.video[0]
        stream = made.add_stream_from_template(track)
        for packet in list(film.demux(track))[:packets]:
            packet.stream = stream
            made.mux(packet)
    return target


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_film_cut_from_ours_is_not_ours(tmp_path: Path, ending: str) -> None:
    whole = tmp_path / f"whole{ending}"
    write_video(whole, panning(9), 16, film_metadata(9))
    check_outputs([whole, cut(whole, tmp_path / f"copy{ending}", 9)])
    part = cut(whole, tmp_path / f"part{ending}", 5)
    assert probe(part).metadata["comment"] == "made with wanedit"
    with pytest.raises(InputError, match=f"part{ending} was not written by wanedit"):
        check_outputs([part])


def test_a_film_that_was_graded_in_its_place_is_not_replaced(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, tmp_path / "output_final.mp4")
    directory.config.write_text(RECORD_MARK)
    write_video(directory.final, panning(9), 16, film_metadata(9))
    append_event(directory.metrics, {"event": "start", "wanedit": "0.1.0"})
    directory.wrote()
    directory.check(())
    # As long, and with the words of the first one.
    write_video(directory.final, (255 - frame for frame in panning(9)), 16, film_metadata(9))
    with pytest.raises(InputError, match=r"output_final\.mp4 was changed since wanedit wrote it"):
        directory.check(())
    # A run that was stopped before it came to a film has none on record.
    append_event(directory.metrics, {"event": "start", "wanedit": "0.1.0"})
    directory.check(())


def test_a_picture_that_was_saved_anew_is_not_ours(tmp_path: Path) -> None:
    write_png(tmp_path / "sheet.png", panning(1)[0])
    check_outputs([tmp_path / "sheet.png"])
    with Image.open(tmp_path / "sheet.png") as picture:
        said = PngInfo()
        said.add_text("Software", picture.info["Software"])  # ImageMagick keeps it
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "flipped.png", pnginfo=said)
        said = PngInfo()
        said.add_text("Software", "wanedit")
        picture.save(tmp_path / "earlier.png", pnginfo=said)
    with pytest.raises(InputError, match=r"flipped\.png was not written by wanedit"):
        check_outputs([tmp_path / "flipped.png"])
    check_outputs([tmp_path / "earlier.png"])  # of an earlier version, which wrote no hash


def test_a_gif_is_ours_by_its_comment(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in panning(2)]
    pictures[0].save(tmp_path / "theirs.gif", save_all=True, append_images=pictures[1:])
    assert not is_own(tmp_path / "theirs.gif")
    write_video(tmp_path / "ours.gif", panning(2), 16, OURS)
    assert is_own(tmp_path / "ours.gif")


def test_an_empty_file_has_nothing_to_lose_and_a_broken_one_may(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 4000)
    check_outputs([tmp_path / "empty.mp4"])
    with pytest.raises(InputError, match=r"broken\.mp4 was not written"):
        check_outputs([tmp_path / "broken.mp4"])


def test_pictures_pages_and_tables_are_told_apart(tmp_path: Path) -> None:
    picture = np.full((8, 8, 3), 90, np.uint8)
    Image.fromarray(picture).save(tmp_path / "theirs.png")
    write_png(tmp_path / "ours.png", picture)
    (tmp_path / "theirs.html").write_text("<title>what I think of wanedit</title>")
    (tmp_path / "ours.html").write_text('<head>\n<meta name="generator" content="wanedit 0.1">')
    (tmp_path / "theirs.json").write_text('{"note": "wanedit"}')
    (tmp_path / "theirs_too.json").write_text('{"wanedit": {"like": true}}')
    (tmp_path / "theirs_of_versions.json").write_text('{"wanedit": "0.2.0", "torch": "2.9"}')
    (tmp_path / "theirs.jsonl").write_text('{"wanedit": null}\n')
    (tmp_path / "ours.jsonl").write_text('{"event": "start", "wanedit": "0.2.0"}\n')
    (tmp_path / "ours.json").write_text(json.dumps({"wanedit": "0.1", "metrics": {}}))
    (tmp_path / "theirs.yaml").write_text("prompt: wanedit\n")
    (tmp_path / "ours.yaml").write_text(RECORD_MARK)
    (tmp_path / "theirs.csv").write_text("a,b\n")
    for path in tmp_path.iterdir():
        assert is_own(path) == path.name.startswith("ours")
    check_outputs([tmp_path / "theirs.csv"], recorded=True)
    with pytest.raises(InputError, match=r"theirs\.csv was not written"):
        check_outputs([tmp_path / "theirs.csv"])


def test_an_input_is_refused_under_every_name_that_a_run_writes(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, tmp_path / "output_final.mp4")
    for path in directory.written:
        write_png(path, np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(InputError, match=f"output {path} is also an input; expected another output"):
            check_outputs(directory.written, [path], recorded=True)
        path.unlink()


def test_a_record_vouches_for_no_picture_and_no_film(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, tmp_path / "output_final.mp4")
    directory.config.write_text(RECORD_MARK)
    directory.metrics.write_text("torn")
    (tmp_path / "metrics.csv").write_text("a,b\n")
    directory.check(())
    for path in (directory.contact_sheet, directory.junctions, directory.final):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, format="png")
        with pytest.raises(InputError, match=f"{path} was not written by wanedit"):
            directory.check(())
        path.unlink()


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("to", ["nowhere", "ours", "sheet.png"])  # the last one leads to itself
def test_a_link_is_replaced_by_nothing(tmp_path: Path, to: str, recorded: bool) -> None:
    write_png(tmp_path / "ours", np.zeros((8, 8, 3), np.uint8))
    for name in ("sheet.png", "film.mp4", "table.csv"):
        (tmp_path / name).symlink_to(tmp_path / to)
        with pytest.raises(InputError, match=f"{name} was not written by wanedit"):
            check_outputs([tmp_path / name], recorded=recorded)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_taken_for_an_empty_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "film.mp4")
    with pytest.raises(InputError, match=r"film\.mp4 was not written by wanedit"):
        check_outputs([tmp_path / "film.mp4"], recorded=True)


@pytest.mark.fault(34)
def test_what_another_worker_renames_meanwhile_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that joins looks whether it may write there, and every file is gone once it has been looked at."""
    directory = RunDirectory(tmp_path / "run", tmp_path / "run" / "output_final.mp4")
    directory.prepare()
    (picture := tmp_path / "picture.png").touch()
    names = [".segment_000_0123456789ab.mkv.1230123456789.partial", "segment_001_0123456789ab.mkv"]
    real = os.stat

    def looked(path: Any, **how: Any) -> os.stat_result:
        found = real(path, **how)
        if str(path).endswith(tuple(names)):
            os.unlink(path)
        return found

    for look in (lambda: directory.check([picture]), lambda: leftovers(directory, ())):
        for name in names:
            (directory.segments / name).touch()
        with monkeypatch.context() as others:
            others.setattr("os.stat", looked)
            look()
        assert not [*directory.segments.iterdir()]


def test_only_what_a_killed_run_began_is_dropped(tmp_path: Path) -> None:
    root = tmp_path / "film.wanedit"
    directory = RunDirectory(root, tmp_path / "film.mp4")
    begun = [root / ".config.yaml.7.partial", directory.segments / ".segment_001.mkv.0.partial"]
    begun += [tmp_path / ".film.mp4.7.partial"]
    theirs = [root / ".archive.7z.partial", root / "film.7.partial"]
    theirs += [tmp_path / ".other.mp4.7.partial"]  # perhaps of a run that lives
    directory.segments.mkdir(parents=True)
    for path in (*begun, *theirs):
        path.write_text("half")
    directory.prepare()
    assert [path.exists() for path in (*begun, *theirs)] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("output", "folder", "film"),
    [
        ("out", "out", "out/output_final.mp4"),
        ("alpha_0.5", "alpha_0.5", "alpha_0.5/output_final.mp4"),
        ("run.v2/", "run.v2", "run.v2/output_final.mp4"),
        *((f"a/film{ending}", "a/film.wanedit", f"a/film{ending}") for ending in FORMATS),
        ("FILM.MP4", "FILM.wanedit", "FILM.MP4"),
    ],
)
def test_an_output_is_a_film_or_a_folder(output: str, folder: str, film: str) -> None:
    settings = RunSettings(output=output)
    assert (settings.folder, settings.final_path) == (Path(folder), Path(film))


@pytest.mark.parametrize("output", ["film.avi", "film.m4v", "a/film.Wmv", "film.html", "frames.png"])
def test_other_endings_are_refused_with_those_that_are_written(output: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a film \(\.mp4, \.mov, \.mkv, \.webm, \.gif\) or a folder"):
        _ = RunSettings(output=output).folder
    (tmp_path / "made.avi").mkdir()
    assert RunSettings(output=str(tmp_path / "made.avi")).folder == tmp_path / "made.avi"


def test_where_a_folder_is_written_no_file_is_meant() -> None:
    assert require_folder("outputs/style") == Path("outputs/style")
    for output in ("film.mp4", "keys.png"):
        with pytest.raises(InputError, match="expected a folder"):
            require_folder(output)
