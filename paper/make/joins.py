"""What ways of joining segments come to, from experiments/09_joins, and the frames about one join of the demo.

In two minutes on two cores `python -m paper.make.joins` generates examples/multi_keyframe_demo in two ways and writes
paper/records/join_frames.png, a row of frames for the truth and each way, and join_frames.json, saying what they are.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from paper.make.ablations import Experiment
from paper.make.look import BLACK, BLUE, GREY, axes_row, draw_strips, save, write_strips
from paper.make.records import JOIN_FRAMES, JOINS, ROOT, need, read_csv, read_json
from paper.make.tex import Numbers, between, signed
from wanedit.metrics.functional.bootstrap import Interval

# What the library does unless told otherwise, and the kinds that were run on the same scenes, as the figure calls them.
DEFAULT, BEFORE = "once", "apart, unrestored"
KINDS = {
    BEFORE: "decoded apart, unrestored",
    "apart": "decoded apart, restored",
    "once, unrestored": "decoded once, unrestored",
    "bridge": "bridges",
    "co_denoise": "co-denoised",
    "repair": "repaired",
    "pace": "natural pace",
}
# The bars, set before the experiment was run: dB above BEFORE near joins, and which part of its error may be left.
BAR, PART, PART_NAMED = 1.0, 3, "third"
NEAR, ACCELERATION, COLOUR, SHOWN = "psnr_near_joins", "acceleration_error", "junction_colour", "joins_shown"
RADIUS, WIDE = 3, 160


def make(out: Path, numbers: Numbers) -> None:
    """All of it."""
    experiment = Experiment(JOINS)
    limit = read_csv(JOINS / "results" / "limit.csv")
    floor = next(
        float(r["mean"]) for r in limit if (r["video"], r["measure"]) == ("coded, restored", ACCELERATION)
    )
    _numbers(numbers, experiment, floor)
    _forest(out / "figures" / "joins.pdf", experiment, floor)
    draw_strips(
        need(JOIN_FRAMES), read_json(JOIN_FRAMES.with_suffix(".json")), out / "figures" / "join_frames.pdf"
    )


def _numbers(numbers: Numbers, experiment: Experiment, floor: float) -> None:
    numbers.add("joins.scenes", experiment.grid["baseline"]["scenes"])
    numbers.add("joins.frames", max(experiment.grid["data"]["keyframes"][0]) + 1)
    ours, before = (_mean(experiment, kind, ACCELERATION) for kind in (DEFAULT, BEFORE))
    total = _gain(experiment, DEFAULT, NEAR, over=BEFORE)
    numbers.add("joins.bar", f"{BAR:g}")
    numbers.add("joins.part", PART_NAMED)
    numbers.add("joins.total", _between(total))
    numbers.add("joins.verdict.near", "met" if total.mean >= BAR else "missed")
    numbers.add("joins.near.once", f"{_mean(experiment, DEFAULT, NEAR):.2f}")
    for kind in ("once, unrestored", "apart", "bridge", "co_denoise", "repair"):
        numbers.add(f"joins.gain.near.{kind}", _between(_gain(experiment, kind, NEAR)))
    numbers.add("joins.verdict.acceleration", "met" if ours <= before / PART else "missed")
    for name, value in {DEFAULT: ours, BEFORE: before, "bar": before / PART}.items():
        numbers.add(f"joins.acceleration.{name}", f"{value:.2f}")
    numbers.add("joins.floor", f"{floor:.2f}")
    for kind in (DEFAULT, "bridge", "co_denoise"):
        numbers.add(f"joins.evaluations.{kind}", f"{_mean(experiment, kind, 'evaluations'):.3g}")
    for kind in (DEFAULT, "once, unrestored"):
        numbers.add(f"joins.shown.{kind}", f"{_mean(experiment, kind, SHOWN):.1f}")
    numbers.add("joins.gain.shown.repair", _between(_gain(experiment, "repair", SHOWN)))


def _point(experiment: Experiment, kind: str) -> tuple[str, ...]:
    return experiment.results.at({"joins": kind})[0]


def _mean(experiment: Experiment, kind: str, measure: str) -> float:
    found = experiment.results.mean(_point(experiment, kind), measure)
    assert found is not None
    return found.mean


def _gain(experiment: Experiment, kind: str, measure: str, over: str = DEFAULT) -> Interval:
    """One kind minus another, paired by scene."""
    found = experiment.results.gain(_point(experiment, kind), _point(experiment, over), measure)
    assert found is not None
    return found


def _between(found: Interval) -> str:
    return between(signed(found.mean), found.low, found.high)


def _forest(path: Path, experiment: Experiment, floor: float) -> None:
    """Every kind against the default; what lies right of zero is better than it."""
    figure, axes = axes_row(3, 1.9, share_y=True)
    ours, before = (_mean(experiment, kind, ACCELERATION) for kind in (DEFAULT, BEFORE))
    for axis, measure, sign, title in zip(
        axes,
        (NEAR, ACCELERATION, COLOUR),
        (1, -1, -1),
        ("PSNR near joins, dB", "error of acceleration, less by", "step in colour, less by"),
        strict=True,
    ):
        for place, kind in enumerate(KINDS):
            gain = _gain(experiment, kind, measure)
            ends = sorted((sign * gain.low, sign * gain.high))
            sure = ends[0] > 0 or ends[1] < 0
            axis.plot(ends, [place, place], color=BLUE if sure else GREY, linewidth=1.6)
            axis.plot(sign * gain.mean, place, "o", color=BLUE if sure else GREY)
        axis.axvline(0, color=BLACK, linewidth=0.8)
        axis.set_title(title)
    axes[0].axvline(-BAR, color=BLACK, linewidth=0.8, linestyle=":")
    _name(axes[0], -BAR, "bar")
    for value, name in ((ours - floor, "coded truth"), (ours - before / PART, "bar")):
        axes[1].axvline(value, color=BLACK, linewidth=0.8, linestyle=":")
        _name(axes[1], value, name)
    axes[0].set_yticks(range(len(KINDS)), list(KINDS.values()))
    axes[0].invert_yaxis()
    axes[1].set_xlabel("against decoded once, restored (the default): right is better")
    save(figure, path)


def _name(axis: Axes, value: float, name: str) -> None:
    """What a line at this value stands for, along it."""
    axis.text(
        value,
        0.03,
        name,
        transform=axis.get_xaxis_transform(),
        rotation=90,
        ha="right",
        va="bottom",
        fontsize=7,
    )


def record() -> None:
    """Generate, and write the record."""
    from wanedit.cli import main
    from wanedit.runtime.record import read_run
    from wanedit.sprites import frame_times, render
    from wanedit.sprites.sets import demo_scene, to_bytes

    demo = ROOT / "examples" / "multi_keyframe_demo" / "config.yaml"
    runs = {}
    for row, way in (("decoded apart", ["--decode", "apart", "--restore", "none"]), ("once, restored", [])):
        output = ROOT / "outputs" / f"join_frames_{len(runs)}"
        if code := main(["generate", "--config", str(demo), *way, "--output", str(output), "--quiet"]):
            sys.exit(code)
        runs[row] = read_run(output, [ROOT])
    made = runs["decoded apart"]
    drawn = render(demo_scene(), frame_times(len(made.video), int(made.fps)), made.video.shape[1:3]).video
    truth = to_bytes(drawn).permute(1, 2, 3, 0).numpy()
    join = sorted(made.junctions)[0]
    shown = range(join - RADIUS, join + RADIUS + 1)
    clips = {"truth": truth, **{row: run.video for row, run in runs.items()}}
    rows = {row: [np.asarray(clip[t]) for t in shown] for row, clip in clips.items()}
    columns = [f"*{t}, keyframe" if t == join else f"{t}" for t in shown]
    about = {"digests": {row: list(run.digests) for row, run in runs.items()}}
    write_strips(JOIN_FRAMES, rows, columns, WIDE, about)
    print(f"{JOIN_FRAMES.relative_to(ROOT)}: {JOIN_FRAMES.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    record()
