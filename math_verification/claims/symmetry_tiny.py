"""How far a trained network is from having a covariance: wan-tiny, with and without guidance.

J0 = d x0_hat / dz would be (1 - sigma) / sigma^2 Cov(x_0 | z), symmetric and positive. For u of independent standard
normals on the key slots E |J u|^2 = |J|_F^2 and E |(J - J^T) u|^2 = |J - J^T|_F^2 of the block [K, K], so one JVP and
one VJP a probe estimate the share that is not symmetric (Hutchinson 1990); sqrt(2) is a matrix of independent entries.

Conjugate gradients (Hestenes and Stiefel 1952) need that symmetry. The last columns solve C[K, K] w = e for an edit
that holds the first slot's picture at the key slot: by them, and by the generalised conjugate residuals that covariance
control uses (Eisenstat, Elman and Schultz 1983), which need none and whose residual cannot grow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from math_verification.figures import BLUE, GREEN, ORANGE, RED, panels
from math_verification.report import FULL, Row, Size, at_most, reported
from math_verification.wan_tiny import load, still_edit
from wanedit.flow.covariance import conjugate_residuals, covariance_product
from wanedit.flow.editing import Edit, VideoModel, at_slots, inner, into_slots, rms
from wanedit.flow.path import Step, interpolate
from wanedit.flow.solvers import Velocity

SENTENCE = "wan-tiny: how symmetric is d x0_hat / dz (measured; no theory predicts it)"
SIGMAS, GUIDANCES, PRODUCTS = (0.95, 0.8, 0.5, 0.2), (1.0, 4.0), 4
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Probe:
    """Attributes:
    asymmetry: |J0 - J0^T|_F / |J0|_F on the key slots; 0 for a covariance.
    difference, central: relative error of the finite differences that covariance control may use.
    gradients, residuals: |C[K, K] w - e| / |e| after PRODUCTS products, by either solver; 1 is no solution at all.
    """

    asymmetry: float
    difference: float
    central: float
    gradients: float
    residuals: float


@dataclass(frozen=True)
class SymmetryTiny:
    """Attributes:
    probes: (guidance, sigma) -> what was measured.
    """

    probes: dict[tuple[float, float], Probe]

    def rows(self) -> list[Row]:
        rows = []
        for scale in GUIDANCES:
            found = [self.probes[scale, sigma] for sigma in SIGMAS]
            head = f"guidance {scale:g}, sigma {'/'.join(map(str, SIGMAS))}"
            rows += [
                reported(f"{head}: asymmetry on the key slots", *(p.asymmetry for p in found)),
                reported(f"{head}: error of forward differences", *(p.difference for p in found)),
                reported(f"{head}: error of central differences", *(p.central for p in found)),
                reported(f"{head}: residual, {PRODUCTS} conjugate gradients", *(p.gradients for p in found)),
                reported(f"{head}: residual, {PRODUCTS} conjugate residuals", *(p.residuals for p in found)),
            ]
        worst = max(p.residuals for p in self.probes.values())
        rows.append(at_most("conjugate residuals leave no more than they were given: worst", worst, 1.01))
        return rows

    def figures(self) -> dict[str, Figure]:
        figure, (left, middle, right) = panels(3, 2.7)
        for scale, colour, other, mark in zip(GUIDANCES, (BLUE, RED), (GREEN, ORANGE), "os", strict=True):
            found = [self.probes[scale, sigma] for sigma in SIGMAS]
            left.plot(
                SIGMAS, [p.asymmetry for p in found], f"{mark}-", color=colour, label=f"guidance {scale:g}"
            )
            for axis, name, label, line, shade in (
                (middle, "difference", "forward", "-", colour),
                (middle, "central", "central", "--", other),
                (right, "gradients", "gradients", "-", colour),
                (right, "residuals", "residuals", "--", other),
            ):
                values = [getattr(p, name) for p in found]
                axis.plot(SIGMAS, values, f"{mark}{line}", color=shade, label=f"{label}, guidance {scale:g}")
        left.set(ylabel="|J - J^T| / |J| on the key slots", ylim=(0, 1.5), title="asymmetry")
        middle.set(ylabel="relative error of J w", yscale="log", ylim=(1e-4, 1), title="finite differences")
        right.set(ylabel="|C[K,K] w - e| / |e|", ylim=(0, 1.6), title=f"solvers, {PRODUCTS} products")
        for axis in (left, middle, right):
            axis.set_xlabel("sigma")
            axis.legend()
        return {"symmetry_tiny": figure}


def conjugate_gradients(apply: Map, right: Tensor, products: int) -> Tensor:
    """The textbook's iterate after so many products; it stops where a direction has no positive curvature."""
    x, r, p = torch.zeros_like(right), right, right
    for _ in range(products):
        image = apply(p)
        curvature, energy = inner(p, image), inner(r, r)
        if bool((curvature <= 0).any()):
            break
        x, r = x + energy / curvature * p, r - energy / curvature * image
        p = r + inner(r, r) / energy * p
    return x


def _solved(velocity: Velocity, edit: Edit, z: Tensor, v: Tensor, step: Step) -> tuple[float, float]:
    product = covariance_product(velocity, z, v, step, "central")
    error = at_slots(edit.source, edit.slots) - at_slots(edit.source, (0,))

    def column(w: Tensor) -> Tensor:
        return product(into_slots(w, edit.slots, edit.num_slots))

    def inside(w: Tensor) -> Tensor:
        return at_slots(column(w), edit.slots)

    by_gradients = inside(conjugate_gradients(inside, error, PRODUCTS))
    summed = conjugate_residuals(column, lambda made, _: at_slots(made, edit.slots), error, 1e-6, PRODUCTS)
    by_residuals = at_slots(summed.expand_as(z), edit.slots)
    return rms(by_gradients - error) / rms(error), rms(by_residuals - error) / rms(error)


def _probe(velocity: Velocity, edit: Edit, sigma: float, count: int) -> Probe:
    step = Step(0, sigma, 0.0, 1000 * sigma)
    z, keys = interpolate(edit.source, edit.noise, sigma), edit.slots
    generator = torch.Generator().manual_seed(91)
    total = {"J": 0.0, "odd": 0.0, "difference": 0.0, "central": 0.0, "all": 0.0}

    def at(x: Tensor) -> Tensor:
        return velocity(x, step)

    v, pull = torch.func.vjp(at, z)[:2]
    for _ in range(count):
        white = torch.randn(at_slots(z, keys).shape, generator=generator)
        u = into_slots(white, keys, edit.num_slots)
        forward = torch.func.jvp(at, (z,), (u,))[1]
        with torch.no_grad():
            reach = 1e-2 * rms(z) / rms(u)
            ahead, behind = at(z + reach * u), at(z - reach * u)
        # J0 u = u - sigma J u: the identity cancels in all differences.
        total["J"] += rms(white - sigma * at_slots(forward, keys)) ** 2
        total["odd"] += (sigma * rms(at_slots(forward - pull(u)[0], keys))) ** 2
        total["all"] += rms(u - sigma * forward) ** 2
        total["difference"] += (sigma * rms((ahead - v) / reach - forward)) ** 2
        total["central"] += (sigma * rms((ahead - behind) / (2 * reach) - forward)) ** 2
    with torch.no_grad():
        solved = _solved(velocity, edit, z, v, step)
    return Probe(
        (total["odd"] / total["J"]) ** 0.5,
        (total["difference"] / total["all"]) ** 0.5,
        (total["central"] / total["all"]) ** 0.5,
        *solved,
    )


def verify(size: Size = FULL, model: VideoModel | None = None) -> SymmetryTiny:
    """Probe the bundled model on the path of one clip; `model` takes its place."""
    with torch.no_grad():
        edit = still_edit(load())
    probes = {}
    # Only the plain kernel of attention has a forward derivative.
    with sdpa_kernel(SDPBackend.MATH):
        for scale in GUIDANCES:
            with torch.no_grad():
                velocity = (model or load()).velocity(edit.target.guided(scale), edit.num_slots)
            for sigma in SIGMAS:
                probes[scale, sigma] = _probe(velocity, edit, sigma, size.probes)
    return SymmetryTiny(probes)
