"""Join clips with one known fault each and record what the junction measures say of it.

`python -m paper.make.junction_faults` writes paper/records/junction_faults.csv: the clip of examples/footage and clips
drawn by the sprite renderer, joined without a fault and with each of six. One row is one measure of one join. The last
rows measure places of the clips where nothing was joined: false alarms. One minute on one core, no model.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from paper.make.records import JUNCTION_FAULTS, ROOT
from wanedit.errors import InputError
from wanedit.metrics.functional.junctions import REACH, JunctionScore, Transitions, junction_scores
from wanedit.metrics.functional.motion import follow
from wanedit.sprites import frame_times, render, sample_scene
from wanedit.video import to_uint8
from wanedit.video.decode import read_frames

Fault = Callable[[np.ndarray, int], np.ndarray]
FOOTAGE = ROOT / "examples" / "footage" / "bottles.mkv"
SCENES, FRAMES, SIZE, FPS = 12, 49, (128, 128), 16
COLUMNS = ("clip", "fault", "junction", "measure", "value", "interior", "ratio", "shows")
# The fault of rows at places where nothing was joined.
CLEAN = "no join"


def _scaled(clip: np.ndarray, gains: tuple[float, float, float]) -> np.ndarray:
    return np.clip(np.rint(clip * np.array(gains)), 0, 255).astype(np.uint8)


def _untouched(clip: np.ndarray, join: int) -> np.ndarray:
    return clip


def _jumped(clip: np.ndarray, join: int) -> np.ndarray:
    return np.concatenate([clip[:join], np.roll(clip[join:], 8, axis=2)])


def _reversed(clip: np.ndarray, join: int) -> np.ndarray:
    return np.concatenate([clip[:join], clip[join - 2 :: -1]])


def _tinted(clip: np.ndarray, join: int) -> np.ndarray:
    return np.concatenate([clip[:join], _scaled(clip[join:], (1.02, 1.0, 0.98))])


def _brighter(clip: np.ndarray, join: int) -> np.ndarray:
    return np.concatenate([clip[:join], _scaled(clip[join:], (1.02, 1.02, 1.02))])


def _blurred(clip: np.ndarray, join: int) -> np.ndarray:
    out = clip.copy()
    for index in range(join - 1, join + 2):
        out[index] = cv2.GaussianBlur(clip[index], (0, 0), 1.5)
    return out


def _repeated(clip: np.ndarray, join: int) -> np.ndarray:
    return np.concatenate([clip[:join], clip[join - 1 : -1]])


FAULTS: dict[str, Fault] = {
    "none": _untouched,
    "8 px jump": _jumped,
    "motion reversed": _reversed,
    "red +2 %, blue -2 %": _tinted,
    "brightness +2 %": _brighter,
    "three frames blurred": _blurred,
    "a frame shown twice": _repeated,
}


def clips() -> Iterator[tuple[str, np.ndarray]]:
    """(name, frames): the footage, then drawn scenes of the test split."""
    yield FOOTAGE.stem, np.asarray(read_frames(FOOTAGE))
    for seed in range(SCENES):
        scene = sample_scene(seed, "test", FRAMES / FPS)
        yield f"scene {seed}", to_uint8(render(scene, frame_times(FRAMES, FPS), SIZE).video)


def measured(name: str, clip: np.ndarray) -> Iterator[tuple]:
    """Rows of one clip joined in its middle, and of its other places as they are."""
    join = len(clip) // 2
    for fault, spoil in FAULTS.items():
        found = junction_scores(spoil(clip, join), [join])[join]
        yield from (_row(name, fault, join, measure, score) for measure, score in found.items())
    transitions = Transitions()
    steps = follow(clip)
    for t, frame in enumerate(clip):
        transitions.update(frame, next(steps) if t else None)
    for place in range(REACH + 1, len(clip) - REACH - 1):
        try:
            found = transitions.scores([place])[place]
        except InputError:
            continue
        yield from (_row(name, CLEAN, place, measure, score) for measure, score in found.items())


def _row(clip: str, fault: str, junction: int, measure: str, score: JunctionScore) -> tuple:
    numbers = (f"{value:.6g}" for value in (score.value, score.interior, score.ratio))
    return (clip, fault, junction, measure, *numbers, int(score.shows))


def main(path: Path = JUNCTION_FAULTS) -> None:
    """Write the record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, clip in clips():
            writer.writerows(measured(name, clip))
    print(path)


if __name__ == "__main__":
    main()
