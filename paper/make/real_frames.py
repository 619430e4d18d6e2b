"""Frames of a real edit, as it comes from the sampler and restored: what the measures of the paper stand for.

In three minutes on two cores `python -m paper.make.real_frames` runs examples/edit_a_video twice and writes
paper/records/real_frames.png, a row of frames for each of source, edited and restored, and real_frames.json, which says
what they are.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from paper.make.look import WIDTH, save
from paper.make.records import REAL_FRAMES, ROOT, need
from paper.make.tex import Numbers

ROWS = {"source": "source", "none": "as edited", "auto": "restored"}
SHOWN, WIDE = 5, 216


def make(out: Path, numbers: Numbers) -> None:
    """The figure, and what the text says of the clip."""
    from matplotlib.figure import Figure

    sheet = np.asarray(Image.open(need(REAL_FRAMES)))
    about = json.loads(need(REAL_FRAMES.with_suffix(".json")).read_text(encoding="utf-8"))
    numbers.add("frames.total", about["total"])
    numbers.add("frames.steps", about["steps"])
    columns = len(about["frames"])
    high = sheet.shape[0] // len(ROWS)
    figure = Figure(figsize=(WIDTH, WIDTH / columns * high / WIDE * len(ROWS) + 0.35), layout="constrained")
    axes = figure.subplots(len(ROWS), columns)
    for r, name in enumerate(ROWS.values()):
        for c, frame in enumerate(about["frames"]):
            axis = axes[r][c]
            axis.imshow(sheet[r * high : (r + 1) * high, c * WIDE : (c + 1) * WIDE], interpolation="none")
            axis.set(xticks=[], yticks=[])
            if r == 0:
                key = ", the keyframe" if frame in about["keyframes"] else ""
                axis.set_title(f"frame {frame}{key}")
            if c == 0:
                axis.set_ylabel(name)
    save(figure, out / "figures" / "real_frames.pdf")


def record() -> None:
    """Make the runs and write the record."""
    from wanedit.cli import main
    from wanedit.runtime.record import read_run

    runs = {}
    for restore in list(ROWS)[1:]:
        output = ROOT / "outputs" / f"real_frames_{restore}"
        config = ROOT / "examples" / "edit_a_video" / "config.yaml"
        asked = ["--restore", restore, "--output", str(output), "--quiet"]
        if code := main(["edit", "--config", str(config), *asked]):
            sys.exit(code)
        runs[restore] = read_run(output, [ROOT])
    whole = runs["auto"]
    assert whole.reference is not None
    clips = [whole.reference, *(run.video for run in runs.values())]
    shown = np.linspace(0, len(whole.video) - 1, SHOWN).round().astype(int).tolist()
    high = round(WIDE * whole.video.shape[1] / whole.video.shape[2])
    rows = []
    for clip in clips:
        frames = [
            Image.fromarray(np.asarray(clip[t])).resize((WIDE, high), Image.Resampling.LANCZOS) for t in shown
        ]
        rows.append(np.concatenate([np.asarray(frame) for frame in frames], axis=1))
    Image.fromarray(np.concatenate(rows)).save(REAL_FRAMES, optimize=True)
    about = {
        "frames": shown,
        "total": len(whole.video),
        "keyframes": sorted(whole.keyframes),
        "steps": len(whole.steps),
        "digests": {name: list(run.digests) for name, run in runs.items()},
    }
    REAL_FRAMES.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{REAL_FRAMES.relative_to(ROOT)}: {REAL_FRAMES.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    record()
