"""The frames about every inner keyframe, joined in each way: of the demo, and of films cut into keyframes.

python experiments/09_joins/strips.py joins.png                   # the demo
python experiments/09_joins/strips.py pizza.png film.mp4 120      # 49 frames of a film from frame 120 on

Every run is kept beside the picture, in a folder of its name.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wanedit import GenerationConfig, generate
from wanedit.runtime.record import read_run
from wanedit.sprites import frame_times, render
from wanedit.sprites.sets import demo_scene, to_bytes
from wanedit.video import write_png
from wanedit.video.arrays import Frames
from wanedit.video.sheets import comparison_sheet
from wanedit.video.source import open_source

HOME = Path(__file__).parent
DEMO = HOME.parent.parent / "examples" / "multi_keyframe_demo"
SIZE, FPS, EVERY, COUNT, RADIUS, WIDTH = 128, 16, 16, 49, 2, 1000
KINDS = {
    "decoded apart": {"decode": "apart"},
    "decoded once (the default)": {},
    "bridges": {"joins": "bridge"},
    "denoised together": {"joins": "co_denoise"},
}


def cut(film: Path, first: int, folder: Path) -> tuple[Frames, list[tuple[Path, float]]]:
    """The middle square of a film's frames, and every 16th of them as a keyframe in a file."""
    frames = []
    for frame in open_source(film).frames.read(first, first + COUNT):
        top, left = ((side - min(frame.shape[:2])) // 2 for side in frame.shape[:2])
        square = Image.fromarray(frame[top : top + min(frame.shape[:2]), left : left + min(frame.shape[:2])])
        frames.append(np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS)))
    keyframes = [(folder / f"{k:02d}.png", k / FPS) for k in range(0, COUNT, EVERY)]
    for path, at in keyframes:
        write_png(path, frames[round(at * FPS)])
    return np.stack(frames), keyframes


def main(picture: Path, films: Sequence[str]) -> None:
    folder = picture.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    if films:
        truth, keyframes = cut(Path(films[0]), int(films[1]) if films[1:] else 0, folder)
    else:
        times = [0.0, 0.5, 1.25, 2.0]
        drawn = render(demo_scene(), frame_times(round(times[-1] * FPS) + 1, FPS), (SIZE, SIZE)).video
        truth = to_bytes(drawn).permute(1, 2, 3, 0).numpy()
        names = ("start", "rise", "turn", "end")
        keyframes = [(DEMO / f"{name}.png", at) for name, at in zip(names, times, strict=True)]
    joins = [round(at * FPS) for _, at in keyframes[1:-1]]
    shown = [frame for join in joins for frame in range(join - RADIUS, join + RADIUS + 1)]
    rows = {"the truth": truth}
    for name, settings in KINDS.items():
        config = GenerationConfig(
            keyframes=[[str(path), at] for path, at in keyframes],
            model="tiny", size=f"{SIZE}*{SIZE}", fps=FPS, num_inference_steps=12, base_seed=42,
            output=folder / name, **settings,
        )  # fmt: skip
        generate(config)
        rows[name] = np.asarray(read_run(folder / name).video)
    pictures = {name: {frame: video[frame] for frame in shown} for name, video in rows.items()}
    sheet = Image.fromarray(comparison_sheet(pictures, shown, joins, FPS))
    sheet.thumbnail((WIDTH, WIDTH))
    write_png(picture, np.asarray(sheet))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
