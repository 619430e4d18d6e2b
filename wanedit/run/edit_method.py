"""From the fields of an EditConfig to a method: its options checked, and told which of them it does not use."""

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any, get_origin, get_type_hints

from wanedit.errors import InputError
from wanedit.flow.editing import Method
from wanedit.flow.keyframes import CONTROLLERS, Controller, Residual, largest_stable_alpha, steps_for
from wanedit.flow.methods import (
    FLF2V,
    CopySource,
    FirstFrame,
    FlowAlign,
    FlowEdit,
    ResidualCorrectedFlow,
    RFInversion,
    WarpNearestKeyframe,
    get_method,
)
from wanedit.flow.path import schedule
from wanedit.lit.editing.pixels import MAKES_PIXELS, pixel_defaults
from wanedit.lit.editing.rehearsal import WITHOUT_MODEL
from wanedit.run.config import describe_type, fits_type
from wanedit.run.edit_config import EditConfig

# Methods that ask the model about the source clip too.
READS_SOURCE = (ResidualCorrectedFlow, FlowEdit, FlowAlign, RFInversion)
# Methods that use the keyframes as pictures only, or not at all.
BY_PICTURES = (CopySource, FirstFrame, FLF2V, WarpNearestKeyframe)
# Wan-Edit takes the last 41 of 50 steps; other numbers of steps keep the share.
FLOWEDIT_SHARE = 41 / 50


def build_method(config: EditConfig) -> Method:
    """The method with its options; for residual_corrected with its controller.

    Raises:
        InputError: no such method or controller, or an option that it does not have or cannot take.
    """
    kind: Any = get_method(config.method)
    names, what = {f.name for f in fields(kind)}, f"method {config.method}"
    _require_options(kind, config.method_options, what)
    options = pixel_defaults(kind) | config.method_options
    if "controller" in names:
        options["controller"] = build_controller(config)
    elif config.controller_options:
        raise InputError(f"controller_options are given, but the method {config.method} has no controller")
    if "seed" in names:
        options.setdefault("seed", config.base_seed or 0)
    if "n_max" in names:
        options.setdefault("n_max", max(1, round(FLOWEDIT_SHARE * config.num_inference_steps)))
    return _construct(kind, options, what)


def build_controller(config: EditConfig) -> Controller:
    """The controller that `config` names."""
    kind, what = CONTROLLERS[config.controller], f"controller {config.controller}"
    _require_options(kind, config.controller_options, what)
    given = {name: getattr(config, name) for name in ("alpha", "beta") if name in _names(kind)}
    return _construct(kind, given | config.controller_options, what)


def _names(kind: Any) -> set[str]:
    return {f.name for f in fields(kind)}


def _require_options(kind: Any, given: dict[str, Any], what: str) -> None:
    """Refuse names that are no settings of `kind`, and values of another type than theirs."""
    hints = get_type_hints(kind)
    # Functions on pixels and controllers are objects: no configuration can hold one.
    known = [f.name for f in fields(kind) if _plain(hints[f.name])]
    for name, value in given.items():
        if name not in known:
            expected = f"some of {', '.join(known)}" if known else "none"
            raise InputError(f"{what} has no option {name!r}; expected {expected}")
        if not fits_type(value, hints[name]) or value in (float("inf"), -float("inf")) or value != value:
            raise InputError(f"{what}: {name} is {value!r}; expected {describe_type(hints[name])}")


def _plain(hint: Any) -> bool:
    from collections.abc import Callable

    return get_origin(hint) is not Callable and hint is not Controller


def _construct(kind: Any, options: dict[str, Any], what: str) -> Any:
    lacking = [f for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [f.name for f in lacking if f.name not in options]
    if missing:
        raise InputError(f"{what} lacks the option {missing[0]!r}")
    return kind(**options)


def describe_method(method: Any) -> dict[str, Any]:
    """The settings of a method as plain values; callables by their name."""
    values = {}
    for f in fields(method):
        value = getattr(method, f.name)
        if hasattr(value, "__dataclass_fields__"):
            value = {"kind": type(value).__name__, **describe_method(value)}
        elif callable(value):
            value = getattr(value, "__name__", type(value).__name__)
        values[f.name] = value
    return values


def unused(config: EditConfig, method: Method) -> list[str]:
    """A note for every setting that was changed and that this method does not read."""
    controller = getattr(method, "controller", None)
    if controller is None:
        notes = _changed(
            config, ("alpha", "beta", "controller"), f"the method {config.method} has no controller"
        )
    else:
        lacking = [name for name in ("alpha", "beta") if name not in _names(controller)]
        notes = _changed(config, lacking, f"the controller {config.controller} has no gain")
    if config.keyframe_encoding != "single" and isinstance(method, BY_PICTURES):
        notes += _changed(config, ("keyframe_encoding",), f"{config.method} is told of no keyframe's latents")
    if not isinstance(method, READS_SOURCE):
        why = f"{config.method} asks nothing about the source"
        named = {"source_prompt": config.prompt, "source_cfg_scale": config.cfg_scale}
        own = [name for name, same in named.items() if getattr(config, name) != same]
        notes += _changed(config, own, why)
    if isinstance(method, MAKES_PIXELS) and config.restore not in ("auto", "none"):
        notes += _changed(config, ("restore",), f"{config.method} makes pixels, of which nothing was lost")
    if isinstance(method, WITHOUT_MODEL):
        names = ("cfg_scale", "num_inference_steps")
        return notes + _changed(config, names, f"{config.method} asks the model nothing")
    for scale, name in (("guidance_scale", "cfg_scale"), ("source_guidance_scale", "source_cfg_scale")):
        own = getattr(method, scale, None)
        if own is not None and own != getattr(config, name):
            notes += _changed(
                config, (name,), f"{config.method} has its own {scale}, {own:g}; give it in method_options"
            )
    return notes


def _changed(config: EditConfig, names: Iterable[str], why: str) -> list[str]:
    defaults = {f.name: f.default for f in fields(config)}
    changed = [name for name in names if getattr(config, name) != defaults[name]]
    return [f"{name} {getattr(config, name)} is not used: {why}" for name in changed]


def stability_warning(controller: Residual, steps: int, shift: float) -> list[str]:
    """A warning when the residual controller diverges on this schedule; empty when it does not."""
    levels, alpha = schedule(steps, shift), controller.alpha + controller.beta
    worst = max(levels, key=lambda step: step.h)
    if alpha * worst.h < 2:
        return []
    enough = steps_for(alpha, shift)
    advice = f"{enough} steps would do" if enough else "no number of steps up to 2000 would do"
    named = "alpha + beta" if controller.beta else "alpha"
    return [
        f"{named} {alpha:g} diverges: {named} times h is {alpha * worst.h:.2f} at step {worst.index} and must stay "
        f"below 2. The largest stable {named} for {steps} steps at shift {shift:g} is "
        f"{largest_stable_alpha(levels):.3g}; {advice}; the controller exponential is stable always"
    ]
