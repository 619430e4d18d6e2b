"""WanVideoEditorPipeline: editing as a Python object."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from PIL import Image

from wanedit.errors import InputError
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.run import EditResult, edit
from wanedit.runtime.settings import with_changes
from wanedit.video import write_lossless, write_png
from wanedit.video.arrays import AnyFrame, require_frame, require_same_size, size_text
from wanedit.video.source import FOLDER_FPS

Picture = Image.Image | np.ndarray | str | Path
Number = int | float | np.number
# Side of VAE tiles under `tiled`; four tiles of 256 cover 480p.
TILE = 256
# Fields of EditConfig that the call has arguments for.
TAKEN = {"video": "source_video", "keyframes": "edited_keyframes", "base_seed": "seed"}
# Sides that the lossless codec of frames in memory takes for sure.
SMALLEST = 16


class WanVideoEditorPipeline:
    """Edits videos with one Wan model.

    Args:
        config: settings that all edits share; keyword arguments override single fields of it.

    Example:
        >>> pipeline = WanVideoEditorPipeline.from_pretrained("tiny")
        >>> frames = pipeline(
        ...     prompt="a blue ball rolls", source_video="ball.mp4", edited_keyframes=["blue.png"], keyframe_indices=[0]
        ... )
    """

    def __init__(self, config: EditConfig | None = None, **settings: object) -> None:
        self.config = with_changes(config or EditConfig(), **settings)
        self.last: EditResult | None = None

    @classmethod
    def from_pretrained(cls, model: str | Path, **settings: Any) -> "WanVideoEditorPipeline":
        """A pipeline for a known name, a folder in the official layout, or `package.module:Class` of another model.

        Raises:
            InputError: none of them.
            MissingWeightsError: a known model that is not on this machine.
        """
        from wanedit.lit.model import open_model

        open_model(str(model))
        return cls(model=str(model), **settings)

    def enable_vram_management(self) -> None:
        """Keep the transformer in host memory while the VAE works, and the text encoder on the CPU."""
        self.config = replace(self.config, offload_model=True, t5_cpu=True)

    def __call__(
        self,
        prompt: str,
        source_video: str | Path | Sequence[Picture] | np.ndarray,
        edited_keyframes: Sequence[Picture],
        keyframe_indices: Sequence[int] | np.ndarray,
        alpha: Number | None = None,
        beta: Number | None = None,
        cfg_scale: Number | None = None,
        num_inference_steps: Number | None = None,
        tiled: bool | None = None,
        seed: Number | None = None,
        output: str | Path | None = None,
        verbose: bool = False,
        **settings: object,
    ) -> list[Image.Image]:
        """Edit one video.

        Args:
            prompt: what the edited video shows.
            source_video: a path, or frames as PIL images, arrays (H, W, 3) uint8, paths, or one array (T, H, W, 3).
            edited_keyframes: pictures of the same kinds.
            keyframe_indices: the frame of the source that each is an edit of.
            alpha, beta, num_inference_steps, seed: as in EditConfig; None keeps the pipeline's own.
            cfg_scale: guidance_scale of EditConfig; None likewise.
            tiled: encode and decode in tiles of 256 pixels, or not; None keeps the pipeline's own.
            output: a folder to keep the run in, which then resumes; a temporary one by default.
            verbose: print what the command line would.
            settings: further fields of EditConfig.

        Returns:
            As many frames as the source has. `last` holds the whole result; without `output` its files are gone
            with the temporary folder.

        Raises:
            InputError, MissingWeightsError, ResourceError, NumericalError: as `wanedit.jobs.edit.run.edit`.
        """
        pictures = _list(edited_keyframes, "edited_keyframes")
        indices = frame_numbers(keyframe_indices, "keyframe_indices")
        if len(pictures) != len(indices):
            raise InputError(
                f"{len(pictures)} edited keyframes and {len(indices)} keyframe indices; "
                "expected one index for each"
            )
        named = {
            "alpha": alpha,
            "beta": beta,
            "guidance_scale": cfg_scale,
            "num_inference_steps": num_inference_steps,
            "base_seed": seed,
        }
        for name, own in TAKEN.items():
            if name in settings:
                raise InputError(f"{name} is no argument of the pipeline; expected {own}")
        changes = {name: value for name, value in named.items() if value is not None} | settings
        _require(tiled, bool | np.bool_, "tiled", "true, false or None")
        _require(output, str | Path, "output", "a folder or the path of a video")
        if tiled is not None and "tile" in settings:
            raise InputError(f"tiled is {tiled} and tile {settings['tile']}; expected one of the two")
        if tiled is not None:
            changes["tile"] = TILE if tiled else None
        with tempfile.TemporaryDirectory(prefix="wanedit-") as folder:
            scratch = Path(folder)
            video, pairs = _source(source_video, scratch), []
            for k, (picture, index) in enumerate(zip(pictures, indices, strict=True)):
                if isinstance(picture, str | Path):
                    path = Path(picture)
                else:
                    path = scratch / f"keyframe_{k}.png"
                    write_png(path, pixels_of(picture, f"keyframe {k}"))
                pairs.append([str(path), index])
            config = with_changes(
                self.config,
                prompt=prompt,
                video=video,
                keyframes=pairs,
                output=str(scratch / "run" if output is None else output),
                **changes,
            )
            self.last = edit(config, verbose=verbose)
        return [Image.fromarray(frame) for frame in self.last.frames]


def _list(value: object, name: str) -> list[Any]:
    """The items of a list, tuple or array; a lone picture or text is none of them."""
    if isinstance(value, str | Path | Image.Image) or not isinstance(value, Iterable):
        raise InputError(f"{name} is {_short(value)}; expected a list of them")
    return list(value)


def frame_numbers(value: object, name: str) -> list[int]:
    """Frame numbers, NumPy's too, as plain integers; none is rounded.

    Raises:
        InputError: no list, or an entry that is no whole number; `name` is the argument's.
    """
    found = []
    for k, index in enumerate(_list(value, name)):
        if isinstance(index, bool) or not isinstance(index, int | np.integer):
            raise InputError(f"{name}[{k}] is {_short(index)}; expected a whole number")
        found.append(int(index))
    return found


def _require(value: object, kind: type | UnionType, name: str, expected: str) -> None:
    """See that an argument that is given is of its kind."""
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{name} is {_short(value)}; expected {expected}")


def _short(value: object) -> str:
    """A value as a message names it."""
    plain = isinstance(value, str | Path | int | float | None)
    return repr(value) if plain else f"of type {type(value).__name__}"


def _source(video: object, scratch: Path) -> str:
    """The path of a source; frames in memory are written without loss first."""
    if isinstance(video, str | Path):
        return str(video)
    if isinstance(video, Image.Image) or not isinstance(video, Sequence | np.ndarray) or not len(video):
        got = "empty" if isinstance(video, Sequence | np.ndarray) else f"of type {type(video).__name__}"
        raise InputError(f"source_video is {got}; expected a path, or one frame or more")
    frames = [pixels_of(frame, f"frame {i} of source_video") for i, frame in enumerate(video)]
    if min(frames[0].shape[:2]) < SMALLEST:
        raise InputError(
            f"source_video is {size_text(frames[0])}; expected at least {SMALLEST} pixels each way"
        )
    path = scratch / "source.mkv"
    write_lossless(path, np.stack(list(require_same_size(frames, "source_video"))), FOLDER_FPS)
    return str(path)


def pixels_of(picture: Picture, what: str) -> AnyFrame:
    """A picture as uint8 RGB (H, W, 3), whatever it comes as.

    Raises:
        InputError: a file that is no picture, or an array of another kind; `what` names it.
    """
    from wanedit.video.images import from_pillow, load_image

    if isinstance(picture, str | Path):
        return load_image(picture).pixels
    if isinstance(picture, Image.Image):
        return from_pillow(picture, what).pixels
    return require_frame(picture, what)
