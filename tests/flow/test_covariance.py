"""Cov(x_0 | z) from a derivative of the velocity, and conjugate residuals, against matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from math_verification.closed_form import GaussianVideo
from tests.flow.problems import SHAPE, SLOTS, Mixing, across, draw, gaussian, largest, smooth, variance
from wanedit.flow.covariance import conjugate_residuals, covariance_product
from wanedit.flow.editing import View
from wanedit.flow.path import Step

HOW = ["difference", "central", "forward"]
EVALUATIONS = {"difference": 1, "central": 2, "forward": 1}


def at(sigma: float) -> Step:
    return Step(0, sigma, sigma / 2, 1000 * sigma)


def truth(sigma: float) -> Tensor:
    """Cov(x_0 | z) = C - (1 - sigma)^2 C V^-1 C, from the joint covariance of x_0 and z; no derivative in it."""
    c = smooth()
    return c - (1 - sigma) ** 2 * c @ torch.linalg.inv(variance(sigma)) @ c


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("sigma", [0.95, 0.5, 0.1])
def test_the_product_is_the_posterior_covariance(how, sigma: float) -> None:
    model, z, w = gaussian(), draw(*SHAPE), draw(*SHAPE, seed=1)
    velocity = model.velocity(View("a cat"), SLOTS)
    product = covariance_product(velocity, z, velocity(z, at(sigma)), at(sigma), how)
    before = model.evaluations
    assert largest(product(w) - across(truth(sigma), w)) < 1e-10
    assert model.evaluations - before == EVALUATIONS[how]


@pytest.mark.parametrize("how", ["difference", "central"])
@pytest.mark.parametrize("sigma", [0.9, 0.5, 0.1])
def test_differences_agree_with_forward_mode_in_float32(how, sigma: float) -> None:
    """A linear velocity: all that is left of a difference's error is rounding."""
    model = GaussianVideo(smooth().float())
    z, w = draw(*SHAPE, dtype=torch.float32), draw(*SHAPE, seed=1, dtype=torch.float32)
    velocity = model.velocity(View(""), SLOTS)
    v = velocity(z, at(sigma))
    exact = covariance_product(velocity, z, v, at(sigma), "forward")(w)
    assert exact.dtype == torch.float32
    near = covariance_product(velocity, z, v, at(sigma), how)(w)
    assert largest(near - exact) < 1e-3 * largest(exact)


@pytest.mark.parametrize(("how", "order"), [("difference", 1), ("central", 2)])
def test_order_of_the_differences(how, order: int) -> None:
    """A velocity that bends: halving the step divides the error by 2^order."""
    velocity = Mixing().velocity(View("a cat"), SLOTS)
    z, w, step = draw(*SHAPE), draw(*SHAPE, seed=1), at(0.5)
    v = velocity(z, step)
    exact = covariance_product(velocity, z, v, step, "forward")(w)

    def error(size: float) -> float:
        return float((covariance_product(velocity, z, v, step, how, size)(w) - exact).norm())

    assert error(1e-3) / error(5e-4) == pytest.approx(2**order, rel=0.05)


@pytest.mark.parametrize("how", HOW)
def test_a_clip_does_not_notice_the_rest_of_its_batch(how) -> None:
    """A small w beside a large one, and one that is zero."""
    velocity = Mixing().velocity(View("a cat"), SLOTS)
    z, step = draw(3, *SHAPE[1:], dtype=torch.float32), at(0.5)
    w = (
        draw(3, *SHAPE[1:], seed=1, dtype=torch.float32)
        * torch.tensor([1e-6, 1e4, 0.0])[:, None, None, None, None]
    )
    together = covariance_product(velocity, z, velocity(z, step), step, how)(w)
    for b in range(3):
        one = slice(b, b + 1)
        alone = covariance_product(velocity, z[one], velocity(z[one], step), step, how)(w[one])
        assert largest(together[one] - alone) <= 1e-3 * largest(alone)
    assert largest(together[2]) == 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_forward_mode_works_where_gradients_are_off(mode) -> None:
    with mode():
        velocity = gaussian().velocity(View("a cat"), SLOTS)
        z, w = draw(*SHAPE), draw(*SHAPE, seed=1)
        product = covariance_product(velocity, z, velocity(z, at(0.5)), at(0.5), "forward")
        assert largest(product(w) - across(truth(0.5), w)) < 1e-12


def systems(count: int, size: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Symmetric positive matrices with eigenvalues from 1 to `spread`, and right-hand sides (B, 1, size, 1, 1)."""
    basis = torch.linalg.qr(draw(count, size, size, seed=seed)).Q
    values = torch.linspace(1, spread, size, dtype=torch.float64)
    return basis * values @ basis.mT, draw(count, 1, size, 1, 1, seed=seed + 1)


def apply(matrices: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("bst,bcthw->bcshw", matrices, x)


def solved(matrices: Tensor, right: Tensor, tolerance: float, iterations: int) -> tuple[Tensor, int]:
    """`x` with `matrices x = right`, and how many products it took: the columns are those of the identity."""
    taken = []

    def read(made: Tensor, w: Tensor) -> Tensor:
        taken.append(w)
        return apply(matrices, w)

    found = conjugate_residuals(lambda w: w, read, right, tolerance, iterations)
    return found.expand_as(right), len(taken)


@given(st.integers(1, 8), st.floats(1, 50), st.floats(0, 2), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_conjugate_residuals_solve_in_as_many_steps_as_dimensions(
    size: int, spread: float, turn: float, seed: int
) -> None:
    """Without symmetry too: the matrices have a part that turns."""
    matrices, right = systems(3, size, spread, seed)
    other = draw(3, size, size, seed=seed + 2)
    matrices = matrices + turn * (other - other.mT)
    exact = torch.linalg.solve(matrices, right[:, 0, :, :, 0])
    found, _ = solved(matrices, right, 1e-13, size)
    assert largest(found[:, 0, :, :, 0] - exact) < 1e-8


@given(st.integers(2, 8), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_what_is_left_never_grows_whatever_the_matrix(size: int, seed: int) -> None:
    """Conjugate gradients return many times what they were given where the matrix is indefinite or turns."""
    matrices, right = draw(3, size, size, seed=seed), draw(3, 1, size, 1, 1, seed=seed + 1)
    before = right.flatten(1).norm(dim=1)
    for iterations in range(1, size + 1):
        left = right - apply(matrices, solved(matrices, right, 1e-12, iterations)[0])
        after = left.flatten(1).norm(dim=1)
        assert bool((after <= before * (1 + 1e-6)).all())
        before = after


def test_the_columns_are_summed_as_they_are_made() -> None:
    """What comes back is the columns' sum, not the weights, and no column is made for it again."""
    matrices, right = systems(2, 6, 30.0)
    tall = draw(2, 9, 6, seed=5)
    made = []

    def column(w: Tensor) -> Tensor:
        made.append(w)
        return apply(tall, w)

    found = conjugate_residuals(column, lambda _, w: apply(matrices, w), right, 1e-13, 6)
    weights = torch.linalg.solve(matrices, right[:, 0, :, :, 0])
    assert largest(found[:, 0, :, :, 0] - tall @ weights) < 1e-8
    assert len(made) == 6


def test_a_tolerance_is_of_each_right_hand_side() -> None:
    matrices, right = systems(4, 40, 1e3)
    right = right * torch.tensor([1e-6, 1.0, 1e5, 0.0], dtype=torch.float64)[:, None, None, None, None]
    found, _ = solved(matrices, right, 1e-4, 1000)
    left = (apply(matrices, found) - right).flatten(1).norm(dim=1)
    assert bool((left <= 1.01e-4 * right.flatten(1).norm(dim=1)).all())
    assert largest(found[3]) == 0


def test_a_clip_that_is_done_stays_while_others_go_on() -> None:
    """The first clip's matrix is easy: it stops where it would alone, short of exact, and the second runs on."""
    easy, right = systems(2, 30, 4.0)
    hard, _ = systems(2, 30, 1e3)
    together, taken = solved(torch.stack([easy[0], hard[1]]), right, 1e-2, 200)
    alone, fewer = solved(easy[:1], right[:1], 1e-2, 200)
    assert fewer + 10 < taken < 200
    assert largest(together[:1] - alone) < 1e-12


def test_a_matrix_that_answers_nothing_moves_nothing() -> None:
    right = draw(2, 1, 4, 1, 1)
    found, taken = solved(torch.zeros(2, 4, 4, dtype=torch.float64), right, 1e-3, 5)
    assert taken == 1
    assert largest(found) == 0
