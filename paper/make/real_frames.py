"""Frames of a real edit, as it comes from the sampler and restored: what the measures of the paper stand for.

In three minutes on two cores `python -m paper.make.real_frames` runs examples/edit_a_video twice and writes
paper/records/real_frames.png, a row of frames for each of source, edited and restored, and real_frames.json, which says
what they are.
"""

import sys
from pathlib import Path

import numpy as np

from paper.make.look import draw_strips, write_strips
from paper.make.records import REAL_FRAMES, ROOT, need, read_json
from paper.make.tex import Numbers

SHOWN, WIDE = 5, 216


def make(out: Path, numbers: Numbers) -> None:
    """The figure, and what the text says of the clip."""
    about = read_json(REAL_FRAMES.with_suffix(".json"))
    numbers.add("frames.total", about["total"])
    numbers.add("frames.steps", about["steps"])
    draw_strips(need(REAL_FRAMES), about, out / "figures" / "real_frames.pdf")


def record() -> None:
    """Make the runs and write the record."""
    from wanedit.cli import main
    from wanedit.runtime.record import read_run

    runs = {}
    for row, restore in (("as edited", "none"), ("restored", "auto")):
        output = ROOT / "outputs" / f"real_frames_{restore}"
        config = ROOT / "examples" / "edit_a_video" / "config.yaml"
        asked = ["--restore", restore, "--output", str(output), "--quiet"]
        if code := main(["edit", "--config", str(config), *asked]):
            sys.exit(code)
        runs[row] = read_run(output, [ROOT])
    whole = runs["restored"]
    assert whole.reference is not None
    shown = np.linspace(0, len(whole.video) - 1, SHOWN).round().astype(int).tolist()
    clips = {"source": whole.reference, **{row: run.video for row, run in runs.items()}}
    rows = {row: [np.asarray(clip[t]) for t in shown] for row, clip in clips.items()}
    columns = [f"*{t}, keyframe" if t in whole.keyframes else f"{t}" for t in shown]
    about = {
        "total": len(whole.video),
        "steps": len(whole.steps),
        "digests": {row: list(run.digests) for row, run in runs.items()},
    }
    write_strips(REAL_FRAMES, rows, columns, WIDE, about)
    print(f"{REAL_FRAMES.relative_to(ROOT)}: {REAL_FRAMES.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    record()
