"""WanVideoEditorPipeline: editing as a Python object, and the ModelManager that programs for diffsynth make it from."""

import os
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
import torch
from PIL import Image

from wanedit.errors import InputError
from wanedit.files import at_home
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.run import EditResult, edit
from wanedit.runtime.outputs import check_outputs, film_metadata
from wanedit.runtime.settings import canonical, with_changes
from wanedit.timeline import Seconds, rate_of
from wanedit.video import write_lossless, write_png, write_video
from wanedit.video.arrays import require_same_size, size_text
from wanedit.video.formats import Format, format_of
from wanedit.video.sound import Sound, SoundOf, silent
from wanedit.video.source import FOLDER_FPS
from wanedit.video.tensors import Picture, pixels_of

StrPath = str | os.PathLike[str]
Number = int | float | np.number
# Fields of EditConfig that the call has arguments for.
TAKEN = {"video": "source_video", "keyframes": "edited_keyframes", "base_seed": "seed"}
# Sides that the lossless codec of frames in memory takes for sure.
SMALLEST = 16


class ModelManager:
    """What a pipeline is made of, as programs for diffsynth name it: found and looked over, loaded when it is needed.

    Args:
        torch_dtype, device: of the weights; `WanVideoEditorPipeline.from_model_manager` says what becomes of them.
        model_id_list: known names, hub ids or folders in the official layout; a lone text is one of them.
        file_path_list: weight files, or lists of shards, which stand for the folder that they lie in.

    Raises:
        InputError: neither a known name nor a folder; a part of another model than the first.
        MissingWeightsError: not on this machine; the message says how to download it.

    Examples:
        >>> manager = ModelManager(model_id_list=["models/WAN-1.3B"])
        >>> pipe = WanVideoEditorPipeline.from_model_manager(manager)
    """

    def __init__(
        self,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        model_id_list: StrPath | Sequence[StrPath] = (),
        file_path_list: StrPath | Sequence[StrPath | Sequence[StrPath]] = (),
    ) -> None:
        self.torch_dtype, self.device = torch_dtype, device
        self.model: str | None = None
        self.load_models([*_several(model_id_list), *_several(file_path_list)])

    def load_models(self, places: StrPath | Sequence[StrPath | Sequence[StrPath]]) -> None:
        """Find a model by its names, folders or files; several are parts of one."""
        from wanedit.lit.model import open_model
        from wanedit.wan.formats.layouts import EXPERTS

        for place in _list(_several(places), "models"):
            source = os.fspath(place if isinstance(place, str | os.PathLike) else next(iter(place)))
            if (file := at_home(source)).is_file():
                source = str(file.parent.parent if file.parent.name in EXPERTS.values() else file.parent)
            if self.model is not None and Path(source) != Path(self.model):
                raise InputError(
                    f"{source} is another model than {self.model}; expected the folder of one model, or files in it"
                )
            open_model(source)
            self.model = source


class WanVideoEditorPipeline:
    """Edits videos with one Wan model.

    Args:
        config: settings that all edits share; keyword arguments override single fields of it.

    Examples:
        >>> pipeline = WanVideoEditorPipeline.from_pretrained("tiny")
        >>> frames = pipeline(
        ...     prompt="a blue ball rolls", source_video="ball.mp4", edited_keyframes=["blue.png"], keyframe_indices=[0]
        ... )
    """

    def __init__(self, config: EditConfig | None = None, **settings: object) -> None:
        self.config = with_changes(config or EditConfig(), **settings)
        self.last: EditResult | None = None

    @classmethod
    def from_pretrained(cls, model: StrPath, **settings: Any) -> "WanVideoEditorPipeline":
        """A pipeline for a known name, a hub id, a folder in the official layout, or `package.module:Class`.

        Raises:
            InputError: none of them.
            MissingWeightsError: a known model that is not on this machine; the message says how to download it.
        """
        from wanedit.lit.model import open_model

        open_model(os.fspath(model))
        return cls(model=os.fspath(model), **settings)

    @classmethod
    def from_model_manager(
        cls,
        model_manager: ModelManager,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        **settings: Any,
    ) -> "WanVideoEditorPipeline":
        """A pipeline for the model of a manager.

        Args:
            torch_dtype: a warning says so where it is not what is computed in: bfloat16 on an accelerator, float32 on a
                CPU, as the official code does.
            device: "cuda" is the first GPU, "cuda:1" another; a warning says so where there is none. The manager's own
                only says where weights wait: `offload_model` decides that here.
            settings: fields of EditConfig, as for the class.

        Raises:
            InputError: the manager has no model; a device that this machine does not have.
        """
        from wanedit.wan.load import default_dtype

        if model_manager.model is None:
            raise InputError(
                'the ModelManager has no model; expected model_id_list=["WAN-1.3B"], or load_models'
            )
        gpu, place = torch.cuda.is_available(), torch.device(device or "cuda")
        used, asked = default_dtype("cuda" if gpu else "cpu"), torch_dtype or model_manager.torch_dtype
        if place.type == "cpu" and gpu:
            raise InputError(
                "device is cpu on a machine with a GPU; expected CUDA_VISIBLE_DEVICES= before it starts"
            )
        if place.type != "cpu" and device is not None and not gpu:
            warnings.warn(f"device is {device}; this machine has no GPU, and the CPU computes", stacklevel=2)
        elif place.index is not None and place.type != "cpu":
            settings = {"gpu_id": place.index} | settings
        if asked not in (None, used):
            warnings.warn(
                f"torch_dtype is {asked}; computed is in {used}, as the official code does", stacklevel=2
            )
        return cls(model=model_manager.model, **settings)

    def enable_vram_management(self) -> None:
        """Keep the transformer in host memory while the VAE works, and the text encoder on the CPU."""
        self.config = replace(self.config, offload_model=True, t5_cpu=True)

    def __call__(
        self,
        prompt: str,
        source_video: StrPath | Sequence[Picture] | np.ndarray,
        edited_keyframes: Sequence[Picture],
        keyframe_indices: Sequence[int] | np.ndarray,
        alpha: Number | None = None,
        beta: Number | None = None,
        cfg_scale: Number | None = None,
        num_inference_steps: Number | None = None,
        tiled: bool | None = None,
        seed: Number | None = None,
        output: StrPath | None = None,
        verbose: bool = True,
        sound_of: SoundOf | None = None,
        **settings: object,
    ) -> "EditedFrames":
        """Edit one video.

        Args:
            prompt: what the edited video shows.
            source_video: a path, or frames as PIL images, arrays or tensors (H, W, 3) uint8, paths, or one array
                (T, H, W, 3). Of frames in memory, `fps` says the rate, 16 unless given, and `sound_of` their sound.
            edited_keyframes: pictures of the same kinds.
            keyframe_indices: the frame of the source that each is an edit of.
            alpha, beta, num_inference_steps, seed: as in EditConfig; None keeps the pipeline's own.
            cfg_scale: guidance_scale of EditConfig; None likewise.
            tiled: encode and decode in tiles of 256 pixels, or not; None keeps the pipeline's own.
            output: a folder to keep the run in, which then resumes; a temporary one by default.
            verbose: print what the command line would: notes, every tenth step with its norms, progress bars.
            sound_of: of frames in memory, whose sound nothing else tells; `read_source` gives a clip's `sound_of`. None
                for none, and for that of frames that an edit returned.
            settings: further fields of EditConfig.

        Returns:
            As many frames as the source has, with its sound for `save_video`. `last` holds the whole result; without
            `output` its files are gone with the temporary folder.

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
        # By the names of the arguments: `canonical` refuses one that `settings` give by another name.
        named = {
            "alpha": alpha,
            "beta": beta,
            "cfg_scale": cfg_scale,
            "num_inference_steps": num_inference_steps,
            "seed": seed,
        }
        for name, own in TAKEN.items():
            if name in settings:
                raise InputError(f"{name} is no argument of the pipeline; expected {own}")
        changes = {name: value for name, value in named.items() if value is not None} | settings
        _require(tiled, bool | np.bool_, "tiled", "true, false or None")
        _require(output, str | os.PathLike, "output", "a folder or the path of a video")
        if tiled is not None:
            changes["tiled"] = tiled
        changes = canonical(changes)
        with tempfile.TemporaryDirectory(prefix="wanedit-", ignore_cleanup_errors=True) as folder:
            scratch = Path(folder)
            sound_of = sound_of or getattr(source_video, "sound_of", None)
            video, pairs = (
                _source(source_video, scratch, changes.get("fps") or self.config.fps or FOLDER_FPS),
                [],
            )
            for k, (picture, index) in enumerate(zip(pictures, indices, strict=True)):
                if isinstance(picture, str | os.PathLike):
                    path = Path(picture)
                else:
                    path = scratch / f"keyframe_{k}.png"
                    if isinstance(picture, Image.Image) and picture.has_transparency_data:
                        picture.convert("RGBA").save(path, icc_profile=picture.info.get("icc_profile"))
                    else:
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
            in_memory = not isinstance(source_video, str | os.PathLike)
            self.last = edit(config, verbose=verbose, sound_of=(sound_of or silent) if in_memory else None)
        return EditedFrames(map(Image.fromarray, self.last.frames), self.last.sound_of)


class EditedFrames(list[Image.Image]):
    """The frames of an edit, which know the sound beside them: see `wanedit.video.sound.sound_of`."""

    def __init__(self, frames: Iterable[Image.Image], sound_of: SoundOf) -> None:
        super().__init__(frames)
        self.sound_of = sound_of


def sound_beside(sound_of: SoundOf, frames: int, fps: Fraction, kind: Format) -> Sound | None:
    """The sound for a film of frames whose source is known; warnings say what does not come with them."""
    try:
        sound, notes = sound_of(fps, kind, frames=frames)
    except InputError as error:  # the source has gone since
        sound, notes = None, [f"no sound is written: {error}"]
    for note in notes:
        warnings.warn(note, stacklevel=3)
    return sound


def _list(value: object, name: str) -> list[Any]:
    """The items of a list, tuple or array; a lone picture or text is none of them."""
    if isinstance(value, str | os.PathLike | Image.Image) or not isinstance(value, Iterable):
        raise InputError(f"{name} is {_short(value)}; expected a list of them")
    return list(value)


def _several(places: StrPath | Sequence[Any]) -> Sequence[Any]:
    """A list of names as it is; a lone one as a list."""
    return [places] if isinstance(places, str | os.PathLike) else places


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
    plain = isinstance(value, str | os.PathLike | int | float | None)
    return repr(value) if plain else f"of type {type(value).__name__}"


def _source(video: Any, scratch: Path, fps: Seconds | str = FOLDER_FPS) -> str:
    """The path of a source; frames in memory are written without loss first."""
    if isinstance(video, str | os.PathLike):
        return os.fspath(video)
    # Readers of videos, such as diffsynth's, have a length and items and are no Sequence.
    listed = hasattr(video, "__len__") and hasattr(video, "__getitem__") and not isinstance(video, dict)
    if not listed or not len(video):
        raise InputError(
            f"source_video is {'empty' if listed else f'of type {type(video).__name__}'}; expected a path, or one "
            "frame or more"
        )
    frames = [pixels_of(video[i], f"frame {i} of source_video") for i in range(len(video))]
    if min(frames[0].shape[:2]) < SMALLEST:
        raise InputError(
            f"source_video is {size_text(frames[0])}; expected at least {SMALLEST} pixels each way"
        )
    path = scratch / "source.mkv"
    write_lossless(path, np.stack(list(require_same_size(frames, "source_video"))), rate_of(fps))
    return str(path)


def save_video(
    frames: Sequence[Picture] | np.ndarray, save_path: StrPath, fps: float = FOLDER_FPS, quality: float = 9
) -> Path:
    """Write what a pipeline returned as a film; the arguments are those of diffsynth's `save_video`.

    Args:
        frames: of one size; an odd last row or column is left out, with a warning. Those that an edit returned bring
            their source's sound, where `fps` shows them when the source does; else a warning says so.
        quality: 0 (worst) to 10, which imageio-ffmpeg makes a crf of `(1 - quality / 10) * 51`, rounded down.

    Raises:
        InputError: no frames, unequal ones, another ending of the name, numbers out of range, or a file of another
            origin, which would be replaced.
        ResourceError: the disk is full.
    """
    path = at_home(save_path)
    kind = format_of(path)
    if not 0 <= quality <= 10:
        raise InputError(f"{path} at quality {quality}; expected 0 to 10")
    check_outputs([path])
    pictures = [pixels_of(frames[i], f"frame {i}") for i in range(len(frames))]
    if not pictures:
        raise InputError(f"no frames for {path}; expected some")
    height, width = kind.fitted(*pictures[0].shape[:2])
    if (height, width) != pictures[0].shape[:2]:
        warnings.warn(
            f"{size_text(pictures[0])} has an odd side, which H.264 cannot have: {width}x{height} are written",
            stacklevel=2,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = sound_beside(getattr(frames, "sound_of", silent), len(pictures), rate_of(fps), kind)
    write_video(path, pictures, fps, film_metadata(len(pictures)), int((1 - quality / 10) * 51), sound=sound)
    return path
