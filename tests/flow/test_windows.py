"""Windows: exact where slots are independent, complete, evenly spread, and shown only what lies in them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from math_verification.closed_form import GaussianVideo
from tests.flow.problems import Mixing, draw
from wanedit.errors import InputError
from wanedit.flow.editing import VideoModel, View
from wanedit.flow.path import Step
from wanedit.flow.windows import Windowed, window_starts, window_weights

STEP = Step(0, 0.6, 0.5, 600.0)


class Independent(GaussianVideo):
    """Every slot for itself, whatever the number of slots."""

    def __init__(self) -> None:
        super().__init__(torch.eye(1, dtype=torch.float64))

    def velocity(self, view: View, slots: int):
        self.covariance = 0.5 * torch.eye(slots, dtype=torch.float64)
        return super().velocity(view, slots)


def test_it_is_a_video_model() -> None:
    assert isinstance(Windowed(Mixing(), 4, 1), VideoModel)


@pytest.mark.parametrize("slots", [3, 5, 8, 13])
def test_independent_slots_do_not_notice_windows(slots: int) -> None:
    x, view = draw(2, 3, slots, 2, 2), View("a")
    torch.testing.assert_close(
        Windowed(Independent(), 5, 2).velocity(view, slots)(x, STEP),
        Independent().velocity(view, slots)(x, STEP),
    )


def test_a_short_clip_passes_through_and_a_long_one_costs_a_pass_a_window() -> None:
    inner = Mixing()
    model = Windowed(inner, 5, 2)
    view = View("a", joint=1)
    model.velocity(view, 6)
    assert inner.views == [view]
    model.velocity(View("a"), 11)(draw(1, 2, 11, 2, 2), STEP)
    assert model.evaluations == 3


@given(st.integers(1, 60), st.integers(2, 21), st.data())
def test_windows_cover_and_share_and_their_weights_add_up(slots: int, window: int, data) -> None:
    overlap = data.draw(st.integers(1, window - 1))
    starts = window_starts(slots, window, overlap)
    assert starts[0] == 0
    assert all(0 < b - a <= window - overlap for a, b in zip(starts, starts[1:], strict=False))
    if slots <= window:
        return
    assert starts[-1] + window == slots
    total = torch.zeros(slots, dtype=torch.float64)
    for start, weight in zip(starts, window_weights(slots, window, starts), strict=True):
        assert (weight > 0).all()
        total[start : start + window] += weight
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_window_is_shown_the_images_and_ids_that_lie_in_it() -> None:
    inner, image = Mixing(), torch.zeros(3, 8, 8)
    view = View(
        "a", images={0: image, 16: image, 27: image, 40: image}, frame_ids=tuple(map(float, range(11)))
    )
    Windowed(inner, 5, 2).velocity(view, 11)
    starts = window_starts(11, 5, 2)
    assert starts == (0, 3, 6)
    assert [sorted(v.images) for v in inner.views] == [[0, 16], [4, 15], [3, 16]]
    assert [v.frame_ids for v in inner.views] == [tuple(map(float, range(s, s + 5))) for s in starts]


def test_what_cannot_be_is_refused() -> None:
    for window, overlap in ((1, 1), (4, 0), (4, 4)):
        with pytest.raises(InputError, match="expected at least 2"):
            Windowed(Mixing(), window, overlap)
    with pytest.raises(InputError, match="analytic"):
        Windowed(Mixing(), 5, 2).velocity(replace(View("a"), joint=2), 9)
