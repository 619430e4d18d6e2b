"""A group of measures is one class, in the package or out of it, and what it declares is what it does."""

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import moving_square
from wanedit.errors import InputError
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.metric import METRICS, Inputs, Metric, Moment, SceneTruth, Values, better, measure
from wanedit.jobs.evaluate.run import evaluate, flat
from wanedit.metrics.functional import reach
from wanedit.video import write_lossless
from wanedit.video.decode import open_frames

OUTSIDE = '''
import numpy as np

from wanedit.jobs.evaluate.metric import Inputs, Metric, Moment, Values

class Brightness(Metric):
    """Mean level of the video, and how far it is from the reference's."""

    needs = ("reference",)
    lower = ("off",)
    plain = ("mean",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.levels = []

    def update(self, moment: Moment) -> None:
        self.levels.append((moment.frame.mean(), moment.reference.mean()))

    def compute(self) -> Values:
        mean, other = np.mean(self.levels, axis=0)
        return {"mean": float(mean), "off": float(abs(mean - other))}

class Old(Metric):
    def measure(self, inputs: Inputs) -> Values:
        return {}
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of one group, a video of level 10 and a reference of level 4."""
    (tmp_path / "brightness_of_mine.py").write_text(OUTSIDE)
    for name, level in (("video", 10), ("reference", 4)):
        write_lossless(tmp_path / f"{name}.mkv", np.full((3, 16, 16, 3), level, np.uint8), 16)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_group_from_outside_is_named_by_its_class(outside: Path) -> None:
    name = "brightness_of_mine:Brightness"
    given: dict[str, Any] = {"video": str(outside / "video.mkv"), "reference": str(outside / "reference.mkv")}
    found = evaluate(EvaluationConfig(**given, metrics=f"{name},fidelity"))
    assert found.metrics[name] == {"mean": 10.0, "off": 6.0}
    assert "psnr" in found.metrics["fidelity"]
    assert (better(name, ["off"]), better(name, ["mean"])) == ("lower", "neither")
    with pytest.raises(InputError, match=f"{name}: no reference is given"):
        evaluate(EvaluationConfig(video=given["video"], metrics=name))
    with pytest.raises(InputError, match="Old lacks compute; expected what"):
        evaluate(EvaluationConfig(**given, metrics="brightness_of_mine:Old"))
    with pytest.raises(InputError, match=r"expected a class .*Metric"):
        evaluate(EvaluationConfig(**given, metrics="brightness_of_mine:Values"))


def test_a_group_of_an_installed_package_is_one_of_the_package(outside: Path) -> None:
    """As an entry point `wanedit.metrics`: measured by auto, and named like the others."""
    info = outside / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[wanedit.metrics]\nbrightness = brightness_of_mine:Brightness\n")
    given: dict[str, Any] = {"video": str(outside / "video.mkv"), "reference": str(outside / "reference.mkv")}
    assert evaluate(EvaluationConfig(**given)).metrics["brightness"]["off"] == 6.0
    assert evaluate(EvaluationConfig(**given, metrics="brightness")).metrics.keys() == {"brightness"}
    assert "brightness" in evaluate(EvaluationConfig(video=given["video"])).skipped


def test_every_number_is_of_a_row_that_its_group_declares() -> None:
    video = np.stack([np.kron(f, np.ones((2, 2, 1), np.uint8)) for f in moving_square(24)])
    mask = np.zeros(video.shape[:3], bool)
    mask[:, 32:] = True
    step = {"r_k_norm": 0.5, "r_k_norm_relative": 0.5, "sigma": 0.9, "h": 0.1, "alpha_h": 0.2}
    steps = tuple(step | {"keyframe_error": 0.1, "sigma": 0.9 - 0.1 * k} for k in range(4))
    inputs = Inputs(video, (12,), video[::-1].copy(), mask, {4: video[4]}, SceneTruth(video), steps=steps)
    metrics, skipped = measure(inputs)
    assert set(skipped) == {name for name, group in METRICS.items() if group.weights and not group.on_request}
    for name, values in metrics.items():
        group = METRICS[name]
        declared = {*group.higher, *group.lower, *group.plain}
        assert all(declared & set(places) for places, _ in flat(values)), name


@pytest.mark.parametrize("name", list(METRICS))
def test_every_group_stands_in_the_documentation(name: str, repository: Path) -> None:
    text = (repository / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    given = {"junctions", "reference", "mask", "keyframes"} & set(METRICS[name].needs)
    assert all(f"`--{what}`" in line for what in given)


class Held(Metric):
    """Bytes that all groups, and what reads the clips, hold after each frame."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.held: list[int] = []

    def update(self, moment: Moment) -> None:
        gc.collect()
        self.held.append(tracemalloc.get_traced_memory()[0])

    def compute(self) -> Values:
        return {"held": self.held}


def test_no_group_holds_frames_however_long_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "HELD", 1)
    board = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    video = np.stack([np.roll(board, t, axis=1) for t in range(31)])
    for name, clip in (("source", video), ("edit", 255 - video)):
        write_lossless(tmp_path / f"{name}.mkv", clip, 16)
    edit, source = (open_frames(tmp_path / f"{name}.mkv") for name in ("edit", "source"))
    mask = np.broadcast_to(board[..., 0] > 99, video.shape[:3])
    inputs = Inputs(edit, (15,), source, mask, {0: 255 - video[0], 30: 255 - video[30]})
    groups = [
        "junctions",
        "seams",
        "temporal",
        "fidelity",
        "mask",
        "keyframes",
        "reach",
        "truth",
        "motion",
        "structure_surrogate",
    ]
    tracemalloc.start()
    found, _ = measure(inputs, [*groups, f"{__name__}:Held"])
    tracemalloc.stop()
    held = found[f"{__name__}:Held"]["held"]
    # After the first window of motion: numbers, and no frame nor half of one.
    assert (held[29] - held[18]) / 11 < video[0].nbytes / 2
