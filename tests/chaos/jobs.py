"""Every job of wanedit, small: what it starts from, the call that runs it, and what tells that it came to its end."""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from tests.jobs.test_ablate import SMALL
from tests.runs import EDIT, FAST, draw_keyframe, moving_square
from tests.stylists.fake_stylist import FakeStylist
from wanedit import EditConfig, GenerationConfig, edit, generate
from wanedit.files import file_sha256
from wanedit.jobs.ablate.config import AblationConfig
from wanedit.jobs.ablate.run import ablate
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.run import evaluate, write
from wanedit.jobs.integrated.editor import IntegratedVideoEditor
from wanedit.jobs.style.config import StyleConfig, StyleSource
from wanedit.jobs.style.run import style
from wanedit.report import write_comparison, write_report
from wanedit.runtime import predict as real
from wanedit.video import read_frames, write_lossless

# In a place: what a job reads is in `given`, all that it writes in `work`, and what it may forget in `cache`.
Act = Callable[[Path], object]


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        run: does it, in a place.
        before: jobs that were done there earlier.
        undo: takes a part of that away again, as a kill would have.
    """

    name: str
    run: Act
    before: tuple[Act, ...] = ()
    undo: Act | None = None


def given(place: Path) -> Path:
    """The inputs of all jobs, and files of the user's own among those that the jobs will write."""
    inputs = place / "given"
    for folder in ("given", "cache"):
        (place / folder).mkdir(parents=True)
    for k in range(3):
        draw_keyframe(inputs / f"k{k}.png", 4 * k)
    write_lossless(inputs / "film.mkv", moving_square(9), 16)
    for index in (0, 8):
        Image.fromarray(moving_square(9, (20, 60, 250))[index]).save(inputs / f"{index:04d}.png")
    for folder in ("out", "out/segments", "out/keyframes", "out/style/cache", "experiment", "results"):
        (place / "work" / folder).mkdir(parents=True)
        (place / "work" / folder / "mine.txt").write_text("my own")
        (place / "work" / folder / ".mine.partial").write_text("my own, too")
    grid = SMALL | {"axes": {"alpha": [1.0]}, "baseline": {}}
    (place / "work" / "experiment" / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    return place


def _generate(place: Path, output: str = "out", **changes: Any) -> None:
    keyframes = [[str(place / "given" / f"k{k}.png"), k / 4] for k in range(3)]
    settings: dict[str, Any] = {
        "keyframes": keyframes,
        "output": str(place / "work" / output),
        "save_latents": True,
    }
    generate(GenerationConfig(**settings | FAST | changes))


def _generate_gif(place: Path) -> None:
    _generate(place, "out/film.gif")


def _generate_tracked(place: Path) -> None:
    _generate(place, tracking="csv")


def _generate_together(place: Path) -> None:
    _generate(place, joins="co_denoise")


def _edit(place: Path, output: str = "out", **changes: Any) -> None:
    inputs = place / "given"
    settings: dict[str, Any] = {
        "video": str(inputs / "film.mkv"),
        "keyframes": [[str(inputs / f"{index:04d}.png"), index] for index in (0, 8)],
        "prompt": "a blue square",
        "output": str(place / "work" / output),
        "save_latents": True,
    }
    edit(EditConfig(**settings | EDIT | changes))


def _style(place: Path) -> None:
    source = StyleSource(None, "watercolour")
    values = {
        "video": str(place / "given" / "film.mkv"),
        "indices": [0, 8],
        "output": str(place / "work" / "out"),
    }
    style(StyleConfig(style=source, **values), stylist=FakeStylist())


def _evaluate(place: Path) -> None:
    work = place / "work"
    settings: dict[str, Any] = {
        "run": str(work / "out"),
        "metrics": "temporal",
        "vbench": str(work / "vbench"),
        "prompt": "a",
    }
    path = work / "results" / "out.json"
    write(evaluate(EvaluationConfig(**settings, output=str(path))), path)


def _report(place: Path) -> None:
    write_report(place / "work" / "out", metrics="none")


def _compare(place: Path) -> None:
    work = place / "work"
    write_comparison([work / "out", work / "other"], work / "results" / "both.html", metrics="none")


def _ablate(place: Path) -> None:
    work = place / "work"
    ablate(AblationConfig(str(work / "experiment"), output=str(work / "out")))


def _save_results(place: Path) -> None:
    frames = list(read_frames(place / "given" / "film.mkv"))
    editor = IntegratedVideoEditor(fps=16)
    editor.save_results(frames, place / "work" / "results" / "saved", keyframes=frames[:1], indices=[0])


def _lose_last_segment(place: Path) -> None:
    """As a kill before its end would have left the run."""
    segments = place / "work" / "out" / "segments"
    journal = json.loads((segments / "progress.json").read_text())
    last = max(entry["index"] for entry in journal["segments"].values())
    for name in [name for name, entry in journal["segments"].items() if entry["index"] == last]:
        (segments / journal["segments"].pop(name)["file"]).unlink()
    (segments / "progress.json").write_text(json.dumps(journal))
    (segments / ".segment_001_half.mkv.12345.partial").write_bytes(b"\x1a\x45\xdf\xa3")
    (place / "work" / "out" / "output_final.mp4").unlink(missing_ok=True)


def _lose_result(place: Path) -> None:
    shutil.rmtree(place / "work" / "experiment" / "results")
    next((place / "work" / "out" / "runs").glob("*/result.json")).unlink()


def _lose_record(place: Path) -> None:
    (place / "work" / "out" / "keyframes.json").unlink()


JOBS = {
    job.name: job
    for job in (
        Job("generate", _generate),
        Job("generate, resumed", _generate, (_generate,), _lose_last_segment),
        Job("generate, again", _generate, (_generate,)),
        Job("generate, tracked", _generate_tracked),
        Job("generate, gif", _generate_gif),
        Job("generate, together", _generate_together),
        Job("edit", _edit),
        Job("edit, again", _edit, (_edit,)),
        Job("edit, resumed", _edit, (_edit,), _lose_last_segment),
        Job("style", _style),
        Job("style, resumed", _style, (_style,), _lose_record),
        Job("evaluate", _evaluate, (_edit,)),
        Job("report", _report, (_generate,)),
        Job("comparison", _compare, (_edit, lambda place: _edit(place, "other", alpha=2.0))),
        Job("ablate", _ablate),
        Job("ablate, resumed", _ablate, (_ablate,), _lose_result),
        Job("save_results", _save_results),
    )
}


class Remembered:
    """`predict`, which computes nothing twice: the steps and the frames of a task are those of its first time."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[list[Any], Any]] = {}
        self.asked: list[str] = []

    def __call__(
        self,
        module: Any,
        tasks: Any,
        save: Callable[[Any], None],
        config: Any,
        world: Any,
        together: bool = False,
    ) -> None:
        if together:  # writes files on its way
            real.predict(module, tasks, save, config, world, together)
            return
        on_step = getattr(module, "on_step", None)
        for task in tasks:
            self.asked.append(task.digest)
            if task.digest not in self.made:
                steps: list[Any] = []
                module.on_step = lambda *told, steps=steps: steps.append(told)
                real.predict(
                    module, [task], lambda made, steps=steps: self.made.update({made.digest: (steps, made)}), config,
                    world,
                )  # fmt: skip
            steps, made = self.made[task.digest]
            for told in steps:
                assert on_step is not None
                on_step(*told)
            save(made)


# What a run says of its own time, of the time at all, and of how it came to its result.
# `offset` and `rows` count in a log that has every start, `sampled` what the last one still lacked, and a video is
# `playable` where it is shown first.
TIMES = (
    "cached", "seconds", "made", "time", "tracking", "rank", "file_sha256", "price", "offset", "rows", "sampled",
    "playable",
)  # fmt: skip


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(part) for name, part in value.items() if name not in TIMES}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def results(work: Path) -> dict[str, str]:
    """What a job leaves, by name: pictures and films by their bytes, segments by pixels, records without times."""
    found = {}
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        name = str(path.relative_to(work))
        if path.suffix in (".mp4", ".gif", ".png", ".txt", ".safetensors"):
            found[name] = file_sha256(path)
        elif path.suffix == ".mkv":
            found[name] = hashlib.sha256(read_frames(path).tobytes()).hexdigest()
        elif path.suffix == ".json":
            found[name] = json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True)
        elif path.suffix == ".yaml":
            found[name] = path.read_text()
        elif path.suffix == ".csv" and "tracking" in path.parts:
            # One that the journal could not take is made, and logged, once more.
            rows = csv.DictReader(path.read_text().splitlines())
            found[name] = str(sorted({json.dumps(_timeless(row)) for row in rows}))
        else:
            found[name] = ""
    return found
