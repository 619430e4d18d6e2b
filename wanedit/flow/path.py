"""The straight path between data and noise, the velocities along it, and the noise levels that a sampler visits.

sigma runs from 1 (noise) to 0 (data): `x_sigma = (1 - sigma) x_0 + sigma eps`, `v = eps - x_0`
(rectified flow, arXiv 2209.03003; flow matching, arXiv 2210.02747).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wanedit import flow
from wanedit.errors import InputError
from wanedit.rng import noise

TRAIN_TIMESTEPS = 1000
Solver = TypeVar("Solver")


def interpolate(
    clean: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], sigma: float
) -> Float[Tensor, "*shape"]:
    """x_sigma, the point of the path at noise level sigma."""
    return (1 - sigma) * clean + sigma * noise


def clean_estimate(
    x: Float[Tensor, "*shape"], velocity: Float[Tensor, "*shape"], sigma: float
) -> Float[Tensor, "*shape"]:
    """x_0_hat = x - sigma v: the end of the straight line through x along v."""
    return x - sigma * velocity


def fresh_noise(
    shape: Sequence[int], like: Float[Tensor, "..."], seed: int, *keys: int | str
) -> Float[Tensor, "b ..."]:
    """Standard normal (B, …) with the dtype and device of `like`: row b is a function of (seed, keys, b) alone."""
    rows = [noise(shape[1:], seed, *keys, row) for row in range(shape[0])]
    return torch.stack(rows).to(like)


def classifier_free(
    conditional: Float[Tensor, "*shape"], unconditional: Float[Tensor, "*shape"], guidance_scale: float
) -> Float[Tensor, "*shape"]:
    """`v_u + w (v_c - v_u)` (arXiv 2207.12598, equation 6, in the convention where w = 1 is no guidance)."""
    return unconditional + guidance_scale * (conditional - unconditional)


def shift_sigma(sigma: np.ndarray, shift: float) -> np.ndarray:
    """Move noise levels towards 1: `shift sigma / (1 + (shift - 1) sigma)` (SD3, arXiv 2403.03206, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


@dataclass(frozen=True)
class Step:
    """One interval of a schedule. `timestep` is what the model is told, `sigma` what the solver uses; `count` is how
    many steps are taken, 0 where that is not known. `whole` is its place among those of the whole schedule, of which
    this may be a part, and how many these are."""

    index: int
    sigma: float
    sigma_next: float
    timestep: float
    count: int = field(default=0, compare=False)
    whole: tuple[int, int] = field(default=(0, 0), compare=False)

    @property
    def h(self) -> float:
        """sigma - sigma_next > 0."""
        return self.sigma - self.sigma_next

    def end(self) -> "Step":
        """The moment at the end of this step, for solvers that evaluate the velocity there."""
        sigma = self.sigma_next
        return replace(self, sigma=sigma, timestep=TRAIN_TIMESTEPS * sigma)


@dataclass(frozen=True)
class Schedule:
    """Decreasing noise levels, the last of them 0 unless it is a part of one, and the timestep of each but the last.

    Attributes:
        shift: that even levels were moved by; None for levels that were listed.
        start: what noise is multiplied by to begin at the first level with nothing known of the data.
        seed: names the noise of a solver that draws some on its way: a sample's own, whoever samples it.
        before: steps of the whole schedule, of which this is a part, that are taken before it.
        total: steps of the whole; None where this is it.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    shift: float | None = field(default=None, compare=False)
    start: float = field(default=1.0, compare=False)
    seed: int = field(default=0, compare=False)
    before: int = field(default=0, compare=False)
    total: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        pairs = zip(self.sigmas, self.sigmas[1:], strict=False)
        if len(self.sigmas) != len(self.timesteps) + 1 or not all(a > b for a, b in pairs):
            raise InputError(
                f"schedule has {len(self.sigmas)} sigmas and {len(self.timesteps)} timesteps; expected n + 1 "
                "strictly decreasing sigmas for n timesteps"
            )

    def __len__(self) -> int:
        return len(self.timesteps)

    def __iter__(self) -> Iterator[Step]:
        for i, timestep in enumerate(self.timesteps):
            whole = (self.before + i, len(self) if self.total is None else self.total)
            yield Step(i, self.sigmas[i], self.sigmas[i + 1], timestep, len(self), whole)

    def after(self, sigma: float) -> "Schedule":
        """The part of the schedule that starts at the first level <= sigma (editing from partial noise).

        Raises:
            InputError: every level is above it.
        """
        _, rest = self.split(sigma)
        if not len(rest):
            raise InputError(
                f"no step of this schedule starts at sigma <= {sigma:g}; lowest {self.sigmas[-2]:g}"
            )
        return rest

    def split(self, sigma: float) -> tuple["Schedule", "Schedule"]:
        """The steps that start above a noise level, and those that go on where these end; of either perhaps none."""
        i = sum(level > sigma for level in self.sigmas[:-1])
        return self._part(0, i), self._part(i, len(self))

    def last(self, count: int) -> "Schedule":
        """Its last `count` steps, 1 or more."""
        return self._part(len(self) - count, len(self))

    def _part(self, start: int, stop: int) -> "Schedule":
        return replace(
            self,
            sigmas=self.sigmas[start : stop + 1],
            timesteps=self.timesteps[start:stop],
            before=self.before + start,
            total=len(self) if self.total is None else self.total,
        )


def even(highest: float) -> Callable[[int], Float[np.ndarray, " n"]]:
    """n -> n noise levels in even steps from `highest`, the next of which would be 0."""
    return lambda n: np.linspace(float(np.float32(highest)), 0.0, n + 1)[:-1]


EVEN = even(1.0)


@dataclass(frozen=True)
class Levels:
    """Where a solver asks for a velocity: what it declares of its schedule.

    Attributes:
        sigmas: n -> its n noise levels before the shift, strictly decreasing; after the last one comes 0.
        integer_timesteps: the model is told the timestep truncated to an integer.
    """

    sigmas: Callable[[int], Float[np.ndarray, " n"]] = EVEN
    integer_timesteps: bool = False


def visits(levels: Levels) -> Callable[[Solver], Solver]:
    """A decorator that gives a solver its `levels`."""

    def declared(solver: Solver) -> Solver:
        setattr(solver, "levels", levels)  # noqa: B010  a function has no such attribute that a type checker knows
        return solver

    return declared


# Ten for each timestep that a model was trained with: nobody takes as many, and a slip of the keys takes all memory.
MOST_STEPS = 10_000


def schedule(
    num_inference_steps: int, shift: float, solver: str = "euler", noise_levels: Sequence[float] = ()
) -> Schedule:
    """The noise levels that a solver visits; of the package's own, those of the official Wan 2.1 code.

    Timesteps are 1000 sigma in float32, or truncated where the solver says so.

    Args:
        noise_levels: sigmas in the place of the solver's own, whatever the shift; the first `num_inference_steps` of
            them are visited, then comes 0.

    Raises:
        InputError: fewer than 1 step or more than `MOST_STEPS` or than there are noise levels, a shift that is not
            positive, two steps at one noise level, or one outside (0, 1]; no such solver, or its levels are not what
            `Levels` says.
    """
    if num_inference_steps < 1:
        raise InputError(f"num_inference_steps is {num_inference_steps}; expected at least 1")
    if num_inference_steps > MOST_STEPS:
        raise InputError(f"num_inference_steps is {num_inference_steps}; expected {MOST_STEPS} at most")
    if not (math.isfinite(shift) and shift > 0):
        raise InputError(f"shift is {shift:g}; expected a positive number")
    own: object = getattr(flow.SOLVERS[solver], "levels", Levels())
    if not isinstance(own, Levels):
        raise InputError(f"the levels of the solver {solver} are {own!r}; expected wanedit.flow.path.Levels")
    if noise_levels:
        levels = check_levels(noise_levels, num_inference_steps)
    else:
        unshifted = np.asarray(own.sigmas(num_inference_steps), np.float64)
        if unshifted.shape != (num_inference_steps,):
            raise InputError(
                f"the solver {solver} has {unshifted.shape} levels; expected ({num_inference_steps},)"
            )
        levels = shift_sigma(unshifted, shift)
    sigmas = np.append(levels, 0.0).astype(np.float32)
    timesteps = sigmas[:-1] * np.float32(TRAIN_TIMESTEPS)
    if own.integer_timesteps:
        # Of a listed 0.9, that may have been a float32, 900 and not 899.
        timesteps = (timesteps if noise_levels else levels * TRAIN_TIMESTEPS).astype(np.int64)
    # A solver's own highest level stands for pure noise, below 1 too (UniPC, officially); a lower one does not.
    highest = np.float32(shift_sigma(np.asarray(own.sigmas(1), np.float64), shift)[0])
    start = float(sigmas[0]) if sigmas[0] < highest else 1.0
    listed = None if noise_levels else shift
    return Schedule(tuple(map(float, sigmas)), tuple(map(float, timesteps)), listed, start)


def check_levels(noise_levels: Sequence[float], count: int) -> Float[np.ndarray, " count"]:
    """The first `count` of listed noise levels. Raises InputError, which names the one that is wrong."""
    if count > len(noise_levels):
        raise InputError(
            f"num_inference_steps is {count} and there are {len(noise_levels)} noise_levels; expected at most as many "
            "steps, or noise_levels [] for levels that the shift moves"
        )
    for i, level in enumerate(noise_levels):
        if not 0 < level <= 1:
            meant = f": {level / TRAIN_TIMESTEPS:g} for the timestep {level:g}" if level > 1 else ""
            raise InputError(f"noise_levels[{i}] is {level:g}; expected sigma in (0, 1]{meant}")
        if i and not np.float32(level) < np.float32(noise_levels[i - 1]):
            raise InputError(
                f"noise_levels[{i}] is {level:g} after {noise_levels[i - 1]:g}; expected falling ones"
            )
    return np.asarray(noise_levels[:count], np.float64)


def rcm_levels(sigma_max: float) -> tuple[float, ...]:
    """The noise levels of a model distilled by rCM, of which n steps visit the first n.

    On the trigonometric path cos(t) x_0 + sin(t) eps they are t = atan(sigma_max), 1.5, 1.4, 1; divided by
    cos(t) + sin(t), that is the straight one at sin(t) / (cos(t) + sin(t)) (arXiv 2510.08431; `rcm/inference`).

    Args:
        sigma_max: 80 for text to video, 200 for image to video.
    """
    if not sigma_max > math.tan(1.5):
        raise InputError(
            f"sigma_max is {sigma_max:g}; expected more than {math.tan(1.5):.3g}, the next level's"
        )
    times = (math.atan(sigma_max), 1.5, 1.4, 1.0)
    return tuple(math.sin(t) / (math.cos(t) + math.sin(t)) for t in times)
