"""What the settings of every job share: how they are checked, and sizes."""

import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, replace
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

from wanedit.errors import InputError

FINAL_NAME = "output_final.mp4"
VIDEO_SUFFIXES = (".mp4", ".mov")
SIZE_MULTIPLE = 16
MAX_FPS = 1000
MAX_PIXELS = 4096 * 4096


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every run of a model is told. Fields that are null take the value that the model was made for.

    Attributes:
        job: whose settings these are; a record says it, and no other job takes it.
        negative_prompt: what to steer away from; null for the model's own, "" for none at all.
        model: a known name (`wanedit models`) or a folder in the official layout.
        ckpt_dir: the folder of the checkpoint; wins over `model`.
        size: "width*height", both multiples of 16; null for the model's own.
        fps: frames a second; null for the model's own.
        base_seed: of all noise; negative or null draws one, which the run records and a resume reuses.
        cpu_threads: threads of each process on a CPU; null for all cores. The last bits of a result depend on
            it, so a resumed run keeps the value of the run before.
        offload_model: on an accelerator, keep the transformer in host memory while the VAE works, and of two experts
            only the one that answers on the device; null for one process yes, for several no. The encoders are
            freed once used in any case.
        t5_cpu: run the text encoder on the CPU.
        tile: side of VAE tiles in pixels; null for whole frames.
        save_latents: also keep the latents, as safetensors.
        crf: quality of the final H.264 file, 0 (lossless) to 51.
        force_regenerate: make anew what is already complete.
        tracking: where each step and segment is also logged: none, csv, tensorboard (an extra) or wandb, which works
            offline too. metrics.jsonl and metrics.csv are written in any case.
        experiment: the group of runs that this one belongs to; "" for none.
        tracking_project: the project in Weights & Biases.
        output: the run's folder; or the path of the final video, whose folder of records then stands beside it under
            its name with `.wanedit`.
    """

    job: str = ""
    negative_prompt: str | None = None
    model: str = "tiny"
    ckpt_dir: str | None = None
    size: str | None = None
    fps: float | None = None
    base_seed: int | None = None
    cpu_threads: int | None = None
    offload_model: bool | None = None
    t5_cpu: bool = False
    tile: int | None = None
    save_latents: bool = False
    crf: int = 16
    force_regenerate: bool = False
    tracking: Literal["none", "csv", "tensorboard", "wandb"] = "none"
    experiment: str = ""
    tracking_project: str = "wanedit"
    output: str = "outputs"

    @property
    def source(self) -> str:
        """The model's name or folder."""
        return self.ckpt_dir or self.model

    @property
    def devices(self) -> list[int]:
        """Indices of the devices to run on; empty for the first ones."""
        return []

    @property
    def num_processes(self) -> int:
        """How many processes share the work."""
        return 1

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


@runtime_checkable
class IsDataclass(Protocol):
    """Any dataclass; the standard library names no such type."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Config = TypeVar("Config", bound=IsDataclass)


# What the seed's scripts and earlier versions call a setting: understood where settings come in, used nowhere inside.
ALIASES = {
    "sample_steps": "num_inference_steps",
    "sample_shift": "shift",
    "sample_guide_scale": "guidance_scale",
    "sample_solver": "solver",
    "cfg_scale": "guidance_scale",
    "source_cfg_scale": "source_guidance_scale",
}


def canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their own names.

    Raises:
        InputError: one setting under two names.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        own = ALIASES.get(name, name)
        if own in found:
            raise InputError(f"{own} is given twice, once as {name}; expected one of the two names")
        found[own] = value
    return found


def with_changes(config: Config, **changes: Any) -> Config:
    """A copy of a configuration with other values, by the fields' names or their aliases.

    Raises:
        InputError: a name that is no field.
    """
    changes = canonical(changes)
    unknown = sorted(set(changes) - set(config.__dataclass_fields__))
    if unknown:
        raise InputError(f"unknown settings {unknown}; expected fields of {type(config).__name__}")
    return replace(config, **changes)
