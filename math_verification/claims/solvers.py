"""Every solver has its order, on a linear flow whose solution is known and on a mixture solved finely.

Gaussian data: (z - (1 - sigma) m) scaled by V^-1/2 is constant along dz/dsigma = v. Between sigma 0.95 and 0.05 the
log signal-to-noise ratio is smooth and each formula shows its own order; UniPC-2 corrects all steps but the last,
which gains one order. Over the whole official schedule the ends, where the ratio is infinite, cost the multistep
solvers a step of first order, that is an error of h^2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from math_verification.claims.recursion import models
from math_verification.closed_form import GaussianVideo, normal, smooth_covariance
from math_verification.figures import BLUE, GREEN, ORANGE, PINK, panels
from math_verification.record import largest, levels_between
from math_verification.report import FULL, Row, Size, equals, slope
from wanedit.flow.editing import View
from wanedit.flow.path import schedule
from wanedit.flow.solvers import SOLVERS, Solver, Velocity, heun

SENTENCE = "euler, heun, dpm++ and unipc converge with their orders"
SLOTS, COUNTS = 9, (40, 80, 160, 320)
# The whole path of dpm++ loses a logarithm: error ~ log(n) / n^2 reads as 1.8 at these counts.
INSIDE = {"euler": 1.0, "heun": 2.0, "dpm++": 2.0, "unipc": 3.0}
WHOLE = {"euler": 1.0, "heun": 2.0, "dpm++": 1.8, "unipc": 2.0}


@dataclass(frozen=True)
class Orders:
    """Attributes:
    errors: (data, solver) -> largest error for each of COUNTS; data: "Gaussian", "mixture", "whole path".
    """

    errors: dict[tuple[str, str], list[float]]

    def order(self, data: str, solver: str) -> float:
        """The measured order, from the finer half of the counts."""
        return slope([1 / n for n in COUNTS[1:]], self.errors[data, solver][1:])

    def rows(self) -> list[Row]:
        rows = []
        for data, solver in self.errors:
            expected = (WHOLE if data == "whole path" else INSIDE)[solver]
            rows.append(equals(f"{data}, {solver}: order", expected, self.order(data, solver), 0.25))
        return rows

    def figures(self) -> dict[str, Figure]:
        names = list(dict.fromkeys(data for data, _ in self.errors))
        figure, axes = panels(len(names), 2.7)
        for axis, data in zip(axes, names, strict=True):
            for solver, colour, mark in zip(INSIDE, (ORANGE, GREEN, BLUE, PINK), "os^D", strict=True):
                label = f"{solver}: {self.order(data, solver):.2f}"
                axis.loglog(COUNTS, self.errors[data, solver], f"{mark}-", color=colour, label=label)
            axis.set(xlabel="steps", title=data)
            axis.set_xticks(COUNTS, [str(n) for n in COUNTS])
            axis.minorticks_off()
            axis.set_ylim(bottom=min(map(min, (self.errors[data, s] for s in INSIDE))) / 300)
            axis.legend(title="solver: order", loc="lower left")
        axes[0].set_ylabel("largest error")
        return {"solvers": figure}


def _flow_map(model: GaussianVideo, z: Tensor, first: float, last: float) -> Tensor:
    """The exact solution for Gaussian data, mean zero."""
    values, vectors = torch.linalg.eigh(model.covariance)

    def variance(sigma: float) -> Tensor:
        return (1 - sigma) ** 2 * values + sigma**2

    scale = (variance(last) / variance(first)).sqrt()
    return (z.movedim(2, -1) @ (vectors * scale) @ vectors.T).movedim(-1, 2)


def _errors(solver: Solver, velocity: Velocity, start: Tensor, end: Tensor) -> list[float]:
    return [largest(solver(velocity, start, levels_between(0.95, 0.05, n)) - end) for n in COUNTS]


def verify(size: Size = FULL, solvers: Mapping[str, Solver] | None = None) -> Orders:
    """Refine the steps fourfold twice. `renoise`, which draws noise at every step, follows no path and has no order."""
    solvers = {name: SOLVERS[name] for name in INSIDE} if solvers is None else solvers
    start = normal(4, SLOTS, 41)
    gaussian, mixture = GaussianVideo(smooth_covariance(SLOTS, 2.0)), models()["mixture"]
    linear, bent = gaussian.velocity(View(""), SLOTS), mixture.velocity(View(""), SLOTS)
    # Heun at 6,400 steps errs 400 times less than at 320.
    fine = heun(bent, start, levels_between(0.95, 0.05, 6400))
    errors = {}
    for name, solver in solvers.items():
        errors["Gaussian", name] = _errors(solver, linear, start, _flow_map(gaussian, start, 0.95, 0.05))
        errors["mixture", name] = _errors(solver, bent, start, fine)
        plans = [schedule(n, 1.0, name) for n in COUNTS]
        errors["whole path", name] = [
            largest(solver(linear, start, p) - _flow_map(gaussian, start, p.sigmas[0], 0.0)) for p in plans
        ]
    return Orders(dict(sorted(errors.items(), key=lambda item: item[0][0] == "whole path")))
