"""From the fields of an EditConfig to a method, its options checked."""

from dataclasses import MISSING, fields
from typing import Any, get_origin, get_type_hints

from wanedit.errors import InputError
from wanedit.flow.editing import Method
from wanedit.flow.keyframes import CONTROLLERS, Controller, Residual, largest_stable_alpha, steps_for
from wanedit.flow.methods import get_method
from wanedit.flow.path import schedule
from wanedit.jobs.edit.config import EditConfig
from wanedit.lit.pixels import pixel_defaults
from wanedit.runtime.settings import check_values

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
    for name in given:
        if name not in known:
            expected = f"some of {', '.join(known)}" if known else "none"
            raise InputError(f"{what} has no option {name!r}; expected {expected}")
    check_values(kind, given, f"{what}: ")


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
