import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.video.scenes import numbered, panning, read_number
from wanedit.errors import InputError, ResourceError
from wanedit.files import atomic_path
from wanedit.timeline import rate_of
from wanedit.video.arrays import Clock
from wanedit.video.decode import probe, read_frames
from wanedit.video.encode import write_lossless, write_png, write_video
from wanedit.video.formats import FORMATS

HARD_NAMES = ["plain", "with space", "ключ кадр 关键帧", "a=b;c", "100%d", "a:b", "#?&"]


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 61), (16, 16), (8, 8), (9, 200)])
def test_ffv1_keeps_every_pixel(tmp_path, height, width):
    frames = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), dtype=np.uint8)
    path = tmp_path / "segment.mkv"
    assert write_lossless(path, iter(frames)) == 4
    np.testing.assert_array_equal(read_frames(path), frames)
    assert list(tmp_path.iterdir()) == [path]


def test_ffv1_keeps_every_colour_level(tmp_path):
    levels = np.arange(256, dtype=np.uint8)
    red, green = np.meshgrid(levels, levels)
    frames = np.stack([np.dstack([red, green, np.full_like(red, blue)]) for blue in (0, 77, 255)])
    write_lossless(tmp_path / "all.mkv", frames)
    np.testing.assert_array_equal(read_frames(tmp_path / "all.mkv"), frames)


@pytest.mark.parametrize("fps", [16, 12.5, 29.97, 23.976, 25, Fraction(30000, 1001), 29.83, 1, 120])
@pytest.mark.parametrize("count", [1, 2, 11])
def test_mp4_has_the_exact_count_and_rate(tmp_path, fps, count):
    path = tmp_path / "out.mp4"
    assert write_video(path, numbered(count, 16, 64), fps, preset="ultrafast") == count
    info = probe(path)
    assert (info.frames, info.declared, info.complete) == (count, count, True)
    assert info.fps == rate_of(fps)
    assert not info.variable_rate
    assert [read_number(frame) for frame in read_frames(path)] == list(range(count))


@pytest.mark.parametrize("fps", [16, 12.5, 29.97, 1])
def test_matroska_has_the_exact_count_and_rate(tmp_path, fps):
    write_lossless(tmp_path / "out.mkv", numbered(9), fps)
    info = probe(tmp_path / "out.mkv")
    assert (info.frames, info.declared, info.fps, info.complete) == (9, 9, rate_of(fps), True)


def test_rates_as_people_write_them():
    assert rate_of(29.97) == Fraction(30000, 1001)
    assert rate_of(23.976) == Fraction(24000, 1001)
    assert rate_of(12.5) == Fraction(25, 2)
    assert rate_of(30) == rate_of(30.0) == 30
    assert rate_of(25 / 3) == Fraction(25, 3)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1001])
def test_impossible_rates_are_refused(fps):
    with pytest.raises(InputError, match="fps"):
        rate_of(fps)


def test_colours_come_back(tmp_path):
    """Mean error of a gentle picture below 1 level, no channel off by more than a fifth of a level."""
    frames = panning(4, 288, 384)
    write_video(tmp_path / "out.mp4", frames, 16, crf=8)
    difference = read_frames(tmp_path / "out.mp4").astype(np.float32) - frames
    assert np.abs(difference).mean() < 1
    assert np.abs(difference.mean((0, 1, 2))).max() < 0.2


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 140, 60)]
)
def test_flat_colours_are_within_two_levels(tmp_path, colour):
    frames = np.full((2, 32, 32, 3), colour, np.uint8)
    write_video(tmp_path / "flat.mp4", frames, 16, crf=4)
    assert np.abs(read_frames(tmp_path / "flat.mp4").astype(int) - frames).max() <= 2


def test_mp4_is_tagged_bt709_limited(tmp_path):
    write_video(tmp_path / "out.mp4", panning(2), 16)
    with av.open(tmp_path / "out.mp4") as container:
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_range, context.color_primaries, context.color_trc)
        assert (context.name, context.pix_fmt, tags) == ("h264", "yuv420p", (1, 1, 1, 1))


def test_metadata_of_any_key_and_faststart(tmp_path):
    path = tmp_path / "out.mp4"
    metadata = {
        "wanedit_config": "prompt: 一只猫 = 'x'\nseed: 1\n" * 2000,
        "segment_hashes": '{"0": "ab"}',
        "title": "T",
    }
    write_video(path, panning(3), 16, metadata)
    found = probe(path).metadata
    assert {key: found[key] for key in metadata} == metadata
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (47, 63)])
@pytest.mark.parametrize("ending", FORMATS)
def test_odd_sides_lose_a_row_only_where_the_codec_has_none(tmp_path, height, width, ending):
    path = tmp_path / f"out{ending}"
    assert write_video(path, panning(3, height, width), 16) == 3
    info = probe(path)
    expected = (height, width) if ending in (".webm", ".gif") else (height // 2 * 2, width // 2 * 2)
    assert (info.height, info.width) == expected
    assert list(tmp_path.iterdir()) == [path]


def test_sides_of_one_pixel_are_refused(tmp_path):
    with pytest.raises(InputError, match="frames are 64x1; expected 2 pixels"):
        write_video(tmp_path / "out.mp4", panning(2, 1, 64), 16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", FORMATS)
def test_every_film_shows_its_frames_and_holds_its_metadata(tmp_path, ending):
    path, frames = tmp_path / f"a{ending}", numbered(12, 32, 64)
    told = {"comment": "made with wanedit", "wanedit_config": '{"prompt": "一只猫"}' * 400}
    assert write_video(path, frames, 24, told, crf=8) == 12
    info, shown = probe(path), read_frames(path)
    assert told.items() <= info.metadata.items()
    assert [read_number(frame) for frame in shown] == list(range(12))
    # Of twelve frames 0.5 s, to the hundredth that a GIF counts in.
    with av.open(str(path), "r") as film:
        assert film.duration == pytest.approx(500_000, abs=5_000 if ending == ".gif" else 1)
        context = film.streams.video[0].codec_context
        tags = (context.colorspace, context.color_range, context.sample_aspect_ratio or 1)
        assert ending == ".gif" or tags == (1, 1, 1)


def test_a_gif_takes_its_colours_from_all_frames(tmp_path):
    red, blue = (
        np.full((4, 32, 32, 3), (200, 30, 40), np.uint8),
        np.full((4, 32, 32, 3), (20, 40, 210), np.uint8),
    )
    write_video(tmp_path / "a.gif", np.concatenate([red, blue]), 10)
    shown = read_frames(tmp_path / "a.gif").astype(int)
    assert np.abs(shown[:4] - red).max() <= 2
    assert np.abs(shown[4:] - blue).max() <= 2


def test_other_endings_and_rates_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.mp4, \.mov, \.mkv, \.webm, \.gif, got \.avi"):
        write_video(tmp_path / "a.avi", panning(2), 16)
    with pytest.raises(InputError, match="fps is 60; a film in gif shows 50 at most"):
        write_video(tmp_path / "a.gif", panning(2), 60)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", FORMATS)
def test_a_clock_says_when_each_frame_is_shown(tmp_path, ending):
    clock = Clock((900, 3900, 6900, 15900), 21900, Fraction(1, 90000))
    write_video(tmp_path / f"a{ending}", panning(4), Fraction(120, 7), clock=clock)
    wanted = [0, 1 / 30, 2 / 30, 1 / 6]
    info = probe(tmp_path / f"a{ending}")
    assert info.times == pytest.approx(wanted, abs=0.006 if ending == ".gif" else 0.001)
    with av.open(str(tmp_path / f"a{ending}"), "r") as film:
        assert film.duration == pytest.approx(7e6 / 30, abs=7_000)
    with pytest.raises(InputError, match="more frames than the 4 times"):
        write_video(tmp_path / f"a{ending}", panning(5), 16, clock=clock)


@pytest.mark.parametrize(
    ("ticks", "lasts"), [([0, 10, 20, 40, 45], 30), ([0, 2, 4, 6], 2), ([0, 3], 70), ([0], 25)]
)
def test_a_gif_shows_every_frame_for_its_own_time(tmp_path, ticks, lasts):
    clock = Clock(tuple(10 * tick for tick in ticks), 10 * (ticks[-1] + lasts), Fraction(1, 1000))
    write_video(tmp_path / "a.gif", panning(len(ticks)), Fraction(12), clock=clock)
    with Image.open(tmp_path / "a.gif") as film:
        shown = []
        for index in range(len(ticks)):
            film.seek(index)
            shown.append(film.info["duration"] // 10)
    assert shown == [*np.diff(ticks), lasts]


@pytest.mark.parametrize("fps", [8, Fraction(24000, 1001), 48])
def test_a_gif_lasts_as_long_as_its_frames(tmp_path, fps):
    write_video(tmp_path / "a.gif", panning(10), fps)
    with av.open(str(tmp_path / "a.gif"), "r") as film:
        assert film.duration == pytest.approx(10e6 / fps, abs=5_000)


def test_frames_too_near_each_other_for_a_gif_are_refused(tmp_path):
    clock = Clock((0, 5, 10, 500, 1000), 1500, Fraction(1, 1000))
    with pytest.raises(InputError, match=r"is shown for 0\.005 s; a film in gif shows each for 0\.02"):
        write_video(tmp_path / "a.gif", panning(5), Fraction(10, 3), clock=clock)
    assert not list(tmp_path.iterdir())
    write_video(tmp_path / "a.mp4", panning(5), Fraction(10, 3), clock=clock)


@pytest.mark.parametrize("write", [write_lossless, lambda p, f: write_video(p, f, 16)])
def test_bad_frames_leave_nothing(tmp_path, write):
    good = panning(3)
    for frames in ([], [good[0], good[1, :40]], [good[0], good[1].astype(np.float32)]):
        with pytest.raises(InputError):
            write(tmp_path / "out.mp4", iter(frames))
    assert not list(tmp_path.iterdir())


def test_bad_crf_is_refused(tmp_path):
    with pytest.raises(InputError, match="crf"):
        write_video(tmp_path / "out.mp4", panning(2), 16, crf=99)


def test_a_failing_source_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.mp4"
    write_video(path, panning(2), 16)
    before = path.read_bytes()

    def failing():
        yield from panning(2)
        raise KeyError("the model fell over")

    with pytest.raises(KeyError, match="the model fell over"):
        write_video(path, failing(), 16)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", HARD_NAMES)
def test_names_with_anything_in_them(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    frames = panning(2)
    write_lossless(folder / f"{name}.mkv", frames)
    write_video(folder / f"{name}.mp4", frames, 16, preset="ultrafast")
    write_png(folder / f"{name}.png", frames[0])
    np.testing.assert_array_equal(read_frames(folder / f"{name}.mkv"), frames)
    assert len(read_frames(folder / f"{name}.mp4")) == 2
    assert len(list(folder.iterdir())) == 3


def test_relative_names_that_look_like_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lossless("file:x.mkv", panning(2))
    assert len(read_frames("file:x.mkv")) == 2
    assert os.listdir() == ["file:x.mkv"]


def test_a_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_lossless(tmp_path / "no" / "out.mkv", panning(2))
    with pytest.raises(InputError, match="is a folder"):
        write_lossless(tmp_path, panning(2))


def limited(command: str, folder, limit: int) -> subprocess.CompletedProcess:
    """Run Python where no file may grow beyond `limit` bytes."""
    script = "from wanedit.video import *\nfrom tests.video.scenes import *\nimport numpy as np\n" + command

    def cap():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-B", "-c", script, str(folder)],
        preexec_fn=cap,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "call",
    [
        "write_lossless(sys.argv[1] + '/out.mp4', noise)",
        "write_video(sys.argv[1] + '/out.mp4', noise, 16, crf=0)",
    ],
)
def test_a_full_disk_is_a_resource_error_and_leaves_nothing(tmp_path, call):
    script = textwrap.dedent(f"""
        import sys
        from wanedit.errors import ResourceError
        noise = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
        try:
            {call}
        except ResourceError as error:
            print(error)
            sys.exit(error.exit_code)
    """)
    done = limited(script, tmp_path, 20_000)
    assert done.returncode == 4, done.stderr
    assert f"{tmp_path}/out.mp4: File too large; make room and run again" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs to mount a small disk")
def test_a_really_full_disk(tmp_path):
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True
    ).returncode:
        pytest.skip("may not mount")
    try:
        noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
        for write in (write_lossless, lambda p, f: write_video(p, f, 16, crf=0)):
            with pytest.raises(ResourceError, match="No space left"):
                write(tmp_path / "out.mp4", noise)
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def fail_with(number, path):
    with atomic_path(path) as partial:
        partial.write_bytes(b"1")
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "expected", "advice"),
    [
        (errno.EDQUOT, ResourceError, "make room and run again"),
        (errno.EROFS, ResourceError, "allow it, or choose another output"),
        (errno.EMFILE, ResourceError, "allow more at a time"),
        (errno.EIO, ResourceError, "see what is wrong there and run again"),
        (errno.ENAMETOOLONG, InputError, "choose another path"),
    ],
)
def test_atomic_path_says_what_the_system_refuses_and_what_to_do(tmp_path, number, expected, advice):
    with pytest.raises(expected, match=f"{tmp_path}/x: {os.strerror(number)}; {advice}"):
        fail_with(number, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_a_readable_partial_file(tmp_path):
    script = textwrap.dedent("""
        import os, signal
        def frames():
            for index, frame in enumerate(numbered(12)):
                if index == 9:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield frame
        write_lossless(sys.argv[1] + "/segment.mkv", frames())
    """)
    done = limited("import sys\n" + script, tmp_path, 10**9)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".segment.mkv.")
    assert partial.suffix == ".partial"
    with pytest.raises(InputError, match="breaks off before its end, 8 whole frames"):
        read_frames(partial)
    np.testing.assert_array_equal(read_frames(partial, salvage=True), numbered(12)[:8])


def test_png_is_exact(tmp_path):
    from PIL import Image

    image = panning(1)[0]
    write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), image)
    with pytest.raises(InputError):
        write_png(tmp_path / "no" / "a.png", image)


def test_the_same_frames_give_the_same_file(tmp_path):
    frames = _moving_texture(64)
    digests = set()
    for attempt in range(24):
        # New arrays each time, among others: the fault that this guards against read memory beyond the frame.
        copies = [frame.copy() for frame in frames]
        between = np.full(10_007 * (attempt + 1), attempt, np.uint8)
        write_video(tmp_path / "a.mp4", copies, 16)
        digests.add((tmp_path / "a.mp4").read_bytes())
        del copies, between
    assert len(digests) == 1


def _moving_texture(side: int) -> list[np.ndarray]:
    import cv2

    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, (2 * side, 2 * side), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(texture[i : i + side, 2 * i : 2 * i + side]) for i in range(14)]
