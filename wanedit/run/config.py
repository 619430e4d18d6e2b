"""GenerationConfig: everything a generation run can be told, and the checks that need no model."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, replace
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.types import Keyframe

KeyframesLike = str | Sequence[Any]
FINAL_NAME = "output_final.mp4"
VIDEO_SUFFIXES = (".mp4", ".mov")
SIZE_MULTIPLE = 16
MAX_FPS = 1000
MAX_PIXELS = 4096 * 4096

# One entry of "a.png:0.0,b.png:3.0": the shortest text up to a colon, a number, and a comma or the end, so
# that colons, commas and spaces in a path are harmless.
_ENTRY = re.compile(
    r"(?P<path>.+?):(?P<seconds>[-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?|nan|inf))\s*(?:,\s*|$)", re.DOTALL
)


@dataclass(frozen=True)
class GenerationConfig:
    """One generation run. Fields that are null take the value that the model was made for.

    Attributes:
        keyframes: pairs [path, seconds], at least two, times increasing; or "a.png:0.0,b.png:3.0". A relative
            path is looked up in the current folder, then beside the config file that names it.
        prompt: what the whole video shows.
        sub_prompts: one per segment, appended to `prompt`; empty for none.
        negative_prompt: what to steer away from; null for the model's own, "" for none at all.
        model: a known name (`wanedit models`) or a folder in the official layout.
        ckpt_dir: the folder of the checkpoint; wins over `model`.
        size: "width*height", both multiples of 16; null for the model's own.
        fps: frames a second; null for the model's own.
        sample_steps: sampler steps.
        sample_shift: schedule shift; larger spends more steps on coarse motion.
        sample_guide_scale: classifier-free guidance; 1.0 skips the unconditional pass.
        sample_solver: unipc, dpm++, euler or heun.
        base_seed: of all noise; negative or null draws one, which the run records and a resume reuses.
        num_gpus: processes to sample with; on a machine without GPUs, CPU processes.
        gpu_ids: which devices, such as [0, 2] or "0,2"; empty for the first `num_gpus`.
        cpu_threads: threads of each process on a CPU; null for all cores. The last bits of a result depend on
            it, so a resumed run keeps the value of the run before.
        offload_model: on an accelerator, keep the transformer in host memory while the VAE works, and of two experts
            only the one that answers on the device; null for one process yes, for several no. The encoders are
            freed once used in any case.
        t5_cpu: run the text encoder on the CPU.
        tile: side of VAE tiles in pixels; null decodes whole frames.
        resize_policy: how a keyframe of another size comes to `size`.
        sort_keyframes: sort keyframes that are out of order instead of refusing them.
        long_segments: refuse a segment beyond the model's limit, or sample it at the limit and stretch it by
            optical flow.
        retime_method: how surplus frames (a segment is sampled at 4n+1) are retimed away.
        colour_correction: correct every segment by Lab maps fitted at its two keyframes.
        enable_smoothing: smooth around the joins with `smoothing_method`.
        smoothing_method: temporal_filter, optical_flow or none.
        smoothing_radius: frames on either side of a join that smoothing may change.
        save_latents: also keep every segment's latents, as safetensors.
        crf: quality of the final H.264 file, 0 (lossless) to 51.
        resume_from: sample this segment and those after it anew; those before must be complete. Null resumes
            whatever is complete.
        force_regenerate: sample every segment anew.
        tracking: where each step and segment is also logged: none, csv, tensorboard (an extra) or wandb, which works
            offline too. metrics.jsonl and metrics.csv are written in any case.
        experiment: the group of runs that this one belongs to; "" for none.
        tracking_project: the project in Weights & Biases.
        output: the run's folder; or the path of the final video, whose folder of segments and records then stands
            beside it under its name with `.wanedit`.
    """

    keyframes: str | list[Any] = field(default_factory=list)
    prompt: str = ""
    sub_prompts: list[str] = field(default_factory=list)
    negative_prompt: str | None = None
    model: str = "tiny"
    ckpt_dir: str | None = None
    size: str | None = None
    fps: float | None = None
    sample_steps: int | None = None
    sample_shift: float | None = None
    sample_guide_scale: float | None = None
    sample_solver: Literal["unipc", "dpm++", "euler", "heun"] = "unipc"
    base_seed: int | None = None
    num_gpus: int = 1
    gpu_ids: str | list[int] = field(default_factory=list)
    cpu_threads: int | None = None
    offload_model: bool | None = None
    t5_cpu: bool = False
    tile: int | None = None
    resize_policy: Literal["crop", "pad", "stretch"] = "crop"
    sort_keyframes: bool = False
    long_segments: Literal["error", "stretch"] = "error"
    retime_method: Literal["optical_flow", "linear"] = "optical_flow"
    colour_correction: bool = True
    enable_smoothing: bool = False
    smoothing_method: Literal["none", "temporal_filter", "optical_flow"] = "optical_flow"
    smoothing_radius: int = 2
    save_latents: bool = False
    crf: int = 16
    resume_from: int | None = None
    force_regenerate: bool = False
    tracking: Literal["none", "csv", "tensorboard", "wandb"] = "none"
    experiment: str = ""
    tracking_project: str = "wanedit"
    output: str = "outputs/generate"

    @property
    def source(self) -> str:
        """The model's name or folder."""
        return self.ckpt_dir or self.model

    @property
    def smoothing(self) -> str:
        """The smoothing method in force."""
        return self.smoothing_method if self.enable_smoothing else "none"

    @property
    def devices(self) -> list[int]:
        """Device indices of `gpu_ids`, as integers."""
        ids = self.gpu_ids
        if isinstance(ids, str):
            ids = [part for part in ids.replace(" ", "").split(",") if part]
        try:
            return [int(part) for part in ids]
        except ValueError:
            raise InputError(f'gpu_ids is {self.gpu_ids!r}; expected device numbers such as "0,2"') from None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        output = Path(self.output).expanduser()
        return output.with_suffix(".wanedit") if output.suffix.lower() in VIDEO_SUFFIXES else output

    @property
    def final_path(self) -> Path:
        """The finished video."""
        output = Path(self.output).expanduser()
        return output if output.suffix.lower() in VIDEO_SUFFIXES else output / FINAL_NAME


def parse_keyframes(value: KeyframesLike, folders: Sequence[Path] = ()) -> list[Keyframe]:
    """Read keyframes from "a.png:0.0,b.png:3.0", from pairs [path, seconds] or from mappings of the two.

    Args:
        value: as above.
        folders: where to look for a relative path after the current folder.

    Raises:
        InputError: an entry is not a path and a number, or its file does not exist.
    """
    pairs = _split(value) if isinstance(value, str) else [_pair(entry, k) for k, entry in enumerate(value)]
    return [Keyframe(_find(path, folders, k), seconds) for k, (path, seconds) in enumerate(pairs)]


def _split(text: str) -> list[tuple[str, float]]:
    pairs, position = [], 0
    text = text.strip()
    while position < len(text):
        match = _ENTRY.match(text, position)
        if match is None:
            raise InputError(f'keyframes: cannot read {text[position:]!r}; expected "a.png:0.0,b.png:3.0"')
        pairs.append((match["path"].strip(), _seconds(match["seconds"], len(pairs))))
        position = match.end()
    return pairs


def _pair(entry: Any, index: int) -> tuple[str, float]:
    if isinstance(entry, Keyframe):
        return str(entry.path), entry.seconds
    if isinstance(entry, dict) and set(entry) in (
        {"path", "seconds"},
        {"path", "time"},
        {"path", "timestamp"},
    ):
        entry = [entry["path"], next(v for k, v in entry.items() if k != "path")]
    if isinstance(entry, list | tuple) and len(entry) == 2:
        return str(entry[0]), _seconds(entry[1], index)
    raise InputError(f"keyframe {index} is {entry!r}; expected [path, seconds]")


def _seconds(value: Any, index: int) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"keyframe {index}: time is {value!r}; expected seconds") from None


def _find(path: str, folders: Sequence[Path], index: int) -> Path:
    candidate = Path(path).expanduser()
    places = (
        [candidate] if candidate.is_absolute() else [candidate, *(folder / candidate for folder in folders)]
    )
    for place in places:
        if place.is_file():
            return place
    looked = " or ".join(str(place.absolute()) for place in dict.fromkeys(places))
    raise InputError(f"keyframe {index}: no file {looked}")


def parse_size(text: str) -> tuple[int, int]:
    """ "1280*720" (or with an x) to (height, width).

    Raises:
        InputError: not two numbers, or one of them is no positive multiple of 16 (VAE stride 8, patch 2).
    """
    match = re.fullmatch(r"\s*(\d+)\s*[*xX×]\s*(\d+)\s*", text)
    if match is None:
        raise InputError(f'size is {text!r}; expected "width*height" such as "1280*720"')
    width, height = int(match[1]), int(match[2])
    if (
        width < 2 * SIZE_MULTIPLE
        or height < 2 * SIZE_MULTIPLE
        or width % SIZE_MULTIPLE
        or height % SIZE_MULTIPLE
    ):
        near = "*".join(str(max(2, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE) for side in (width, height))
        raise InputError(f"size is {width}*{height}; expected multiples of 16 from 32 up, such as {near}")
    if width * height > MAX_PIXELS:
        raise InputError(f"size is {width}*{height}; expected at most {MAX_PIXELS / 1e6:.0f} million pixels")
    return height, width


def check_types(config: Any) -> None:
    """Refuse a value of another type than its field in a configuration; output and ckpt_dir must not be empty.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    check_fields(config)
    if not config.output:
        raise InputError("output is empty; expected a folder or the path of a video")
    if config.ckpt_dir == "":
        raise InputError("ckpt_dir is empty; expected a folder, or null to use `model`")


def check_fields(config: Any) -> None:
    """Refuse a value of another type than its field in a configuration.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    check_values(type(config), {name: getattr(config, name) for name in get_type_hints(type(config))})


def check_values(kind: type, values: dict[str, Any]) -> None:
    """Refuse a value of another type than the field that it is meant for.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if not fits_type(value, hints[name]):
            raise InputError(f"{name} is {value!r}; expected {describe_type(hints[name])}")


def fits_type(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type; whole numbers are numbers, truth values are not."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_args(kind) and get_origin(kind) not in (list, dict):
        return any(fits_type(value, option) for option in get_args(kind))
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else get_origin(kind) or kind)


def describe_type(kind: Any) -> str:
    """A field's type in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    options = get_args(kind) if get_args(kind) and get_origin(kind) not in (list, dict) else (kind,)
    containers = {list: "a list", dict: "a mapping"}
    return " or ".join(
        names.get(option) or containers.get(get_origin(option) or option, "a value") for option in options
    )


def check(config: GenerationConfig) -> None:
    """Refuse values that no model can make sense of.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    check_types(config)
    devices = config.devices
    if config.cpu_threads is not None and config.cpu_threads > (os.cpu_count() or 1):
        raise InputError(f"cpu_threads is {config.cpu_threads}; this machine has {os.cpu_count()} cores")
    positive = {
        "sample_steps": config.sample_steps,
        "sample_shift": config.sample_shift,
        "fps": config.fps,
        "num_gpus": config.num_gpus,
        "cpu_threads": config.cpu_threads,
    }
    for name, value in positive.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}; expected a positive number")
    scale = config.sample_guide_scale
    if scale is not None and not (math.isfinite(scale) and scale >= 0):
        raise InputError(f"sample_guide_scale is {scale}; expected a finite number >= 0")
    if config.fps is not None and config.fps > MAX_FPS:
        raise InputError(f"fps is {config.fps:g}; expected at most {MAX_FPS}")
    if config.tile is not None and (config.tile % 8 or config.tile < 32):
        raise InputError(f"tile is {config.tile}; expected a multiple of 8 pixels, at least 32")
    if not 0 <= config.crf <= 51:
        raise InputError(f"crf is {config.crf}; expected 0 (lossless) to 51")
    if not 1 <= config.smoothing_radius <= 16:
        raise InputError(f"smoothing_radius is {config.smoothing_radius}; expected 1 to 16 frames")
    if devices and (len(set(devices)) != len(devices) or len(devices) != config.num_gpus):
        raise InputError(
            f"gpu_ids are {devices} and num_gpus is {config.num_gpus}; expected {config.num_gpus} distinct ids"
        )
    if config.size is not None:
        parse_size(config.size)


def ordered(keyframes: list[Keyframe], sort: bool) -> list[Keyframe]:
    """Keyframes as given, or by time if asked; `timeline.plan` judges the order."""
    return sorted(keyframes, key=lambda keyframe: timeline.exact(keyframe.seconds)) if sort else keyframes


def prompts(config: GenerationConfig, segments: int) -> list[str]:
    """The prompt of every segment: the global one, and the segment's own behind it.

    Raises:
        InputError: there are sub-prompts, but not one per segment.
    """
    if not config.sub_prompts:
        return [config.prompt] * segments
    if len(config.sub_prompts) != segments:
        raise InputError(
            f"{len(config.sub_prompts)} sub_prompts for {segments} segments; expected one for each or none"
        )
    return [
        ", ".join(part for part in (config.prompt.strip(), sub.strip()) if part) for sub in config.sub_prompts
    ]


@runtime_checkable
class IsDataclass(Protocol):
    """Any dataclass; the standard library names no such type."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Config = TypeVar("Config", bound=IsDataclass)


def with_changes(config: Config, **changes: Any) -> Config:
    """A copy of a configuration with other values; unknown names raise InputError."""
    unknown = sorted(set(changes) - set(config.__dataclass_fields__))
    if unknown:
        raise InputError(f"unknown settings {unknown}; expected fields of {type(config).__name__}")
    return replace(config, **changes)
