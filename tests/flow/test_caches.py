"""Step caches: what they compute, what they leave out, and where they may not answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.flow.problems import gaussian, problem
from wanedit.errors import InputError
from wanedit.flow.caches import CACHES
from wanedit.flow.caches.easycache import EasyCache
from wanedit.flow.caches.magcache import MagCache
from wanedit.flow.caches.spectrum import Spectrum
from wanedit.flow.caches.teacache import BORROWED, POLYNOMIALS, TeaCache
from wanedit.flow.caching import Cached, CachedModel, Clock, Moment, StepCache
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import Schedule, Step, schedule
from wanedit.flow.solvers import SOLVERS, Velocity, euler

CURVE = ((1.0, 1.0), (0.0, 2.0))


@dataclass(frozen=True)
class Always(StepCache):
    """The last computed velocity wherever a cache may answer."""

    def forecast(self, past: Sequence[Moment], x: Tensor, step: Step, clock: Clock | None) -> Tensor | None:
        return next(moment.v for moment in reversed(past) if moment.computed)


class Counting:
    """A network that counts; its velocity turns with sigma as fast as `bend` says."""

    def __init__(self, bend: float = 0.0) -> None:
        self.bend, self.asked = bend, list[float]()

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        self.asked.append(step.sigma)
        return (1 + self.bend * step.sigma) * torch.linspace(-1, 2, 5)[:, None, None].expand_as(x) + 0.3 * x


def sample(cache: StepCache, network: Velocity, levels: Schedule, solver: str = "euler") -> Tensor:
    return SOLVERS[solver](Cached(network, cache), torch.ones(1, 2, 5, 2, 2), levels)


def test_without_a_cache_nothing_is_left_out() -> None:
    levels, network = schedule(10, 3.0), Counting()
    x = sample(CACHES["none"](), network, levels)
    assert len(network.asked) == 10
    assert torch.equal(x, euler(Counting(), torch.ones(1, 2, 5, 2, 2), levels))


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc", "dpm++"])
def test_the_first_two_moments_and_the_last_step_are_computed(solver: str) -> None:
    levels, network = schedule(8, 3.0, solver), Counting()
    sample(Always(), network, levels, solver)
    first, last = levels.sigmas[:2], levels.sigmas[-2]
    assert tuple(network.asked) == (*first, *(() if solver == "heun" and last in first else (last,)))


def test_a_larger_threshold_computes_less_and_errs_more() -> None:
    levels = schedule(50, 3.0)
    exact, found = euler(Counting(0.5), torch.ones(1, 2, 5, 2, 2), levels), []
    for threshold in (0.01, 0.05, 0.2):
        network = Counting(0.5)
        x = sample(EasyCache(threshold), network, levels)
        found.append((len(network.asked), float((x - exact).norm() / exact.norm())))
    counts, errors = zip(*found, strict=True)
    assert 50 > counts[0] > counts[1] > counts[2] >= 11
    assert 0 < errors[0] < errors[1] < errors[2] < 0.3


def test_easycache_predicts_the_change_from_the_last_computed_rate() -> None:
    levels = list(schedule(10, 1.0))
    one = torch.ones(1, 1, 1, 1, 1)
    # Between the two the velocity changed by 0.1 where x changed by 0.2: a rate of 0.5.
    past = [Moment(levels[4], one, 1.0 * one, True), Moment(levels[5], 1.2 * one, 1.1 * one, True)]
    moved = 1.2 + 0.1 * 1.1 / 0.5  # which predicts a relative change of 0.1
    cache = EasyCache(threshold=0.1001)
    assert cache.forecast(past, moved * one, levels[6], None) is past[1].v
    assert replace(cache, threshold=0.0999).forecast(past, moved * one, levels[6], None) is None
    # What was skipped before adds to it.
    skipped = [*past, Moment(levels[6], moved * one, past[1].v, False)]
    assert cache.forecast(skipped, (moved + 0.01) * one, levels[7], None) is None
    # The first fifth of the steps is computed.
    assert cache.forecast(past, 1.2 * one, levels[1], None) is None
    assert cache.forecast(past, 1.2 * one, levels[2], None) is past[1].v


def test_magcache_skips_by_its_curve_and_no_more_than_so_many_in_a_row() -> None:
    levels = schedule(20, 1.0)
    counts = {}
    for threshold in (0.04, 0.2, 10.0):
        network = Counting()
        sample(MagCache(threshold, max_skips=3, curve=CURVE), network, levels)
        counts[threshold] = network.asked
    # |v - x| is 1 at sigma 1, 2 at 0, linear between: a step of 0.05 below sigma 0.8 changes it by 0.05 / 1.2 and less.
    assert counts[0.04][:7] == pytest.approx([1 - 0.05 * k for k in range(7)])
    assert counts[10.0] == pytest.approx([levels.sigmas[i] for i in (0, 1, 2, 3, 7, 11, 15, 19)])
    assert len(counts[0.04]) > len(counts[0.2]) > len(counts[10.0])


def test_a_table_is_read_beside_the_model_or_where_it_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no table of mine: .*magcache.json is not there; .*wanedit calibrate"
    ):
        MagCache().of_model("mine", tmp_path)
    with pytest.raises(InputError, match=r"no table of outside; expected"):
        MagCache().of_model("outside", None)
    (tmp_path / "magcache.json").write_text(json.dumps({"curve": CURVE}))
    assert MagCache().of_model("mine", tmp_path).curve == CURVE
    elsewhere = tmp_path / "other.json"
    elsewhere.write_text(json.dumps({"curve": [[0.9, 1.0], [0.1, 3.0]]}))
    # What decides pixels is the curve, not where it stood.
    assert MagCache(table=elsewhere).of_model("mine", tmp_path) == MagCache(curve=((0.9, 1.0), (0.1, 3.0)))
    for wrong in (
        {},
        {"curve": 3},
        {"curve": [[1, 1, 1]]},
        {"curve": [[0.1, 1], [0.9, 1]]},
        {"curve": [[1, 0], [0, 1]]},
    ):
        elsewhere.write_text(json.dumps(wrong))
        with pytest.raises(InputError):
            MagCache(table=elsewhere).of_model("mine", None)


def test_spectrum_computes_in_growing_windows_and_forecasts_polynomials() -> None:
    cache, levels = Spectrum(), schedule(50, 1.0)
    # window 2, growing by 0.75 with every one that is computed: 2, 2.75, 3.5, 4.25, 5, 5.75, …
    computed = [i for i in range(50) if cache.computes(i)]
    assert computed == [0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 25, 31, 38, 46]
    network = Counting()
    sample(cache, network, levels)
    assert network.asked == pytest.approx([levels.sigmas[i] for i in [*computed, 49]])
    # A polynomial in the step, of its degree, is forecast exactly where the ridge vanishes.
    one, steps = torch.ones(1, 1, 1, 1, 1).double(), list(levels)
    past = [Moment(steps[i], one, (2 - 0.1 * i + 0.003 * i**2) * one, True) for i in (0, 1, 2, 3, 4, 6)]
    forecast = Spectrum(degree=2, ridge=1e-12).forecast(past, one, steps[7], None)
    assert forecast is not None
    assert float(forecast) == pytest.approx(2 - 0.7 + 0.147, abs=1e-6)


def test_teacache_adds_up_the_rescaled_change_of_the_modulation() -> None:
    steps, one = list(schedule(20, 1.0)), torch.ones(1, 1, 1, 1, 1)
    past = [Moment(steps[k], one, one, True) for k in (4, 5)]

    def clock(step: Step) -> Tensor:
        return torch.tensor([1.0 + 0.1 * step.index])

    change = 0.1 / 1.5  # of the modulation between the steps 5 and 6
    for threshold, answers in ((2 * change + 0.51, True), (2 * change + 0.49, False)):
        cache = TeaCache(threshold, polynomial=(2.0, 0.5))  # 2 c + 0.5
        assert (cache.forecast(past, one, steps[6], clock) is not None) == answers


def test_a_borrowed_polynomial_says_so() -> None:
    own = TeaCache().of_model("Wan2.1-T2V-14B", Path())
    assert own.polynomial == POLYNOMIALS["Wan2.1-T2V-14B"]
    assert own.doubts("Wan2.1-T2V-14B") == []
    borrowed = TeaCache().of_model("Wan2.1-FLF2V-14B-720P", Path())
    assert borrowed.polynomial == POLYNOMIALS[BORROWED]
    [note] = borrowed.doubts("Wan2.1-FLF2V-14B-720P")
    assert f"the polynomial of {BORROWED} is borrowed" in note
    with pytest.raises(InputError, match="reads the time projection of a Wan"):
        TeaCache().of_model("mine", None)


@pytest.mark.parametrize(
    "options",
    [
        ("easycache", {"threshold": 0.0}),
        ("easycache", {"warm_up": 1.0}),
        ("magcache", {"max_skips": 0}),
        ("magcache", {"curve": ((1.0, 1.0),)}),
        ("teacache", {"table": "Wan9"}),
        ("spectrum", {"ridge": 0.0}),
        ("spectrum", {"warm_up": 1}),
    ],
)
def test_options_out_of_range_are_refused(options: tuple[str, dict[str, Any]]) -> None:
    name, values = options
    with pytest.raises(InputError, match=f"{name} "):
        CACHES[name](**values)


def test_where_noise_is_drawn_anew_everything_is_computed() -> None:
    network, levels = Counting(), schedule(12, 1.0)
    sample(Always(), network, levels, "renoise")
    # But where so little noise is drawn that x is nearly where the answers led.
    assert len(network.asked) >= 11


def test_a_difference_beside_a_moment_is_the_networks_own() -> None:
    levels, network = list(schedule(10, 1.0)), Counting()
    cached = Cached(network, Always())
    x = torch.ones(1, 2, 5, 2, 2)
    for step in levels[:4]:
        x = x - step.h * (v := cached(x, step))
    assert network.asked == [levels[0].sigma, levels[1].sigma]
    step, beside = levels[4], 1e-3 * torch.randn_like(x)
    v = cached(x, step)
    change = cached(x + beside, step) - v
    # Counting is linear in x: the derivative along `beside` is 0.3 of it, whatever the cache answered at x.
    assert torch.allclose(change, 0.3 * beside, atol=1e-6)
    asked = len(network.asked)
    for step in levels[5:8]:
        x = x - step.h * cached(x, step)
        assert torch.allclose(cached(x + beside, step) - cached(x, step), 0.3 * beside, atol=1e-6)
    # From then on, nothing is left out.
    assert len(network.asked) == asked + 9


def test_a_new_trajectory_and_another_network_begin_anew() -> None:
    levels, network = schedule(8, 1.0), Counting()
    x = torch.ones(1, 2, 5, 2, 2)
    cached = Cached(network, Always())
    one, two = euler(cached, x, levels), euler(cached, 2 * x, levels)
    assert len(network.asked) == 6  # the first two and the last, twice
    assert torch.equal(two, euler(Cached(Counting(), Always()), 2 * x, levels))
    assert not torch.equal(one, two)
    network = Counting()
    euler(Cached(network, Always(), network=lambda step: step.sigma < 0.5), x, levels)
    assert network.asked == pytest.approx([1.0, 0.875, 0.375, 0.25, 0.125])


@pytest.mark.parametrize("name", ["easycache", "spectrum"])
def test_an_edit_that_changes_nothing_gives_the_source_back_whatever_is_left_out(name: str) -> None:
    model, edit, levels = gaussian(), problem(identity=True), schedule(24, 3.0)
    made = ResidualCorrectedFlow()(CachedModel(model, CACHES[name]()), edit, levels).latents
    assert made is not None
    assert torch.allclose(made, edit.source, atol=1e-9)
    assert model.evaluations < 2 * 24
