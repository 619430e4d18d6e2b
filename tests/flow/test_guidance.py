"""Guidance: each way against its published formula by hand, what it asks for, and what stands between."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.caches.easycache import EasyCache
from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guidance.apg import AdaptiveProjected
from wanedit.flow.guidance.cfg_zero import ClassifierFreeZero
from wanedit.flow.guidance.mambo_g import MagnitudeAware
from wanedit.flow.guidance.nag import NormalizedAttention
from wanedit.flow.guidance.slg import SkipLayer
from wanedit.flow.guiding import NEGATIVE, PROMPT, Guidance, Guide, Guided, Pass
from wanedit.flow.path import Schedule, Step, classifier_free, clean_estimate, schedule
from wanedit.flow.solvers import SOLVERS, euler

SHAPE = (2, 3, 4, 2, 2)
W = 4.0


def draw(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = draw(0)
# Another answer to each pass, whatever the blocks that are left out.
SAID = {"prompt": draw(1), "negative": draw(2), "weakened": draw(3), "led": draw(4)}


def kind(one: Pass) -> str:
    if one.without:
        return "weakened"
    return "led" if one.led else "negative" if one.negative else "prompt"


class Network:
    """Answers each pass with its own velocity, which turns with x and sigma, and counts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, x: Tensor, step: Step, passes: Sequence[Pass]) -> list[Tensor]:
        self.asked.append(tuple(map(kind, passes)))
        return [self.velocity(one, x, step) for one in self.asked[-1]]

    @staticmethod
    def velocity(one: str, x: Tensor, step: Step) -> Tensor:
        return SAID[one] * (1 + step.sigma) + 0.3 * x

    @property
    def evaluations(self) -> int:
        return sum(map(len, self.asked))


def by_hand(formula: Callable[[Tensor, Tensor, Tensor, Step], Tensor], levels: Schedule) -> Tensor:
    """Euler under a formula of (v_c, v_u, x, step)."""
    x = X
    for step in levels:
        v_c, v_u = (Network.velocity(one, x, step) for one in ("prompt", "negative"))
        x = x - step.h * formula(v_c, v_u, x, step)
    return x


def clipwise(formula: Callable[[Tensor, Tensor], Tensor | float]) -> Callable[[Tensor, Tensor], Tensor]:
    """A number for each clip of a batch, from its own velocities."""
    return lambda a, b: torch.stack([torch.as_tensor(formula(p, q)) for p, q in zip(a, b, strict=True)])[
        :, None, None, None, None
    ]


def guided(guidance: Guidance, levels: Schedule, scale: float = W, **other: object) -> tuple[Tensor, Network]:
    network = Network()
    velocity = Guided(network, Guide(guidance, **other), (scale, scale))  # pyright: ignore[reportArgumentType]
    return euler(velocity, X, levels), network


LEVELS = schedule(10, 3.0)


def test_cfg_is_the_formula_and_one_pass_at_scale_1() -> None:
    x, network = guided(GUIDANCES["cfg"](), LEVELS)
    assert torch.equal(x, by_hand(lambda c, u, x, step: classifier_free(c, u, W), LEVELS))
    assert network.evaluations == 20
    x, network = guided(GUIDANCES["cfg"](), LEVELS, 1.0)
    assert torch.equal(x, by_hand(lambda c, u, x, step: c, LEVELS))
    assert network.evaluations == 10


def test_cfg_zero_fits_the_unconditional_velocity_and_leaves_the_first_steps_out() -> None:
    fit = clipwise(lambda c, u: (c * u).sum() / (u * u).sum())

    def formula(c: Tensor, u: Tensor, x: Tensor, step: Step) -> Tensor:
        if step.index < 2:
            return torch.zeros_like(x)
        s = fit(c, u)
        return s * u + W * (c - s * u)

    levels = schedule(50, 5.0)
    x, network = guided(ClassifierFreeZero(), levels)
    torch.testing.assert_close(x, by_hand(formula, levels))
    assert network.evaluations == 2 * 48
    for steps, left_out in ((20, 1), (8, 0), (4, 0)):
        assert guided(ClassifierFreeZero(), schedule(steps, 5.0))[1].evaluations == 2 * (steps - left_out)
    # Of a part of a schedule they are those of the whole: an edit that starts later leaves none out.
    assert guided(ClassifierFreeZero(), levels.after(0.8))[1].evaluations == 2 * len(levels.after(0.8))
    above, below = levels.split(0.9995)
    assert [guided(ClassifierFreeZero(), part)[1].evaluations for part in (above, below)] == [0, 2 * 48]


def test_apg_is_cfg_where_nothing_is_left_out_and_projects_by_hand() -> None:
    plain, _ = guided(Guidance(), LEVELS)
    torch.testing.assert_close(guided(AdaptiveProjected(eta=1.0, momentum=0.0), LEVELS)[0], plain)
    carried: list[Tensor] = []

    def formula(c: Tensor, u: Tensor, x: Tensor, step: Step) -> Tensor:
        told, free = (clean_estimate(x, v, step.sigma) for v in (c, u))
        change = told - free + (-0.5 * carried[-1] if carried else 0.0)
        carried.append(change)
        rms = clipwise(lambda d, _: d.square().mean().sqrt())(change, change)
        change = change * torch.minimum(torch.ones(()), 0.8 / rms)
        along = clipwise(lambda d, t: (d * t).sum() / (t * t).sum())(change, told) * told
        clean = told + (W - 1) * (change - along + 0.25 * along)
        return (x - clean) / step.sigma

    found, _ = guided(AdaptiveProjected(eta=0.25, momentum=-0.5, limit=0.8), LEVELS)
    torch.testing.assert_close(found, by_hand(formula, LEVELS))
    # The limit was reached at some steps and not at all.
    sizes = [float(one[0].square().mean().sqrt()) for one in carried]
    assert min(sizes) < 0.8 < max(sizes)


def test_apg_carries_a_step_once_and_nothing_into_another_trajectory_or_expert() -> None:
    first, second, *_ = LEVELS
    apg = AdaptiveProjected(momentum=0.5)
    alone = Guided(Network(), Guide(apg), (W, W))(X, second)
    velocity = Guided(Network(), Guide(apg), (W, W))
    velocity(X, first)
    once = velocity(X, second)
    assert torch.equal(velocity(X, second), once)
    assert not torch.allclose(once, alone)
    velocity(X, first)
    assert torch.equal(velocity(X, second), once)
    experts = Guided(Network(), Guide(apg), (W, W), network=lambda step: step.index)
    experts(X, first)
    assert torch.equal(experts(X, second), alone)


def test_mambo_g_damps_by_how_much_the_prompt_changes() -> None:
    damped = clipwise(lambda c, u: 1 + (W - 1) * math.exp(-2.0 * float((c - u).norm() / u.norm())))
    expected = by_hand(lambda c, u, x, step: u + damped(c, u) * (c - u), LEVELS)
    torch.testing.assert_close(guided(MagnitudeAware(alpha=2.0), LEVELS)[0], expected)
    torch.testing.assert_close(guided(MagnitudeAware(alpha=0.0), LEVELS)[0], guided(Guidance(), LEVELS)[0])


def test_slg_leads_away_from_the_weakened_network_between_its_steps() -> None:
    slg = SkipLayer(strength=2.0).of_model("Wan", 40)
    assert slg.blocks == (9, 10)
    levels = schedule(50, 5.0)

    def formula(c: Tensor, u: Tensor, x: Tensor, step: Step) -> Tensor:
        weak = Network.velocity("weakened", x, step)
        return classifier_free(c, u, W) + (2.0 * (c - weak) if 1 <= step.index <= 39 else 0.0)

    x, network = guided(slg, levels)
    torch.testing.assert_close(x, by_hand(formula, levels))
    assert network.evaluations == 2 * 50 + 39
    # At scale 1 too.
    assert guided(slg, levels, 1.0)[1].evaluations == 50 + 39


def test_slg_names_blocks_that_a_model_does_not_have() -> None:
    assert SkipLayer().of_model("small", 8).blocks == (2,)
    with pytest.raises(InputError, match=r"slg blocks are \[9\] and small has 8; expected some of 0 to 7"):
        SkipLayer(blocks=(9,)).of_model("small", 8)
    with pytest.raises(InputError, match="not all"):
        SkipLayer(blocks=(0, 1)).of_model("small", 2)


def test_nag_leads_attention_by_hand_and_takes_one_pass_at_scale_1() -> None:
    nag = NormalizedAttention(strength=11.0, tau=2.5, alpha=0.25)
    z, away = (torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    away[:, :2] = z[:, :2] * 1.01  # of some tokens the result is not bounded
    beyond = 11 * z - 10 * away
    ratio = beyond.abs().sum(-1) / z.abs().sum(-1)
    assert bool((ratio > 2.5).any())
    assert bool((ratio < 2.5).any())
    bounded = torch.where(ratio[..., None] > 2.5, beyond * 2.5 / ratio[..., None], beyond)
    torch.testing.assert_close(nag.lead(z, away), 0.25 * bounded + 0.75 * z)
    torch.testing.assert_close(nag.lead(z, z), z)
    assert nag.lead(z.bfloat16(), away.bfloat16()).dtype == torch.bfloat16
    assert set(guided(nag, LEVELS, 1.0)[1].asked) == {("led",)}
    assert set(guided(nag, LEVELS)[1].asked) == {("led", "negative")}


@pytest.mark.parametrize("name", list(GUIDANCES))
@pytest.mark.parametrize("scale", [1.0, W])
def test_outside_of_its_interval_the_prompt_alone_is_asked_and_counts_less(name: str, scale: float) -> None:
    guidance = GUIDANCES[name]().of_model("Wan", 40)
    whole, interval = guided(guidance, LEVELS, scale)[1], (0.4, 0.9)
    _x, network = guided(guidance, LEVELS, scale, interval=interval)
    inside = [0.4 <= step.sigma <= 0.9 for step in LEVELS]
    assert 0 < sum(inside) < len(LEVELS)
    expected = [asked if within else ("prompt",) for asked, within in zip(whole.asked, inside, strict=True)]
    # cfg_zero asks nothing at steps of its own, which are the first.
    assert network.asked == expected or name == "cfg_zero"
    assert (network.evaluations < whole.evaluations) == (scale != 1.0 or name == "slg")


def test_an_interval_is_two_rising_noise_levels() -> None:
    with pytest.raises(InputError, match=r"guidance_interval is 0\.9, 0\.4; expected two noise levels"):
        Guide(interval=(0.9, 0.4))


@pytest.mark.parametrize("name", list(GUIDANCES))
@pytest.mark.parametrize("solver", ["euler", "heun", "unipc"])
def test_each_goes_with_any_solver_and_a_cache_whose_passes_have_their_own_past(
    name: str, solver: str
) -> None:
    guidance = GUIDANCES[name]().of_model("Wan", 40)
    levels, network, cached = schedule(12, 3.0, solver), Network(), Network()
    x = SOLVERS[solver](Guided(network, Guide(guidance), (W, W)), X, levels)
    again = SOLVERS[solver](Guided(cached, Guide(guidance), (W, W), EasyCache(100.0)), X, levels)
    assert bool(x.isfinite().all())
    assert bool(again.isfinite().all())
    assert cached.evaluations < network.evaluations
    assert {len(asked) for asked in cached.asked} == {1}


def test_passes_are_told_apart_and_each_scale_has_its_own() -> None:
    guide = Guide(NormalizedAttention())
    assert guide.reads_negative([1.0])
    assert not Guide().reads_negative([1.0])
    assert Guide().reads_negative([1.0, 2.0])
    assert Guide().idle([1.0])
    assert not guide.idle([1.0])
    assert Guide().passes([1.0, 3.0]) == (PROMPT, NEGATIVE)
    assert Guide(interval=(0.0, 0.5)).passes([1.0]) == (PROMPT,)
    two = Guided(Network(), Guide(), (1.0, W), network=lambda step: step.index)
    assert [two.scale(step) for step in LEVELS][:3] == [1.0, W, W]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ClassifierFreeZero(zero_init=1.0), "zero_init is 1; expected 0 or more, less than 1"),
        (lambda: AdaptiveProjected(momentum=1.0), "momentum is 1"),
        (lambda: MagnitudeAware(alpha=-1.0), "alpha is -1; expected 0 or more"),
        (lambda: SkipLayer(start=0.5, stop=0.5), r"start is 0\.5, stop 0\.5"),
        (lambda: NormalizedAttention(tau=0.0), "tau 0"),
    ],
)
def test_settings_out_of_range_are_named(make: Callable[[], Guidance], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


def test_parts_of_a_schedule_know_their_place_in_the_whole() -> None:
    levels = schedule(10, 3.0)
    above, below = levels.split(0.8)
    assert [step.whole for step in (*above, *below)] == [(i, 10) for i in range(10)]
    assert [step.whole for step in levels.last(3)] == [(7, 10), (8, 10), (9, 10)]
    assert [step.whole for step in below.last(2)] == [(8, 10), (9, 10)]
    assert replace(levels) == levels


@pytest.mark.parametrize("cache", [None, EasyCache(100.0)])
def test_a_derivative_leaves_nothing_behind(cache: EasyCache | None) -> None:
    velocity, alone = (Guided(Network(), Guide(AdaptiveProjected()), (W, W), cache) for _ in range(2))
    for step in list(LEVELS)[:5]:
        v = velocity(X, step)
        # Beside a derivative a cache answers nothing, so without one alone the velocities are equal.
        assert torch.equal(v, alone(X, step)) or cache is not None
        change = torch.func.jvp(lambda z, at=step: velocity(z, at), (X,), (X,))[1]
        assert bool(v.isfinite().all())
        assert bool(change.isfinite().all())
