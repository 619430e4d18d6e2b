import numpy as np
import pytest
from PIL import Image

from tests.video.scenes import numbered, read_number, texture
from wanedit.errors import InputError
from wanedit.video.images import list_images, load_images


def save(folder, name, pixels=None):
    Image.fromarray(texture(16, 24) if pixels is None else pixels).save(folder / name)


def test_numbers_in_names_count_by_their_value(tmp_path):
    ordered = [
        "2.png",
        "shot1_9.png",
        "shot1_10.png",
        "Shot2_1.png",
        "shot10_0.png",
        "кадр2.png",
        "кадр10.png",
    ]
    for name in reversed(ordered):
        save(tmp_path, name)
    assert [path.name for path in list_images(tmp_path)] == ordered


def test_leading_zeros_do_not_matter_and_equal_numbers_stand_by_name(tmp_path):
    for name in ("f010.png", "f9.png", "f09.png", "f0100.png"):
        save(tmp_path, name)
    assert [path.name for path in list_images(tmp_path)] == ["f09.png", "f9.png", "f010.png", "f0100.png"]


def test_every_format_and_case_of_suffix_is_taken(tmp_path):
    for number, suffix in enumerate(("png", "JPG", "jpeg", "webp", "tif", "TIFF", "bmp", "ppm")):
        save(tmp_path, f"{number}.{suffix}")
    assert len(list(load_images(list_images(tmp_path)))) == 8


def test_what_is_no_image_is_named_unless_hidden(tmp_path):
    save(tmp_path, "1.png")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    assert len(list_images(tmp_path)) == 1
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"nothing but images and hidden files, found notes\.txt; take"):
        list_images(tmp_path)
    for name in "abc":
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"found a, b, c and 1 more"):
        list_images(tmp_path)


def test_what_holds_no_clip_is_refused(tmp_path):
    with pytest.raises(InputError, match="no images"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        list_images(tmp_path / "absent")
    save(tmp_path, "1.png")
    with pytest.raises(InputError, match="not a folder"):
        list_images(tmp_path / "1.png")
    save(tmp_path, "1.jpg")
    with pytest.raises(InputError, match=r"1\.jpg and 1\.png would be the same frame"):
        list_images(tmp_path)


def test_the_first_two_sizes_that_differ_are_named(tmp_path):
    for number, height in enumerate((16, 16, 20, 30)):
        save(tmp_path, f"{number}.png", texture(height, 24))
    images = load_images(list_images(tmp_path))
    assert [next(images).path.name for _ in range(2)] == ["0.png", "1.png"]
    with pytest.raises(InputError, match=r"0\.png is 24x16, 2\.png is 24x20; expected images of one size"):
        next(images)


def test_a_turned_image_counts_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(texture(24, 16)).save(tmp_path / "0.png", exif=exif)
    save(tmp_path, "1.png")
    assert [image.pixels.shape for image in load_images(list_images(tmp_path))] == [(16, 24, 3)] * 2


def test_damage_and_size_limits_are_those_of_images(tmp_path):
    for number, frame in enumerate(numbered(3)):
        save(tmp_path, f"{number}.png", frame)
    assert [read_number(i.pixels) for i in load_images(list_images(tmp_path))] == [0, 1, 2]
    with pytest.raises(InputError, match=r"0\.png: 64x48 is more than the 3000 pixels allowed"):
        list(load_images(list_images(tmp_path), max_pixels=3000))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / "2.png")
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"2\.png: is truncated"):
        list(load_images(list_images(tmp_path)))
