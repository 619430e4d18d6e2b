"""Join clips with one known fault each and record what the junction measures say of it.

`python -m paper.make.junction_faults` writes paper/records/junction_faults.csv: the clip of examples/footage, clips
drawn by the sprite renderer and textures in motion, joined without a fault and with each of nine. One row is one
measure of one join. The last rows measure places of the clips where nothing was joined: false alarms. Two minutes on
one core, no model.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from paper.make.records import JUNCTION_FAULTS, ROOT
from wanedit.errors import InputError
from wanedit.metrics.functional.junctions import REACH, JunctionScore, Transitions
from wanedit.sprites import frame_times, render, sample_scene
from wanedit.video import retime, to_uint8
from wanedit.video.decode import read_frames

Fault = Callable[[np.ndarray, int], np.ndarray]
FOOTAGE = ROOT / "examples" / "footage" / "bottles.mkv"
SCENES, FRAMES, SIZE, FPS = 12, 49, (128, 128), 16
COLUMNS = ("clip", "fault", "junction", "measure", "value", "interior", "ratio", "shows", "beyond")
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


def _pulsing(clip: np.ndarray, join: int) -> np.ndarray:
    """Sharp at every fourth frame, of which only one is joined, and soft between."""
    soft = [cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in clip]
    return np.stack([clip[t] if t % 4 == join % 4 else frame for t, frame in enumerate(soft)])


def _faster(clip: np.ndarray, join: int) -> np.ndarray:
    return np.concatenate([clip[:join], clip[join::2]])


def _slower(clip: np.ndarray, join: int) -> np.ndarray:
    rest = clip[join:]
    return np.concatenate([clip[:join], retime(rest, 2 * len(rest) - 1, "optical_flow")[: len(rest)]])


FAULTS: dict[str, Fault] = {
    "none": _untouched,
    "8 px jump": _jumped,
    "motion reversed": _reversed,
    "red +2 %, blue -2 %": _tinted,
    "brightness +2 %": _brighter,
    "three frames blurred": _blurred,
    "a frame shown twice": _repeated,
    "soft between keyframes": _pulsing,
    "speed doubled": _faster,
    "speed halved": _slower,
}


def clips() -> Iterator[tuple[str, np.ndarray]]:
    """(name, frames): the footage, drawn scenes of the test split, then what the limits were not set on."""
    yield FOOTAGE.stem, np.asarray(read_frames(FOOTAGE))
    for seed in range(SCENES):
        scene = sample_scene(seed, "test", FRAMES / FPS)
        yield f"scene {seed}", to_uint8(render(scene, frame_times(FRAMES, FPS), SIZE).video)

    for name, frames in TEXTURES.items():
        yield (
            f"texture: {name}",
            np.stack([np.clip(np.rint(frame), 0, 255) for frame in frames()]).astype(np.uint8),
        )


def _moved(cell: int, speed: float = 0.0, zoom: float = 1.0) -> Iterator[np.ndarray]:
    """A board of random blocks, panned by so many pixels a frame or enlarged by such a factor."""
    (height, width), rng = SIZE, np.random.default_rng(0)
    board = rng.integers(0, 256, (2 * height // cell, 4 * width // cell, 3), dtype=np.uint8)
    board = board.repeat(cell, 0).repeat(cell, 1)
    for t in range(FRAMES):
        scale, shift = zoom**t, speed * t
        places = np.array([[scale, 0, -shift - 64 * (scale - 1)], [0, scale, -64 * (scale - 1)]], np.float32)
        yield cv2.warpAffine(board, places, (width, height), flags=cv2.INTER_LINEAR)


def _water() -> Iterator[np.ndarray]:
    """Three soft fields that drift across each other and change places."""
    rng = np.random.default_rng(0)
    fields = [cv2.GaussianBlur(rng.normal(size=SIZE).astype(np.float32), (0, 0), 4) for _ in range(6)]
    for t in range(FRAMES):
        moved = (np.roll(field, (t * (k % 3 - 1), t), (0, 1)) for k, field in enumerate(fields))
        waves = sum((np.cos(0.35 * t + k) * field for k, field in enumerate(moved)), np.zeros(SIZE))
        yield np.array([70, 110, 140]) + 500 * waves[..., None]


def _noise() -> Iterator[np.ndarray]:
    """Grain on grey that is another one in every frame."""
    rng = np.random.default_rng(0)
    return (128 + rng.normal(0, 40, (*SIZE, 1)).repeat(3, -1) for _ in range(FRAMES))


TEXTURES: dict[str, Callable[[], Iterator[np.ndarray]]] = {
    "1 px, panned by 1": lambda: _moved(1, 1.0),
    "2 px, panned by 2.5": lambda: _moved(2, 2.5),
    "4 px, panned by 0.3": lambda: _moved(4, 0.3),
    "8 px, zoom of 2 %": lambda: _moved(8, zoom=1.02),
    "water": _water,
    "noise": _noise,
}


def measured(name: str, clip: np.ndarray) -> Iterator[tuple]:
    """Rows of one clip joined in its middle, and of its other places as they are."""
    join = len(clip) // 2
    for fault, spoil in FAULTS.items():
        found = Transitions.of(spoil(clip, join)).scores([join])[join]
        yield from (_row(name, fault, join, measure, score) for measure, score in found.items())
    transitions = Transitions.of(clip)
    for place in range(REACH + 1, len(clip) - REACH - 1):
        try:
            found = transitions.scores([place])[place]
        except InputError:
            continue
        yield from (_row(name, CLEAN, place, measure, score) for measure, score in found.items())


def _row(clip: str, fault: str, junction: int, measure: str, score: JunctionScore) -> tuple:
    numbers = (f"{value:.6g}" for value in (score.value, score.interior, score.ratio))
    return (clip, fault, junction, measure, *numbers, int(score.shows), int(score.beyond))


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
