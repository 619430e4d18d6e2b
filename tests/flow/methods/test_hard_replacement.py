"""Hard replacement: keyframes exact, everything else the model's."""

import pytest
import torch

from tests.flow.problems import MEANS, Mixing, carried, gaussian, largest, problem, refuses
from wanedit.flow.keyframes import Replacement
from wanedit.flow.methods.hard_replacement import HardReplacement
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import interpolate, schedule


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("model", [gaussian, Mixing])
def test_the_keyframes_are_exact(model, strength: float) -> None:
    edit = problem((1, 2, 4))
    made = HardReplacement(strength)(model(), edit, schedule(7, 3.0)).latents
    assert made is not None
    assert torch.equal(made[:, :, [1, 2, 4]], edit.edited)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_model_only_ever_sees_noised_keyframes_at_their_slots(strength: float) -> None:
    seen = []

    class Watching(Mixing):
        def velocity(self, view, slots):
            inner = super().velocity(view, slots)
            return lambda z, step: seen.append((z, step.sigma)) or inner(z, step)

    edit, plan = problem((1, 3)), schedule(10, 1.0)
    HardReplacement(strength)(Watching(), edit, plan)
    assert [sigma for _, sigma in seen] == list(plan.after(strength).sigmas[:-1])
    for z, sigma in seen:
        assert torch.equal(z[:, :, [1, 3]], interpolate(edit.edited, edit.edited_noise, sigma))
    free = [0, 2, 4]
    start = interpolate(edit.source, edit.noise, seen[0][1])
    assert torch.equal(seen[0][0][:, :, free], start[:, :, free])


def test_it_is_the_replacement_controller_without_the_source() -> None:
    edit, plan = problem(), schedule(12, 3.0)
    made = HardReplacement()(Mixing(), edit, plan).latents
    same = ResidualCorrectedFlow(Replacement(), source_weight=0.0)(Mixing(), edit, plan).latents
    assert made is not None
    assert same is not None
    assert largest(made - same) < 1e-11


def test_keyframes_that_sampling_would_have_given_anyway_change_nothing() -> None:
    """Keyframes at noise level sigma along the straight path are not the flow's own: they meet it at both ends."""
    edit, plan = problem((0, 1, 2, 3, 4)), schedule(200, 1.0)
    free = carried(edit.noise, MEANS["a dog"], 1.0, 0.0)
    made = HardReplacement()(gaussian(), edit, plan).latents
    assert made is not None
    assert torch.equal(made, edit.edited)
    assert largest(free - edit.edited) > 0.1


def test_bad_settings_are_refused() -> None:
    refuses(HardReplacement(), r"strength is 2; expected a number in \(0, 1\]", strength=2.0)
