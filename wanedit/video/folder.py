"""A folder of images as a clip: one file a frame, in natural order of the names."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from wanedit.errors import InputError
from wanedit.video.arrays import size_text
from wanedit.video.images import FORMATS, MAX_PIXELS, LoadedImage, load_image

_NAMED = 3  # at most, in an error


def list_images(folder: str | Path) -> tuple[Path, ...]:
    """The images of a folder, `frame_2` before `frame_10`. Frame i of the clip is entry i, whatever its name.

    Files and folders whose names begin with a dot do not count.

    Raises:
        InputError: no such folder; no image in it; something in it that is no image by its name; two images
            whose names differ in the suffix only.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=_natural)
    others = [p.name for p in entries if p.is_dir() or p.suffix.lower() not in _suffixes()]
    if others:
        raise InputError(
            f"{folder}: expected nothing but images and hidden files, found {_some(others)}; "
            "take them out, or give the path of a folder that holds the frames alone"
        )
    if not entries:
        raise InputError(f"{folder}: no images")
    _require_distinct(folder, entries)
    return tuple(entries)


def load_images(paths: Iterable[Path], *, max_pixels: int = MAX_PIXELS) -> Iterator[LoadedImage]:
    """Load images one by one, as `load_image` does, all of one size once they are upright.

    Raises:
        InputError: as `load_image`; or at the first image of another size than the first, naming both.
    """
    first: LoadedImage | None = None
    for path in paths:
        image = load_image(path, max_pixels=max_pixels)
        first = first or image
        if image.pixels.shape != first.pixels.shape:
            raise InputError(
                f"{path.parent}: {first.path.name} is {size_text(first.pixels)}, "
                f"{path.name} is {size_text(image.pixels)}; expected images of one size"
            )
        yield image


@cache
def _suffixes() -> frozenset[str]:
    """Those of the formats that `load_image` reads."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, name in known.items() if name in FORMATS)


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Numbers in a name by their value: text and numbers alternate, so that like is compared with like."""
    parts = re.split(r"(\d+)", path.stem.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name


def _require_distinct(folder: Path, entries: Sequence[Path]) -> None:
    seen: dict[str, str] = {}
    for path in entries:
        if path.stem in seen:
            raise InputError(
                f"{folder}: {seen[path.stem]} and {path.name} would be the same frame; keep one of them"
            )
        seen[path.stem] = path.name


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
