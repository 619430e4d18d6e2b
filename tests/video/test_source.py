from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.video.files import encode, truncate
from tests.video.scenes import numbered, panning, read_number
from tests.video.test_images import png_header
from wanedit import timeline
from wanedit.errors import InputError, ResourceError
from wanedit.timeline import fit_length
from wanedit.video import cut_back, hold_last, read_source, source, write_lossless, write_video
from wanedit.video.images import fit
from wanedit.video.source import open_source

needs_decord = pytest.mark.skipif(
    find_spec("decord") is None, reason="decord is not installed: pip install 'wanedit[decord]'"
)
both = pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])


def numbers(clip):
    return [read_number(frame) for frame in clip.frames]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """30 numbered frames in H.264 with B-frames and a keyframe every 10."""
    path = tmp_path_factory.mktemp("source") / "clip.mp4"
    encode(path, "libx264", numbered(30), options={"g": "10", "bf": "3"})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 numbered frames as 0.png to 11.png."""
    path = tmp_path_factory.mktemp("frames")
    for number, frame in enumerate(numbered(12)):
        Image.fromarray(frame).save(path / f"{number}.png")
    return path


@both
def test_a_video_comes_whole(video, decoder):
    clip = read_source(video, decoder=decoder)
    assert numbers(clip) == list(range(30))
    assert (clip.fps, clip.start, clip.total, clip.decoder) == (25, 0, 30, decoder)
    assert (clip.fit, clip.notes) == (None, ())


@both
@pytest.mark.parametrize(("start", "num_frames"), [(0, 5), (7, None), (11, 6), (29, 1), (0, 30)])
def test_indices_are_those_of_the_clip(video, decoder, start, num_frames):
    clip = read_source(str(video), decoder=decoder, start=start, num_frames=num_frames)
    assert numbers(clip) == list(range(start, start + (num_frames or 30 - start)))
    assert (clip.start, clip.total) == (start, 30)


def test_a_folder_is_a_clip_too(folder):
    clip = read_source(folder, fps=12.5)
    assert numbers(clip) == list(range(12))
    np.testing.assert_array_equal(clip.frames, numbered(12))
    assert (clip.fps, clip.total, clip.decoder, clip.notes) == (Fraction(25, 2), 12, "images", ())
    assert numbers(read_source(folder, fps=24, start=9, num_frames=2)) == [9, 10]


def test_the_rate_of_a_folder_is_stated(folder):
    clip = read_source(folder)
    assert (clip.fps, clip.notes) == (16, ("images have no frame rate: 16 fps taken",))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0000", "0001", "0004", "0005"], "no image between 0001.png and 0004.png: frames are counted by"),
        (
            ["f_9", "f_10", "f_12", "f_13", "f_20"],
            "no image between f_10.png and f_12.png, the first of 2 gaps",
        ),
        (["s2_1", "s2_2", "s2_4"], "no image between s2_2.png and s2_4.png"),
        (["0000", "0001", "0002"], None),
        (["0000", "0010", "0020", "0040"], None),
        (["101500", "101533", "101567", "101568", "101601"], None),
        (["a_0", "a_1", "b_0", "b_4"], None),
        (["a", "b"], None),
        (["0"], None),
    ],
)
def test_gaps_in_a_numbering_are_told(tmp_path, names, said):
    for name in names:
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
    notes = open_source(tmp_path, fps=16).notes
    assert (len(notes), said is None or said in notes[0]) == (said is not None, True)


def test_what_was_normalised_is_noted_once(tmp_path):
    for number in range(3):
        Image.fromarray(numbered(1)[0][..., 0]).save(tmp_path / f"{number}.png")
    assert read_source(tmp_path, fps=16).notes == ("L converted to RGB (3 of 3 images)",)


def test_another_rate_is_noted_and_moves_no_frame(video):
    clip = read_source(video, fps=16)
    assert (clip.fps, numbers(clip)) == (16, list(range(30)))
    assert clip.notes == ("shown at 16 fps as asked, the file says 25; no frame is dropped or made",)
    with pytest.raises(InputError, match="fps is 0; expected a number above 0"):
        read_source(video, fps=0)


@both
def test_a_variable_rate_is_noted(tmp_path, decoder):
    pts = [int(p) for p in np.cumsum([0, 4, 9, 2, 30, 4, 4, 11, 5, 4])]
    encode(tmp_path / "vfr.mp4", "libx264", numbered(10), pts=pts, options={"g": "4"})
    clip = read_source(tmp_path / "vfr.mp4", decoder=decoder, start=2)
    assert numbers(clip) == list(range(2, 10))
    assert "variable frame rate: frames are 0.02 to 0.3 s apart" in clip.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 30}, "start is frame 30, the source has frames 0 to 29"),
        ({"start": -1}, "start is frame -1"),
        ({"num_frames": 31}, "31 frames from frame 0 on were asked for; .* expected 1 to 30"),
        ({"start": 25, "num_frames": 6}, "6 frames from frame 25 .* has 30 frames, so expected 1 to 5"),
        ({"num_frames": 0}, "expected 1 to 30"),
        ({"decoder": "opencv"}, "expected one of: decord, pyav"),
        ({"size": (0, 8)}, "positive sides"),
        ({"size": (8, 8), "policy": "squash"}, "unknown policy 'squash'"),
    ],
)
def test_what_cannot_be_meant_is_refused(video, options, message):
    with pytest.raises(InputError, match=message):
        read_source(video, **options)


def test_no_source_at_all(tmp_path, folder):
    with pytest.raises(InputError, match="does not exist; expected a video"):
        read_source(tmp_path / "absent.mp4")
    with pytest.raises(InputError, match="no images"):
        read_source(tmp_path)
    with pytest.raises(InputError, match="a folder of images cannot be salvaged"):
        read_source(folder, salvage=True)


@both
def test_every_frame_is_fitted_as_a_keyframe_would_be(tmp_path, decoder):
    frames = panning(5, 48, 80)
    write_lossless(tmp_path / "a.mkv", frames)
    clip = read_source(tmp_path / "a.mkv", decoder=decoder, size=(32, 32))
    np.testing.assert_array_equal(clip.frames, np.stack([fit(frame, (32, 32))[0] for frame in frames]))
    assert clip.fit == fit(frames[0], (32, 32))[1]
    assert clip.fit is not None
    assert clip.notes == (clip.fit.warning,)
    assert "67%" in clip.notes[0]
    assert read_source(tmp_path / "a.mkv", decoder=decoder, size=(24, 40)).notes == ()


@both
def test_a_truncated_video_is_refused_with_both_counts(tmp_path, decoder):
    write_video(tmp_path / "cut.mp4", panning(40, 64, 96), 16)
    truncate(tmp_path / "cut.mp4", 0.6)
    with pytest.raises(InputError, match=r"cut\.mp4: the header declares 40 frames, \d+ whole frames found"):
        read_source(tmp_path / "cut.mp4", decoder=decoder, start=39)


def test_salvage_says_what_there_was(tmp_path):
    write_lossless(tmp_path / "cut.mkv", numbered(20))
    truncate(tmp_path / "cut.mkv", 0.6)
    clip = read_source(tmp_path / "cut.mkv", salvage=True, start=2)
    assert numbers(clip) == list(range(2, 2 + len(clip.frames)))
    assert 2 < clip.total < 20
    assert clip.notes[0] == f"damaged: the header declares 20 frames, {clip.total} whole frames found"


def test_frames_that_damage_swallows_are_counted(tmp_path):
    path = tmp_path / "a.mp4"
    encode(path, "libx264", numbered(12), options={"g": "4", "bf": "0"})
    content = bytearray(path.read_bytes())
    place = content.index(b"mdat") + 4
    content[place : place + 12] = bytes([0xFF]) * 12  # the first frame's length and head
    path.write_bytes(content)
    clip = read_source(path, salvage=True)
    assert len(clip.frames) < 12
    assert clip.notes[-1] == f"12 frames asked for, {len(clip.frames)} salvaged"


def test_what_would_not_fit_into_memory_is_refused_before_it_is_read(video, folder, monkeypatch):
    class Memory:
        available = 100_000

    monkeypatch.setattr(source.psutil, "virtual_memory", Memory)
    for path in (video, folder):
        with pytest.raises(ResourceError, match=r"frames of 64x48 take .*num_frames"):
            read_source(path)
        assert len(read_source(path, num_frames=10).frames) == 10
        assert len(read_source(path, size=(24, 32)).frames) >= 12


def test_the_pixel_cap_of_images_holds_in_a_folder(tmp_path):
    (tmp_path / "0.png").write_bytes(png_header(12_000, 12_000))
    with pytest.raises(InputError, match=r"0\.png: 12000x12000 is more than the 100000000 pixels"):
        read_source(tmp_path)


@given(count=st.integers(1, 200))
def test_a_length_is_the_next_that_a_model_takes(count):
    length = fit_length(count)
    assert (length - 1) % 4 == 0
    assert count <= length < count + 4
    assert timeline.slots(length) == timeline.slot(length - 1) + 1


def test_no_length_below_one():
    for count in (0, -3):
        with pytest.raises(InputError, match=f"a clip of {count} frames; expected at least 1"):
            fit_length(count)


@given(count=st.integers(1, 30))
@settings(deadline=None)
def test_a_clip_is_held_at_its_end_and_cut_back(count):
    frames = np.random.default_rng(count).integers(0, 256, (count, 2, 3, 3), dtype=np.uint8)
    held = hold_last(frames)
    assert len(held) == fit_length(count)
    assert (held[count:] == frames[-1]).all()
    np.testing.assert_array_equal(cut_back(held, count), frames)
    with pytest.raises(InputError, match=f"cut back to {count + 4}; expected {fit_length(count + 4)}"):
        cut_back(held, count + 4)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.bmp"])
def test_a_picture_in_the_place_of_a_video_is_called_one(tmp_path, name):
    Image.new("RGB", (64, 48)).save(tmp_path / name)
    with pytest.raises(
        InputError, match="is a picture; expected a video, an animation or a folder of pictures"
    ):
        open_source(tmp_path / name)


def test_what_is_cut_names_the_command_that_reads_it(tmp_path):
    encode(tmp_path / "a.gif", "gif", panning(4), pix_fmt="rgb8")
    truncate(tmp_path / "a.gif", 0.8)
    with pytest.raises(
        InputError, match="`wanedit edit --salvage`, in Python salvage=True, reads what is there"
    ):
        open_source(tmp_path / "a.gif")
