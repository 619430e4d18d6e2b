"""The covariance controller samples Gaussian data given its keyframes; identity gains do not.

For x_0 ~ N(m, C) and any noise level, E[x_0 | z, x_0[K] = x_e] = x0_hat + C_z[:, K] C_z[K, K]^-1 (x_e - x0_hat[K]) with
C_z = Cov(x_0 | z): Gaussian conditioning (Bishop 2006, equation 2.81) of the posterior. The controlled velocity is
(z - that) / sigma, the probability flow of the conditional data: exact in the limit of small steps, at lambda = 0.

The map from noise to result is affine for all controllers but the scalar one, so its mean and covariance come from
S + 1 clips without sampling error; the samples check the same with it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from math_verification.claims.identity import controllers
from math_verification.closed_form import GaussianVideo, conditional, normal, smooth_covariance
from math_verification.figures import CONTROLLER_STYLE, panels
from math_verification.mixture import MixtureVideo
from math_verification.record import keyed, largest, levels_between, run
from math_verification.report import FULL, Row, Size, at_least, at_most, equals, slope
from wanedit.flow.editing import VideoModel
from wanedit.flow.keyframes import Controller, Covariance
from wanedit.flow.path import Schedule, schedule

SENTENCE = "the covariance controller reproduces Gaussian data given its keyframes; identity gains do not"
SLOTS, KEYS, COUNTS = 9, (2, 6), (25, 50, 100, 200, 400)
OFF = tuple(i for i in range(SLOTS) if i not in KEYS)
SEAMS = ((2, 1), (2, 3), (6, 5), (6, 7))
VALUES = (1.5, -1.0)
IDENTITY = ("residual", "exponential", "replacement")
Moments = tuple[Float[Tensor, " s"], Float[Tensor, "s s"]]


@dataclass(frozen=True)
class Conditional:
    """Attributes:
    mean_errors, covariance_errors: largest error of the full solve for each of COUNTS, without sampling error.
    distance: controller -> Mahalanobis distance of its off-key mean from the true one, at the finest steps.
    seam: controller -> RMS jump between a key slot and its neighbours over the true one.
    z_mean, z_covariance: largest deviation of the samples' moments, in standard errors.
    keys: largest |x[K] - x_e| of the samples.
    count: how many samples.
    scalar: situation -> distance between the results of the scalar and the full variant.
    means: controller -> mean of every slot, for the figure; "exact" among them, and its standard deviation.
    """

    mean_errors: list[float]
    covariance_errors: list[float]
    distance: dict[str, float]
    seam: dict[str, float]
    z_mean: float
    z_covariance: float
    keys: float
    count: int
    scalar: dict[str, float]
    means: dict[str, list[float]]
    deviation: list[float]

    def rows(self) -> list[Row]:
        counts = COUNTS[: len(self.mean_errors)]
        hs = [1 / n for n in counts]
        fine = counts[-1]
        rows = [
            equals("full: order of the mean's error in h", 1.0, slope(hs, self.mean_errors), 0.15),
            equals(
                "full: order of the covariance's error in h", 1.0, slope(hs, self.covariance_errors), 0.15
            ),
            at_most(f"full, {fine} steps: largest error of the mean", self.mean_errors[-1], 0.02),
            at_most(f"full, {fine} steps: largest error of the covariance", self.covariance_errors[-1], 0.02),
            at_most(f"full, {self.count} samples: mean, in standard errors", self.z_mean, 4.5),
            at_most(f"full, {self.count} samples: covariance, in standard errors", self.z_covariance, 4.5),
            at_most(f"full, {self.count} samples: |x[K] - x_e|", self.keys, 1e-6),
            at_most("full: off-key Mahalanobis distance of the mean", self.distance["covariance full"], 0.05),
            equals("full: seam jump over the true one", 1.0, self.seam["covariance full"], 0.02),
        ]
        for name in IDENTITY:
            rows.append(
                at_least(f"{name}: off-key Mahalanobis distance of the mean", self.distance[name], 1.0)
            )
            rows.append(at_least(f"{name}: seam jump over the true one", self.seam[name], 1.2))
        exact, *others = self.scalar
        rows.append(at_most(f"scalar - full, {exact}", self.scalar[exact], 1e-8))
        rows += [at_least(f"scalar - full, {other}", self.scalar[other], 1e-3) for other in others]
        return rows

    def figures(self) -> dict[str, Figure]:
        figure, (left, right) = panels(2)
        exact = torch.tensor(self.means["exact"])
        spread = torch.tensor(self.deviation)
        left.fill_between(
            range(SLOTS), exact - spread, exact + spread, color="#BBBBBB", alpha=0.5, linewidth=0
        )
        for name, mean in self.means.items():
            colour, line = CONTROLLER_STYLE[name]
            # The full solve lies on the exact curve: markers let both be seen.
            shape = {"marker": "o", "linestyle": "none"} if name == "covariance full" else {"linestyle": line}
            left.plot(mean, color=colour, label=name, **shape)  # pyright: ignore[reportArgumentType]
        left.plot(KEYS, VALUES, "k*", markersize=9, markerfacecolor="white")
        left.set_ylim(top=2.9)
        left.set(xlabel="slot", ylabel="mean", title="given two keyframes (stars); grey: true deviation")
        left.legend(ncols=2)
        for errors, colour, mark, name in (
            (self.mean_errors, "#0072B2", "o", "mean"),
            (self.covariance_errors, "#D55E00", "s", "covariance"),
        ):
            right.loglog(COUNTS[: len(errors)], errors, f"{mark}-", color=colour, label=name)
        right.loglog(COUNTS, [2 / n for n in COUNTS], color="#777777", linewidth=0.8, label="order 1")
        right.set(
            xlabel="steps",
            ylabel="largest error",
            ylim=(1e-3, 0.2),
            title="covariance full, no sampling error",
        )
        right.set_xticks(COUNTS, [str(n) for n in COUNTS])
        right.minorticks_off()
        right.legend()
        return {"conditional": figure}


def _truth() -> tuple[Tensor, Tensor, Moments]:
    mean = torch.linspace(-0.5, 0.5, SLOTS, dtype=torch.float64)
    covariance = smooth_covariance(SLOTS, 2.0)
    return mean, covariance, conditional(mean, covariance, KEYS, torch.tensor(VALUES, dtype=torch.float64))


def sharp() -> Controller:
    """The full solve to rounding, so that its own tolerance does not show."""
    return Covariance("full", tolerance=1e-12, iterations=50)


def _sample(controller: Controller, noise: Tensor, levels: Schedule) -> Float[Tensor, "b s"]:
    mean, covariance, _ = _truth()
    edit = keyed(
        torch.zeros_like(noise), noise, KEYS, torch.tensor(VALUES, dtype=torch.float64), ("clip", "clip")
    )
    return run(GaussianVideo(covariance, {"clip": mean}), edit, levels, controller, 0.0).latents.flatten(1)


def moments(controller: Controller, levels: Schedule) -> Moments:
    """Mean and covariance of the result over all noise: the run is x = A eps + b, read off at eps = 0 and units."""
    basis = torch.cat([torch.zeros(1, SLOTS, dtype=torch.float64), torch.eye(SLOTS, dtype=torch.float64)])
    ends = _sample(controller, basis[:, None, :, None, None], levels)
    slope_of = ends[1:] - ends[0]
    return ends[0], slope_of.T @ slope_of


def _distance(mean: Tensor, truth: Moments) -> float:
    off = list(OFF)
    gap = (mean - truth[0])[off]
    return float((gap @ torch.linalg.solve(truth[1][off][:, off], gap)).sqrt())


def _seam(found: Moments) -> float:
    mean, c = found
    jumps = [(mean[a] - mean[b]) ** 2 + c[a, a] + c[b, b] - 2 * c[a, b] for a, b in SEAMS]
    return float(torch.stack(jumps).mean().sqrt())


def _standard_errors(samples: Float[Tensor, "n s"], truth: Moments) -> tuple[float, float]:
    """Largest deviations of mean and covariance; Var of a sample covariance is (C_ii C_jj + C_ij^2) / (n - 1)."""
    off, n = list(OFF), len(samples)
    mean, c = truth[0][off], truth[1][off][:, off]
    variance = c.diagonal()
    z_mean = (samples[:, off].mean(0) - mean) / (variance / n).sqrt()
    error = ((variance[:, None] * variance + c**2) / (n - 1)).sqrt()
    return largest(z_mean), largest((samples[:, off].T.cov() - c) / error)


def _scalar_against_full() -> dict[str, float]:
    """Same noise, both variants: one key slot of equal pixels, two key slots, one key slot of unequal pixels."""
    c = smooth_covariance(SLOTS, 2.0)
    scales = torch.tensor([0.3, 2.0], dtype=torch.float64)
    zeros = torch.zeros(1, 2 * SLOTS, dtype=torch.float64)
    unequal = MixtureVideo(torch.ones(1, dtype=torch.float64), zeros, torch.kron(c, torch.diag(scales))[None])
    cases: dict[str, tuple[VideoModel, tuple[int, ...], int]] = {
        "one key slot, equal pixels": (GaussianVideo(c), (4,), 2),
        "two key slots, equal pixels": (GaussianVideo(c), KEYS, 2),
        "one key slot, pixels of unequal variance": (unequal, (4,), 2),
    }
    gaps = {}
    for name, (model, keys, pixels) in cases.items():
        noise = normal(4, SLOTS * pixels, 52).view(4, 1, SLOTS, 1, pixels)
        values = torch.tensor([1.5, -0.4, 0.7, 2.0], dtype=torch.float64)[: len(keys) * pixels]
        values = values.view(1, 1, len(keys), 1, pixels).expand(4, -1, -1, -1, -1)
        edit = keyed(torch.zeros_like(noise), noise, keys, values)
        ends = [
            run(model, edit, schedule(30, 3.0), one, 0.0).latents for one in (Covariance("scalar"), sharp())
        ]
        gaps[name] = largest(ends[0] - ends[1])
    return gaps


def verify(size: Size = FULL, full: Controller | None = None) -> Conditional:
    """Moments without sampling at several step counts, then samples."""
    every = {name: c for name, c in controllers().items() if name in (*IDENTITY, "covariance full")}
    every["covariance full"] = sharp() if full is None else full
    truth = _truth()[2]
    counts = COUNTS[: size.refinements]
    plans = {n: levels_between(1.0, 0.0, n) for n in counts}
    series = [moments(every["covariance full"], plans[n]) for n in counts]
    finest = {name: moments(c, plans[counts[-1]]) for name, c in every.items()}
    # Shift 3 makes the uncontrolled first step small; the rest of the bias falls with the steps.
    samples = _sample(every["covariance full"], normal(size.samples, SLOTS, 51), schedule(size.steps, 3.0))
    z_mean, z_covariance = _standard_errors(samples, truth)
    return Conditional(
        mean_errors=[largest(mean - truth[0]) for mean, _ in series],
        covariance_errors=[largest(c - truth[1]) for _, c in series],
        distance={name: _distance(found[0], truth) for name, found in finest.items()},
        seam={name: _seam(found) / _seam(truth) for name, found in finest.items()},
        z_mean=z_mean,
        z_covariance=z_covariance,
        keys=largest(samples[:, list(KEYS)] - torch.tensor(VALUES, dtype=torch.float64)),
        count=size.samples,
        scalar=_scalar_against_full(),
        means={"exact": truth[0].tolist()} | {name: found[0].tolist() for name, found in finest.items()},
        deviation=truth[1].diagonal().clamp_min(0).sqrt().tolist(),
    )
