"""Both branches from pure noise with equal ids are one trajectory: every residual is zero, whatever the edit.

A model that is not told which slot is which, and not shown the keyframes, gives slots with equal ids and equal values
equal velocities. From sigma = 1 with coupled noise z[K] = z_e, hence v[K] = v_e, hence r = 0 and z[K] = z_e again.
The run reports a perfect residual and has not read x_e once. `ResidualCorrectedFlow` refuses it; this file
goes round the refusal to show why.
"""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from math_verification.closed_form import KernelVideo, normal, smooth_kernel
from math_verification.figures import BLUE, GREEN, ORANGE, panels
from math_verification.record import keyed, largest
from math_verification.report import FULL, Row, Size, at_least, at_most, equals
from wanedit.errors import InputError
from wanedit.flow.editing import Edit, VideoModel
from wanedit.flow.keyframes import Residual
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import Step, schedule

SENTENCE = "both branches from pure noise with equal ids: the residual is zero for any edit"
SLOTS, KEYS = 9, (2, 6)


class Unchecked(ResidualCorrectedFlow):
    """The method without its refusals."""

    def __post_init__(self) -> None:
        pass

    def _require_apart(self, edit: Edit, places: list[float]) -> None:
        pass


@dataclass(frozen=True)
class Degenerate:
    """Attributes:
    refused: whether the method refuses the run.
    residuals: way to run -> RMS of r at every step, of the largest edit.
    spread: way to run -> how much the result depends on the edit: largest difference between two edits' results.
    """

    refused: bool
    residuals: dict[str, list[float]]
    spread: dict[str, float]

    def rows(self) -> list[Row]:
        return [
            equals("the method refuses it (1 = yes)", 1, float(self.refused), 0),
            at_most("pure noise, both denoised: largest residual", max(self.residuals["pure noise"]), 1e-12),
            at_most(
                "pure noise, both denoised: result of edit A - result of edit B",
                self.spread["pure noise"],
                1e-12,
            ),
            at_least("strength 0.8: largest residual", max(self.residuals["strength 0.8"]), 1e-2),
            at_least("strength 0.8: result of A - result of B", self.spread["strength 0.8"], 1e-1),
            at_least("analytic edit branch: largest residual", max(self.residuals["analytic"]), 1e-2),
            at_least("analytic edit branch: result of A - result of B", self.spread["analytic"], 1e-1),
        ]

    def figures(self) -> dict[str, Figure]:
        figure, (axis,) = panels(1, 3.6)
        looks = ((BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^-."))
        for (name, values), (colour, line) in zip(self.residuals.items(), looks, strict=True):
            # A shorter run starts later; steps are counted from the end of the schedule.
            first = 20 - len(values)
            axis.plot(range(first, 20), values, line, color=colour, label=name, markersize=3)
        axis.set(
            xlabel="step of 20",
            ylabel="RMS of the residual",
            title="joint Gaussian sequence, alpha 5, shift 3",
        )
        axis.set_xticks(range(0, 20, 4))
        axis.legend()
        return {"degenerate": figure}


def _model() -> KernelVideo:
    return KernelVideo(
        smooth_kernel(2.0, floor=0.3), {"target": lambda t: 0.3 * t, "source": lambda t: -0.1 * t}
    )


def _edit(value: float) -> Edit:
    values = torch.tensor([value, -value], dtype=torch.float64)
    source = torch.linspace(-1, 1, SLOTS, dtype=torch.float64).view(1, 1, SLOTS, 1, 1)
    return keyed(source, normal(1, SLOTS, 11), KEYS, values, ("target", "source"))


def _run(method: ResidualCorrectedFlow, model: VideoModel, edit: Edit) -> tuple[list[float], Tensor]:
    residuals: list[float] = []

    def observe(step: Step, metrics: dict[str, float]) -> None:
        residuals.append(metrics["r_k_norm"])

    latents = method(model, edit, schedule(20, 3.0), observe).latents
    assert latents is not None
    return residuals, latents


def _refuses() -> bool:
    try:
        ResidualCorrectedFlow(edit_branch="denoised", show_keyframes=False)
    except InputError:
        return True
    return False


def verify(size: Size = FULL, model: VideoModel | None = None) -> Degenerate:
    """Run three edits each way."""
    model = _model() if model is None else model
    ways = {
        "pure noise": Unchecked(Residual(5.0), edit_branch="denoised", show_keyframes=False),
        "strength 0.8": Unchecked(Residual(5.0), edit_branch="denoised", show_keyframes=False, strength=0.8),
        "analytic": ResidualCorrectedFlow(Residual(5.0)),
    }
    residuals, spread = {}, {}
    for name, method in ways.items():
        runs = [_run(method, model, _edit(value)) for value in (0.0, 1.0, 10.0)]
        residuals[name] = runs[1][0]
        if name == "pure noise":
            residuals[name] = [max(found) for found in zip(*(r for r, _ in runs), strict=True)]
        spread[name] = max(largest(latents - runs[0][1]) for _, latents in runs[1:])
    return Degenerate(_refuses(), residuals, spread)
