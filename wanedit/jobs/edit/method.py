"""From the fields of an EditConfig to a method: its options checked, and what of the configuration it leaves unread."""

import inspect
from dataclasses import MISSING, fields
from typing import TypeVar, get_args

from wanedit.errors import InputError
from wanedit.files import Json
from wanedit.flow.editing import Method, Part
from wanedit.flow.guiding import Guide
from wanedit.flow.keyframes import CONTROLLERS, Controller
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule
from wanedit.jobs.edit.config import EditConfig
from wanedit.outside import named_error
from wanedit.runtime.options import construct, describe, fields_of
from wanedit.runtime.sampling import unguided
from wanedit.runtime.settings import MODEL_FIELDS, TrackingSettings
from wanedit.video.restoring import Restore

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
    "resize_policy", "keyframe_fit", "keyframe_align", "output_size", "long_source", "method", "method_options",
    "controller", "controller_options", "alpha", "beta", *MODEL_FIELDS, "lora", "lora_partial", "distilled",
    "cache", "cache_options", "attention", "weights", "compile", "guidance", "guidance_options", "guidance_interval",
    "gpu_id", "cpu_threads", "first_number", "middle_strength", "offload_model", "t5_cpu", "fit", "module_folders",
    "save_latents", "preview", "preview_in_terminal", "crf", "force_regenerate", "output",
    *TrackingSettings.__dataclass_fields__,
}  # fmt: skip
# Left out of the hash unless they are set, so that earlier edits keep their names.
LATER = ("noise_levels", "guidance_scale_low", "boundary", "boundary_step_index")
# Hashes of version 0.1 stand: there these two were called otherwise.
HASHED_AS = {"guidance_scale": "cfg_scale", "source_guidance_scale": "source_cfg_scale"}
# Everybody gives these; that a method does not read them needs no telling.
UNTOLD = ("prompt", "base_seed")


def filled(value: T | None) -> T:
    """A setting of a plan, in which none is null that the model has a value for."""
    assert value is not None
    return value


def build_method(config: EditConfig) -> Method:
    """The method with its options; one with a field `controller` with the controller that `config` names.

    Raises:
        InputError: no such method or controller, an option that it does not have or cannot take, or a declaration that
            means nothing.
    """
    kind, what = METHODS[config.method], f"method {config.method}"
    names = fields_of(kind, what)
    given: dict[str, object] = {"seed": config.base_seed or 0} if "seed" in names else {}
    if "controller" in names:
        controller, called = CONTROLLERS[config.controller], f"controller {config.controller}"
        gains = {
            name: getattr(config, name) for name in ("alpha", "beta") if name in fields_of(controller, called)
        }
        given["controller"] = construct(controller, gains, config.controller_options, called)
    elif config.controller_options:
        raise InputError(f"controller_options are given, but the {what} has no controller")
    method = construct(kind, given, config.method_options, what)
    with named_error(what):
        _check_declared(method, what)
    return method


def check_derivative(method: Method, attention: str) -> None:
    """Refuse a derivative of what cannot be differentiated; attention of one's own may be able to.

    Raises:
        InputError: naming both.
    """
    controller = getattr(method, "controller", None)
    forward = getattr(method, "derivative", "") == "forward" and controller and controller.differentiates
    if forward and attention != "sdpa" and ":" not in attention:
        raise InputError(
            f"derivative is forward, which attention {attention} cannot be asked for; expected attention sdpa, or "
            "derivative difference"
        )


def _check_declared(method: Method, what: str) -> None:
    """Refuse declarations that mean nothing: mistyped, they would be taken for others."""
    if unknown := sorted(set(method.ignores) - set(get_args(Part))):
        raise InputError(
            f"{what} ignores {', '.join(map(repr, unknown))}; expected some of {', '.join(get_args(Part))}"
        )
    if method.restored_by not in get_args(Restore):
        raise InputError(
            f"{what} is restored_by {method.restored_by!r}; expected one of {', '.join(get_args(Restore))}"
        )
    method.guidance(1.0, 1.0)
    if not isinstance(method.makes_pixels, bool):
        raise InputError(f"{what} has makes_pixels {method.makes_pixels!r}; expected True or False")


def method_words(name: str, method: object) -> str:
    """A method as a plan names it: where it is from, its controller with its gains, and whatever is no default."""
    told = [name + _origin(method)]
    for f in fields_of(method).values():
        value = getattr(method, f.name)
        if isinstance(value, Controller):
            gains = ", ".join(f"{gain} {_short(getattr(value, gain))}" for gain in fields_of(value))
            called = f"controller {CONTROLLERS.name_of(type(value))}{_origin(value)}"
            told.append(f"{called} ({gains})" if gains else called)
        # The run's seed has a line of its own.
        elif f.name != "seed" and value != (
            f.default if f.default_factory is MISSING else f.default_factory()
        ):
            told.append(f"{f.name} {_short(value)}")
    return ", ".join(told)


def _origin(made: object) -> str:
    kind = type(made)
    return "" if kind.__module__.startswith("wanedit.") else f" from {inspect.getfile(kind)}"


def _short(value: object) -> str:
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return f"{value:g}" if isinstance(value, float) else str(value)


def from_outside(described: Json) -> bool:
    """Whether some of a method, as it is described, is not the package's own."""
    return "code" in described or any(
        from_outside(part) for part in described.values() if isinstance(part, dict)
    )


def hashed_method(method: Method, levels: Schedule) -> Json:
    """The settings of a method as an edit's hash holds them."""
    return describe(method) | method.decides(levels)


def deciding(config: EditConfig, method: Method, guide: Guide) -> dict[str, object]:
    """The settings that decide an edit's pixels beside its pictures, its method and the model, for its hash."""
    skipped = unread(config, method, guide)
    return {
        HASHED_AS.get(f.name, f.name): getattr(config, f.name)
        for f in fields(config)
        if f.name not in ELSEWHERE
        and f.name not in skipped
        and not (f.name in LATER and getattr(config, f.name) in (None, []))
    }


def unread(config: EditConfig, method: Method, guide: Guide) -> dict[str, str]:
    """The fields of a configuration that this method does not read, each with the reason."""
    name, ignored = config.method, method.ignores
    if "model" in ignored:
        names = [f.name for f in fields(config) if f.name not in ELSEWHERE]
        return dict.fromkeys(
            (
                *(*names, "save_latents", "alpha", "beta", "controller", "cache", "attention", "compile"),
                *("weights", "fit", "guidance", "guidance_interval"),
            ),
            f"{name} asks the model nothing",
        )
    found = {}
    controller = getattr(method, "controller", None)
    gains = () if controller is None else fields_of(controller)
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
    scales = [scale for scale in (target, source, config.guidance_scale_low) if scale is not None]
    if not guide.reads_negative(scales):
        found["negative_prompt"] = "at guidance 1 nothing is steered away from"
    found |= unguided(config, guide, scales)
    return found


def guidance(config: EditConfig, method: Method) -> tuple[float, float | None]:
    """The guidance of the target's and of the source's velocity; None where the source is not asked about."""
    scale, given = filled(config.guidance_scale), config.source_guidance_scale
    return method.guidance(scale, scale if given is None else given)


def unused(
    given: EditConfig, config: EditConfig, method: Method, guide: Guide, negative_prompt: str
) -> list[str]:
    """A note for every setting that was changed and that does nothing here.

    Args:
        given: as the user gave it, its nulls open.
        config: its nulls filled.
        negative_prompt: the model's own, which a record of an earlier run holds although nobody gave it.
    """
    same = {"source_prompt": config.prompt, "source_guidance_scale": config.guidance_scale, "restore": "none"}
    same["negative_prompt"] = negative_prompt
    defaults = {f.name: f.default for f in fields(config)}
    return [
        f"{name} {getattr(given, name)} is not used: {why}"
        for name, why in unread(config, method, guide).items()
        if name not in UNTOLD and getattr(given, name) not in (defaults[name], same.get(name, defaults[name]))
    ]
