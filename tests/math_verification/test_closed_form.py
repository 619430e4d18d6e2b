"""The exact models against automatic differentiation, sampling and each other."""

import pytest
import torch

from math_verification.claims.recursion import models
from math_verification.closed_form import (
    GaussianVideo,
    KernelVideo,
    conditional,
    draw,
    normal,
    smooth_covariance,
    smooth_kernel,
)
from math_verification.mixture import MixtureVideo
from wanedit.flow.editing import View
from wanedit.flow.path import Step


def _step(sigma: float) -> Step:
    return Step(0, sigma, 0.0, 1000 * sigma)


@pytest.mark.parametrize("sigma", [0.9, 0.5, 0.05])
def test_a_mixture_of_one_component_is_the_gaussian(sigma: float) -> None:
    mean, covariance = torch.linspace(-1, 1, 5, dtype=torch.float64), smooth_covariance(5, 1.5)
    gaussian = GaussianVideo(covariance, {"": mean})
    mixture = MixtureVideo(torch.ones(1, dtype=torch.float64), mean[None], covariance[None])
    z = normal(6, 5, 1)
    ours, theirs = (model.velocity(View(""), 5)(z, _step(sigma)) for model in (mixture, gaussian))
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_the_mixture_velocity_is_a_conditional_mean() -> None:
    """Regression: among noised samples near z, the mean of eps - x_0 is v(z). One slot, many samples."""
    ones = torch.ones(2, 1, 1, dtype=torch.float64)
    means = torch.tensor([[-1.0], [1.5]], dtype=torch.float64)
    model = MixtureVideo(torch.tensor([0.4, 0.6], dtype=torch.float64), means, 0.1 * ones)
    torch.manual_seed(2)
    count, sigma = 2_000_000, 0.5
    x_0 = means[(torch.rand(count) < 0.6).long(), 0] + 0.1**0.5 * torch.randn(count, dtype=torch.float64)
    eps = torch.randn(count, dtype=torch.float64)
    z = (1 - sigma) * x_0 + sigma * eps
    for centre in (-0.6, 0.1, 0.8):
        near = (z - centre).abs() < 0.02
        sampled, error = (eps - x_0)[near].mean(), (eps - x_0)[near].std() / near.sum().sqrt()
        exact = model.velocity(View(""), 1)(torch.full((1, 1, 1, 1, 1), centre).double(), _step(sigma))
        assert abs(float(exact) - float(sampled)) < 4 * float(error) + 0.01


def test_the_mixture_follows_its_prompt() -> None:
    model = models()["mixture"]
    assert isinstance(model, MixtureVideo)
    model.prompts["second"] = torch.tensor([1e-9, 1.0], dtype=torch.float64)
    z = normal(3, 9, 3)
    shares = model.posterior(z.flatten(1), 0.9, "second").shares
    assert (shares[:, 1] > 0.999).all()
    assert model.membership(draw(model.means[1], model.covariances[1], 5, 4)).shape == (5, 2)


def test_a_conditional_is_what_samples_say() -> None:
    mean, covariance = torch.linspace(-1, 1, 5, dtype=torch.float64), smooth_covariance(5, 1.5)
    clips = draw(mean, covariance, 100_000, 5).flatten(1)
    keys = (1, 3)
    values = torch.tensor([0.5, -0.5], dtype=torch.float64)
    gain = torch.linalg.lstsq(clips[:, keys] - clips[:, keys].mean(0), clips - clips.mean(0)).solution
    expected = clips.mean(0) + (values - clips[:, keys].mean(0)) @ gain
    found, left = conditional(mean, covariance, keys, values)
    assert torch.allclose(found, expected, atol=0.02)
    assert torch.allclose(found[list(keys)], values)
    assert left[list(keys)].abs().max() < 1e-12


def test_slots_with_one_id_are_one_slot() -> None:
    model = KernelVideo(smooth_kernel(2.0))
    z = normal(1, 3, 6)
    v = model.velocity(View("", frame_ids=(0.0, 1.0, 1.0)), 3)
    twins = torch.cat([z[:, :, :2], z[:, :, 1:2]], dim=2)
    out = v(twins, _step(0.7))
    # Some processors' matrix products round the rows of one matrix by different kernels.
    assert (out[:, :, 1] - out[:, :, 2]).abs().max() < 1e-12
