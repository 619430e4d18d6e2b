"""How a run samples: what its settings say of noise levels, guidance and experts; where they are silent, the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wanedit.errors import InputError
from wanedit.files import Json
from wanedit.flow.caches import CACHES
from wanedit.flow.caching import StepCache
from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guiding import Guide
from wanedit.flow.path import Schedule, schedule
from wanedit.lit.model import OpenModel
from wanedit.lit.tasks import SamplerSettings
from wanedit.runtime.options import changed, construct, describe
from wanedit.wan.attention import chosen
from wanedit.wan.catalog import Sampling
from wanedit.wan.config import ATTENTIONS
from wanedit.wan.load import TRAIN_TIMESTEPS, WanFolder, packed_parts
from wanedit.wan.packed import ROUNDED


@dataclass(frozen=True)
class Sampled:
    """How a run samples, decided.

    Attributes:
        filled: the fields of its settings that were open, by name.
        boundary_timestep: where the low-noise expert takes over; None for the model's own.
        notes: what was given and does nothing, or leaves a network without work.
        cache: None for none.
        guide: how the prompt steers.
    """

    filled: Json
    boundary_timestep: float | None
    notes: list[str]
    cache: StepCache | None
    guide: Guide


def decide_sampling(config: Any, model: OpenModel, solver: str) -> Sampled:
    """Fill what the settings of a run leave open, and refuse what the model or its schedule has no use for.

    Args:
        config: `SampledSettings` that also has num_inference_steps, shift and guidance_scale.
        solver: whose schedule is visited.

    Raises:
        InputError: noise levels that no solver can visit, a switch between experts that are not there, or at no step.
    """
    own, given, notes = model.sampling, config.listed, []
    # A shift that is given is not to be made nothing of by the model's own list.
    levels = given if given is not None else own.noise_levels if config.shift is None else ()
    if given and config.shift is not None:
        notes.append(f"shift {config.shift:g} is not used: noise_levels are those after any shift")
    steps = config.num_inference_steps or (len(given) if given else own.num_inference_steps)
    low = config.guidance_scale_low
    if low is None and config.guidance_scale is None:
        low = own.guidance_scale_low
    level, index = config.boundary, config.boundary_step_index
    if level is None and index is None:
        # Of another number of steps the same share.
        index = round((own.boundary_step_index or 0) * steps / own.num_inference_steps) or None
        # Wan 2.2's own is left open: it names no result.
        if index is None and model.experts > 1 and own.boundary != Sampling.boundary:
            level = own.boundary
    filled: Json = {
        "num_inference_steps": steps,
        # Open where it moves nothing, so that the record of a run does not say that it was given.
        "shift": own.shift if config.shift is None and not levels else config.shift,
        "guidance_scale": own.guidance_scale if config.guidance_scale is None else config.guidance_scale,
        "noise_levels": list(levels),
        "guidance_scale_low": low,
        "boundary": level,
        "boundary_step_index": index,
    }
    plan = schedule(steps, filled["shift"] or own.shift, solver, levels)
    boundary = _boundary(level, index, model, plan)
    handovers = model.handovers(boundary)
    if low is not None and not handovers:
        raise InputError(
            f"guidance_scale_low is {low:g} and {model.name} is one network at all noise levels; expected null, a "
            "model of two experts, or a lora that is merged below a noise level"
        )
    visited = (
        f"{', '.join(f'{sigma:.4g}' for sigma in plan.sigmas[:-1][:12])}{' …' if len(plan) > 12 else ''}"
    )
    asked = {sum(timestep < edge for edge in handovers) for timestep in plan.timesteps}
    for idle in sorted({*range(len(handovers) + 1)} - asked):
        notes.append(
            f"network {idle + 1} of {len(handovers) + 1} of {model.name} is asked at no step: they hand over at "
            f"{', '.join(f'{edge / TRAIN_TIMESTEPS:.4g}' for edge in handovers)}, and the noise levels are {visited}"
        )
    cache = decide_cache(config, model)
    # As it is for this model, so that a record needs no file beside it.
    filled["cache_options"] = {} if cache is None else changed(cache)
    filled["attention"] = decide_attention(config.attention, model)
    notes += cache.doubts(model.name) if cache else []
    if config.weights == "file" and isinstance(model, WanFolder) and not packed_parts(model):
        notes.append(f"weights file is full here: no matrix of {model.name} is small in its file")
    guide = decide_guide(config, model)
    (below, above), scale = guide.interval, filled["guidance_scale"]
    if not guide.idle((scale, scale if low is None else low)) and not any(
        below <= sigma <= above for sigma in plan.sigmas[:-1]
    ):
        notes.append(
            f"guidance_interval {below:g} to {above:g} guides no step: the noise levels are {visited}"
        )
    filled["guidance_options"] = changed(guide.guidance)
    return Sampled(filled, boundary, notes, cache, guide)


def decide_cache(config: Any, model: OpenModel) -> StepCache | None:
    """The cache that `SampledSettings` name, for this model; None for none.

    Raises:
        InputError: an option that it does not have or cannot take; it needs something of the model that is not there.
    """
    if config.cache == "none":
        return None
    made = construct(CACHES[config.cache], {}, config.cache_options, f"cache {config.cache}")
    with CACHES.guard(config.cache):
        return made.of_model(model.name, model.path if isinstance(model, WanFolder) else None)


def decide_guide(config: Any, model: OpenModel) -> Guide:
    """The guidance that `SampledSettings` name, for this model.

    Raises:
        InputError: an option that it does not have or cannot take; it asks for blocks that the model does not have.
    """
    what = f"guidance {config.guidance}"
    made = construct(GUIDANCES[config.guidance], {}, config.guidance_options, what)
    if isinstance(model, WanFolder):
        with GUIDANCES.guard(config.guidance):
            made = made.of_model(model.name, model.config.num_layers)
    low, high = config.guidance_interval or (0.0, 1.0)
    return Guide(made, (low, high))


def hashed_guide(guide: Guide) -> Json:
    """What guidance adds to the hash of what it helps to make: nothing where it is classifier-free at all noise levels,
    so that what was made before keeps its name."""
    found: Json = {}
    if (name := GUIDANCES.name_of(type(guide.guidance))) != "cfg":
        found["guidance"] = [name, describe(guide.guidance)]
    if guide.interval != (0.0, 1.0):
        found["guidance_interval"] = list(guide.interval)
    return found


def unguided(config: Any, guide: Guide, scales: Sequence[float]) -> dict[str, str]:
    """What was said of guidance and does nothing at these scales, each with the reason."""
    said = {"guidance": config.guidance != "cfg", "guidance_interval": config.guidance_interval is not None}
    why = "at guidance_scale 1 the prompt alone is asked about"
    return {name: why for name, given in said.items() if given and guide.idle(scales)}


def hashed_cache(cache: StepCache | None) -> Json:
    """What a cache adds to the hash of what it helps to make: nothing where there is none, so that what was made before
    keeps its name."""
    return {} if cache is None else {"cache": [CACHES.name_of(type(cache)), describe(cache)]}


def decide_attention(name: str, model: OpenModel) -> str:
    """The back end that a run of this model asks; see `wanedit.wan.attention.chosen`, also for what is raised. One that
    is no Wan attends as it likes."""
    return chosen(name, model.config.head_dim) if isinstance(model, WanFolder) else "sdpa"


def hashed_computing(computing: SamplerSettings) -> Json:
    """What adds to the hash of what it computes, since it changes its last bits or more: nothing for sdpa, of weights
    as they are, not compiled."""
    attention = computing.attention
    added: Json = {}
    if attention != "sdpa":
        added["attention"] = [attention, *([code] if (code := ATTENTIONS.code(attention)) else [])]
    added |= {"weights": computing.weights} if computing.weights in ROUNDED else {}
    return added | ({"compile": True} if computing.compile else {})


def _boundary(level: float | None, index: int | None, model: OpenModel, plan: Schedule) -> float | None:
    """The timestep that the first of two experts answers down to."""
    named = "boundary_step_index" if level is None else "boundary"
    if level is not None and index is not None:
        raise InputError(
            f"boundary is {level:g} and boundary_step_index {index}; expected one of them, each says where the "
            "low-noise expert takes over"
        )
    if (level is not None or index is not None) and model.experts < 2:
        raise InputError(f"{named} is given and {model.name} has no two experts; expected null")
    if index is not None:
        if index >= len(plan):
            raise InputError(
                f"boundary_step_index is {index} of {len(plan)} steps; expected less, or the low-noise expert has none"
            )
        return plan.timesteps[index - 1]
    return None if level is None else TRAIN_TIMESTEPS * level
