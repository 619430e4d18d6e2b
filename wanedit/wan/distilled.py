"""Models and LoRAs that were distilled to few steps: the settings that they were made for, told by their files' names.

`configs/models/` has the same settings as presets; a test compares the two.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wanedit.errors import InputError, nearest
from wanedit.wan.catalog import Sampling


@dataclass(frozen=True)
class Distilled:
    """One way of distilling.

    Attributes:
        named: a regular expression that names of its files match, in small letters, words parted by "_".
        settings: in the place of the base model's `Sampling`.
        of_two: further ones where the model has two experts.
        source: where the settings are published.
        expects: what its files must be.
        file: whose name told it; "" where it was asked for.
    """

    name: str
    named: str
    settings: dict[str, Any]
    source: str
    expects: str
    of_two: dict[str, Any]
    file: str = ""

    def over(self, own: Sampling, several: bool) -> Sampling:
        """The settings of a base model with these over them."""
        # What the base model was made for beside them is none of theirs.
        bare = {"guidance_scale_low": None, "noise_levels": (), "boundary_step_index": None}
        return replace(own, **bare | self.settings | (self.of_two if several else {}))

    def note(self, sampling: Sampling) -> str:
        """What was decided, why, and how to decide otherwise."""
        why = f"{self.file} says {self.name} by its name" if self.file else f"distilled is {self.name}"
        levels = "noise levels of its own" if sampling.noise_levels else f"shift {sampling.shift:g}"
        if "boundary_step_index" in self.of_two and sampling.boundary_step_index:
            levels += f", of two experts the second after step {sampling.boundary_step_index}"
        return (
            f"{why}: unless settings say otherwise it is sampled with {sampling.num_inference_steps} steps, {levels}, "
            f"guidance {sampling.guidance_scale:g}, {sampling.solver} ({self.source}). It must be {self.expects}; "
            "--distilled none takes the base model's settings"
        )


_RCM = r".*(^|_)rcm(_|$)|.*turbo_?(wan|diffusion)"
_ABOUT_RCM = (
    "arXiv 2510.08431 and 2512.16093",
    "a transformer without the sparse-linear attention of TurboDiffusion, whose further tensors have no place here",
    {"boundary": 0.9},
)


def _rcm(first: float) -> dict[str, Any]:
    """Levels of `wanedit.flow.path.rcm_levels`, of which the first is sigma_max / (1 + sigma_max)."""
    levels = (first, 0.9337811, 0.8528954, 0.608979)
    return {"num_inference_steps": 4, "noise_levels": levels, "guidance_scale": 1.0, "solver": "renoise"}


# What is tried first stands first.
DISTILLED = (
    Distilled(
        "lightning",
        r"wan.*lightning|lightning.*4_?step|seko",
        {"num_inference_steps": 4, "shift": 5.0, "guidance_scale": 1.0, "solver": "euler"},
        "github.com/ModelTC/Wan2.2-Lightning",
        "the LoRAs of both experts of Wan 2.2 A14B, one for each",
        {"boundary": 0.876},
    ),
    Distilled(
        "lightx2v",
        r"lightx2v.*(step|distill)|(step|distill).*lightx2v",
        {"num_inference_steps": 4, "shift": 5.0, "guidance_scale": 1.0, "solver": "euler"},
        "github.com/ModelTC/LightX2V, configs/distill",
        "a transformer or LoRA of LightX2V's step distillation; of Wan 2.2 one for each expert",
        {"boundary_step_index": 2},
    ),
    Distilled(
        "causvid",
        r"causvid",
        {
            "num_inference_steps": 9,
            "noise_levels": (1.0, 0.934, 0.862, 0.756, 0.603, 0.41, 0.25, 0.14, 0.074),
            "guidance_scale": 1.0,
            "solver": "euler",
        },
        "arXiv 2412.07772; github.com/tianweiy/CausVid",
        "the LoRA that was made of CausVid 14B, on a model that attends both ways",
        {},
    ),
    Distilled(
        "fusionx",
        r"fusion_?x",
        {"num_inference_steps": 10, "shift": 2.0, "guidance_scale": 1.0},
        "huggingface.co/vrgamedevgirl84/Wan14BT2VFusioniX",
        "the LoRA or the merged transformer of 14 B",
        {},
    ),
    Distilled("rcm_t2v", rf"(?=.*t2v)({_RCM})", _rcm(0.9876543), *_ABOUT_RCM),
    Distilled("rcm", _RCM, _rcm(0.9950249), *_ABOUT_RCM),
)


def find_distilled(wanted: str, places: Sequence[Path]) -> Distilled | None:
    """The way of distilling of this name; for "auto" the first that a file's or its folder's name tells; else None.

    Raises:
        InputError: a name that is none.
    """
    known = {one.name: one for one in DISTILLED}
    if wanted in known or wanted == "none":
        return known.get(wanted)
    if wanted != "auto":
        near = nearest(wanted, [*known, "auto", "none"])
        hint = f". Did you mean {near!r}?" if near else ""
        raise InputError(f"distilled is {wanted!r}; expected auto, none or one of {', '.join(known)}{hint}")
    for place in places:
        # A hub's cache names the repository two folders up.
        told = [place.name, *(part for part in place.parts if part.startswith("models--"))]
        told += [place.parent.name] if place.is_file() else []
        for one in DISTILLED:
            if any(re.search(one.named, re.sub(r"[^a-z0-9]+", "_", name.lower())) for name in told):
                return replace(one, file=place.name)
    return None
