"""Every claim holds as it is, and fails when what it is about is disturbed."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from math_verification.claims import (
    conditional,
    degenerate,
    exponential,
    identity,
    identity_tiny,
    matheron,
    modes,
    recursion,
    solvers,
    stability,
    symmetry,
    symmetry_tiny,
    tweedie,
)
from math_verification.closed_form import KernelVideo, smooth_kernel
from math_verification.report import QUICK, Result, Row
from wanedit.flow.editing import View
from wanedit.flow.keyframes import Covariance, Exponential, Replacement, Residual
from wanedit.flow.path import Step
from wanedit.flow.solvers import SOLVERS, Velocity


def failed(result: Result) -> list[str]:
    return [row.what for row in result.rows() if not row.passed]


CLOSED = (
    recursion,
    stability,
    exponential,
    degenerate,
    identity,
    tweedie,
    conditional,
    matheron,
    pytest.param(modes, marks=pytest.mark.slow),
    symmetry,
    solvers,
)


@pytest.mark.parametrize("claim", CLOSED, ids=lambda claim: claim.__name__.rpartition(".")[2])
def test_it_holds(claim) -> None:
    result = claim.verify(QUICK)
    assert len(result.rows()) > 3
    assert failed(result) == []


def _recursion() -> Result:
    """A gain that is a thousandth off."""
    return recursion.verify(QUICK, {"residual": (Residual(10.01), recursion.rules()["residual"][1])})


class Aware(KernelVideo):
    """Tells the appended slots from the others: their ids are half a slot off."""

    def velocity(self, view: View, slots: int) -> Velocity:
        if view.frame_ids is None:
            return super().velocity(view, slots)
        first = degenerate.SLOTS
        ids = tuple(t + 0.5 * (i >= first) for i, t in enumerate(view.frame_ids))
        return super().velocity(replace(view, frame_ids=ids), slots)


def _degenerate() -> Result:
    # The prompts must differ: with equal ones lambda = 1 keeps both branches on the source whatever the ids.
    return degenerate.verify(QUICK, Aware(smooth_kernel(2.0, floor=0.3), {"target": lambda t: 0.3 * t}))


def _skewed(z: Tensor, step: Step) -> Tensor:
    """A rotation: no gradient of anything."""
    return z.roll(1, dims=2)


def _symmetry() -> Result:
    return symmetry.verify(QUICK, {"rotation": _skewed})


def _swapped() -> Result:
    return solvers.verify(
        QUICK, {name: SOLVERS["euler" if name == "heun" else name] for name in solvers.INSIDE}
    )


BROKEN: dict[str, tuple[Callable[[], Result], str]] = {
    "recursion": (_recursion, "rule"),
    "stability: an unconditionally stable gain": (lambda: stability.verify(QUICK, Exponential), "blows up"),
    "exponential: the plain gain": (lambda: exponential.verify(QUICK, Residual), r"largest \|d'\|"),
    "degenerate": (_degenerate, "largest residual"),
    "identity: the keyframes change": (lambda: identity.verify(QUICK, nudge=1e-6), "residual"),
    "tweedie: not a covariance": (lambda: tweedie.verify(QUICK, bend=1e-6), "forward"),
    "conditional: loose keyframes": (
        lambda: conditional.verify(QUICK, Covariance("full", tau=0.3, tolerance=1e-10)),
        "mean",
    ),
    "conditional: an identity gain": (lambda: conditional.verify(QUICK, Replacement()), "seam"),
    "matheron: an identity gain": (lambda: matheron.verify(QUICK, Replacement()), "order"),
    "modes: an identity gain": (lambda: modes.verify(QUICK, scalar=Exponential(1.0)), "right mode"),
    "symmetry: a rotation": (_symmetry, "rotation"),
    "solvers: one for another": (_swapped, "heun"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n.startswith("modes") else n for n in BROKEN]
)
def test_it_fails_where_it_should(name: str) -> None:
    make, expected = BROKEN[name]
    found = failed(make())
    assert found
    assert any(re.search(expected, what) for what in found), found


@dataclass
class Broken:
    """A model whose velocity is what it is told."""

    value: float
    evaluations: int = 0

    def velocity(self, view: View, slots: int) -> Velocity:
        return lambda z, step: z * self.value

    def encode(self, video: Tensor) -> Tensor:
        return video

    def decode(self, latents: Tensor) -> Tensor:
        return latents


@pytest.mark.slow
def test_wan_tiny_gives_the_source_back_and_nothing_else() -> None:
    assert failed(identity_tiny.verify(QUICK)) == []
    assert any("|result - x_s|" in what for what in failed(identity_tiny.verify(QUICK, nudge=0.01)))


@pytest.mark.slow
def test_the_asymmetry_of_wan_tiny_is_measured() -> None:
    assert failed(symmetry_tiny.verify(QUICK)) == []
    assert failed(symmetry_tiny.verify(QUICK, Broken(math.nan)))
    probe = symmetry_tiny.verify(QUICK, Broken(0.5)).probes[1.0, 0.5]
    # A multiple of the identity is symmetric, and either solver needs one product.
    assert max(probe.asymmetry, probe.gradients, probe.residuals) < 1e-3


def test_conjugate_gradients_solve_what_is_symmetric_only() -> None:
    torch.manual_seed(0)
    other = torch.randn(6, 6, dtype=torch.float64)
    right = torch.randn(1, 1, 6, 1, 1, dtype=torch.float64)

    def left(matrix: Tensor) -> float:
        def apply(x: Tensor) -> Tensor:
            return torch.einsum("st,bcthw->bcshw", matrix, x)

        found = symmetry_tiny.conjugate_gradients(apply, right, 6)
        return float((apply(found) - right).norm() / right.norm())

    symmetric = torch.eye(6, dtype=torch.float64) + other @ other.T
    assert left(symmetric) < 1e-8
    assert left(symmetric + 3 * (other - other.T)) > 1


def test_a_row_of_nan_never_passes() -> None:
    from math_verification.report import at_least, at_most, equals, reported

    rows: list[Row] = [
        equals("", 1.0, math.nan, 1.0),
        at_most("", math.nan, 1.0),
        at_least("", math.nan, 1.0),
        reported("", 1.0, math.nan),
    ]
    assert not any(row.passed for row in rows)
