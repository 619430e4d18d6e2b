"""Files as people have them, in tests/cases: 24 frames of 192x128, each with known colours, orientation and number.

Six flat patches in the lowest 32 rows, an F at the top left, the frame's number in 6 bits at the top right (the lowest
bit rightmost). So what is read is measured: colour, which way is up, and the order of the frames.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wanedit.errors import InputError
from wanedit.video import load_image, probe, read_frames, read_source

CASES = Path(__file__).parents[1] / "cases"
PATCHES = np.array(
    [(230, 30, 30), (30, 200, 40), (30, 50, 230), (128, 128, 128), (235, 210, 40), (224, 172, 140)]
)


def patches(frame):
    """Mean colour of the six patches, (6, 3), away from their edges."""
    height, width = frame.shape[:2]
    rows = slice(height - 24 * height // 128, height - 8 * height // 128)
    each = [frame[rows, width * k // 6 + width // 24 : width * (k + 1) // 6 - width // 24] for k in range(6)]
    return np.array([patch.reshape(-1, 3).mean(axis=0) for patch in each])


def number(frame):
    """The frame's number, from its bits."""
    scale = frame.shape[1] / 192
    bits = [frame[4, round(frame.shape[1] - 8 * scale * (k + 0.5))].mean() > 127 for k in range(6)]
    return sum(bit << k for k, bit in enumerate(bits))


def is_upright(frame):
    """Whether the F at the top left agrees with the source's, and better than mirrored or upside down."""
    truth = load_image(CASES / "k0.png").pixels[:42, :48].mean(axis=2)
    corner = Image.fromarray(frame[: frame.shape[0] // 3, : frame.shape[1] // 4]).resize((48, 42))
    seen = np.asarray(corner).mean(axis=2)
    ways = [seen, seen[:, ::-1], seen[::-1], seen[::-1, ::-1]]
    agreement = [np.corrcoef(truth.ravel(), way.ravel())[0, 1] for way in ways]
    return agreement[0] > 0.7 and agreement[0] - max(agreement[1:]) > 0.3


VIDEOS = [
    # file, numbers of its frames, size, fps, levels that its colours may be off, what its notes say
    ("hdr_hlg.mov", range(24), (128, 192), 24, 6, ["HDR (HLG, BT.2020)"]),
    ("sar43.mp4", range(24), (128, 256), 24, 1.5, ["4:3 shown as 256x128"]),
    ("anim.gif", range(24), (128, 192), 24, 1, []),
    ("anim.webp", range(8), (128, 192), 24, 2, []),
    ("interlaced.mp4", range(0, 24, 2), (128, 192), 24, 1.5, ["bwdif"]),
    ("cover_first.mkv", range(24), (128, 192), 24, 1.5, []),
    ("cover_first.mp4", range(24), (128, 192), 24, 1.5, []),
    ("attach.mkv", range(24), (128, 192), 24, 1.5, []),
    ("browser_live.webm", range(24), (128, 192), 24, 1.5, ["names no length"]),
    ("vfr.mp4", range(24), (128, 192), 20, 1.5, ["each keeps its time"]),
    ("f2997.mp4", range(24), (128, 192), Fraction(30000, 1001), 1.5, []),
    ("rot90.mp4", range(24), (192, 128), 24, None, []),
    ("rot180.mp4", range(24), (128, 192), 24, None, []),
    ("fullrange601.mp4", range(24), (128, 192), 24, 1.5, []),
    ("fullrange709.mp4", range(24), (128, 192), 24, 1.5, []),
    ("fullrange_hevc.mp4", range(8), (128, 192), 24, 1.5, []),
    ("mjpeg_camera.avi", range(8), (128, 192), 24, 1.5, []),
    ("bt601.mp4", range(24), (128, 192), 24, 1.5, ["primaries of NTSC"]),
    ("untagged601.mp4", range(24), (128, 192), 24, 1.5, []),
    ("yuv444.mp4", range(24), (128, 192), 24, 1.5, []),
    ("hevc10_sdr.mp4", range(24), (128, 192), 24, 1, []),
    ("av1_10.mp4", range(8), (128, 192), 24, 1, []),
    ("prores.mov", range(12), (128, 192), 24, 1, []),
    ("odd.mp4", range(24), (127, 191), 24, 1.5, []),
    ("ts.ts", range(24), (128, 192), 24, 1.5, []),
    ("frag.mp4", range(24), (128, 192), 24, 1.5, []),
    ("negstart.mp4", range(8, 24), (128, 192), 24, 1.5, []),
]


@pytest.mark.parametrize(
    ("name", "numbers", "size", "fps", "off", "said"), VIDEOS, ids=[v[0] for v in VIDEOS]
)
def test_a_video_is_read_as_players_show_it(name, numbers, size, fps, off, said):
    clip = read_source(CASES / name)
    assert (clip.frames.shape[1:3], clip.fps) == (size, fps)
    info = probe(CASES / name)
    assert (info.height, info.width) == size
    frames = clip.frames
    if name.startswith("rot"):  # a film of one that was turned: its own F lies on its side
        frames = np.rot90(frames, {"rot90.mp4": -1, "rot180.mp4": 2}[name], (1, 2))
        off = 1.5
    assert [number(frame) for frame in frames] == list(numbers)
    assert is_upright(frames[0])
    assert np.abs(patches(frames[0]) - PATCHES).max() <= off
    assert len(clip.notes) == len(said)
    for note, part in zip(clip.notes, said, strict=True):
        assert part in note


@pytest.mark.parametrize(
    "name", ["interlaced.mp4", "hdr_hlg.mov", "sar43.mp4", "anim.webp", "browser_live.webm"]
)
def test_a_frame_is_the_same_read_alone_and_in_the_row(name):
    whole = read_frames(CASES / name)
    for wanted in ([3], [0, 7], [len(whole) - 1]):
        np.testing.assert_array_equal(read_frames(CASES / name, wanted), whole[wanted])
    tail = read_source(CASES / name, start=5, num_frames=2).frames
    np.testing.assert_array_equal(tail, whole[5:7])


def test_no_comb_is_left_of_interlaced_fields():
    def comb(frame):
        """How much lines differ from both their neighbours, against how much lines two apart differ."""
        grey = frame[:96].astype(float).mean(axis=2)
        return np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean() / np.abs(grey[2:] - grey[:-2]).mean()

    progressive = [comb(frame) for frame in read_frames(CASES / "fullrange601.mp4")]
    assert max(comb(frame) for frame in read_frames(CASES / "interlaced.mp4")) < 1.1 * max(progressive)


def test_what_is_hidden_under_transparency_is_not_shown():
    clip = read_source(CASES / "png_alpha.mov")
    assert np.abs(patches(clip.frames[0])[:3] - PATCHES[:3]).max() <= 1
    assert (clip.frames[:, :, 100:] == 255).all()  # the right half, with green under it
    assert clip.notes == ("transparent places laid over white",)


def test_frames_of_a_variable_rate_keep_their_times():
    clip = read_source(CASES / "vfr.mp4")
    assert clip.clock is not None
    steps = np.diff([*clip.clock.pts, clip.clock.end]) * float(clip.clock.time_base)
    np.testing.assert_allclose(steps, [1 / 30] * 11 + [1 / 15] * 12 + [1 / 30], atol=1e-4)


PICTURES = [
    ("key_p3_rgba.png", 0.5, ["Display P3"]),
    ("key_rgb16.png", 0.5, ["16-bit"]),
    ("key_opaque_alpha.png", 0, []),
    ("key_cmyk.jpg", 2.5, ["CMYK"]),
    ("key_exif6.jpg", 2.5, ["EXIF orientation 6"]),
    ("key_mpo.jpg", 2.5, ["first of 2"]),
    ("key.webp", 0, []),
    ("key.avif", 2.5, []),
    ("key.heic", 2.5, []),
]


@pytest.mark.parametrize(("name", "off", "said"), PICTURES, ids=[p[0] for p in PICTURES])
def test_a_picture_is_read_as_it_was_meant(name, off, said):
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif", reason="pip install 'wanedit[heif]'")
    image, truth = load_image(CASES / name), load_image(CASES / "edited0.png").pixels.astype(int)
    assert np.abs(image.pixels - truth).mean() <= off
    assert len(image.notes) == len(said)
    for note, part in zip(image.notes, said, strict=True):
        assert part in note


def test_heic_without_its_reader_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setattr("wanedit.video.images.known_formats", lambda: ("PNG", "JPEG", "AVIF"))
    with pytest.raises(InputError, match=r"key\.heic: is HEIC.*wanedit\[heif\].*JPEG or PNG"):
        load_image(CASES / "key.heic")
