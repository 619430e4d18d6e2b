import os
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.video.scenes import texture
from wanedit.errors import InputError
from wanedit.video import write_video
from wanedit.video.images import fit, from_pillow, load_image
from wanedit.video.libav import scan

PICTURE = texture(30, 40)


def save(path, pixels, mode=None, **options):
    Image.fromarray(pixels, mode).save(path, **options)
    return path


def test_plain_rgb_comes_back_exact(tmp_path):
    image = load_image(save(tmp_path / "a.png", PICTURE))
    np.testing.assert_array_equal(image.pixels, PICTURE)
    assert (image.size, image.mode, image.notes) == ((30, 40), "RGB", ())


@pytest.mark.parametrize("name", ["with space", "ключ 关键帧", "a=b", "a:b", "%d"])
def test_names_with_anything_in_them(tmp_path, name):
    assert load_image(save(tmp_path / f"{name}.png", PICTURE)).path.stem == name


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_exif_rotation_is_applied_and_noted(tmp_path, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(save(tmp_path / "a.png", PICTURE, exif=exif))
    np.testing.assert_array_equal(image.pixels, expected(PICTURE))
    assert image.size == (30, 40)
    assert image.notes == (f"EXIF orientation {orientation} applied",)


@pytest.mark.fault(8)
def test_alpha_is_laid_over_white(tmp_path):
    rgba = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
    rgba[:10, :, 3] = 0
    rgba[10:20, :, 3] = 128
    image = load_image(save(tmp_path / "a.png", rgba))
    assert (image.pixels[:10] == 255).all()
    np.testing.assert_allclose(image.pixels[10:20], PICTURE[10:20] * 0.502 + 255 * 0.498, atol=1)
    np.testing.assert_array_equal(image.pixels[20:], PICTURE[20:])
    assert image.notes == ("transparent places laid over white",)


def test_a_transparent_palette_is_laid_over_white(tmp_path):
    palette = Image.fromarray(PICTURE).quantize(8)
    palette.save(tmp_path / "a.png", transparency=0)
    image = load_image(tmp_path / "a.png")
    assert (image.pixels[np.array(palette) == 0] == 255).all()
    assert "transparent" in image.notes[0]


@pytest.mark.fault(8)
def test_grey_becomes_rgb(tmp_path):
    grey = PICTURE[..., 0]
    image = load_image(save(tmp_path / "a.png", grey))
    np.testing.assert_array_equal(image.pixels, np.dstack([grey] * 3))
    assert image.notes == ("L converted to RGB",)


@pytest.mark.fault(8)
def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    levels = np.linspace(0, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    image = load_image(save(tmp_path / "a.png", levels))
    expected = np.rint(levels / 257)
    np.testing.assert_allclose(image.pixels[..., 0], expected, atol=0)
    assert image.notes[0] == "16-bit grey scaled to 8 bits"
    assert image.pixels.min() == 0
    assert image.pixels.max() == 255


@pytest.mark.fault(8)
def test_16_bit_colour_is_scaled_not_clipped(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), PICTURE[..., ::-1].astype(np.uint16) * 257)
    image = load_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, PICTURE)
    assert image.notes == ("16-bit colour reduced to 8 bits",)


@pytest.mark.fault(8)
def test_cmyk_becomes_rgb(tmp_path):
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    image = load_image(tmp_path / "a.jpg")
    assert (image.mode, image.notes) == ("CMYK", ("CMYK converted to RGB",))
    assert np.abs(image.pixels.astype(int) - PICTURE).mean() < 3


def test_a_colour_profile_is_followed(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    save(tmp_path / "a.png", PICTURE, icc_profile=lab)
    assert "colour profile" in load_image(tmp_path / "a.png").notes[0]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save(tmp_path / "b.png", PICTURE, icc_profile=srgb)
    assert load_image(tmp_path / "b.png").notes == ()
    save(tmp_path / "c.png", PICTURE, icc_profile=b"nonsense")
    image = load_image(tmp_path / "c.png")
    assert "colour profile ignored" in image.notes[0]
    np.testing.assert_array_equal(image.pixels, PICTURE)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (10, 200)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    image = load_image(tmp_path / "a.webp")
    assert (image.pixels == 10).all()
    assert image.notes == ("first of 2 frames taken",)


@pytest.mark.fault(6)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
def test_a_truncated_image_names_its_file(tmp_path, suffix):
    path = save(tmp_path / f"cut.{suffix}", texture(200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match=f"cut.{suffix}"):
        load_image(path)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.fault(7)
@pytest.mark.parametrize("sides", [(100_000, 100_000), (12_000, 12_000)])
def test_an_image_bomb_is_refused_by_its_header(tmp_path, sides):
    (tmp_path / "bomb.png").write_bytes(png_header(*sides))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"bomb\.png: .*pixels"):
            load_image(tmp_path / "bomb.png")


def test_the_cap_is_the_callers(tmp_path):
    path = save(tmp_path / "a.png", PICTURE)
    with pytest.raises(InputError, match="40x30 is more than the 1199 pixels allowed"):
        load_image(path, max_pixels=1199)
    load_image(path, max_pixels=1200)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "script.eps").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    save(tmp_path / "float.tiff", PICTURE[..., 0].astype(np.float32))
    for name in ("text.png", "empty.png", "script.eps", "float.tiff", "absent.png", "."):
        with pytest.raises(InputError):
            load_image(tmp_path / name)


def test_fit_to_its_own_size_changes_nothing():
    for policy in ("crop", "pad", "stretch"):
        pixels, record = fit(PICTURE, (30, 40), policy)
        np.testing.assert_array_equal(pixels, PICTURE)
        assert (record.aspect_change, record.warning) == (0, None)


@pytest.mark.fault(13)
def test_crop_keeps_the_middle():
    wide = np.zeros((20, 80, 3), np.uint8)
    wide[:, 30:50] = 255
    pixels, record = fit(wide, (40, 40))
    assert pixels.shape == (40, 40, 3)
    assert pixels[:, 4:-4].min() > 250  # Lanczos overshoots a little at the edges
    assert (record.scale, record.crop) == ((2, 2), (30, 0, 50, 20))
    assert record.aspect_change == pytest.approx(3)
    assert "300%" in (record.warning or "")


def test_pad_keeps_everything_and_stretch_fills():
    tall = np.full((80, 20, 3), 200, np.uint8)
    padded, record = fit(tall, (40, 40), "pad")
    assert (padded[:, 15:25] == 200).all()
    assert not padded[:, :15].any()
    assert record.crop == (0, 0, 20, 80)
    stretched, record = fit(tall, (40, 40), "stretch")
    assert (stretched == 200).all()
    assert record.scale == (0.5, 2)


@pytest.mark.parametrize(
    ("size", "warned"), [((30, 40), False), ((30, 47), False), ((30, 49), True), ((30, 32), True)]
)
def test_the_warning_begins_above_a_fifth(size, warned):
    assert bool(fit(PICTURE, size)[1].warning) is warned


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels, _ = fit(stripes, (16, 16))
    assert np.abs(pixels.astype(int) - 128).max() < 20


def test_bad_fits_are_refused():
    with pytest.raises(InputError, match="crop, pad, stretch"):
        fit(PICTURE, (8, 8), "squash")
    with pytest.raises(InputError, match="positive"):
        fit(PICTURE, (0, 8))


@pytest.mark.parametrize("size", [(1, 1), (17, 3), (480, 832), (33, 512)])
def test_two_keyframes_of_any_size_come_to_one(size):
    for source in (PICTURE, texture(31, 7), texture(200, 9)):
        for policy in ("crop", "pad", "stretch"):
            pixels, record = fit(source, size, policy)
            assert pixels.shape == (*size, 3)
            left, top, right, bottom = record.crop
            assert 0 <= left < right <= source.shape[1]
            assert 0 <= top < bottom <= source.shape[0]


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.webp"])
@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_an_orientation_is_noted_in_every_format(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (60, 40)).save(tmp_path / name, exif=exif)
    image = load_image(tmp_path / name)
    assert image.notes == (f"EXIF orientation {orientation} applied",)
    assert image.size == (40, 60)
    assert image.pixels.shape[:2] == ((60, 40) if orientation == 6 else (40, 60))


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif", "a.avif", "a.tif"])
def test_a_picture_cut_in_its_head_is_no_unknown_format(tmp_path, name):
    pictures = [Image.new("RGB", (60, 40), (k, 9, 9)) for k in (0, 99)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises(InputError, match="truncated"):
        load_image(tmp_path / name)


def test_pixels_without_a_range_are_not_called_damaged(tmp_path):
    Image.new("F", (8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: floating-point pixels have no defined range; convert"):
        load_image(tmp_path / "a.tif")
    for high in (255, 4095, 70_000):
        levels = np.linspace(0, high, 64).astype(np.int32).reshape(8, 8)
        Image.fromarray(levels).save(tmp_path / "b.tif")
        expected = rf"b\.tif: 32-bit .* no defined range \(0 to {high} here\); convert to 8 or 16 bits first"
        with pytest.raises(InputError, match=expected):
            load_image(tmp_path / "b.tif")


def test_sixteen_bits_that_pillow_holds_in_32_are_scaled(tmp_path):
    levels = (np.arange(64) * 1000).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 65535\n" + levels.tobytes())
    assert load_image(tmp_path / "a.pgm").pixels[..., 0].max() == round(63_000 / 257)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "mov"])
def test_a_video_is_called_one_and_how_to_take_a_frame_is_said(tmp_path, suffix):
    write_video(tmp_path / f"my film.{suffix}", np.zeros((5, 32, 32, 3), np.uint8), 16)
    for name in (f"my film.{suffix}", "renamed.png"):
        (tmp_path / "renamed.png").write_bytes((tmp_path / f"my film.{suffix}").read_bytes())
        with pytest.raises(
            InputError,
            match=f"{name}: is a video; expected a picture, such as its first one, which `ffmpeg -i ",
        ):
            load_image(tmp_path / name)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png: not an image of a known format"):
        load_image(tmp_path / "text.png")


RED = (230, 30, 30)
# The red above in other colours, by the code points of ITU-T H.273: Display P3 by LittleCMS, PQ by FFmpeg's zscale
# (npl=203), HLG by ITU-R BT.2087 and BT.2100 at 1000 cd/m2; linear light by IEC 61966-2-1.
TAGGED = {
    "Display P3": (12, 13, (211, 55, 45)),
    "PQ, BT.2020": (9, 16, (129, 80, 58)),
    "HLG, BT.2020": (9, 18, (160, 70, 43)),
    "linear light": (1, 8, (202, 3, 3)),
}


def with_chunk(path, colour, chunk, **options):
    save(path, np.full((32, 32, 3), colour, np.uint8), **options)
    data = path.read_bytes()
    path.write_bytes(
        data[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    )


def with_cicp(path, colour, *, tags, **options):
    with_chunk(path, colour, b"cICP" + bytes(tags), **options)


def with_nclx(path, colour, *, primaries, transfer, matrix=6):
    Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).save(path, quality=100, subsampling="4:4:4")
    before, after = path.read_bytes().split(b"colrnclx")
    path.write_bytes(before + b"colrnclx" + struct.pack(">3H", primaries, transfer, matrix) + after[6:])


@pytest.mark.parametrize("kind", TAGGED)
@pytest.mark.parametrize("suffix", ["png", "avif", "heic"])
def test_colours_that_tags_say_become_srgb(tmp_path, suffix, kind):
    primaries, transfer, stored = TAGGED[kind]
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        with_cicp(path, stored, tags=(primaries, transfer, 0, 1))
    elif suffix == "avif":
        with_nclx(path, stored, primaries=primaries, transfer=transfer)
    else:
        pytest.importorskip("pillow_heif").register_heif_opener()
        picture = Image.fromarray(np.full((32, 32, 3), stored, np.uint8))
        tags = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 6}
        picture.save(path, "HEIF", quality=100, chroma=444, **tags)  # pyright: ignore[reportArgumentType]
    image = load_image(path)
    # Of dark linear light one level is nine of sRGB, and YCbCr is off by one.
    lossy = 10 if kind == "linear light" and suffix != "png" else 4
    np.testing.assert_allclose(image.pixels[16, 16], RED, atol=7 if kind.startswith(("PQ", "HLG")) else lossy)
    assert len(image.notes) == 1
    assert kind in image.notes[0]
    in_memory = Image.open(path)
    assert np.array_equal(from_pillow(in_memory).pixels, image.pixels)
    assert np.array_equal(from_pillow(in_memory).pixels, image.pixels)  # which is decoded by now


def test_a_profile_of_linear_light_is_followed_though_it_is_called_srgb(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Its curve, parametric of type 3 with 2.4 first, as one of type 0 with 1.0 (ICC.1, section 10.18).
    linear = srgb.replace(b"para\0\0\0\0\0\3\0\0\0\2\x66\x66", b"para\0\0\0\0\0\0\0\0\0\1\0\0")
    assert linear != srgb
    save(tmp_path / "a.png", np.full((8, 8, 3), 55, np.uint8), icc_profile=linear)
    image = load_image(tmp_path / "a.png")
    assert np.abs(image.pixels.astype(int) - 128).max() <= 1  # 55 / 255 of light
    assert "sRGB" in image.notes[0]


def test_a_transparent_level_of_16_bit_grey_is_transparent(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.repeat(np.array([[1000, 1001]], np.uint16), 8, axis=0)).save(path)
    data, chunk = path.read_bytes(), b"tRNS" + struct.pack(">H", 1000)
    length, checksum = struct.pack(">I", 2), struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(data[:33] + length + chunk + checksum + data[33:])
    alpha = load_image(path).alpha
    assert alpha is not None
    np.testing.assert_array_equal(alpha, np.repeat([[0, 255]], 8, axis=0))


def test_tags_of_srgb_change_nothing(tmp_path):
    with_cicp(tmp_path / "a.png", RED, tags=(1, 13, 0, 1))
    image = load_image(tmp_path / "a.png")
    assert (image.pixels == RED).all()
    assert image.notes == ()


def test_cicp_comes_before_a_profile(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with_cicp(tmp_path / "a.png", TAGGED["Display P3"][2], tags=(12, 13, 0, 1), icc_profile=lab)
    image = load_image(tmp_path / "a.png")
    np.testing.assert_allclose(image.pixels[16, 16], RED, atol=4)
    assert image.notes == ("colours converted from Display P3 to BT.709",)


def test_a_profile_comes_before_a_gamma(tmp_path):
    path = tmp_path / "a.png"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with_chunk(path, RED, b"gAMA" + struct.pack(">I", 100_000), icc_profile=srgb)
    image = load_image(path)
    assert (image.pixels == RED).all()
    assert image.notes == ()


@pytest.mark.parametrize("tags", [(12, 13, 0, 0), (3, 13, 0, 1)], ids=["narrow range", "reserved primaries"])
def test_tags_that_nothing_converts_are_refused(tmp_path, tags):
    with_cicp(tmp_path / "a.png", RED, tags=tags)
    with pytest.raises(InputError, match=r"a\.png.*primaries.*export it as sRGB"):
        load_image(tmp_path / "a.png")


def test_a_colour_matrix_that_is_not_known_is_refused(tmp_path):
    with_nclx(tmp_path / "ictcp.avif", RED, primaries=9, transfer=16, matrix=14)
    with pytest.raises(InputError, match=r"ictcp\.avif.*export it anew, as PNG"):
        load_image(tmp_path / "ictcp.avif")


def test_a_gif_of_zeros_is_refused_at_once(tmp_path):
    path = tmp_path / "zeros.gif"
    path.write_bytes(b"GIF89a")
    os.truncate(path, 1 << 30)  # takes no room on the disk
    began = time.process_time()
    with pytest.raises(InputError, match="begins as GIF does, and is truncated or damaged"):
        load_image(path)
    with pytest.raises(InputError, match=r"zeros\.gif"):
        scan(path)
    assert time.process_time() - began < 5
