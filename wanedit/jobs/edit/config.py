"""EditConfig: everything an editing run can be told, the checks that need no model, and its keyframes."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wanedit.errors import InputError
from wanedit.runtime.settings import (
    Count,
    Index,
    Named,
    NotNegative,
    Positive,
    RunSettings,
    check_settings,
    parse_size,
)

KEYFRAMES_JSON = "keyframes.json"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

# One entry of "a.png:0,b.png:20": the shortest text up to a colon, an index, and a comma or the end.
_ENTRY = re.compile(r"(?P<path>.+?):(?P<index>[-+]?[0-9.]+)\s*(?:,\s*|$)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class EditConfig(RunSettings):
    """One editing run. Fields that are null take the value that the model was made for.

    Attributes:
        video: the source, a video file or a folder of images.
        keyframes: edited frames: pairs [path, frame], frames increasing; "a.png:0,b.png:20"; or a folder with a
            keyframes.json (as `wanedit style` writes it) or with images named by their frame, such as 0020.png.
        prompt: what the edited video shows.
        source_prompt: what the source shows; null for `prompt`, so that the keyframes alone make the difference.
        start: the first frame of the source to edit; keyframe indices count from it.
        num_frames: how many frames; null for all to the end. The model works on the next 4n+1 of them, the last frame
            held, and the output is cut back to exactly this many.
        fps: frames a second of a folder of images; null for 16.
        decoder: pyav, or decord (an extra).
        salvage: take what can be decoded of a damaged video.
        size: "width*height", multiples of 16; null for the source's shape at most as large as the model's own size.
        resize_policy: how the source comes to `size`: crop, pad (with black) or stretch. auto: stretch where the result
            has the source's own size, which undoes it; else crop.
        keyframe_fit: how a keyframe of another shape than the source is brought to that first: stretch; crop; inside:
            it is the middle of the frame, and the source stays around it. auto: whichever lays its edges nearest.
        long_source: what to do with a source beyond the model's limit. error; windows: average the velocities of
            overlapping windows of that length; whole: show it to the model at once.
        method: how to edit; `wanedit edit --help` lists the names.
        method_options: further fields of the method, such as {"strength": 0.7}; they win over the fields below.
        controller: of the method residual_corrected: residual, exponential, replacement or covariance.
        controller_options: further fields of the controller, such as {"solve": "full"}.
        alpha: how hard keyframes pull, 1 to 20 is usual.
        beta: how hard the clip pulls on its keyframes, 0 to 1 is usual.
        guidance_scale: classifier-free guidance of the edited clip, 1 to 10 is usual.
        source_guidance_scale: of the source; null for `guidance_scale`, which an exact identity needs.
        num_inference_steps: 20 to 100 is usual.
        shift: schedule shift.
        keyframe_encoding: how a keyframe becomes the latent of its slot's four frames. single: as a video of one frame;
            group: held for all of them; warped: moved to each of them by the source's optical flow; anchored: the
            source's latent and what the warped edit changes in it.
        restore: what the edit gets back in pixels. source: what the VAE lost of the source. residual: that, and what is
            missing at the keyframes, carried along the source's motion; for edits that move by themselves, such as
            falling snow. keyframes: that, and the keyframes themselves wherever the source's motion can be followed
            to them. auto: keyframes with the method residual_corrected, else none.
        output_size: of the result. model: what the model works at. source: the source's own, which `restore` fills with
            the source's and the keyframes' detail. auto: source where the edit is restored and no `size` is given.
        condition_keyframes: also show the keyframes to the model where it can be shown them.
        gpu_id: which device; null for the first.
    """

    job: Literal["edit"] = "edit"
    video: str = ""
    keyframes: str | list[Any] = field(default_factory=list)
    prompt: str = ""
    source_prompt: str | None = None
    start: Index = 0
    num_frames: Count | None = None
    decoder: Literal["pyav", "decord"] = "pyav"
    salvage: bool = False
    resize_policy: Literal["auto", "crop", "pad", "stretch"] = "auto"
    keyframe_fit: Literal["auto", "stretch", "crop", "inside"] = "auto"
    long_source: Literal["error", "windows", "whole"] = "error"
    method: str = "residual_corrected"
    method_options: dict[str, Any] = field(default_factory=dict)
    controller: Literal["residual", "exponential", "replacement", "covariance"] = "residual"
    controller_options: dict[str, Any] = field(default_factory=dict)
    alpha: NotNegative = 10.0
    beta: NotNegative = 0.0
    guidance_scale: NotNegative = 5.0
    source_guidance_scale: NotNegative | None = None
    num_inference_steps: Count = 50
    shift: Positive | None = None
    keyframe_encoding: Literal["single", "group", "warped", "anchored"] = "anchored"
    restore: Literal["auto", "none", "source", "residual", "keyframes"] = "auto"
    output_size: Literal["auto", "model", "source"] = "auto"
    condition_keyframes: bool = True
    gpu_id: Index | None = None
    output: Named = "outputs/edit"

    @property
    def devices(self) -> list[int]:
        """Device indices."""
        return [] if self.gpu_id is None else [self.gpu_id]


def check_edit(config: EditConfig) -> None:
    """Refuse values that no model can make sense of.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    check_settings(config)
    if "\0" in config.output:
        raise InputError("output holds a zero byte; expected a folder or the path of a video")
    if not config.video:
        raise InputError("video is empty; expected a video file or a folder of images")
    if config.cpu_threads is not None and config.cpu_threads > (os.cpu_count() or 1):
        raise InputError(f"cpu_threads is {config.cpu_threads}; this machine has {os.cpu_count()} cores")
    if config.size is not None:
        parse_size(config.size)


@dataclass(frozen=True)
class EditedFrame:
    """An edited picture of one frame of the source."""

    path: Path
    index: int


def parse_edited(
    value: str | Sequence[Any], folders: Sequence[Path] = (), start: int | None = None
) -> list[EditedFrame]:
    """Read edited keyframes from a folder, from "a.png:0,b.png:20" or from pairs [path, frame].

    Args:
        value: as above.
        folders: where to look for a relative path after the current folder.
        start: the frame of the source that frame numbers count from; None for not known.

    Raises:
        InputError: an entry is not a path and a frame number, its file does not exist, or a folder's keyframes.json
            counts from another frame.
    """
    if isinstance(value, str):
        # "" is the current folder to pathlib, and nothing at all to whoever wrote it.
        places = _places(value, folders) if value.strip() else []
        folder = next((place for place in places if there(place.is_dir)), None)
        pairs = _of_folder(folder, start) if folder is not None else _of_text(value)
    else:
        pairs = [_of_entry(entry, k) for k, entry in enumerate(value)]
    if not pairs:
        raise InputError('no keyframes; expected a folder of edited frames or "a.png:0,b.png:20"')
    return [EditedFrame(_existing(path, folders, k), index) for k, (path, index) in enumerate(pairs)]


def _places(path: str, folders: Sequence[Path]) -> list[Path]:
    candidate = Path(path).expanduser()
    return (
        [candidate] if candidate.is_absolute() else [candidate, *(folder / candidate for folder in folders)]
    )


def _existing(path: str, folders: Sequence[Path], number: int) -> Path:
    places = _places(path, folders)
    found = next((place for place in places if there(place.is_file)), None)
    if found is None:
        looked = " or ".join(str(place.absolute()) for place in dict.fromkeys(places))
        raise InputError(f"keyframe {number}: no file {looked}")
    return found


def there(test: Callable[[], bool]) -> bool:
    """Whether a path passes; one that is too long for a file name is not there, which pathlib raises instead."""
    try:
        return test()
    except OSError:
        return False


def _of_text(text: str) -> list[tuple[str, int]]:
    pairs, position, text = [], 0, text.strip()
    while position < len(text):
        match = _ENTRY.match(text, position)
        if match is None:
            raise InputError(
                f'keyframes: {text[position:]!r} is no folder and no "a.png:0,b.png:20" of files and frame numbers'
            )
        pairs.append((match["path"].strip(), _frame(match["index"], len(pairs))))
        position = match.end()
    return pairs


def _of_entry(entry: Any, number: int) -> tuple[str, int]:
    if isinstance(entry, EditedFrame):
        return str(entry.path), entry.index
    if isinstance(entry, dict) and set(entry) == {"path", "frame"}:
        entry = [entry["path"], entry["frame"]]
    if isinstance(entry, list | tuple) and len(entry) == 2:
        return str(entry[0]), _frame(entry[1], number)
    raise InputError(f"keyframe {number} is {entry!r}; expected [path, frame]")


def _frame(value: Any, number: int) -> int:
    try:
        if isinstance(value, bool) or float(value) != int(float(value)):
            raise ValueError
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"keyframe {number}: frame is {value!r}; expected a whole number") from None


def _of_folder(folder: Path, start: int | None) -> list[tuple[str, int]]:
    """Keyframes of a folder: by its keyframes.json, else by the numbers that its images are named."""
    record = folder / KEYFRAMES_JSON
    if record.is_file():
        return _of_record(record, start)
    images = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
    unnamed = [p.name for p in images if not p.stem.isdecimal()]
    if unnamed:
        raise InputError(
            f"{folder} has no {KEYFRAMES_JSON} and an image {unnamed[0]}; expected names that are frame numbers, "
            "such as 0020.png"
        )
    return sorted(((str(p.absolute()), int(p.stem)) for p in images), key=lambda pair: pair[1])


def _of_record(record: Path, start: int | None) -> list[tuple[str, int]]:
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
        pairs = [(str(entry["file"]), entry["frame"]) for entry in values["keyframes"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f'{record}: {error!r}; expected {{"keyframes": [{{"file": "0000.png", "frame": 0}}]}}'
        ) from None
    outside = [name for name, _ in pairs if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise InputError(f"{record} names {outside[0]!r}; expected files inside {record.parent}")
    made = values.get("start")
    if start is not None and made not in (None, start):
        raise InputError(f"{record}: keyframes were made with --start {made}; expected the same, not {start}")
    return [
        (str((record.parent / name).absolute()), _frame(index, k)) for k, (name, index) in enumerate(pairs)
    ]
