import sys

import av
import numpy as np
import pytest

from tests.video.files import declare, encode, overwrite, truncate, turn
from tests.video.scenes import numbered, panning, read_number
from wanedit.errors import InputError
from wanedit.video import iter_frames, read_frames
from wanedit.video.decode import DecordDecoder
from wanedit.video.encode import write_lossless, write_video

try:
    import decord
except ImportError:
    decord = None

needs_decord = pytest.mark.skipif(
    decord is None, reason="decord is not installed: pip install 'wanedit[decord]'"
)

OPEN_GROUPS = {"x264-params": "keyint=10:bframes=3:open-gop=1:scenecut=0"}
HEVC = {"x265-params": "keyint=8:log-level=none"}  # with open groups, as x265 does unless told
UNEVEN = [int(pts) for pts in np.cumsum([0, 4, 9, 2, 30, 4, 4, 11, 5, 4] + [3, 7] * 10)]


def numbers(frames):
    return [read_number(frame) for frame in frames]


@needs_decord
@pytest.mark.parametrize(
    ("codec", "name", "pix_fmt", "options", "pts"),
    [
        ("libx264", "a.mp4", "yuv420p", {"g": "10", "bf": "3"}, None),
        ("libx264", "a.mkv", "yuv420p", {"g": "10", "bf": "3"}, None),
        ("libx264", "open.mp4", "yuv420p", OPEN_GROUPS, None),
        ("libx264", "uneven.mp4", "yuv420p", {"g": "4"}, UNEVEN),
        ("libx264", "uneven.mkv", "yuv420p", {"g": "4"}, UNEVEN),
        ("libx264", "late.mkv", "yuv420p", {"g": "10"}, range(500, 620, 4)),
        ("libx265", "a:b.mp4", "yuv420p", HEVC, None),
        ("libx265", "deep.mp4", "yuv420p10le", HEVC, None),
        ("mpeg4", "a.avi", "yuv420p", {"g": "8"}, None),
        ("libvpx-vp9", "a.webm", "yuv420p", {"g": "8"}, None),
        ("ffv1", "a b.mkv", "bgr0", {}, None),
    ],
)
def test_every_frame_is_found_by_its_index(tmp_path, codec, name, pix_fmt, options, pts):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = tmp_path / name
    encode(path, codec, numbered(30, 64, 64), pts=pts, options=options, pix_fmt=pix_fmt)
    assert numbers(iter_frames(path, decoder="decord")) == list(range(30))
    for indices in ([29], [0], [7, 8, 9], [17, 3, 29, 3], range(10, 20), [0, 29]):
        assert numbers(read_frames(path, indices, decoder="decord")) == list(indices)


@needs_decord
def test_lossless_pixels_are_exact_and_are_not_shared(tmp_path):
    frames = panning(6, 33, 51)
    write_lossless(tmp_path / "a.mkv", frames)
    held = list(iter_frames(tmp_path / "a.mkv", decoder="decord"))
    np.testing.assert_array_equal(np.stack(held), frames)
    assert all(frame.flags.owndata for frame in held)


@needs_decord
@pytest.mark.parametrize("height", [480, 720])
@pytest.mark.parametrize("tagged", [True, False])
def test_colours_are_those_that_pyav_reads(tmp_path, height, tagged):
    """BT.709 where the file says so, and from 720 lines up where it says nothing."""
    path, frames = tmp_path / "a.mp4", panning(2, height, height * 16 // 9 // 2 * 2)
    if tagged:
        write_video(path, frames, 16)
    else:
        encode(path, "libx264", frames)
    difference = read_frames(path, decoder="decord").astype(int) - read_frames(path)
    assert np.abs(difference).mean() < 2  # the other matrix is off by 5
    assert -2 < difference.mean() < 0


@needs_decord
def test_another_bridge_changes_nothing(tmp_path):
    encode(tmp_path / "a.mp4", "libx264", numbered(5))
    assert decord is not None
    decord.bridge.set_bridge("torch")
    try:
        assert numbers(read_frames(tmp_path / "a.mp4", decoder="decord")) == list(range(5))
    finally:
        decord.bridge.reset_bridge()


@needs_decord
@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_truncated_video_says_both_counts(tmp_path, name, share):
    path = tmp_path / name
    if path.suffix == ".mp4":
        write_video(path, panning(40, 64, 96), 16)
    else:
        write_lossless(path, panning(40, 64, 96))
    truncate(path, share)
    for read in (read_frames, iter_frames):
        with pytest.raises(
            InputError, match=r"cut\.m..: the header declares 40 frames, \d+ whole frames found"
        ):
            read(path, decoder="decord")


@needs_decord
def test_a_header_that_declares_too_many_frames(tmp_path):
    write_video(tmp_path / "liar.mp4", numbered(10), 16)
    declare(tmp_path / "liar.mp4", 10_000)
    with pytest.raises(InputError):
        read_frames(tmp_path / "liar.mp4", decoder="decord")


@needs_decord
def test_damage_that_decord_hides_is_noticed(tmp_path):
    path = tmp_path / "segment.mkv"
    write_lossless(path, np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8))
    overwrite(path, 0.5, b"\x55")
    with pytest.raises(InputError, match=r"frame \d is damaged \(wrong checksum\)"):
        read_frames(path, [0], decoder="decord")


@needs_decord
def test_what_decord_gets_wrong_is_refused_and_pyav_named(tmp_path):
    encode(tmp_path / "a.ts", "libx264", numbered(20), options={"g": "10"})
    with pytest.raises(InputError, match=r"a\.ts: decord is exact with mp4 .* got mpegts; decoder: pyav"):
        read_frames(tmp_path / "a.ts", decoder="decord")
    write_video(tmp_path / "phone.mp4", panning(3), 16)
    turn(tmp_path / "phone.mp4", (0, 1, -1, 0))
    with pytest.raises(InputError, match=r"turned by -90 degrees.* pyav"):
        read_frames(tmp_path / "phone.mp4", decoder="decord")
    with pytest.raises(InputError, match=r"cannot salvage.* pyav can"):
        read_frames(tmp_path / "phone.mp4", decoder="decord", salvage=True)


@needs_decord
def test_a_phone_held_upside_down(tmp_path):
    frames = panning(3, 48, 64)
    write_video(tmp_path / "phone.mp4", frames, 16, crf=8)
    turn(tmp_path / "phone.mp4", (-1, 0, 0, -1))
    read = read_frames(tmp_path / "phone.mp4", decoder="decord")
    assert np.abs(read.astype(int) - np.rot90(frames, 2, (1, 2))).mean() < 8  # a wrong turn is off by 40


@needs_decord
def test_av1_is_refused_and_pyav_reads_it(tmp_path):
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libsvtav1")
    path = tmp_path / "a.mp4"
    encode(path, "libsvtav1", numbered(12, 64, 64))
    with pytest.raises(InputError, match=r"a\.mp4: decord has no decoder for AV1; decoder: pyav reads it"):
        read_frames(path, decoder="decord")
    assert numbers(read_frames(path, decoder="pyav")) == list(range(12))


@needs_decord
def test_what_is_no_video_never_reaches_decord(tmp_path, monkeypatch):
    monkeypatch.setattr(decord, "VideoReader", lambda *_, **__: pytest.fail("decord was asked"))
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")
    for name in ("empty.mp4", "noise.mp4", "list.m3u8", "absent.mp4", "."):
        with pytest.raises(InputError):
            read_frames(tmp_path / name, decoder="decord")


class FakeModule:
    """What `DecordDecoder` uses of decord, with a reader that finds `count` frames and yields `given`."""

    class DECORDError(Exception):
        pass

    class DECORDLimitReachedError(Exception):
        pass

    def __init__(self, count, given):
        self.count, self.given = count, iter(given)
        self.cpu = int

    def VideoReader(self, *_, **__):
        if self.count is None:
            raise self.DECORDError("[00:00:00] reader.cc:1: no such codec\nStack trace:\n  a\n  b")
        return self

    def __len__(self):
        return self.count

    def next(self):
        return next(self.given)

    def get_key_indices(self):
        return []


@pytest.mark.parametrize(
    ("count", "given", "message"),
    [
        (11, [], r"a\.mp4: decord counts 11 frames, the packets hold 10; decoder: pyav goes by the packets"),
        (10, numbered(9), "decord ends before the last frame"),
        (10, numbered(10, 32, 64), r"shape \(32, 64, 3\), expected \(48, 64, 3\)"),
        (None, [], r"decord cannot read it \(\[00:00:00\] reader\.cc:1: no such codec\); decoder: pyav may"),
    ],
)
def test_a_decord_that_finds_something_else(tmp_path, monkeypatch, count, given, message):
    encode(tmp_path / "a.mp4", "libx264", numbered(10))
    for indices in (None, [9]):
        monkeypatch.setitem(sys.modules, "decord", FakeModule(count, given))
        with pytest.raises(InputError, match=message):
            read_frames(tmp_path / "a.mp4", indices, decoder="decord")


def test_a_decord_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(InputError, match=r"'decord' is not installed .*pip install 'wanedit\[decord\]'"):
        DecordDecoder()
    with pytest.raises(InputError, match="is not installed"):
        read_frames(tmp_path / "absent.mp4", decoder="decord")
