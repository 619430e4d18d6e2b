"""What no join can be better than: the truth itself, coded and decoded by the model's VAE, measured as the runs are.

python experiments/09_joins/limit.py 16    # of the first 16 scenes; writes results/limit.csv
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from wanedit.jobs.ablate.clips import FPS, make_items, prepare
from wanedit.jobs.ablate.grid import JOIN_COLUMNS, load_grid
from wanedit.jobs.evaluate.metric import Inputs, SceneTruth, measure
from wanedit.metrics.functional.bootstrap import interval
from wanedit.sprites.sets import to_bytes, to_float
from wanedit.video.restoring import restored_segment
from wanedit.wan import load_wan

HOME = Path(__file__).parent


@torch.no_grad()
def main(scenes: int) -> None:
    vae, found = load_wan("tiny").vae, dict[tuple[str, str], list[float]]()
    for item in make_items(load_grid(HOME).data | {"scenes": scenes}, HOME):
        with tempfile.TemporaryDirectory() as folder:
            material = prepare(item, Path(folder))
        truth, keys = material.truth, [round(at * FPS) for _, at in material.settings["keyframes"]]
        assert truth is not None
        coded = vae.decode(vae.encode(to_float(torch.tensor(truth)).movedim(-1, 0)[None]))[0]
        decoded = to_bytes(coded).movedim(0, -1).numpy()
        restored = decoded.copy()
        for first, last in zip(keys, keys[1:], strict=False):
            stretch = slice(first, last + 1)
            restored[stretch] = restored_segment(decoded[stretch], truth[first], truth[last], "keyframes")
        for name, video in (("coded", decoded), ("coded, restored", restored)):
            shown = {frame: truth[frame] for frame in keys}
            scene = SceneTruth(truth, clip=material.scene)
            measured = measure(Inputs(video, tuple(keys[1:-1]), scene=scene, keyframes=shown), ["truth"])[0][
                "truth"
            ]
            for row in JOIN_COLUMNS:
                if np.isfinite(measured.get(row, np.nan)):
                    found.setdefault((name, row), []).append(measured[row])
    (HOME / "results").mkdir(exist_ok=True)
    with (HOME / "results" / "limit.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["video", "measure", "mean", "low", "high", "n"])
        for (name, row), values in found.items():
            table.writerow([name, row, *interval(values, range(len(values)))])


if __name__ == "__main__":
    main(int(sys.argv[1]))
