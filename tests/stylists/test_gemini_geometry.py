"""A picture onto a fixed canvas and back: every marker where it was, to half a pixel."""

import numpy as np
import pytest
from PIL import Image

from tests.stylists.fake_gemini import encoded, negative
from wanedit.stylists.gemini.faults import WrongImageError
from wanedit.stylists.gemini.pictures import SIZES_1K, decode, is_unchanged, plan

SIZES = [
    (1280, 720),
    (720, 1280),
    (101, 77),
    (640, 360),
    (77, 101),
    (1024, 1024),
    (833, 480),
    (64, 16),
    (1920, 817),
]
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.uint8)


def marked(width: int, height: int) -> np.ndarray:
    """Four coloured discs near the corners and one in the middle, on black; radii of at least three pixels."""
    picture = np.zeros((height, width, 3), np.uint8)
    radius = max(3.0, min(width, height) / 20)
    down, across = np.mgrid[:height, :width]
    for colour, (x, y) in zip(COLOURS, places(width, height), strict=True):
        picture[(across - x) ** 2 + (down - y) ** 2 <= radius**2] = colour
    return picture


def places(width: int, height: int) -> list[tuple[float, float]]:
    return [(width * x, height * y) for x, y in ((0.2, 0.25), (0.8, 0.25), (0.2, 0.75), (0.8, 0.75))]


def centroids(picture: np.ndarray) -> np.ndarray:
    """Centre of mass of each colour in its own quadrant, in fractions of a pixel."""
    height, width = picture.shape[:2]
    levels = picture.astype(float).sum(axis=2)
    found = []
    for x, y in places(width, height):
        left, top = (0, width // 2)[x > width / 2], (0, height // 2)[y > height / 2]
        part = levels[top : top + height // 2, left : left + width // 2]
        part = np.where(part > 60, part, 0)
        rows, columns = np.mgrid[: part.shape[0], : part.shape[1]]
        found.append(((columns * part).sum() / part.sum() + left, (rows * part).sum() / part.sum() + top))
    return np.array(found)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_round_trip_keeps_markers_in_place(width: int, height: int) -> None:
    picture = marked(width, height)
    transform = plan(picture)
    canvas = transform.apply(picture)
    assert (canvas.shape[1], canvas.shape[0]) == SIZES_1K[transform.ratio]
    back = transform.undo(canvas)
    assert back.shape == picture.shape
    assert np.abs(centroids(back) - centroids(picture)).max() < 0.1


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_jpeg_of_another_resolution_is_mapped_back(width: int, height: int, factor: float) -> None:
    picture = marked(width, height)
    transform = plan(picture)
    canvas = Image.fromarray(transform.apply(picture))
    size = (round(canvas.width * factor), round(canvas.height * factor))
    sent = encoded(np.array(canvas.resize(size, Image.Resampling.LANCZOS)), "JPEG", quality=90)
    pixels, kind = decode(sent, "image/png")
    assert kind == "JPEG"
    assert np.abs(centroids(transform.undo(pixels)) - centroids(picture)).max() < 0.5


def test_sixteen_to_nine_is_drawn_at_1376_by_768() -> None:
    transform = plan(marked(1280, 720))
    assert (transform.ratio, transform.canvas, transform.box) == ("16:9", (1376, 768), (5, 0, 1370, 768))
    assert plan(marked(1280, 720), "2K").canvas == (2752, 1536)


def test_padding_mirrors_and_nothing_is_cut() -> None:
    picture = marked(640, 360)
    transform = plan(picture)
    canvas, left = transform.apply(picture), transform.box[0]
    assert left > 0
    assert np.array_equal(canvas[:, :left], canvas[:, left : 2 * left][:, ::-1])


def test_another_ratio_is_rejected() -> None:
    transform = plan(marked(1280, 720))
    transform.undo(np.zeros((768, 1408, 3), np.uint8))  # the older generation's 16:9
    with pytest.raises(WrongImageError, match=r"1024x1024.*1376x768"):
        transform.undo(np.zeros((1024, 1024, 3), np.uint8))


def test_only_the_source_counts_as_unchanged() -> None:
    rng = np.random.default_rng(0)
    noise = np.array(Image.fromarray(rng.integers(0, 256, (45, 80, 3), np.uint8)).resize((640, 360)))
    transform = plan(noise)
    for quality in (95, 75, 50):
        pixels, _ = decode(encoded(transform.apply(noise), "JPEG", quality=quality), "image/jpeg")
        assert is_unchanged(noise, transform.undo(pixels))
    assert not is_unchanged(noise, negative(noise))
    warmer = np.clip(noise + np.array([6, 0, -6]), 0, 255).astype(np.uint8)
    assert not is_unchanged(noise, warmer)
    grain = np.clip(noise + rng.normal(0, 15, noise.shape), 0, 255).astype(np.uint8)
    assert not is_unchanged(noise, grain)


def test_the_source_at_other_levels_counts_as_unchanged() -> None:
    picture = fine_noise(640, 360)
    for gain, offset in ((1.0, 4), (1.0, -4), (0.97, 0), (1.04, -3)):
        assert is_unchanged(picture, levelled(picture, gain, offset))
    for gain, offset in ((1.0, 12), (0.85, 0), (-1.0, 255)):
        assert not is_unchanged(picture, levelled(picture, gain, offset))


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (3840, 2160)])
def test_a_source_larger_than_its_canvas_is_known_by_the_canvas(width: int, height: int) -> None:
    canvas = plan(fine_noise(width, height, 1)).apply(fine_noise(width, height, 1))
    larger = np.array(Image.fromarray(canvas).resize((1408, 768), Image.Resampling.LANCZOS))
    assert is_unchanged(canvas, canvas)
    assert is_unchanged(canvas, levelled(canvas, 1.0, 4))
    assert is_unchanged(canvas, larger)
    assert not is_unchanged(canvas, negative(canvas))


def fine_noise(width: int, height: int, grain: int = 4) -> np.ndarray:
    """Noise of grains so many pixels wide."""
    coarse = np.random.default_rng(0).integers(20, 236, (height // grain, width // grain, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height)))


def levelled(picture: np.ndarray, gain: float, offset: float) -> np.ndarray:
    return np.clip(picture * gain + offset, 0, 255).astype(np.uint8)


def test_what_is_no_image_is_rejected_with_its_type() -> None:
    with pytest.raises(WrongImageError, match=r"image/svg\+xml.*no image"):
        decode(b"<svg/>", "image/svg+xml")
    with pytest.raises(WrongImageError, match="truncated"):
        decode(encoded(marked(64, 64))[:-40], "image/png")
    with pytest.raises(WrongImageError, match="more than the 100 pixels"):
        decode(encoded(marked(64, 64)), "image/png", max_pixels=100)
