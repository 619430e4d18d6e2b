"""Controllers: what ties a trajectory to its edited keyframes at every step.

Each returns what is to be added to the velocity of the main branch (all slots) and of the edit branch (slots K),
after classifier-free guidance. Notation: z, v of the main branch, z_e, v_e of the edit branch, h the step,
`z_diff = z[K] - z_e`, `v_diff = v[K] - v_e`, `e = x0_hat[K] - x_e`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit import flow
from wanedit.errors import InputError
from wanedit.flow.covariance import conjugate_residuals
from wanedit.flow.editing import Metrics, at_slots, inner, into_slots, rms
from wanedit.flow.path import Schedule, Step, clean_estimate, schedule
from wanedit.registry import Registry

Product = Callable[[Tensor], Tensor]

# Below this share of its energy the power of a direction counts as none.
TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Branches:
    """Both branches at one step, before control.

    Attributes:
        step: where on the schedule.
        z, v: main branch, (B, C, S, H, W).
        z_e, v_e: edit branch, (B, C, K, H, W).
        x_e: the edited keyframes.
        slots: K.
        product: w (B, C, S, H, W) -> Cov(x_0 | z) w, for controllers that need it.
    """

    step: Step
    z: Float[Tensor, "b c s h w"]
    v: Float[Tensor, "b c s h w"]
    z_e: Float[Tensor, "b c k h w"]
    v_e: Float[Tensor, "b c k h w"]
    x_e: Float[Tensor, "b c k h w"]
    slots: tuple[int, ...]
    product: Product

    @property
    def z_diff(self) -> Float[Tensor, "b c k h w"]:
        """z[K] - z_e."""
        return at_slots(self.z, self.slots) - self.z_e

    @property
    def v_diff(self) -> Float[Tensor, "b c k h w"]:
        """v[K] - v_e."""
        return at_slots(self.v, self.slots) - self.v_e

    @property
    def residual(self) -> Float[Tensor, "b c k h w"]:
        """r = z_diff - h v_diff, the difference after this step if nothing is done."""
        return self.z_diff - self.step.h * self.v_diff

    @property
    def error(self) -> Float[Tensor, "b c k h w"]:
        """e = x0_hat[K] - x_e, what the main branch is heading for against what it should."""
        clean = clean_estimate(at_slots(self.z, self.slots), at_slots(self.v, self.slots), self.step.sigma)
        return clean - self.x_e


@dataclass(frozen=True, eq=False)
class Correction:
    """What to add to the velocities, and the gain it was made with.

    `edit` is None where the edit branch is left alone.
    """

    main: Float[Tensor, "b c s h w"]
    edit: Float[Tensor, "b c k h w"] | None
    gain: float


class Controller(ABC):
    """Turns the state of both branches into a correction; a frozen dataclass of its gains.

    Fields `alpha` and `beta` are given the run's.

    Attributes:
        differentiates: it uses `Branches.product`, a derivative of the velocity.
    """

    differentiates: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, state: Branches) -> Correction:
        """The correction of one step."""

    def doubts(self, levels: Schedule) -> list[str]:
        """What will run on this schedule, but perhaps not as meant."""
        return []

    def decides(self, levels: Schedule) -> dict[str, object]:
        """What is in the place of its fields in the name that results are kept under; see `Method.decides`."""
        return {}

    def advice(self, levels: Schedule) -> str:
        """What to turn where the keyframes were missed; "" for nothing."""
        return ""


CONTROLLERS: Registry[type[Controller]] = flow.CONTROLLERS


def _check_gains(alpha: float, beta: float) -> None:
    if not (math.isfinite(alpha) and alpha >= 0 and math.isfinite(beta) and beta >= 0):
        raise InputError(f"alpha is {alpha:g} and beta {beta:g}; expected numbers >= 0")


def _pull(state: Branches, alpha: float, beta: float) -> Correction:
    r = state.residual
    main = into_slots(alpha * r, state.slots, state.z.shape[2])
    # The edit branch is pulled towards the main one, against r: its difference shrinks from both sides.
    return Correction(main, -beta * r if beta else None, alpha)


@CONTROLLERS.register("residual")
@dataclass(frozen=True)
class Residual(Controller):
    """The seed method: `v[K] += alpha r`, and beta likewise draws the edit branch to the main one.

    One step multiplies the difference by 1 - (alpha + beta) h, so it needs (alpha + beta) h < 2; see
    `largest_stable_alpha`. Only large steps break that, and with a shift above 1 those are the last ones, whose
    overshoot nothing takes back: there it takes the exponential controller's gain. The others are the seed method's.

    Attributes:
        switch: false for the seed method at every step, to study how it diverges.
    """

    alpha: float = 10.0
    beta: float = 0.0
    switch: bool = True

    def __post_init__(self) -> None:
        _check_gains(self.alpha, self.beta)

    def __call__(self, state: Branches) -> Correction:
        if self.switch and self._overshoots(state.step):
            return Exponential(self.alpha, self.beta)(state)
        return _pull(state, self.alpha, self.beta)

    def _overshoots(self, step: Step) -> bool:
        return (self.alpha + self.beta) * step.h >= 2

    def switched(self, levels: Schedule) -> tuple[int, ...]:
        """The steps at which it is the exponential controller."""
        return tuple(step.index for step in levels if self.switch and self._overshoots(step))

    def doubts(self, levels: Schedule) -> list[str]:
        gain = self.alpha + self.beta
        worst = max(levels, key=lambda step: step.h)
        if not self._overshoots(worst):
            return []
        if levels.shift is None:
            which, advice = "these noise levels", "only smaller steps between them would do"
        else:
            which, enough = f"{len(levels)} steps at shift {levels.shift:g}", steps_for(gain, levels.shift)
            advice = f"{enough} steps would do" if enough else "no number of steps up to 2000 would do"
        named = "alpha + beta" if self.beta else "alpha"
        steps = self.switched(levels)
        done = (
            f"{'step' if len(steps) == 1 else 'steps'} {', '.join(map(str, steps))} of {len(levels)} "
            f"{'is' if len(steps) == 1 else 'are'} made by the controller exponential instead"
            if self.switch
            else "diverges"
        )
        return [
            f"the controller residual with {named} {gain:g}: {done}. {named} times h is {gain * worst.h:.2f} at step "
            f"{worst.index} and must stay below 2. The largest stable {named} for {which} "
            f"is {largest_stable_alpha(levels):.3g}; {advice}; the controller exponential is stable always"
        ]

    def decides(self, levels: Schedule) -> dict[str, object]:
        # Where it switches at no step, it is what it was before it could.
        if self.switched(levels) or type(self) is not Residual:
            return {}
        return {"controller": {"kind": "Residual", "alpha": self.alpha, "beta": self.beta}}

    def advice(self, levels: Schedule) -> str:
        stable = largest_stable_alpha(levels)
        turn = "lower" if self.alpha + self.beta >= stable else "raise"
        return f"{turn} alpha (stable below {stable:.3g} with these steps)"


@CONTROLLERS.register("exponential")
@dataclass(frozen=True)
class Exponential(Controller):
    """The residual controller's continuous limit, taken exactly: gain `(1 - exp(-alpha h)) / h`.

    The difference shrinks by exp(-(alpha + beta) h) per step, whatever the step: never unstable.
    """

    alpha: float = 10.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        _check_gains(self.alpha, self.beta)

    def __call__(self, state: Branches) -> Correction:
        total = self.alpha + self.beta
        if total == 0:
            return _pull(state, 0.0, 0.0)
        gain = -math.expm1(-total * state.step.h) / state.step.h
        return _pull(state, gain * self.alpha / total, gain * self.beta / total)

    def advice(self, levels: Schedule) -> str:
        return "raise alpha"


@CONTROLLERS.register("replacement")
@dataclass(frozen=True)
class Replacement(Controller):
    """`x0_hat[K] = x_e`: what the residual controller becomes when alpha h is 1 and h is all of sigma."""

    def __call__(self, state: Branches) -> Correction:
        gain = 1 / state.step.sigma
        return Correction(into_slots(gain * state.error, state.slots, state.z.shape[2]), None, gain)


@CONTROLLERS.register("covariance")
@dataclass(frozen=True)
class Covariance(Controller):
    """`x0_hat += C[:, K] (C[K, K] + tau^2 I)^-1 (x_e - x0_hat[K])`, C = Cov(x_0 | z): it moves all slots.

    For Gaussian data that is the exact mean given the keyframes (Kalman's update; for diffusion models
    arXiv 2310.06721, equation 8). The other controllers put the identity in the place of C.

    Attributes:
        solve: "scalar", one product: e is weighted by <e, e> / <e, (C[K, K] + tau^2) e>. "full": conjugate residuals.
        tau: standard deviation of the keyframes about the clip, in latents.
        tolerance, iterations: conjugate residuals stop at this residual relative to e, or after so many products.
        below: control begins at sigma <= below: near pure noise x0_hat hardly depends on z, and C drowns in rounding.
    """

    differentiates: ClassVar[bool] = True

    solve: Literal["scalar", "full"] = "full"
    tau: float = 0.0
    tolerance: float = 1e-3
    iterations: int = 2
    below: float = 0.999

    def __post_init__(self) -> None:
        if self.solve not in ("scalar", "full"):
            raise InputError(f"solve is {self.solve!r}; expected 'scalar' or 'full'")
        if (
            not 0 <= self.tau < math.inf
            or not 0 < self.tolerance < 1
            or self.iterations < 1
            or not 0 < self.below < 1
        ):
            raise InputError(
                f"tau is {self.tau:g}, tolerance {self.tolerance:g}, iterations {self.iterations}, "
                f"below {self.below:g}; expected tau >= 0, 0 < tolerance < 1, iterations >= 1, 0 < below < 1"
            )

    def __call__(self, state: Branches) -> Correction:
        if state.step.sigma > self.below:
            # One number seen as a clip: nothing to add need not cost a clip's memory.
            return Correction(state.z.new_zeros(()).expand_as(state.v), None, 0.0)
        whole = self._full(state) if self.solve == "full" else self._scalar(state)
        # x0_hat = z - sigma v, so a change of -whole in x0_hat is one of whole / sigma in v.
        return Correction(whole / state.step.sigma, None, 1 / state.step.sigma)

    def advice(self, levels: Schedule) -> str:
        return f"raise controller_options.iterations (now {self.iterations})"

    def _scalar(self, state: Branches) -> Tensor:
        error, total = state.error, state.z.shape[2]
        column = state.product(into_slots(error, state.slots, total))
        power = inner(error, at_slots(column, state.slots) + self.tau**2 * error)
        energy = inner(error, error)
        # A velocity that is no gradient can make C indefinite along e; then there is no step to take.
        weight = torch.where(power > TINY * energy, energy / power.clamp_min(TINY * energy + TINY**2), 0.0)
        return weight * column

    def _full(self, state: Branches) -> Tensor:
        slots, total = state.slots, state.z.shape[2]

        def column(w: Tensor) -> Tensor:
            return state.product(into_slots(w, slots, total))

        def read(made: Tensor, w: Tensor) -> Tensor:
            return at_slots(made, slots) + self.tau**2 * w

        found = conjugate_residuals(column, read, state.error, self.tolerance, self.iterations)
        return found.expand_as(state.v)


def step_metrics(state: Branches, correction: Correction, scale: float) -> Metrics:
    """What is logged of a controlled step: RMS per element, each also relative to `scale`, the RMS of x_e."""
    scale = max(scale, TINY)  # keyframes that are zero everywhere
    norms = {
        "r_k_norm": rms(state.residual),
        "v_diff_norm": rms(state.v_diff),
        "delta_v_norm": rms(correction.main),
    }
    relative = {f"{name}_relative": value / scale for name, value in norms.items()}
    return {
        **norms,
        **relative,
        "gain": correction.gain,
        "alpha_h": correction.gain * state.step.h,
        "keyframe_error": rms(state.error) / scale,
    }


def largest_stable_alpha(levels: Schedule) -> float:
    """The bound 2 / max h that alpha + beta of the residual controller must stay below."""
    return 2 / max(step.h for step in levels)


def steps_for(alpha: float, shift: float, solver: str = "euler", most: int = 2000) -> int | None:
    """The fewest steps at which the residual controller is stable with this alpha; None if more than `most`."""
    stable = (n for n in range(1, most + 1) if alpha < largest_stable_alpha(schedule(n, shift, solver)))
    return next(stable, None)
