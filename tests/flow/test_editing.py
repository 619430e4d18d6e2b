"""What an edit refuses, and the small algebra that methods share."""

from typing import get_args

import pytest
import torch

from tests.flow.problems import SHAPE, SLOTS, draw, gaussian, pixel_edit, problem, refuses
from wanedit.errors import InputError
from wanedit.flow.editing import Method, Part, VideoModel, View, at_slots, inner, into_slots, rms
from wanedit.flow.methods import METHODS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slots": ()}, r"slots are \[\]; expected one or more"),
        ({"slots": (3, 0)}, r"slots are \[3, 0\]; expected one or more, strictly increasing"),
        ({"slots": (3, 3)}, "strictly increasing"),
        ({"slots": (0, SLOTS)}, rf"slots are \[0, {SLOTS}\]; expected 0 … {SLOTS - 1}"),
        ({"slots": (-1, 2)}, "expected 0 …"),
        ({"slots": (0,)}, r"edited latents are \(2, 3, 2, 2, 2\); expected \(2, 3, 1, 2, 2\)"),
        ({"edited": draw(1, 3, 2, 2, 2)}, "edited latents are"),
        ({"noise": draw(2, 3, 4, 2, 2)}, r"noise is \(2, 3, 4, 2, 2\); expected the source's"),
        ({"frames": (0, 8)}, r"frames \[0, 8\] lie in slots \[0, 2\]; expected \[0, 3\]"),
        ({"frames": (0,)}, "lie in slots"),
        ({"keyframes": draw(2, 3, 3, 4, 4)}, "3 edited frames for 2 slots"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict, said: str) -> None:
    refuses(problem(), said, **change)


def test_an_edit_knows_its_parts() -> None:
    edit = problem((1, 4))
    assert edit.num_slots == SLOTS
    assert torch.equal(edit.edited_noise, edit.noise[:, :, [1, 4]])
    assert edit.scale == pytest.approx(float(edit.edited.square().mean().sqrt()))
    assert pixel_edit((0, 5, 16), 21).slots == (0, 2, 4)


def test_guided_changes_guidance_alone() -> None:
    view = View("a cat", 5.0, {0: draw(3, 4, 4)}, (0.0, 1.0), 1)
    assert view.guided(None) is view
    assert vars(view.guided(2.0)) == {**vars(view), "guidance_scale": 2.0}


def test_into_slots_is_the_adjoint_of_at_slots() -> None:
    x, part, slots = draw(*SHAPE), draw(2, 3, 2, 2, 2, seed=3), (1, 4)
    assert torch.allclose(inner(at_slots(x, slots), part), inner(x, into_slots(part, slots, SLOTS)))
    assert torch.equal(at_slots(into_slots(part, slots, SLOTS), slots), part)


def test_inner_keeps_clips_apart() -> None:
    a, b = draw(*SHAPE), draw(*SHAPE, seed=1)
    assert inner(a, b).flatten().tolist() == pytest.approx([float((a[i] * b[i]).sum()) for i in range(2)])
    assert rms(torch.full((3, 2), -2.0)) == pytest.approx(2)


def test_every_method_has_a_name() -> None:
    assert isinstance(gaussian(), VideoModel)
    for name, kind in METHODS.items():
        assert issubclass(kind, Method)
        assert kind.__doc__
        # A method is made without a setting, and says what it leaves unread.
        assert kind().ignores <= set(get_args(Part))
        assert METHODS.name_of(kind) == name


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"method is 'sd_edit'; expected one of .*Did you mean 'sdedit'"):
        METHODS["sd_edit"]
