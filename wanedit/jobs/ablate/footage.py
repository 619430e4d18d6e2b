"""Real clips with masks: where benchmarks keep them, and a recolouring of what is masked, whose truth is exact.

DAVIS (davischallenge.org)     JPEGImages/480p/NAME/00000.jpg, Annotations/480p/NAME/00000.png, ImageSets
FiVE-Bench (arXiv 2503.13684)  images/NAME/00001.jpg, bmasks/NAME/00001.jpg, edit_prompt/edit1_FiVE.json
your own                       videos/NAME.mp4 or a folder, masks/NAME.mp4 or .png or a folder
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from wanedit.errors import InputError
from wanedit.files import read_text, reading
from wanedit.video.arrays import Frames
from wanedit.video.colour import lab_to_rgb, rgb_to_lab
from wanedit.video.images import Size, count_pictures, fit, list_images, load_image, load_images
from wanedit.video.source import open_source

# Folders of clips and of their masks; the first pair that is there counts.
LAYOUTS = (
    ("JPEGImages/480p", "Annotations/480p"),
    ("JPEGImages/Full-Resolution", "Annotations/Full-Resolution"),
    ("JPEGImages/1080p", "Annotations/1080p"),
    ("images", "bmasks"),
    ("videos", "masks"),
)
# Sequences that results are reported on, where a file names them: DAVIS 2017, then 2016.
SPLITS = ("ImageSets/2017/val.txt", "ImageSets/480p/val.txt", "ImageSets/2016/val.txt")
# In CIELAB: degrees by which hues are turned, and the chroma that is added, so that grey changes too.
TURN, ADDED = 120.0, 30.0
# Object replacement (rigid, non-rigid), colour, material, addition, removal.
FIVE_TYPES = (1, 2, 3, 4, 5, 6)

Masks = Bool[np.ndarray, "t h w"]


@dataclass(frozen=True)
class Sequence:
    """A clip and its mask: each a video or a folder of pictures; a mask may be one picture that holds throughout."""

    name: str
    video: Path
    mask: Path


def find_sequences(folder: Path, names: list[str] | None = None) -> list[Sequence]:
    """The clips of a benchmark's folder that have masks.

    Args:
        names: only these; null for those of the split that results are reported on, or all where none is named.

    Raises:
        InputError: a folder of no known layout, or a sequence that is not there.
    """
    for clips, masks in ((folder / clips, folder / masks) for clips, masks in LAYOUTS):
        if clips.is_dir() and masks.is_dir():
            break
    else:
        layouts = "; ".join(f"{clips} and {masks}" for clips, masks in LAYOUTS)
        raise InputError(f"{folder.absolute()} holds no clips with masks; expected the folders {layouts}")
    videos, masked = _by_name(clips), _by_name(masks)
    if names is None:
        split = next((path for name in SPLITS if (path := folder / name).is_file()), None)
        names = sorted(videos.keys() & masked) if split is None else _named(split)
    if not names:
        raise InputError(f"{clips} and {masks} have no name in common; expected a mask for each clip")
    for name in names:
        for what, found in ((clips, videos), (masks, masked)):
            if name not in found:
                raise InputError(f"{what} has no {name}; expected one of {', '.join(sorted(found)[:8])} …")
    return [Sequence(name, videos[name], masked[name]) for name in names]


def _named(split: Path) -> list[str]:
    """The sequences of a file of names or, in DAVIS 2016, of a picture and its mask in each line."""
    words = [line.split()[0] for line in read_text(split, "names of sequences").splitlines() if line.strip()]
    return list(dict.fromkeys(word.split("/")[-2] if "/" in word else word for word in words))


def _by_name(folder: Path) -> dict[str, Path]:
    return {
        path.stem if path.is_file() else path.name: path
        for path in sorted(folder.iterdir())
        if path.name[0] != "."
    }


def read_masks(path: Path, frames: int, size: Size, start: int = 0) -> Masks:
    """Masks of so many frames, brought to a size as a clip is: scaled until it is covered, the middle kept.

    In pictures whatever is not black is masked: benchmarks paint each object in a colour of its own. In a video, which
    is lossy, what is brighter than half.

    Raises:
        InputError: too few, or a file that cannot be read.
    """
    if path.is_dir():
        images = list_images(path)
        total, shown = (
            len(images),
            (one.pixels.max(-1) > 0 for one in load_images(images[start : start + frames])),
        )
    elif count_pictures(path) == 1:
        total, shown = start + frames, iter([load_image(path).pixels.max(-1) > 0] * frames)
    else:
        clip = open_source(path).frames
        total, shown = len(clip), (one.max(-1) > 127 for one in clip[start : start + frames])
    if total < start + frames:
        raise InputError(f"mask {path} has {total} frames; expected the clip's {start + frames}")
    return np.stack([_fitted(one, size) for one in shown])


def _fitted(mask: Bool[np.ndarray, "h w"], size: Size) -> Bool[np.ndarray, "H W"]:
    picture = np.repeat(np.where(mask, np.uint8(255), np.uint8(0))[..., None], 3, axis=-1)
    return fit(picture, size)[0][..., 0] > 127


def recolour(frames: Frames, masks: Masks) -> UInt8[np.ndarray, "t h w 3"]:
    """Frames (T, H, W, 3) whose masked pixels have other colours: lightness stays, the hue is turned by 120 degrees,
    and 30 of chroma are added along what the mean hue of the masked pixels becomes. One map for all frames, so that
    every frame is the exact truth of the edit that any of them shows; elsewhere no pixel changes. What leaves sRGB is
    clipped.

    Raises:
        InputError: nothing is masked.
    """
    if not masks.any():
        raise InputError("its mask is empty in every frame; expected something to recolour")
    lab = rgb_to_lab(frames[masks])
    turn = np.deg2rad(TURN)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], np.float32)
    turned = lab[:, 1:] @ rotation.T
    mean = turned.mean(axis=0)
    length = float(np.linalg.norm(mean))
    # The mean of grey has a hue by chance alone, which is as good as any other.
    along = mean / length if length > 0 else np.array([1, 0], np.float32)
    lab[:, 1:] = turned + ADDED * along
    made = frames.copy()
    made[masks] = lab_to_rgb(lab)
    return made


@dataclass(frozen=True)
class FiveEdit:
    """One of FiVE-Bench's edits.

    Attributes:
        type: 1 to 6, of `FIVE_TYPES`.
        source_prompt, target_prompt: without the brackets that mark what is edited.
    """

    type: int
    sequence: Sequence
    source_prompt: str
    target_prompt: str

    @property
    def name(self) -> str:
        """Of its folder of keyframes, too."""
        return f"edit{self.type}/{self.sequence.name}"


def read_five(folder: Path, types: list[int]) -> list[FiveEdit]:
    """The edits of FiVE-Bench's folder, type by type; those of clips without a mask are left out, as its own code does.

    Raises:
        InputError: a type, a file or a clip that is not there, or an entry that lacks what is needed.
    """
    if not types or any(one not in FIVE_TYPES for one in types):
        raise InputError(f"data: types are {types}; expected some of {', '.join(map(str, FIVE_TYPES))}")
    masked = {one.name: one for one in find_sequences(folder)}
    return [edit for kind in types for edit in _edits(folder, kind, masked)]


def _edits(folder: Path, kind: int, masked: dict[str, Sequence]) -> Iterator[FiveEdit]:
    path, keys = (
        folder / "edit_prompt" / f"edit{kind}_FiVE.json",
        ("video_name", "source_prompt", "target_prompt"),
    )
    expected = f"FiVE-Bench's edits: a list of entries with {', '.join(keys)}"
    text = read_text(path, expected)
    with reading(path, expected):
        entries = json.loads(text)
    for entry in entries if isinstance(entries, list) else [entries]:
        said = [entry.get(key) if isinstance(entry, dict) else None for key in keys]
        name, source, target = (one if isinstance(one, str) else "" for one in said)
        if not (name and source and target):
            raise InputError(f"{path} has an entry {str(entry)[:80]!r}; expected {expected}")
        if name in masked:
            source, target = (prompt.replace("[", "").replace("]", "") for prompt in (source, target))
            yield FiveEdit(kind, masked[name], source, target)
        elif not (folder / "images" / name).exists():
            raise InputError(f"{path} names the clip {name!r}, which {folder / 'images'} has not")
