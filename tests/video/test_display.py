"""What a file says of its pictures besides their pixels, for kinds that tests/cases has no file of."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.video.files import encode, turn
from tests.video.scenes import numbered, panning
from tests.video.test_cases import CASES, PATCHES
from wanedit.errors import InputError
from wanedit.video import load_image, probe, read_frames, read_source, write_video
from wanedit.video.libav import kept_rate, scan
from wanedit.video.light import KNEE, PEAK, WHITE, to_bt709

BT2020, P3 = 9, 12
# R'G'B' of the six patches at 16 bits, as FFmpeg's zscale made them from BT.709 (npl=203), through a lossy codec.
WIDE = {
    "PQ": (
        BT2020,
        16,
        [
            [33219, 20559, 14914],
            [27027, 33453, 20584],
            [18944, 16700, 35540],
            [27201, 27201, 27201],
            [35677, 34807, 22082],
            [34534, 32001, 29065],
        ],
    ),
    "BT.2020": (
        BT2020,
        14,
        [
            [48507, 20138, 12323],
            [32549, 49487, 20153],
            [17852, 14644, 56340],
            [32790, 32790, 32790],
            [56994, 53980, 22619],
            [52701, 45032, 37119],
        ],
    ),
    "Display P3": (
        P3,
        1,
        [
            [54298, 15500, 12734],
            [25486, 50512, 19131],
            [8939, 12475, 56545],
            [32790, 32790, 32790],
            [59188, 54019, 21397],
            [55383, 44404, 37011],
        ],
    ),
}


def tagged(path, levels, primaries, transfer):
    """16-bit R'G'B' (H, W, 3) as one frame of lossless video with these tags."""
    with av.open(path, "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *levels.shape[:2], "gbrp16le"
        stream.codec_context.color_primaries, stream.codec_context.color_trc = primaries, transfer
        picture = av.VideoFrame.from_ndarray(levels, format="rgb48le").reformat(format="gbrp16le")
        picture.pts, picture.time_base = 0, Fraction(1, 24)
        out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


@pytest.mark.parametrize("kind", WIDE)
def test_wide_colours_become_those_of_bt709(tmp_path, kind):
    primaries, transfer, values = WIDE[kind]
    levels = np.repeat(np.repeat(np.array(values, np.uint16)[None], 32, axis=0), 32, axis=1)
    tagged(tmp_path / "wide.mkv", levels, primaries, transfer)
    clip = read_source(tmp_path / "wide.mkv")
    seen = clip.frames[0, 16, 16::32]
    assert np.abs(seen - PATCHES.astype(float)).max() <= (7 if kind == "PQ" else 4)
    assert len(clip.notes) == 1
    assert kind in clip.notes[0]


def test_highlights_of_hdr_are_kept_apart_and_white_is_white():
    # PQ of these luminances (ITU-R BT.2100, table 4), grey.
    luminance = np.array([50, 100, WHITE * KNEE, WHITE, 400, 700, PEAK, 4000])
    y = (luminance / 10_000) ** (2610 / 16384)
    signal = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    levels = np.repeat(np.rint(signal * 65535).astype(np.uint16)[None, :, None], 3, axis=2)
    grey = to_bt709(levels, BT2020, 16)[0].astype(int)
    assert np.ptp(grey, axis=1).max() <= 1
    below = luminance <= WHITE * KNEE
    np.testing.assert_allclose(
        grey[below, 0], 255 * (luminance[below] / WHITE) ** (1 / 2.4), atol=1
    )  # untouched
    assert (np.diff(grey[:7, 0]) > 0).all()
    assert grey[6:, 0].tolist() == [255, 255]


def test_colours_that_cannot_be_converted_are_refused(tmp_path):
    encode(tmp_path / "clip.mp4", "libx264", numbered(2), options={"x264-params": "colormatrix=YCgCo"})
    with pytest.raises(InputError, match=r"clip\.mp4: FFmpeg's scaler cannot convert.*colour matrix 8"):
        read_frames(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    ("matrix", "mirror"),
    [((-1, 0, 0, 1), lambda f: f[:, :, ::-1]), ((1, 0, 0, -1), lambda f: f[:, ::-1]),
     ((0, 1, 1, 0), lambda f: f.swapaxes(1, 2)), ((0, -1, -1, 0), lambda f: f.swapaxes(1, 2)[:, ::-1, ::-1])],
    ids=["left and right", "up and down", "transposed", "transposed the other way"],
)  # fmt: skip
def test_a_mirrored_picture_is_shown_mirrored(tmp_path, matrix, mirror):
    frames = panning(2, 48, 64)
    write_video(tmp_path / "selfie.mp4", frames, 16, crf=8)
    turn(tmp_path / "selfie.mp4", matrix)
    read = read_frames(tmp_path / "selfie.mp4")
    assert read.shape == mirror(frames).shape
    assert np.abs(read.astype(int) - mirror(frames)).mean() < 4
    info = probe(tmp_path / "selfie.mp4")
    assert (info.height, info.width) == read.shape[1:3]


@pytest.mark.parametrize("kind", ["APNG", "PNG in MOV"])
def test_a_profile_of_pictures_in_png_is_followed(tmp_path, kind):
    with Image.open(CASES / "key_p3_rgba.png") as picture:
        pictures, profile = [picture.convert("RGB")] * 2, picture.info["icc_profile"]
    path = tmp_path / ("a.png" if kind == "APNG" else "a.mov")
    if kind == "APNG":
        one = Image.new("RGB", pictures[0].size)
        pictures[0].save(path, save_all=True, append_images=[one], duration=40, icc_profile=profile)
    else:
        stored = io.BytesIO()
        pictures[0].save(stored, "png", icc_profile=profile)
        with av.open(path, "w") as out:
            stream = out.add_stream("png", rate=24)
            stream.width, stream.height, stream.pix_fmt = *pictures[0].size, "rgb24"
            packet = av.Packet(stored.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 24)
            packet.is_keyframe = True
            out.mux(packet)
    notes = []
    frame = read_frames(path, notes=notes)[0]
    truth = load_image(CASES / "edited0.png").pixels
    assert np.abs(frame.astype(int) - truth).mean() < 0.5
    assert "Display P3" in notes[0]


def test_transparency_of_an_animated_avif_is_seen(tmp_path):
    shown = np.full((32, 32, 4), (230, 30, 30, 255), np.uint8)
    shown[:, 16:, 3] = 0
    pictures = [Image.fromarray(shown), Image.fromarray(shown[:, ::-1])]
    pictures[0].save(tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=40, quality=100)
    source = read_source(tmp_path / "a.avif")
    assert (len(source.frames), source.fps) == (2, 25)
    assert source.frames[0][:, 20:].min() > 250
    assert np.abs(source.frames[1][:, 20:].mean(axis=(0, 1)) - (230, 30, 30)).max() < 3
    assert "transparent places laid over white" in source.notes


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparency_of_webm_is_seen(tmp_path, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    frames = np.full((3, 48, 64, 4), (30, 200, 40, 255), np.uint8)
    frames[:, :, 32:, 3] = 0
    with av.open(tmp_path / "clip.webm", "w") as out:
        stream = out.add_stream(codec, rate=24, options={"crf": "4", "b": "2M", "auto-alt-ref": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format="yuva420p")
            picture.pts, picture.time_base = index, Fraction(1, 24)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    clip = read_source(tmp_path / "clip.webm")
    assert np.abs(clip.frames[:, :, 40:].astype(int) - 255).max() <= 3
    assert np.abs(clip.frames[:, :, :24].astype(int) - (30, 200, 40)).max() <= 6
    assert clip.notes == ("transparent places laid over white",)


@pytest.mark.parametrize(
    ("aspect", "shown"), [("64\\:45", (48, 92)), ("8\\:9", (54, 64)), ("1\\:1", (48, 64))]
)
def test_pixels_become_square_and_none_is_lost(tmp_path, aspect, shown):
    options = {"x264-params": f"sar={aspect}"}
    encode(tmp_path / "dv.mp4", "libx264", numbered(2), options=options)
    assert read_frames(tmp_path / "dv.mp4").shape[1:3] == shown


class Pipe:
    """A file that only grows, as standard output does."""

    def __init__(self, path):
        self.file = path.open("wb")

    def write(self, data):
        return self.file.write(data)


PIPED = [
    ("avi", "mjpeg", "yuvj420p"),
    ("matroska", "libx264", "yuv420p"),
    ("ivf", "libvpx", "yuv420p"),
    ("mpegts", "libx264", "yuv420p"),
]


@pytest.mark.parametrize(("container", "codec", "pix_fmt"), PIPED, ids=[p[0] for p in PIPED])
def test_what_a_pipe_wrote_is_whole(tmp_path, container, codec, pix_fmt):
    path = tmp_path / "piped"
    pipe = Pipe(path)
    with av.open(pipe, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
        for index, frame in enumerate(numbered(10)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    pipe.file.close()
    clip = read_source(path)
    assert (len(clip.frames), clip.fps) == (10, 25)


@pytest.mark.parametrize(
    ("rate", "clock", "found"),
    [
        (Fraction(24), Fraction(1, 100), 24),  # GIF
        (Fraction(60), Fraction(1, 100), 60),
        (Fraction(24000, 1001), Fraction(1, 90000), Fraction(24000, 1001)),
        (Fraction(24), Fraction(1, 1000), 24),  # Matroska
        (Fraction(30000, 1001), Fraction(1, 90000), Fraction(30000, 1001)),
        (Fraction(25, 2), Fraction(1, 1000), Fraction(25, 2)),
    ],
)
@pytest.mark.parametrize("frames", [24, 100])
def test_the_rate_is_what_the_packets_keep(rate, clock, found, frames):
    pts = [round(i / rate / clock) for i in range(frames + 1)]
    assert kept_rate(pts[:-1], pts[-1], clock, None) == found
    assert kept_rate(pts[:-1], pts[-1], clock, Fraction(25)) == found  # a header that is wrong
    assert kept_rate(pts[:-1], pts[-1], clock, rate) == rate


def test_uneven_times_have_their_mean_rate():
    pts = [0, 10, 20, 60]
    assert kept_rate(pts, 100, Fraction(1, 100), Fraction(30)) == 4
    assert kept_rate([0], 4, Fraction(1, 100), None) == 25


def test_a_lone_picture_has_a_rate(tmp_path):
    encode(tmp_path / "one.mp4", "libx264", numbered(1))
    assert scan(tmp_path / "one.mp4").fps == 25
