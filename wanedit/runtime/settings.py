"""What the settings of every job share: how they are checked, and sizes."""

import functools
import inspect
import json
import operator
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from annotated_types import DocInfo, Ge, Gt, Le, MinLen, MultipleOf, doc

from wanedit.errors import InputError, nearest
from wanedit.files import Json, at_home, texts
from wanedit.flow.caches import CACHES
from wanedit.flow.guidance import GUIDANCES
from wanedit.outside import look_in
from wanedit.registry import Registered, Registry
from wanedit.timeline import MAX_FPS, rate_of
from wanedit.video.formats import FORMATS, format_of
from wanedit.wan.config import PARTS, ChosenLora

# What of a run's settings names its model: text that may be a path.
MODEL_FIELDS = ("model", "ckpt_dir", *PARTS)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Made = TypeVar("Made")
FINAL_NAME = "output_final.mp4"
LONGEST_PROMPT = 100_000
# What an ending looks like: "film.avi" is meant as a file, "alpha_0.5" as a folder.
_ENDING = re.compile(r"\.[a-z][a-z0-9]{1,4}")
SMALLEST_SIDE = 32
PLURALS = {"text": "texts", "a number": "numbers", "an integer": "integers"}
MAX_PIXELS = 4096 * 4096

# Types of fields with the range that makes sense; `check_settings` enforces it, the command line's help shows the type.
Count = Annotated[int, Gt(0)]
Index = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Rate = Annotated[float, Gt(0), Le(MAX_FPS)]
AnyRate = Annotated[
    Rate | str | None, doc(f'a number above 0 up to {MAX_FPS:g}, a fraction such as "30000/1001", or null')
]
Named = Annotated[str, MinLen(1)]
# A file or folder: what programs pass as a path, `PlainValues` makes text.
FileName = Annotated[str, MinLen(1)] | os.PathLike[str]


@dataclass(frozen=True)
class Everyday:
    """Beside a field's type: the short help of a command has its flag, under this heading."""

    heading: Literal["what goes in", "how", "the model", "what comes out", "the run"]


@dataclass(frozen=True)
class Repeated:
    """Beside the type of a list: its flag takes one entry and may be given again for a further one."""


class _Called(type):
    """Makes classes of settings that are called with the other names of their fields, too."""

    def __call__(cls: type[Made], *args: Any, **values: Any) -> Made:
        return type.__call__(cls, *args, **own_names(cls, values))

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the fields, for help and editors."""
        whole = inspect.signature(cls.__init__)
        return whole.replace(parameters=[*whole.parameters.values()][1:])


@dataclass(frozen=True)
class PlainValues(metaclass=_Called):
    """Base of the dataclasses of settings: what programs pass becomes what a YAML file would hold.

    One itself: of a class with another base jsonargparse makes no group of flags. A name that is no field is an
    InputError with the nearest one. A whole number is 3.0 where a field holds decimals: hashes tell 3 from it.
    """

    def __post_init__(self) -> None:
        decimal = _decimal_fields(type(self))
        for name in self.__dataclass_fields__:
            value = plain(getattr(self, name))
            object.__setattr__(self, name, float(value) if type(value) is int and name in decimal else value)


@functools.cache
def _decimal_fields(kind: type) -> frozenset[str]:
    """The fields of a dataclass that hold numbers with a decimal point, or perhaps null, and nothing else."""

    def decimal(hint: Any) -> bool:
        if get_origin(hint) is Annotated:
            return decimal(get_args(hint)[0])
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        return hint is float or (
            len(members) > 1 and all(one is type(None) or decimal(one) for one in members)
        )

    return frozenset(name for name, hint in field_hints(kind).items() if decimal(hint))


def plain_type(hint: Any) -> Any:
    """The type that a field has once `plain` was there: text and lists, where paths and sequences may be given."""
    if get_origin(hint) is Sequence:
        return list[get_args(hint)]
    if get_origin(hint) not in (Union, UnionType):
        return hint
    members = [plain_type(one) for one in get_args(hint) if one != os.PathLike[str]]
    return functools.reduce(operator.or_, members)


def plain(value: object) -> Any:
    """A path as text, a tuple as a list, what NumPy or torch holds as numbers and lists; the rest as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    # Told by what they can do: the command line's help imports neither.
    to_list = getattr(value, "tolist", None)
    return value if to_list is None else to_list()


@dataclass(frozen=True, kw_only=True)
class TrackingSettings(PlainValues):
    """Where a run is also logged, and as what. It decides no result: no hash holds any of it.

    Attributes:
        tracking: where each step and segment is also logged: none, csv, tensorboard (an extra) or wandb, which works
            offline too. metrics.jsonl and metrics.csv are written in any case.
        experiment: the group of runs that this one belongs to; "" for none.
        tracking_project: the project in Weights & Biases.
        run_name: what the run is called there; "" for its folder's name.
        tags: words to find it by there, "a,b"; its model and its method are added.
    """

    tracking: Annotated[str, Registered("wanedit.tracking.backends:TRACKERS")] = "none"
    experiment: str = ""
    tracking_project: str = "wanedit"
    run_name: str = ""
    tags: str = ""


@dataclass(frozen=True, kw_only=True)
class RunSettings(TrackingSettings):
    """What every run of a model is told. Fields that are null take the value that the model was made for.

    Attributes:
        job: whose settings these are; a record says it, and no other job takes it.
        negative_prompt: what to steer away from; null for the model's own, "" for none at all.
        model: a known name (`wanedit models`), or a checkpoint's folder or file; the folder may have any layout, the
            file is its transformer's. Of an edit also package.module:Class of a video model that is no Wan.
        ckpt_dir: the folder of the checkpoint, its transformer's file, or a known name; wins over `model`.
        transformer: the file or folder of the transformer, or of the high-noise expert, in place of what the model has;
            null for that.
        transformer_low: likewise of the low-noise expert, which makes the model one of two experts.
        vae: likewise of the VAE.
        text_encoder: likewise of the text encoder.
        image_encoder: likewise of the image encoder.
        tokenizer: likewise the folder of the text encoder's tokenizer.
        lora: a LoRA as FILE[:strength[:high|low][:below]], merged into the transformer as it is loaded; the flag may be
            repeated, and a file of settings has a list. high and low are the experts of Wan 2.2; below is the noise
            level that it comes in at, such as 0.985.
        lora_partial: leave out, with a note, what of a LoRA has no place in the model, instead of refusing it.
        size: "width*height", both even; null for the model's own. Where they are no multiples of 16, for TI2V-5B of
            32, the model works on the next ones, the last row and column held, and the output is cut back to exactly
            this size.
        fps: frames a second, a number or a fraction such as "30000/1001", which 29.97 stands for; null for the model's
            own.
        base_seed: of all noise; negative or null draws one, which the run records and a resume reuses.
        cpu_threads: threads of each process on a CPU; null for all cores. The last bits of a result depend on
            it, so a resumed run keeps the value of the run before.
        offload_model: on an accelerator, keep the transformer in host memory while the VAE works, and of two experts
            only the one that answers on the device; null for one process yes, for several no. The encoders are
            freed once used in any case.
        t5_cpu: run the text encoder on the CPU.
        fit: lay the model out on a card of so many GB, or on the one that is there (auto): blocks that stay on it and
            blocks that are brought in turn, weights, offload_model, t5_cpu, tile. The plan says what was chosen. Null
            for none.
        tile: side of VAE tiles in pixels; null for whole frames.
        save_latents: also keep the latents, as safetensors.
        preview: every so many steps a small picture of what is being sampled, in the folder's preview/, until it is
            done; 0 for none.
        preview_in_terminal: show it in the terminal, too, if that is known to show pictures (kitty, iTerm2, sixel).
        crf: quality of the final H.264 file, 0 (lossless) to 51.
        force_regenerate: make anew what is already complete.
        module_folders: where the modules of `package.module:Name` are looked for after the current folder; a run
            records those that it found its own in.
        output: the run's folder; or the path of the final film (.mp4, .mov, .mkv, .webm or .gif), whose folder of
            records then stands beside it under its name with `.wanedit`.
    """

    job: str = ""
    negative_prompt: str | None = None
    model: Annotated[FileName, Everyday("the model")] = "tiny"
    ckpt_dir: FileName | None = None
    transformer: FileName | None = None
    transformer_low: FileName | None = None
    vae: FileName | None = None
    text_encoder: FileName | None = None
    image_encoder: FileName | None = None
    tokenizer: FileName | None = None
    lora: Annotated[
        FileName | Sequence[Any],
        Everyday("the model"),
        Repeated(),
        doc('a list of "FILE:strength" or "FILE:strength:high" (or low)'),
    ] = field(default_factory=list)
    lora_partial: bool = False
    size: Annotated[
        str | Sequence[int] | None,
        Everyday("what comes out"),
        doc('"width*height" such as "1280*720", or null'),
    ] = None
    fps: AnyRate = None
    base_seed: int | None = None
    cpu_threads: Count | None = None
    offload_model: bool | None = None
    t5_cpu: bool = False
    fit: Annotated[str | float | None, doc("auto, the gigabytes of a card, or null")] = None
    tile: Annotated[int, Ge(32), MultipleOf(8)] | None = None
    save_latents: bool = False
    preview: Annotated[int, Ge(0)] = 5
    preview_in_terminal: bool = True
    crf: Annotated[int, Ge(0), Le(51)] = 16
    force_regenerate: bool = False
    module_folders: list[str] = field(default_factory=list)
    output: Annotated[FileName, Everyday("what comes out")] = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.size, list):
            object.__setattr__(self, "size", "*".join(map(str, self.size)))

    @property
    def source(self) -> str:
        """The model's name or folder."""
        return os.fspath(self.ckpt_dir or self.model)

    @property
    def parts(self) -> dict[str, str]:
        """Files and folders of single parts, by the names in `wanedit.wan.config.PARTS`."""
        return {name: os.fspath(place) for name in PARTS if (place := getattr(self, name))}

    @property
    def loras(self) -> list[ChosenLora]:
        """`lora`, entry by entry. Raises InputError as `ChosenLora.of`."""
        given = [self.lora] if isinstance(self.lora, str | os.PathLike) else self.lora
        return [ChosenLora.of(entry) for entry in given]

    @property
    def height_width(self) -> tuple[int, int] | None:
        """`size` as numbers; raises as `parse_size`."""
        return None if self.size is None else parse_size(str(self.size))

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
        """The run's folder. Raises InputError as `film_of`."""
        film = film_of(self.output)
        return at_home(self.output) if film is None else film.with_suffix(".wanedit")

    @property
    def final_path(self) -> Path:
        """The finished video. Raises InputError as `film_of`."""
        return film_of(self.output) or at_home(self.output) / FINAL_NAME


@dataclass(frozen=True, kw_only=True)
class SampledSettings(RunSettings):
    """What a run that samples is told beside steps, shift and guidance. Null takes what the model was made for.

    Attributes:
        noise_levels: the sigmas to sample at, falling, in (0, 1], as they are after any shift; a timestep is 1000 times
            that. A list, "1,0.9375,0.8333,0.625", or "rcm:200" for those of rCM from sigma_max 200. The first
            num_inference_steps of them are taken, null for all. [] for even ones that the shift moves.
        guidance_scale_low: guidance once the first of several networks has handed over: that of the low-noise expert,
            or from where a LoRA comes in. Null for the guidance_scale that is given, else for the model's own.
        boundary: the noise level that the high-noise expert of two answers down to.
        boundary_step_index: in its place, how many steps that expert takes.
        distilled: whose settings a step-distilled model takes: lightx2v, lightning, causvid, fusionx, rcm or rcm_t2v.
            auto goes by the names of its files, with a note; none takes the base model's.
        guidance: how the prompt steers, guidance_scale says how strongly: cfg; cfg_zero; apg; mambo_g; slg, one pass
            more a step; nag, by which a negative prompt acts at guidance_scale 1 too, in one pass.
        guidance_options: fields of the guidance, such as {"strength": 2.0}.
        guidance_interval: [low, high], the noise levels at which the prompt is guided; at others it is asked alone,
            which saves a pass. Null for all.
        cache: what answers in the network's place where little changes: easycache, which calibrates itself; magcache,
            for which `wanedit calibrate` measures the model; teacache; spectrum. none computes every step.
        cache_options: fields of the cache, such as {"threshold": 0.1}.
        attention: who computes it. sdpa: PyTorch. flash, flash3, flash4, sage, flex: others, if they are installed;
            each is held against sdpa before the first step. auto: what was written for this card, if it is installed,
            never sage; else sdpa.
        weights: how the transformer's matrices lie in memory. full: in the number format that they compute in. file: as
            the file has them where they are small there (scaled fp8 or int8, GGUF), for the same results. int8, fp8:
            rounded, which changes results. auto: full, or what `fit` chooses, int8 only where nothing else fits.
        compile: have the transformer's blocks, and the decoding of clips that fit memory whole, compiled, which takes a
            minute at first and is kept on disk.
    """

    noise_levels: Annotated[
        str | Sequence[float] | None, doc('a list of numbers, "1,0.75,0.5", "rcm:200" or null')
    ] = None
    guidance_scale_low: NotNegative | None = None
    boundary: Annotated[float, Gt(0), Le(1)] | None = None
    boundary_step_index: Count | None = None
    distilled: str = "auto"
    guidance: Annotated[
        str,
        Registered("wanedit.flow.guidance:GUIDANCES"),
        doc("a name, such as cfg; how strongly it guides is guidance_scale"),
    ] = "cfg"
    guidance_options: dict[str, Any] = field(default_factory=dict)
    guidance_interval: Annotated[
        Sequence[Share] | None,
        doc("two noise levels from 0 to 1, the lower one first, such as [0.2, 0.9], or null"),
    ] = None
    cache: Annotated[str, Registered("wanedit.flow.caches:CACHES")] = "none"
    cache_options: dict[str, Any] = field(default_factory=dict)
    attention: Annotated[str, Registered("wanedit.wan.config:ATTENTIONS")] = "auto"
    weights: Literal["auto", "full", "file", "int8", "fp8"] = "auto"
    compile: bool = False

    @property
    def listed(self) -> tuple[float, ...] | None:
        """`noise_levels` as numbers. Raises InputError for a text that is none of what it may be."""
        if not isinstance(self.noise_levels, str):
            return self.noise_levels if self.noise_levels is None else tuple(self.noise_levels)
        from wanedit.flow.path import rcm_levels  # brings torch, which a mistake does without

        kind, colon, sigma_max = self.noise_levels.partition(":")
        try:
            if colon and kind.strip().lower() == "rcm":
                return rcm_levels(float(sigma_max))
            return tuple(map(float, self.noise_levels.strip("[] ").split(",")))
        except ValueError:
            expected = words_for(type(self), "noise_levels")
            raise InputError(f"noise_levels is {self.noise_levels!r}; expected {expected}") from None


def film_of(output: str | os.PathLike[str]) -> Path | None:
    """The film that an output names; None for a folder: a name without ending, one that is there, or one with a "/".

    Raises:
        InputError: an ending that no film is written with.
    """
    path = at_home(output)
    ending = path.suffix.lower()
    if ending in FORMATS:
        return path
    require_folder(output, f"a film ({', '.join(FORMATS)}) or a folder")
    return None


def require_folder(output: str | os.PathLike[str], expected: str = "a folder") -> Path:
    """An output that is a folder. Raises InputError for a name with an ending, by which a file is meant."""
    path = at_home(output)
    ending = path.suffix.lower()
    is_folder = os.fspath(output).endswith(("/", os.sep)) or os.path.isdir(path)
    if (ending in FORMATS or _ENDING.fullmatch(ending)) and not is_folder:
        raise InputError(f"output is {output}, with the ending {ending}; expected {expected}")
    return path


def parse_size(text: str) -> tuple[int, int]:
    """ "1280*720" (or with an x) to (height, width).

    Raises:
        InputError: not two numbers, or one of them is odd, which no H.264 file can have, or too small or large.
    """
    match = re.fullmatch(r"\s*(\d+)\s*[*xX×]\s*(\d+)\s*", text)
    if match is None:
        raise InputError(f'size is {text!r}; expected "width*height" such as "1280*720"')
    width, height = int(match[1]), int(match[2])
    if min(width, height) < SMALLEST_SIDE or width % 2 or height % 2:
        near = "*".join(str(max(SMALLEST_SIDE, side // 2 * 2)) for side in (width, height))
        raise InputError(
            f"size is {width}*{height}; expected even numbers from {SMALLEST_SIDE} up, such as {near}"
        )
    if width * height > MAX_PIXELS:
        raise InputError(f"size is {width}*{height}; expected at most {MAX_PIXELS / 1e6:.0f} million pixels")
    return height, width


@runtime_checkable
class IsDataclass(Protocol):
    """Any dataclass; the standard library names no such type."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Config = TypeVar("Config", bound=IsDataclass)


def check_settings(config: IsDataclass, within: str = "") -> None:
    """Refuse a value of another type or range than its field in a configuration, and in the parts that it has.

    Nothing is converted: "3" is no 3, true is no 1; a whole number is a number.

    Args:
        config: its fields state types and, as `Annotated` metadata, ranges.
        within: what stands before the names in messages, such as "palette.".

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    values = {name: getattr(config, name) for name in config.__dataclass_fields__}
    check_values(type(config), values, within)


def check_values(
    kind: type, values: Mapping[str, object], within: str = "", convert: bool = False
) -> dict[str, object]:
    """Refuse a value of another type or range than the field of `kind` that it is meant for.

    Args:
        convert: take what a file or a flag can hold for what it cannot: a list for a tuple, text for a path.

    Returns:
        The values, those that were converted as their fields want them; a whole number is 3.0 where one has decimals.

    Raises, and the rest: as `check_settings`.
    """
    return {name: _check_value(kind, name, value, within, convert) for name, value in values.items()}


def _check_value(kind: type, name: str, value: object, within: str, convert: bool) -> object:
    from pydantic import ValidationError

    expected, registry = _expected(kind, name)
    try:
        checked = expected.validate_python(value, strict=True)
        if type(value) is int and type(checked) is float:
            value = checked
    except ValidationError:
        try:
            if not convert:
                raise
            # In JSON a tuple is a list and a path a text, in its strict mode too.
            value = expected.validate_json(json.dumps(value), strict=True)
        except (ValidationError, TypeError, ValueError):
            got = "empty" if value == "" else repr(value)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            raise InputError(f"{within}{name} is {got}; expected {words_for(kind, name, number)}") from None
    if registry is not None and value is not None:
        registry.renew(str(value))
        # Raises for a name that it does not know, and lists those that it does. A number is meant for something else,
        # of which the field's own words may tell.
        if str(value).replace(".", "", 1).isdigit() and str(value) not in registry:
            raise InputError(f"{within}{name} is {value}; expected {words_for(kind, name)}")
        registry.require(str(value))
    if is_dataclass(value) and not isinstance(value, type):
        # pydantic takes an instance as it is.
        check_settings(value, f"{within}{name}.")
    return value


def check_modules(config: IsDataclass) -> None:
    """Have the modules found that a configuration names, before its names are checked. Raises as `check_settings`."""
    folders = {"module_folders": getattr(config, "module_folders", [])}
    check_values(type(config), folders)
    look_in(folders["module_folders"])


def check_run(config: RunSettings) -> None:
    """Refuse what no run of a model can make sense of, whatever its job and before a file is looked for.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    check_modules(config)
    check_settings(config)
    # The system's calls take no path with one, and say so as a ValueError from deep inside.
    if "\0" in os.fspath(config.output):
        raise InputError("output holds a zero byte; expected a folder or the path of a video")
    for name in (name for name in vars(config) if "prompt" in name):
        longest = max(map(len, texts(getattr(config, name))), default=0)
        if longest > LONGEST_PROMPT:
            raise InputError(
                f"{name} has {longest} characters; expected at most {LONGEST_PROMPT}: models read 512 tokens of it"
            )
    kind = format_of(config.final_path)
    if config.fps is not None:
        kind.require_rate(rate_of(config.fps))
    if config.cpu_threads is not None and config.cpu_threads > (os.cpu_count() or 1):
        raise InputError(f"cpu_threads is {config.cpu_threads}; this machine has {os.cpu_count()} cores")
    _ = config.height_width  # raises for a size that there is not
    _ = config.loras  # likewise
    if isinstance(config, SampledSettings):
        _ = config.listed  # likewise
        CACHES.check_options(config.cache, config.cache_options)
        _check_guidance(config)


def _check_guidance(config: SampledSettings) -> None:
    """Refuse an interval that is none, and options that its guidance does not have."""
    if (between := config.guidance_interval) is not None and not (
        len(between) == 2 and between[0] < between[1]
    ):
        raise InputError(
            f"guidance_interval is {list(between)}; expected {words_for(SampledSettings, 'guidance_interval')}"
        )
    GUIDANCES.check_options(config.guidance, config.guidance_options)


@functools.cache
def _expected(kind: type, name: str) -> "tuple[TypeAdapter[object], Registry[object] | None]":
    """What a field of a dataclass lets pass, and the registry that knows its names."""
    # Imported only where a job is planned: `wanedit --help` is to be quick.
    from pydantic import ConfigDict, TypeAdapter

    strict = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    hint: Any = plain_type(field_hints(kind)[name])
    # A dataclass is checked field by field; pydantic takes no configuration for one.
    adapter = TypeAdapter(hint, config=None if is_dataclass(hint) else strict)
    return adapter, registered_at(kind, name)


def registered_at(kind: type, name: str) -> Registry[object] | None:
    """The registry that knows the names which a field of a dataclass holds; None where they are no names."""
    about = getattr(field_hints(kind)[name], "__metadata__", ())
    return next((one.registry for one in about if isinstance(one, Registered)), None)


def field_hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with what is annotated; Any in the place of a name that only a type checker
    imports, where annotations are texts."""
    unknown: dict[str, Any] = {}
    while True:
        try:
            return get_type_hints(kind, localns=unknown, include_extras=True)
        except NameError as error:
            if error.name in (None, *unknown):
                raise
            unknown[error.name] = Any


def words_for(kind: type, name: str, number: bool = False) -> str:
    """What a field of a dataclass takes, for a message: its own words, or its type's and range's.

    Args:
        number: one was given; of a field that takes some, their range alone is told, and not that a text would do.
    """
    from pydantic import PydanticUserError

    about = getattr(field_hints(kind)[name], "__metadata__", ())
    own = next((one.documentation for one in about if isinstance(one, DocInfo)), None)
    expected = _expected(kind, name)[0]
    try:
        schema = expected.json_schema()
    except PydanticUserError:  # of a type that no file can hold
        return own or f"a value of {expected._type}"
    others = [one for one in schema.get("anyOf", []) if one.get("type") != "string"]
    if number and any(one.get("type") in ("integer", "number") for one in others):
        return _in_words({"anyOf": others})
    return own or _in_words(schema)


def _in_words(schema: Json) -> str:
    """What a JSON schema lets pass: "an integer from 0 to 51", "a positive number or null"."""
    if "anyOf" in schema:
        *others, last = dict.fromkeys(map(_in_words, schema["anyOf"]))
        return f"{', '.join(others)} or {last}" if others else last
    if options := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return "one of " + ", ".join(map(str, options))
    parts = schema.get("items") or schema.get("additionalProperties")
    each = _in_words(parts) if isinstance(parts, dict) else ""
    each = f" of {PLURALS[each]}" if each in PLURALS else f", each {each}" if each else ""
    kind = schema.get("type")
    if kind not in ("integer", "number"):
        words = {
            "string": "text",
            "boolean": "true or false",
            "null": "null",
            "array": f"a list{each}",
            "object": schema["title"] if "properties" in schema else f"a mapping{each}",
        }
        return words.get(str(kind), "another value")
    above, least, most = (schema.get(name) for name in ("exclusiveMinimum", "minimum", "maximum"))
    words = f"a positive {kind}" if above == 0 else f"{'an' if kind == 'integer' else 'a'} {kind}"
    if "multipleOf" in schema:
        words = f"a multiple of {schema['multipleOf']}"
    if least is not None:
        words += f" >= {least:g}" if most is None else f" from {least:g} to {most:g}"
    elif most is not None:
        words += f" up to {most:g}"
    return words


# What the seed's scripts, diffsynth and diffusers call a setting: understood where settings come in, not inside.
ALIASES = {
    "sample_steps": "num_inference_steps",
    "steps": "num_inference_steps",
    "sample_shift": "shift",
    "sigma_shift": "shift",
    "flow_shift": "shift",
    "sample_guide_scale": "guidance_scale",
    "guide_scale": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "source_cfg_scale": "source_guidance_scale",
    "guidance_scale_2": "guidance_scale_low",
    "boundary_ratio": "boundary",
    "sigmas": "noise_levels",
    "sample_solver": "solver",
    "seed": "base_seed",
    "save_file": "output",
    "out": "output",
    "tiled": "tile",
    "loras": "lora",
}
# Side of VAE tiles under `tiled`; four tiles of 256 cover 480p.
TILE = 256


def canonical(values: Mapping[str, object], own_names: Collection[str] = ()) -> Json:
    """Settings under their own names.

    Args:
        own_names: what is a setting's own name there, and elsewhere another name of one.

    Raises:
        InputError: one setting under two names; `tiled` that is neither true nor false.
    """
    found: Json = {}
    called: dict[str, str] = {}
    for name, value in values.items():
        own = name if name in own_names else ALIASES.get(name, name)
        if own in called:
            alias = called[own] if name == own else name
            raise InputError(f"{own} is given twice, once as {alias}; expected one of the two names")
        found[own], called[own] = value, name
        if name == "tiled":
            if plain(value) not in (True, False):
                raise InputError(
                    f"tiled is {value!r}; expected true or false, or tile with the side of a tile"
                )
            found[own] = TILE if value else None
    return found


def own_names(kind: type, values: Mapping[str, object], within: str = "") -> Json:
    """Values by the names of a dataclass's fields, where they may be called by other names.

    Args:
        within: what stands before the names in messages, such as "palette.".

    Raises:
        InputError: a name that is no field; one setting under two names.
    """
    known = [one.name for one in fields(kind)]
    for name in values:
        if name not in known and ALIASES.get(name) not in known:
            near = nearest(name, [*known, *(other for other, own in ALIASES.items() if own in known)])
            meant = f"did you mean {within + near!r}?" if near else f"expected one of {', '.join(known)}"
            raise InputError(f"{within}{name} is no setting of {kind.__name__}; {meant}")
    return canonical(values, known)


def with_changes(config: Config, **changes: object) -> Config:
    """A copy of a configuration with other values, by the fields' names or their aliases.

    Raises:
        InputError: a name that is no field.
    """
    return replace(config, **{name: plain(value) for name, value in own_names(type(config), changes).items()})
