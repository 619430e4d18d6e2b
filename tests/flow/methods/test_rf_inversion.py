"""RF-Inversion: both controls at their ends, and the plain inversion between them."""

import math

import pytest
import torch

from tests.flow.problems import (
    MEANS,
    SLOTS,
    GuidedGaussian,
    Mixing,
    column,
    gaussian,
    largest,
    problem,
    refuses,
)
from wanedit.flow.methods.rf_inversion import RFInversion
from wanedit.flow.path import schedule

FREE = RFInversion(gamma=0.0, eta=0.0)


def test_settings_are_those_of_the_paper() -> None:
    method = RFInversion()
    assert (method.gamma, method.eta, method.until) == (0.5, 0.9, 0.25)


def test_full_control_tracks_the_source() -> None:
    """eta = 1 at every step: the clean estimate is the source all along, whatever the inversion and the prompt."""
    edit, seen = problem(), []
    method = RFInversion(eta=1.0, until=1.0)
    made = method(
        gaussian(), edit, schedule(15, 3.0), lambda step, metrics: seen.append(metrics["source_error"])
    ).latents
    assert made is not None
    assert largest(made - edit.source) < 1e-12
    assert max(seen) < 1e-12


def test_without_control_the_source_comes_back_at_first_order() -> None:
    edit = problem(identity=True)
    errors = []
    for steps in (100, 200):
        made = FREE(gaussian(), edit, schedule(steps, 1.0)).latents
        assert made is not None
        errors.append(largest(made - edit.source))
    assert errors[1] < 0.1
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15)


def test_without_control_the_means_change_places() -> None:
    """Inversion and sampling only differ in the mean: x_s + m_t - m_s."""
    edit = problem()
    errors = []
    for steps in (100, 200):
        made = FREE(gaussian(), edit, schedule(steps, 1.0)).latents
        assert made is not None
        errors.append(largest(made - edit.source - column(MEANS["a dog"] - MEANS["a cat"])))
    assert errors[1] < 0.1
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15)


def test_a_controlled_inversion_ends_at_the_noise_of_the_edit() -> None:
    starts = []

    class Watching(Mixing):
        def velocity(self, view, slots):
            inner = super().velocity(view, slots)
            if view.prompt == "a cat":  # it cannot be asked at sigma = 0
                return lambda z, step: torch.zeros_like(z)
            return lambda z, step: starts.append(z) or inner(z, step)

    edit = problem()
    RFInversion(gamma=1.0)(Watching(), edit, schedule(10, 3.0))
    assert largest(starts[0] - edit.noise) < 1e-12
    # Half of it on a model that stands still: each step leaves 1 - h / (2 (1 - sigma)) of the way.
    starts.clear()
    RFInversion(gamma=0.5)(Watching(), edit, schedule(2, 1.0))
    assert largest(starts[0] - edit.noise - (1 - 0.25) * (1 - 0.5) * (edit.source - edit.noise)) < 1e-12


def test_eta_weighs_the_source_against_the_model() -> None:
    """Data at one point m: every step heads for eta x_s + (1 - eta) m."""
    point = GuidedGaussian(1e-14 * torch.eye(SLOTS, dtype=torch.float64), dict(MEANS))
    edit = problem()
    made = RFInversion(gamma=0.3, eta=0.9, until=1.0)(point, edit, schedule(12, 3.0)).latents
    assert made is not None
    assert largest(made - 0.9 * edit.source - 0.1 * column(MEANS["a dog"])) < 1e-6


@pytest.mark.parametrize(
    ("steps", "until", "controlled"), [(8, 0.25, 2), (10, 0.25, 3), (5, 0.0, 0), (5, 1.0, 5)]
)
def test_control_acts_at_the_first_steps(steps: int, until: float, controlled: int) -> None:
    seen = []
    method = RFInversion(eta=1.0, until=until)
    method(
        gaussian(),
        problem(),
        schedule(steps, 3.0),
        lambda step, metrics: seen.append(metrics["source_error"]),
    )
    assert [error < 1e-12 for error in seen] == [i < controlled for i in range(steps)]


@pytest.mark.parametrize("name", ["gamma", "eta", "until"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_bad_settings_are_refused(name: str, value: float) -> None:
    refuses(RFInversion(), rf"{name} (is )?{value:g}.*expected numbers in \[0, 1\]", **{name: value})
