"""Which settings an edit reads. Those that it does not are named to the user, and left out of the edit's hash."""

from dataclasses import fields
from typing import Any

from wanedit.flow.editing import Method
from wanedit.flow.keyframes import Covariance
from wanedit.flow.methods import (
    FLF2V,
    CopySource,
    FirstFrame,
    FlowAlign,
    FlowEdit,
    ResidualCorrectedFlow,
    RFInversion,
    WarpNearestKeyframe,
)
from wanedit.jobs.edit.config import EditConfig
from wanedit.lit.pixels import MAKES_PIXELS
from wanedit.lit.rehearsal import WITHOUT_MODEL

# Methods that ask the model about the source clip too.
READS_SOURCE = (ResidualCorrectedFlow, FlowEdit, FlowAlign, RFInversion)
# Methods that use the keyframes as pictures only and show the model those that they choose, or none.
BY_PICTURES = (CopySource, FirstFrame, FLF2V, WarpNearestKeyframe)
# What decides an edit's pixels beside its pictures, its method and the model.
DECIDING = (
    "prompt",
    "source_prompt",
    "negative_prompt",
    "base_seed",
    "num_inference_steps",
    "shift",
    "guidance_scale",
    "source_guidance_scale",
    "keyframe_encoding",
    "condition_keyframes",
    "restore",
    "tile",
)
# Everybody gives these; that a method does not read them needs no telling.
UNTOLD = ("prompt", "base_seed")


def unread(config: EditConfig, method: Method) -> dict[str, str]:
    """The fields of a configuration that this method does not read, each with the reason."""
    if isinstance(method, WITHOUT_MODEL):
        why = f"{config.method} asks the model nothing"
        return dict.fromkeys((*DECIDING, "save_latents", "alpha", "beta", "controller"), why)
    found = _of_controller(config, method)
    if isinstance(method, BY_PICTURES):
        names = ("keyframe_encoding", "condition_keyframes")
        found |= dict.fromkeys(names, f"{config.method} shows the model keyframes of its own choice")
    if isinstance(method, MAKES_PIXELS):
        found |= dict.fromkeys(("restore", "save_latents"), f"{config.method} makes pixels")
    if not reads_source(method):
        names = ("source_prompt", "source_guidance_scale")
        found |= dict.fromkeys(names, f"{config.method} asks nothing about the source")
    return found | _of_guidance(config, method)


def reads_source(method: Method) -> bool:
    """Whether it asks the model about the source clip."""
    return isinstance(method, READS_SOURCE) and getattr(method, "source_weight", 1.0) != 0


def guidance(config: EditConfig, method: Method) -> tuple[float, float | None]:
    """The guidance of the target's and of the source's velocity; None where the source is not asked about."""
    own, own_source = getattr(method, "guidance_scale", None), _own_source(method)
    given = config.guidance_scale if config.source_guidance_scale is None else config.source_guidance_scale
    target = config.guidance_scale if own is None else own
    if not reads_source(method):
        return target, None
    return target, given if own_source is None else own_source


def _own_source(method: Method) -> float | None:
    return 1.0 if isinstance(method, FlowAlign) else getattr(method, "source_guidance_scale", None)


def _of_controller(config: EditConfig, method: Method) -> dict[str, str]:
    controller: Any = getattr(method, "controller", None)
    if controller is None:
        return dict.fromkeys(("alpha", "beta", "controller"), f"the method {config.method} has no controller")
    names = {f.name for f in fields(controller)}
    found = {
        name: f"the controller {config.controller} has no such gain"
        for name in ("alpha", "beta")
        if name not in names
    }
    own = [name for name in ("alpha", "beta") if name in config.controller_options]
    return found | dict.fromkeys(own, "controller_options has its own")


def _of_guidance(config: EditConfig, method: Method) -> dict[str, str]:
    found = {}
    own, own_source = getattr(method, "guidance_scale", None), _own_source(method)
    source_settled = (
        own_source is not None or config.source_guidance_scale is not None or not reads_source(method)
    )
    if own is not None and source_settled:
        found["guidance_scale"] = f"the guidance_scale of {config.method} is {own:g}; method_options sets it"
    if reads_source(method) and own_source is not None:
        found["source_guidance_scale"] = f"the source_guidance_scale of {config.method} is {own_source:g}"
    if set(guidance(config, method)) <= {1.0, None}:
        found["negative_prompt"] = "at guidance 1 nothing is steered away from"
    return found


def unused(config: EditConfig, method: Method) -> list[str]:
    """A note for every setting that was changed and that does nothing here.

    Args:
        config: as the user gave it, its defaults open.
    """
    same = {"source_prompt": config.prompt, "source_guidance_scale": config.guidance_scale, "restore": "none"}
    defaults = {f.name: f.default for f in fields(config)}
    notes = [
        f"{name} {getattr(config, name)} is not used: {why}"
        for name, why in unread(config, method).items()
        if name not in UNTOLD
        and getattr(config, name) not in (defaults[name], same.get(name, defaults[name]))
    ]
    options, controller = config.method_options, getattr(method, "controller", None)
    if {"derivative", "derivative_step"} & set(options) and not isinstance(controller, Covariance):
        notes.append(f"derivative is not used: the controller {config.controller} differentiates nothing")
    target, source = guidance(config, method)
    if isinstance(method, ResidualCorrectedFlow) and source is not None and target != source:
        notes.append(
            f"the guidance of the edit is {target:g} and that of the source {source:g}: where they differ, an edit "
            "that changes nothing does not give the source back"
        )
    return notes
