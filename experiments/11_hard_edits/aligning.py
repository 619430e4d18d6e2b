"""What aligning misregistered keyframes is worth to restoring alone: `python experiments/11_hard_edits/aligning.py`.

No model and no VAE: the source itself is restored, with the keyframes as they are given, aligned, and true. Writes
results/aligning.jsonl, a line for each of 16 scenes, and prints means and paired 95 % intervals.
"""

import json

import numpy as np
from run import HERE, RESULTS, load_settings, measured
from scenes import cases

from wanedit.files import write_text
from wanedit.metrics.functional import bootstrap
from wanedit.video.aligning import align
from wanedit.video.restoring import Restoration

SCENES, REGIONS = 16, ("shown", "background", "all")


def main() -> None:
    settings, lines = load_settings(HERE), []
    for case in cases("misregistered", SCENES, settings["num_frames"], tuple(settings["size"])):
        pairs = list(zip(case.keyframes, case.source[list(case.indices)], strict=True))
        found = [align(*pair) for pair in pairs]
        keyframes = {
            "given": case.keyframes,
            "aligned": np.stack([one.undone(*pair) for one, pair in zip(found, pairs, strict=True)]),
            "true": case.truth[list(case.indices)],
        }
        # No model, so no weights.
        line = {"weights": None, "seed": case.seed, "edit": case.kind, "notes": [one.note for one in found]}
        source = case.source.astype(np.float32)
        for name, shown in keyframes.items():
            restored = Restoration(source, source, case.source, shown, case.indices, "fused").frames()
            line[name] = measured(case, restored)
        lines.append(line)
    write_text(RESULTS / "aligning.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    for region in REGIONS:
        means = {
            name: np.mean([line[name][region] for line in lines]) for name in ("given", "aligned", "true")
        }
        said = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
        for other, one in (("given", "aligned"), ("aligned", "true")):
            gaps = [line[one][region] - line[other][region] for line in lines]
            gap = bootstrap.interval(gaps, [line["seed"] for line in lines])
            said += "; {} - {}: {:+.2f} ({:+.2f} … {:+.2f})".format(one, other, *gap)
        print(f"{region}: {said}")


if __name__ == "__main__":
    main()
