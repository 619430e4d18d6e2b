"""Residual-corrected flow with covariance control is Matheron's rule.

Let lambda = 1 and both velocities be those of Gaussian data, means m_t and m_s, one covariance C, and u = z - z_s. The
paths and the noise cancel, and du/dsigma is the exact velocity of N(m_t - m_s, C) at u, controlled towards
u[K] = x_e - x_s[K]. At sigma = 1 u = 0 is the mean of the noise, so u follows the mean (1 - sigma) E[u_0 | u_0[K]]
of the conditional data, a straight line, and what comes out is

    x_s + (m_t - m_s) + C[:, K] C[K, K]^-1 (x_e - x_s[K] - (m_t - m_s)[K]),

whatever the noise: the source plus the edit's best linear prediction. For a source drawn from N(m_s, C) that is an
exact sample of N(m_t, C) given the keyframes (Matheron's rule; arXiv 2002.09309, theorem 1). The one error is that of
the first step, which starts at pure noise and is not controlled.
Identity gains solve the same equation with another control, and move the other slots by less.
"""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from math_verification.claims.conditional import sharp
from math_verification.claims.identity import controllers
from math_verification.closed_form import GaussianVideo, draw, normal, smooth_covariance
from math_verification.figures import CONTROLLER_STYLE, panels
from math_verification.record import keyed, largest, levels_between, run
from math_verification.report import FULL, Row, Size, at_most, equals, slope
from wanedit.flow.editing import Edit, rms
from wanedit.flow.keyframes import Controller
from wanedit.flow.path import Schedule, schedule

SENTENCE = "residual-corrected flow with covariance control is x_s + C[:,K] C[K,K]^-1 (x_e - x_s[K]): Matheron's rule"
SLOTS, KEYS, COUNTS = 13, (3, 9), (25, 50, 100, 200, 400)
OFF = tuple(i for i in range(SLOTS) if i not in KEYS)
ALL = ("residual", "exponential", "replacement", "covariance scalar", "covariance full")


@dataclass(frozen=True)
class Matheron:
    """Attributes:
    errors: relative off-key error of the full solve for each of COUNTS.
    official: controller -> the same at shift 5, 20 steps.
    noise: controller -> how much the result changes with the noise.
    share: controller -> how much of the true off-key change arrives (1 = all), shift 5 and 20 steps.
    profiles: controller -> change of every slot for a unit edit of one slot, for the figure; "exact" among them.
    """

    errors: list[float]
    official: dict[str, float]
    noise: dict[str, float]
    share: dict[str, float]
    profiles: dict[str, list[float]]

    def rows(self) -> list[Row]:
        rows = [
            equals(
                "full: order of the error in h",
                1.0,
                slope([1 / n for n in COUNTS[: len(self.errors)]], self.errors),
                0.15,
            ),
            at_most(
                f"full, {COUNTS[len(self.errors) - 1]} equal steps: relative off-key error",
                self.errors[-1],
                0.01,
            ),
            at_most("every controller: change of the result with the noise", max(self.noise.values()), 1e-9),
        ]
        for name in ("covariance full", "covariance scalar"):
            rows.append(
                at_most(f"{name}, shift 5, 20 steps: relative off-key error", self.official[name], 0.1)
            )
        for name in ALL[:3]:
            rows.append(
                at_most(f"{name}, shift 5, 20 steps: share of the edit that arrives", self.share[name], 0.7)
            )
        rows.append(
            equals("full, shift 5, 20 steps: share of the edit that arrives", 1.0, self.share[ALL[-1]], 0.05)
        )
        return rows

    def figures(self) -> dict[str, Figure]:
        figure, (axis,) = panels(1, 4.4, 2.8)
        for name, profile in self.profiles.items():
            colour, line = CONTROLLER_STYLE[name]
            # The full solve lies on the exact curve: markers let both be seen.
            shape = {"marker": "o", "linestyle": "none"} if name == "covariance full" else {"linestyle": line}
            axis.plot(profile, color=colour, label=name, **shape)  # pyright: ignore[reportArgumentType]
        axis.set(
            xlabel="slot",
            ylabel="change of the clip",
            title="one slot edited by 1; shift 5, 20 steps, alpha 10",
        )
        axis.legend()
        return {"matheron": figure}


def _model(slots: int = SLOTS) -> GaussianVideo:
    t = torch.linspace(0, 1, slots, dtype=torch.float64)
    return GaussianVideo(
        smooth_covariance(slots, 2.0), {"source": 0.5 * t, "target": 0.5 * t + 0.4 * (1 - t)}
    )


def _edit(model: GaussianVideo, noise_seed: int) -> Edit:
    source = draw(model.mean("source"), model.covariance, 32, 61)
    values = torch.tensor([1.5, -1.0], dtype=torch.float64)
    return keyed(source, normal(32, SLOTS, noise_seed), KEYS, values, ("target", "source"))


def _exact(model: GaussianVideo, edit: Edit) -> Tensor:
    keys, c = list(edit.slots), model.covariance
    shift = model.mean("target") - model.mean("source")
    gain = torch.linalg.solve(c[keys][:, keys], c[keys])
    wanted = edit.edited.flatten(1) - edit.source.flatten(1)[:, keys] - shift[keys]
    return shift + wanted @ gain


def _change(model: GaussianVideo, edit: Edit, controller: Controller, levels: Schedule) -> Tensor:
    return (run(model, edit, levels, controller).latents - edit.source).flatten(1)


def _profile(controller: Controller | None) -> list[float]:
    """The change that an edit of the middle slot by 1 makes; None: the rule."""
    model, middle = _model(), (SLOTS // 2,)
    source = draw(model.mean("source"), model.covariance, 1, 62)
    edit = keyed(source, normal(1, SLOTS, 63), middle, source[:, :, list(middle)] + 1, ("source", "source"))
    same = GaussianVideo(model.covariance, {})
    if controller is None:
        return _exact(same, edit)[0].tolist()
    return _change(same, edit, controller, schedule(20, 5.0))[0].tolist()


def verify(size: Size = FULL, full: Controller | None = None) -> Matheron:
    """Compare clips, prompts that move the mean among them, with the rule."""
    model, off = _model(), list(OFF)
    every = {name: c for name, c in controllers().items() if name in ALL}
    every["covariance full"] = sharp() if full is None else full
    edit, other = _edit(model, 64), _edit(model, 65)
    exact = _exact(model, edit)[:, off]
    official = schedule(20, 5.0)
    errors = [
        rms(_change(model, edit, every["covariance full"], levels_between(1.0, 0.0, n))[:, off] - exact)
        / rms(exact)
        for n in COUNTS[: size.refinements]
    ]
    changes = {name: _change(model, edit, c, official)[:, off] for name, c in every.items()}
    again = {name: _change(model, other, c, official)[:, off] for name, c in every.items()}
    # What the prompt moves arrives without any keyframe; the share is of what the keyframes must move.
    free = (model.mean("target") - model.mean("source"))[off]
    wanted = exact - free
    return Matheron(
        errors=errors,
        official={name: rms(change - exact) / rms(exact) for name, change in changes.items()},
        noise={name: largest(changes[name] - again[name]) for name in every},
        share={name: float(((c - free) * wanted).sum() / (wanted**2).sum()) for name, c in changes.items()},
        profiles={"exact": _profile(None)} | {name: _profile(c) for name, c in every.items()},
    )
