"""From the fields of an EditConfig to a method: its options checked, and what of the configuration it leaves unread."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TypeVar, get_origin, get_type_hints

from wanedit.errors import InputError
from wanedit.flow.editing import Method, Part
from wanedit.flow.keyframes import CONTROLLERS, Controller
from wanedit.flow.methods import METHODS
from wanedit.flow.methods.flowedit import FlowEdit
from wanedit.jobs.edit.config import EditConfig
from wanedit.registry import Registry
from wanedit.runtime.settings import IsDataclass, TrackingSettings, check_values

T = TypeVar("T")

# What a method that ignores a part of the edit leaves unread of the configuration, and why.
READ_THROUGH: dict[Part, tuple[tuple[str, ...], str]] = {
    "reference": (("source_prompt", "source_guidance_scale"), "asks nothing about the source"),
    "edited": (("keyframe_encoding",), "uses the keyframes as pictures"),
    "images": (("condition_keyframes",), "shows the model keyframes of its own choice"),
}
# What decides nothing by itself: its effect stands in the pictures, the method, the windows or the model's files, which
# are hashed, or comes after the edit. Whatever else is a setting decides, also one that is added later.
ELSEWHERE = {
    "job", "video", "keyframes", "start", "num_frames", "fps", "decoder", "salvage", "size",
    "resize_policy", "keyframe_fit", "output_size", "long_source", "method", "method_options",
    "controller", "controller_options", "alpha", "beta", "model", "ckpt_dir", "gpu_id", "cpu_threads",
    "offload_model", "t5_cpu", "save_latents", "crf", "force_regenerate", "output",
    *TrackingSettings.__dataclass_fields__,
}  # fmt: skip
# Hashes of version 0.1 stand: there these two were called otherwise.
HASHED_AS = {"guidance_scale": "cfg_scale", "source_guidance_scale": "source_cfg_scale"}
# There these methods held, and hashed, a function each, which the edit hands them now.
HASHED_TOO = {"flf2v": {"retime": "retime_clip"}, "warp": {"flow": "flow_between"}}
# Everybody gives these; that a method does not read them needs no telling.
UNTOLD = ("prompt", "base_seed")


def build_method(config: EditConfig) -> Method:
    """The method with its options; one with a field `controller` with the controller that `config` names.

    Raises:
        InputError: no such method or controller, or an option that it does not have or cannot take.
    """
    kind, what = _class_of(METHODS, config.method, Method), f"method {config.method}"
    names = _fields(kind)
    given: dict[str, object] = {"seed": config.base_seed or 0} if "seed" in names else {}
    if "controller" in names:
        controller = _class_of(CONTROLLERS, config.controller, Controller)
        gains = {name: getattr(config, name) for name in ("alpha", "beta") if name in _fields(controller)}
        given["controller"] = _construct(
            controller, gains, config.controller_options, f"controller {config.controller}"
        )
    elif config.controller_options:
        raise InputError(f"controller_options are given, but the {what} has no controller")
    return _construct(kind, given, config.method_options, what)


def _class_of(registry: Registry[type[T]], name: str, base: type[T]) -> type[T]:
    kind = registry[name]
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise InputError(
            f"{registry.kind} {name} is {kind!r}; expected a class made from {base.__module__}.{base.__name__}"
        )
    return kind


def _fields(of: object) -> dict[str, Field[object]]:
    """The fields of a method or controller, or of its class: all of them are dataclasses, which no base class says."""
    assert isinstance(of, IsDataclass)
    return {f.name: f for f in fields(of)}


def _construct(kind: type[T], given: dict[str, object], options: dict[str, object], what: str) -> T:
    """An instance of a dataclass; `options` are the user's words and win over what is `given`.

    Raises:
        InputError: an option that it does not have or cannot take, or one that it lacks.
    """
    hints = get_type_hints(kind)
    # Functions and controllers are objects: no configuration can hold one.
    known = [
        name
        for name in _fields(kind)
        if get_origin(hints[name]) is not Callable and hints[name] is not Controller
    ]
    for name in options:
        if name not in known:
            expected = f"some of {', '.join(known)}" if known else "none"
            raise InputError(f"{what} has no option {name!r}; expected {expected}")
    check_values(kind, options, f"{what}: ")
    for f in _fields(kind).values():
        if f.default is MISSING and f.default_factory is MISSING and f.name not in given | options:
            raise InputError(f"{what} lacks the option {f.name!r}")
    return kind(**given | options)


def describe_method(method: object) -> dict[str, object]:
    """The settings of a method as plain values; callables by their name, and code from outside by its hash."""
    values: dict[str, object] = {}
    for name in _fields(method):
        value = getattr(method, name)
        if hasattr(value, "__dataclass_fields__"):
            value = {"kind": type(value).__name__, **describe_method(value)}
        elif callable(value):
            value = getattr(value, "__name__", type(value).__name__)
        values[name] = value
    # A method under development gives new results as its file changes; those of the package have a version.
    own = type(method).__module__.startswith("wanedit.")
    return values if own else values | {"code": code_sha256(type(method))}


def hashed_method(config: EditConfig, method: Method) -> dict[str, object]:
    """The settings of a method as an edit's hash holds them: as `describe_method`, spelt as version 0.1 did."""
    values = describe_method(method) | HASHED_TOO.get(config.method, {})
    if isinstance(method, FlowEdit):
        values["n_max"] = method.taken(config.num_inference_steps)
    return values


def code_sha256(kind: Callable[..., object]) -> str:
    """SHA-256 of the file that a class is written in; of its name where it has none."""
    file = inspect.getsourcefile(kind)
    return hashlib.sha256(Path(file).read_bytes() if file else kind.__qualname__.encode()).hexdigest()


def deciding(config: EditConfig, method: Method) -> dict[str, object]:
    """The settings that decide an edit's pixels beside its pictures, its method and the model, for its hash."""
    skipped = unread(config, method)
    return {
        HASHED_AS.get(f.name, f.name): getattr(config, f.name)
        for f in fields(config)
        if f.name not in ELSEWHERE and f.name not in skipped
    }


def unread(config: EditConfig, method: Method) -> dict[str, str]:
    """The fields of a configuration that this method does not read, each with the reason."""
    name, ignored = config.method, method.ignores
    if "model" in ignored:
        names = [f.name for f in fields(config) if f.name not in ELSEWHERE]
        return dict.fromkeys(
            (*names, "save_latents", "alpha", "beta", "controller"), f"{name} asks the model nothing"
        )
    found = {}
    controller = getattr(method, "controller", None)
    gains = () if controller is None else _fields(controller)
    if controller is None:
        found |= dict.fromkeys(("alpha", "beta", "controller"), f"the method {name} has no controller")
    for gain in ("alpha", "beta"):
        if controller is not None and gain not in gains:
            found[gain] = f"the controller {config.controller} has no such gain"
        if gain in config.controller_options:
            found[gain] = "controller_options has its own"
    for part, (names, why) in READ_THROUGH.items():
        if part in ignored:
            found |= dict.fromkeys(names, f"{name} {why}")
    if method.makes_pixels:
        found |= dict.fromkeys(("restore", "save_latents"), f"{name} makes pixels")
    target, source = guidance(config, method)
    # What comes through unchanged is the views' guidance, which the configuration sets; the rest is the method's own.
    own, own_source = method.guidance(-1.0, -2.0)
    if own != -1.0 and (own_source != -2.0 or config.source_guidance_scale is not None):
        found["guidance_scale"] = f"the guidance_scale of {name} is {target:g}; method_options sets it"
    if own_source not in (-2.0, None):
        found["source_guidance_scale"] = f"the source_guidance_scale of {name} is {source:g}"
    if {target, source} <= {1.0, None}:
        found["negative_prompt"] = "at guidance 1 nothing is steered away from"
    return found


def guidance(config: EditConfig, method: Method) -> tuple[float, float | None]:
    """The guidance of the target's and of the source's velocity; None where the source is not asked about."""
    given = config.source_guidance_scale
    return method.guidance(config.guidance_scale, config.guidance_scale if given is None else given)


def unused(config: EditConfig, method: Method) -> list[str]:
    """A note for every setting that was changed and that does nothing here.

    Args:
        config: as the user gave it, its defaults open.
    """
    same = {"source_prompt": config.prompt, "source_guidance_scale": config.guidance_scale, "restore": "none"}
    defaults = {f.name: f.default for f in fields(config)}
    return [
        f"{name} {getattr(config, name)} is not used: {why}"
        for name, why in unread(config, method).items()
        if name not in UNTOLD
        and getattr(config, name) not in (defaults[name], same.get(name, defaults[name]))
    ]
