"""Two kinds of clip and an edit from one to the other: which controller takes the whole clip along?

Mixture data, two equally likely components, means -1 and +1 on all slots, slots correlated within. The source is of the
first; the edited keyframe is taken from a clip of the second. A result is right if its other slots belong to the
second component; how good it is is told by its Mahalanobis distance there from the second component given the
keyframe (mean square per slot: 1 for exact samples). Every method has the same number of network evaluations, and
the identity gains have the best of several alphas, which no user could have picked.

The velocity is not linear here, so nothing is exact and there is no rule to compare with, only an order to test.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from math_verification.closed_form import draw, normal, smooth_covariance
from math_verification.figures import CONTROLLER_STYLE, panels
from math_verification.mixture import MixtureVideo
from math_verification.record import keyed
from math_verification.report import FULL, Row, Size, at_least, at_most
from wanedit.flow.editing import Edit
from wanedit.flow.keyframes import Controller, Covariance, Exponential, Replacement, Residual
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import schedule

SENTENCE = (
    "at equal evaluations covariance control takes more clips to the edited mode than any identity gain"
)
SLOTS, BUDGET, ALPHAS = 9, 80, (2.0, 5.0, 10.0, 20.0)
SETTINGS: dict[str, tuple[tuple[int, ...], float, bool]] = {
    "one key, lambda 1": ((4,), 1.0, False),
    "two keys, lambda 1": ((0, 8), 1.0, False),
    "one key, lambda 0": ((4,), 0.0, False),
    "one key, lambda 1, prompt names the mode": ((4,), 1.0, True),
}
GAINS = ("residual", "exponential", "replacement")


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    right: share of clips whose other slots belong to the edited mode.
    distance: mean square Mahalanobis distance per other slot.
    evaluations: of the network, per clip.
    """

    right: float
    distance: float
    evaluations: int


@dataclass(frozen=True)
class Modes:
    """Attributes:
    outcomes: (setting, controller) -> what came of it, with BUDGET evaluations.
    sweep: (budget, controller) -> the same for the first setting.
    """

    outcomes: dict[tuple[str, str], Outcome]
    sweep: dict[tuple[int, str], Outcome]

    @property
    def budgets(self) -> tuple[int, ...]:
        """What the sweep was given, in order."""
        return tuple(dict.fromkeys(budget for budget, _ in self.sweep))

    def rows(self) -> list[Row]:
        rows = [
            at_most(
                "most evaluations of any method", max(o.evaluations for o in self.outcomes.values()), BUDGET
            )
        ]
        for setting in SETTINGS:
            best = max(self.outcomes[setting, name].right for name in GAINS)
            nearest = min(self.outcomes[setting, name].distance for name in GAINS)
            for name in ("covariance scalar", "covariance full"):
                found = self.outcomes[setting, name]
                rows.append(at_least(f"{setting}: {name}, right mode", found.right, best))
                rows.append(at_most(f"{setting}: {name}, distance", found.distance, nearest))
        for budget in self.budgets:
            best = max(self.sweep[budget, name].right for name in GAINS)
            found = self.sweep[budget, "covariance scalar"].right
            rows.append(
                at_least(f"{next(iter(SETTINGS))}, {budget} evaluations: scalar, right mode", found, best)
            )
        return rows

    def figures(self) -> dict[str, Figure]:
        figure, (left, right, last) = panels(3, 3.1, 2.9)
        for i, name in enumerate((*GAINS, "covariance scalar", "covariance full")):
            found = [self.outcomes[setting, name] for setting in SETTINGS]
            places = [j + 0.16 * (i - 2) for j in range(len(SETTINGS))]
            colour = CONTROLLER_STYLE[name][0]
            left.bar(places, [o.right for o in found], 0.15, color=colour, label=name)
            right.bar(places, [o.distance for o in found], 0.15, color=colour)
            spent = [self.sweep[budget, name].right for budget in self.budgets]
            last.plot(self.budgets, spent, CONTROLLER_STYLE[name][1], color=colour, marker="os^Dv"[i])
        labels = [s.replace(", ", "\n").replace("prompt names", "prompt\nnames") for s in SETTINGS]
        for axis, title in (
            (left, "share of clips in the edited mode"),
            (right, "mean square distance per slot"),
        ):
            axis.set_xticks(range(len(SETTINGS)), labels, fontsize=6)
            axis.set_title(title)
            axis.grid(axis="x", visible=False)
        right.axhline(1, color="black", linewidth=0.8, linestyle=":")
        right.set_yscale("log")
        last.set(xscale="log", ylim=(0, 1), xlabel="evaluations", title="edited mode; one key, lambda 1")
        last.set_xticks(self.budgets, [str(b) for b in self.budgets])
        last.minorticks_off()
        figure.legend(loc="outside upper center", ncols=5)
        return {"modes": figure}


def _model() -> MixtureVideo:
    level = torch.ones(SLOTS, dtype=torch.float64)
    covariance = 0.2 * smooth_covariance(SLOTS, 2.0)
    sides = {"first": torch.tensor([0.95, 0.05]).double(), "second": torch.tensor([0.05, 0.95]).double()}
    halves = torch.tensor([0.5, 0.5], dtype=torch.float64)
    return MixtureVideo(halves, torch.stack([-level, level]), torch.stack([covariance, covariance]), sides)


def _edit(model: MixtureVideo, keys: tuple[int, ...], named: bool, clips: int) -> Edit:
    source = draw(model.means[0], model.covariances[0], clips, 71)
    other = draw(model.means[1], model.covariances[1], clips, 72)
    prompts = ("second", "first") if named else ("", "")
    return keyed(source, normal(clips, SLOTS, 73), keys, other[:, :, list(keys)], prompts)


def _judge(model: MixtureVideo, edit: Edit, latents: Float[Tensor, "b c s h w"], evaluations: int) -> Outcome:
    keys = list(edit.slots)
    off = [i for i in range(SLOTS) if i not in keys]
    part = MixtureVideo(model.weights, model.means[:, off], model.covariances[:, off][:, :, off])
    c = model.covariances[1]
    gain = torch.linalg.solve(c[keys][:, keys], c[keys])
    mean = model.means[1] + (edit.edited.flatten(1) - model.means[1][keys]) @ gain
    left = (c - c[:, keys] @ gain)[off][:, off]
    gap = latents.flatten(1)[:, off] - mean[:, off]
    distance = (gap * torch.linalg.solve(left, gap.T).T).mean()
    right = part.membership(latents[:, :, off])[:, 1] > 0.5
    return Outcome(float(right.double().mean()), float(distance), evaluations)


def _affordable(controller: Controller, setting: str, budget: int, clips: int) -> Outcome:
    """As many steps as the budget allows; conjugate residuals decide for themselves, so it takes a few tries."""
    keys, weight, named = SETTINGS[setting]
    method = ResidualCorrectedFlow(controller, source_weight=weight)
    steps = budget
    while True:
        model = _model()
        edit = _edit(model, keys, named, clips)
        latents = method(model, edit, schedule(steps, 3.0)).latents
        if model.evaluations <= budget:
            assert latents is not None
            return _judge(model, edit, latents, model.evaluations)
        steps = min(steps - 1, int(steps * budget / model.evaluations))


def _best(candidates: list[Controller], setting: str, budget: int, clips: int) -> Outcome:
    found = [_affordable(controller, setting, budget, clips) for controller in candidates]
    return max(found, key=lambda outcome: (outcome.right, -outcome.distance))


def verify(size: Size = FULL, scalar: Controller | None = None, full: Controller | None = None) -> Modes:
    """Every controller in every setting; the gains with the alpha that does best in each."""
    clips = min(size.samples, 1024)
    ways: dict[str, list[Controller]] = {
        "residual": [Residual(alpha, switch=False) for alpha in ALPHAS],
        "exponential": [Exponential(alpha) for alpha in ALPHAS],
        "replacement": [Replacement()],
        "covariance scalar": [Covariance("scalar") if scalar is None else scalar],
        "covariance full": [Covariance("full", iterations=20) if full is None else full],
    }
    outcomes = {(s, name): _best(found, s, BUDGET, clips) for s in SETTINGS for name, found in ways.items()}
    first = next(iter(SETTINGS))
    sweep = {
        (b, name): _best(found, first, b, clips // 2) for b in size.budgets for name, found in ways.items()
    }
    return Modes(outcomes, sweep)
