"""Pictures of what is being sampled: the map to colours, when they are there, and that nothing depends on them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs import Run
from tests.wan.test_taehv import written
from wanedit import EditConfig, edit
from wanedit.errors import InputError, MissingWeightsError
from wanedit.flow.path import schedule
from wanedit.lit.model import open_model
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.outputs import is_own
from wanedit.runtime.preview import BESIDE, WAN_21, Colours, Previews
from wanedit.wan.load import open_wan

NAME = "segment_000_0123456789ab.safetensors"


def test_a_map_is_fitted_by_least_squares() -> None:
    latents = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    truth = Colours(torch.tensor(WAN_21), torch.tensor([0.1, 0.2, -0.3]))
    found = Colours.fitted(latents, latents @ truth.factors + truth.added)
    torch.testing.assert_close(found.factors, truth.factors)
    torch.testing.assert_close(found.added, truth.added)


def test_slots_from_the_first_to_the_last_stand_side_by_side() -> None:
    # Slot k is of the grey k / 10, whatever stands in the other channels.
    factors = torch.zeros(16, 3)
    factors[0] = 1.0
    clean = torch.randn(16, 11, 2, 4)
    clean[0] = torch.arange(11)[:, None, None] / 5 - 1
    drawn = Colours(factors, torch.zeros(3)).draw(clean)
    assert drawn.shape == (2, 5 * 4, 3)
    assert [int(drawn[0, 4 * k, 0]) for k in range(5)] == [0, 51, 128, 204, 255]
    clean[0, 0] = float("nan")
    assert Colours(factors, torch.zeros(3)).draw(clean).shape == (2, 20, 3)


def test_it_is_drawn_every_few_steps_replaced_and_taken_away(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, tmp_path / "film.mp4")
    previews = Previews(directory, open_model("tiny"), every=2)
    picture, seen = tmp_path / "preview" / "segment_000_0123456789ab.png", []
    for step in schedule(4, 3.0):
        previews.show(NAME, step, torch.full((1, 16, 3, 8, 8), float(step.index)))
        seen.append(picture.read_bytes())
    assert [seen[k] == seen[k - 1] for k in (1, 2, 3)] == [True, False, True]
    assert Image.open(picture).size == (3 * 96, 96)
    assert is_own(picture)
    assert directory.unfinished() == [picture]
    previews.remove(NAME)
    assert not (tmp_path / "preview").exists()
    previews.remove(NAME)


def test_none_is_drawn_where_it_is_off_or_cannot_be(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, tmp_path / "film.mp4")
    step, clean = next(iter(schedule(4, 3.0))), torch.zeros(1, 16, 3, 8, 8)
    Previews(directory, open_model("tiny"), every=0).show(NAME, step, clean)
    assert not list(tmp_path.iterdir())
    (tmp_path / "preview").write_text("a file of somebody's")
    Previews(directory, open_model("tiny"), every=1).show(NAME, step, clean)
    Previews(directory, open_model("tiny"), every=1).remove(NAME)
    assert (tmp_path / "preview").read_text() == "a file of somebody's"


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"factors": [[0, 0, 0]], "added": [0, 0, 0]}', '{"factors": "x", "added": null}']
)
def test_a_map_that_is_none_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(open_wan("tiny").path, model)
    (model / BESIDE).write_text(text)
    with pytest.raises(InputError, match=f"{BESIDE}: .*expected a map from 16 latents to colours"):
        Colours.of(open_model(str(model)))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that were there when their task was done."""
    names, remove = [], Previews.remove

    def spy(self: Previews, latents: str) -> None:
        names.extend(path.name for path in self.folder.glob("*"))
        remove(self, latents)

    monkeypatch.setattr(Previews, "remove", spy)
    return names


def test_a_generation_shows_each_task_and_makes_the_same_without(
    run: Run, tmp_path: Path, drawn: list[str]
) -> None:
    def latents(**changes: Any) -> dict[str, bytes]:
        made = run(num_inference_steps=2, guidance_scale=1.0, output=str(tmp_path / f"{changes}"), **changes)
        return {
            path.name: path.read_bytes() for path in (made.video.parent / "segments").glob("*.safetensors")
        }

    shown = latents(preview=1)
    assert sorted(drawn) == sorted(name.replace(".safetensors", ".png") for name in shown)
    drawn.clear()
    assert latents(preview=0) == shown
    assert not drawn


def test_an_edit_shows_where_its_target_heads_for(
    edit_config: Callable[..., EditConfig], drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, show = [], Previews.show
    monkeypatch.setattr(
        Previews,
        "show",
        lambda self, name, step, clean: (steps.append(step.index), show(self, name, step, clean)),
    )
    made = edit(edit_config(num_inference_steps=3, preview=1), verbose=False)
    # Once a step, though the source is asked about too.
    assert steps == [0, 1, 2]
    assert len(drawn) == 1
    assert not (made.video.parent / "preview").exists()


def test_where_its_file_is_taehv_draws_and_one_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(open_wan("tiny").path, model)
    _, reference = written(model)
    opened = open_model(str(model))
    directory = RunDirectory(tmp_path / "run", tmp_path / "run" / "film.mp4")
    directory.root.mkdir()
    previews = Previews(directory, opened, every=1)
    clean = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    previews.show(NAME, next(iter(schedule(4, 3.0))), clean)
    shown = torch.from_numpy(np.asarray(Image.open(previews.path(NAME)).convert("RGB")).copy())
    # Three slots of 64 pixels, drawn twice as large; the first is the last frame of its own four.
    assert shown.shape == (128, 3 * 128, 3)
    first = reference.frames(clean[:, :, 0], {})[3].clamp(0, 1)
    expected = (first[0] * 255).round().byte().permute(1, 2, 0)
    assert (shown[::2, :128:2].int() - expected.int()).abs().max() <= 1
    (model / "taew2_1.safetensors").write_bytes(b"nothing")
    with pytest.raises(MissingWeightsError, match=r"taew2_1\.safetensors"):
        Previews(directory, opened, every=1)
    Previews(directory, opened, every=0)
