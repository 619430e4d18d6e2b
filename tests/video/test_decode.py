import os
import re
from collections.abc import Generator
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.video.files import declare, encode, overwrite, truncate, turn
from tests.video.scenes import numbered, panning, read_number
from wanedit.errors import InputError
from wanedit.video import decode
from wanedit.video.decode import iter_frames, probe, read_frames
from wanedit.video.encode import write_lossless, write_video
from wanedit.video.source import open_source


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """40 numbered frames in H.264 with B-frames and a keyframe every 10."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    encode(path, "libx264", numbered(40), options={"g": "10", "bf": "3"})
    return path


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("libx264", "mp4", "yuv420p"),
        ("libx264", "mkv", "yuv420p"),
        ("libx264", "ts", "yuv420p"),
        ("libx265", "mp4", "yuv420p"),
        ("libsvtav1", "mp4", "yuv420p"),
        ("mpeg4", "avi", "yuv420p"),
        ("ffv1", "mkv", "bgr0"),
    ],
)
def test_every_frame_is_found_by_its_index(tmp_path, codec, suffix, pix_fmt):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = tmp_path / f"clip.{suffix}"
    options = {"g": "8"} if codec != "libx265" else {"x265-params": "keyint=8:log-level=none"}
    encode(path, codec, numbered(30, 64, 64), options=options, pix_fmt=pix_fmt)
    assert probe(path).frames == 30
    assert [read_number(f) for f in iter_frames(path)] == list(range(30))
    for indices in ([29], [0], [7, 8, 9], [17, 3, 29, 3], range(10, 20), [0, 29]):
        assert [read_number(f) for f in read_frames(path, indices)] == list(indices)


def test_variable_frame_rate_is_found_by_index_too(tmp_path):
    pts = list(np.cumsum([0, 4, 9, 2, 30, 4, 4, 11, 5, 4]))
    encode(tmp_path / "vfr.mp4", "libx264", numbered(10), pts=[int(p) for p in pts], options={"g": "4"})
    info = probe(tmp_path / "vfr.mp4")
    assert info.variable_rate
    np.testing.assert_allclose(info.times, np.array(pts) / 100, atol=1e-6)
    assert [read_number(f) for f in read_frames(tmp_path / "vfr.mp4", [8, 2])] == [8, 2]


def test_probe_says_what_there_is(clip):
    info = probe(clip)
    assert (info.frames, info.declared, info.complete, info.variable_rate) == (40, 40, True, False)
    assert (info.height, info.width, info.fps, info.codec) == (48, 64, 25, "h264")
    assert info.duration == pytest.approx(1.6)
    assert info.times[:3] == pytest.approx((0, 0.04, 0.08))


def test_indices_outside_are_refused(clip):
    for indices in ([40], [-1], [0, 99]):
        with pytest.raises(InputError, match="frames 0 to 39"):
            read_frames(clip, indices)
    with pytest.raises(InputError, match="no frame indices"):
        read_frames(clip, [])


def test_an_unknown_decoder_lists_the_known(clip):
    with pytest.raises(InputError, match="unknown decoder 'opencv', expected one of: decord, pyav"):
        read_frames(clip, decoder="opencv")


def test_a_decoder_can_be_added_and_its_count_is_checked(clip, monkeypatch):
    class Short:
        notes = ()

        def frames(self, path, index, salvage):
            yield from numbered(index.frames - 1)

        def select(self, path, index, wanted, salvage):
            return iter(())

    monkeypatch.setitem(decode.DECODERS, "short", Short)
    with pytest.raises(InputError, match="40 frames expected, 39 decoded"):
        read_frames(clip, decoder="short")


@pytest.mark.fault(4)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
def test_a_truncated_mp4_says_both_counts(tmp_path, share):
    path = tmp_path / "cut.mp4"
    write_video(path, panning(40, 64, 96), 16)
    truncate(path, share)
    with pytest.raises(InputError, match=r"cut.mp4: the header declares 40 frames, \d+ whole frames found"):
        read_frames(path)
    with pytest.raises(InputError, match="declares 40"):
        list(iter_frames(path))
    assert 0 < len(read_frames(path, salvage=True)) < 40
    assert not probe(path).complete


def test_an_mp4_cut_before_its_index_is_refused(tmp_path):
    path = tmp_path / "cut.mp4"
    encode(path, "libx264", numbered(10))  # moov at the end
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov")])
    for salvage in (False, True):
        with pytest.raises(InputError, match=r"cut\.mp4: not a readable video"):
            read_frames(path, salvage=salvage)


@pytest.mark.fault(4)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_matroska_says_both_counts(tmp_path, share):
    path = tmp_path / "cut.mkv"
    frames = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    write_lossless(path, frames)
    truncate(path, share)
    with pytest.raises(InputError, match=r"declares 20 frames, \d+ whole"):
        read_frames(path)
    saved = read_frames(path, salvage=True)
    assert 0 < len(saved) < 20
    np.testing.assert_array_equal(saved, frames[: len(saved)])


@pytest.mark.fault(5)
def test_a_header_that_declares_too_many_frames(tmp_path):
    path = tmp_path / "liar.mp4"
    write_video(path, numbered(10), 16)
    declare(path, 10_000)
    with pytest.raises(InputError):
        read_frames(path)
    with suppress(InputError):  # a table that long may not be readable at all; what matters is that this ends
        assert len(read_frames(path, salvage=True)) <= 10


def test_a_damaged_frame_of_ffv1_is_noticed(tmp_path):
    path = tmp_path / "segment.mkv"
    write_lossless(path, np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"frame \d is damaged \(wrong checksum\)"):
        read_frames(path)
    assert 0 < len(read_frames(path, salvage=True)) <= 8


def test_most_damage_in_h264_is_noticed(tmp_path):
    """H.264 has no checksum: which bytes decode as if nothing were is chance, so several places are tried."""
    whole, path, noticed = tmp_path / "whole.mp4", tmp_path / "clip.mp4", 0
    write_video(whole, panning(8, 240, 320), 16, crf=1)
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):  # not in the first frame, on which all others stand
        path.write_bytes(whole.read_bytes())
        overwrite(path, share, bytes(range(100)))
        try:
            read_frames(path)
        except InputError as error:
            noticed += bool(re.search("damaged|decod", str(error)))
        assert 0 < len(read_frames(path, salvage=True)) <= 8
    assert noticed >= 3


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("#EXTM3U\nfile:///etc/hostname\n" * 50)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("notes.txt", "list.m3u8", "empty.mp4", "noise.mp4", "pipe.mp4", "absent.mp4", "."):
        with pytest.raises(InputError):
            read_frames(tmp_path / name)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(tmp_path / "sound.mp4", "w") as out:
        stream = out.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        probe(tmp_path / "sound.mp4")


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)])
def test_a_phone_held_upright(tmp_path, matrix, turns):
    path = tmp_path / "phone.mp4"
    frames = panning(3, 48, 64)
    write_video(path, frames, 16, crf=8)
    turn(path, matrix)
    read = read_frames(path)
    expected = np.rot90(frames, turns, (1, 2))
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).mean() < 4  # a wrong turn is off by 40 and more
    assert (probe(path).height, probe(path).width) == read.shape[1:3]


def test_untagged_small_video_is_taken_as_bt601(tmp_path):
    frames = np.full((2, 64, 64, 3), (200, 40, 60), np.uint8)
    encode(tmp_path / "sd.mp4", "libx264", frames, options={"crf": "4"})  # swscale's default is BT.601
    assert np.abs(read_frames(tmp_path / "sd.mp4").astype(int) - frames).max() <= 4


def test_iterating_holds_one_frame(tmp_path):
    write_lossless(tmp_path / "a.mkv", numbered(5))
    stream = iter_frames(tmp_path / "a.mkv")
    assert read_number(next(stream)) == 0
    assert isinstance(stream, Generator)
    stream.close()


def test_the_numbers_hold_where_pictures_refer_across_a_keyframe(tmp_path):
    options = {"x264-params": "keyint=10:bframes=3:open-gop=1:scenecut=0"}
    encode(tmp_path / "open.mp4", "libx264", numbered(40), options=options)
    for indices in ([10, 17, 39], [9], range(8, 33), [29, 0]):
        assert [read_number(f) for f in read_frames(tmp_path / "open.mp4", indices)] == list(indices)


def test_a_codec_that_nothing_knows_is_named(tmp_path):
    encode(tmp_path / "clip.mp4", "libx264", numbered(5))
    content = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "clip.mp4").write_bytes(content.replace(b"avc1", b"qqqq").replace(b"avcC", b"qqqC"))
    for read in (probe, read_frames):
        with pytest.raises(InputError, match=r"clip\.mp4: its video is in a codec that"):
            read(tmp_path / "clip.mp4")


def test_a_stream_that_begins_on_the_way_takes_nothing(tmp_path):
    path = tmp_path / "clip.ts"
    encode(path, "libx264", numbered(30), options={"g": "10"})
    content = bytearray(path.read_bytes())
    packets = [content[place : place + 188] for place in range(0, len(content), 188)]
    new = bytearray(packets[-1])  # the last packet once more, as one of another program
    new[1:3] = bytes([new[1] & 0xE0 | 0x01, 0x23])
    path.write_bytes(b"".join([*packets, *[new] * 20]))
    assert probe(path).frames == 30
    assert [read_number(f) for f in read_frames(path)] == list(range(30))


def test_a_video_that_changes_its_size_is_refused(tmp_path):
    for name, side in (("a", 48), ("b", 64)):
        encode(tmp_path / f"{name}.ts", "mpeg2video", panning(6, side, 64))
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join((tmp_path / f"{name}.ts").read_bytes() for name in "ab"))
    with pytest.raises(InputError, match=r"both\.ts: frame \d+ is 64x64, the first is 64x48"):
        read_frames(path)


def live(path, frames):
    """A Matroska as browsers write it, without a length; cut in the middle of its last frame."""
    with av.open(path, "w", format="matroska", options={"live": "1"}) as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))


def test_a_cut_file_is_refused_every_time(tmp_path):
    live(tmp_path / "live.mkv", numbered(12))
    assert probe(tmp_path / "live.mkv").complete
    truncate(tmp_path / "live.mkv", 0.7)
    # FFmpeg says the same of it each time, and that is not to be swallowed as a repetition.
    assert [probe(tmp_path / "live.mkv").complete for _ in range(3)] == [False] * 3


def test_an_avi_may_repeat_pictures_by_empty_chunks(tmp_path):
    # As cameras and capture programs write a dropped frame: the picture before stays.
    ticks = [0, 1, 2, 5, 6, 7, 8, 12, 13]
    with av.open(tmp_path / "camera.avi", "w") as out:
        stream = out.add_stream("mpeg4", rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for tick, frame in zip(ticks, numbered(len(ticks), 64, 64), strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = tick, Fraction(1, 24)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    info = probe(tmp_path / "camera.avi")
    assert info.complete
    np.testing.assert_allclose(info.times, np.array(ticks) / 24, atol=1e-6)
    assert [read_number(f) for f in iter_frames(tmp_path / "camera.avi")] == list(range(len(ticks)))
    whole = (tmp_path / "camera.avi").read_bytes()
    (tmp_path / "camera.avi").write_bytes(whole[: whole.index(b"idx1") - 20])
    assert not probe(tmp_path / "camera.avi").complete


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.gif", "gif", "rgb8"),
        ("a.y4m", "rawvideo", "yuv420p"),
        ("a.asf", "mpeg4", "yuv420p"),
        ("a.mxf", "mpeg2video", "yuv420p"),
        ("a.ivf", "libvpx", "yuv420p"),
        ("a.flv", "flv1", "yuv420p"),
        ("a.apng", "apng", "rgb24"),
        ("a.avi", "mjpeg", "yuvj420p"),
    ],
)
def test_a_file_that_breaks_off_is_no_whole_one(tmp_path, name, codec, pix_fmt):
    path = tmp_path / name
    encode(path, codec, panning(12, 64, 64), pix_fmt=pix_fmt)
    assert probe(path).complete
    whole = path.read_bytes()
    for share in (0.6, 0.85, 0.94):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert not probe(path).complete, share
        with pytest.raises(InputError, match="whole frames found"):
            read_frames(path)


def test_a_bare_stream_has_the_rate_that_it_states(tmp_path):
    with av.open(tmp_path / "a.h264", "w") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in numbered(10, 64, 64):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))
    info = probe(tmp_path / "a.h264")
    assert info.fps == 24
    np.testing.assert_allclose(info.times, np.arange(10) / 24)
    assert not any("rate" in note for note in open_source(tmp_path / "a.h264").notes)


def test_a_rate_that_nothing_states_is_noted(tmp_path):
    encode(tmp_path / "a.obu", "libsvtav1", numbered(10, 64, 64))
    assert "the file says no frame rate: 25 fps taken" in open_source(tmp_path / "a.obu").notes
    assert not any("no frame rate" in note for note in open_source(tmp_path / "a.obu", fps=24).notes)
