"""The identity edit through a trained network: wan-tiny, float32, 64x64x17, six steps.

Nothing in the argument of `identity` needs an exact velocity, only that the same network is asked twice for the same
value. Float32 leaves the rounding of a few sums, which every step hands on to the next.
"""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from math_verification.claims.identity import controllers
from math_verification.record import largest
from math_verification.report import FULL, Row, Size, at_least, at_most
from math_verification.wan_tiny import load, still_edit
from wanedit.flow.editing import Edit
from wanedit.flow.keyframes import Controller, Covariance
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import schedule

SENTENCE = "wan-tiny: an edit that changes nothing gives the source's latents back, guided or not"
STEPS, SHIFT, GUIDANCE = 6, 3.0, 4.0


@dataclass(frozen=True)
class IdentityTiny:
    """Attributes:
    errors: controller -> largest |result - x_s| in latents, whose deviation is about 1.
    guided: the same of the covariance controller under guidance of both branches.
    unequal: the same where only the target branch is guided, which must not be small.
    without: the same at lambda = 0, which must not be small.
    """

    errors: dict[str, float]
    guided: float
    unequal: float
    without: float

    def rows(self) -> list[Row]:
        rows = [at_most(f"{name}: |result - x_s|", error, 1e-4) for name, error in self.errors.items()]
        rows.append(at_most(f"covariance scalar, both branches guided by {GUIDANCE:g}", self.guided, 1e-4))
        rows.append(at_least("only the target branch guided: |result - x_s|", self.unequal, 1e-2))
        rows.append(at_least("lambda 0: |result - x_s|", self.without, 1e-2))
        return rows

    def figures(self) -> dict[str, Figure]:
        return {}


def _error(edit: Edit, controller: Controller, **settings: float) -> float:
    method = ResidualCorrectedFlow(controller, **settings)  # pyright: ignore[reportArgumentType]
    latents = method(load(), edit, schedule(STEPS, SHIFT)).latents
    assert latents is not None
    return largest(latents - edit.source)


@torch.no_grad()
def verify(size: Size = FULL, nudge: float = 0.0) -> IdentityTiny:
    """Edit a clip into itself, plus `nudge` in the keyframe's latents."""
    edit = still_edit(load())
    edit = Edit(
        edit.source, edit.edited + nudge, edit.slots, edit.noise, edit.target, edit.reference, edit.video
    )
    # Fewer products than the default: each is two evaluations of the network.
    every = controllers() | {"covariance full": Covariance("full", iterations=6)}
    scalar = every["covariance scalar"]
    return IdentityTiny(
        {name: _error(edit, controller) for name, controller in every.items()},
        _error(edit, scalar, guidance_scale=GUIDANCE, source_guidance_scale=GUIDANCE),
        _error(edit, scalar, guidance_scale=GUIDANCE, source_guidance_scale=1.0),
        _error(edit, scalar, source_weight=0.0),
    )
