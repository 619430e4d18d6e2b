"""How much of an edit restoring carries by itself, and how fast: the model contributes nothing.

    python benchmarks/restoring.py --clips FOLDER [--size 1280*720] [--keyframes 0,16,32,48,64,80] [--restore keyframes]
        [--slip PIXELS [--keyframe_align off]]

The truth is the source with the hue of one colour turned in every frame, and the keyframes are a few of its frames. The
decoded edit is the source itself, so all that comes near the truth was carried: PSNR inside the edited area, the share
of edited pixels that are nearer the truth than the source, and the share of others that were changed by it.
`--slip` shows the keyframes as image models return them, off by up to so many pixels and in colour.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wanedit.runtime.settings import parse_size
from wanedit.video import read_frames
from wanedit.video.aligning import align
from wanedit.video.restoring import Restoration, Restored

CHANGED = 12  # levels


@dataclass(frozen=True)
class Recolour:
    """Hues `low` to `high` (OpenCV's, 0 to 179, round the circle) are turned by `turn`.

    The mask is of pixels of that hue with saturation and value above `least`, in connected areas of at least `area`
    pixels of which 100 are well above `surely`: so shadows of an object are in, and noise of its colour is not.
    """

    low: int
    high: int
    least: tuple[int, int]
    surely: tuple[int, int]
    area: int
    turn: int

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        hue, saturation, value = cv2.split(
            cv2.cvtColor(cv2.GaussianBlur(frame, (0, 0), 1.2), cv2.COLOR_RGB2HSV)
        )
        of_hue = (hue.astype(int) - self.low) % 180 <= (self.high - self.low) % 180
        mask = (of_hue & (saturation >= self.least[0]) & (value >= self.least[1])).astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
        labels = np.asarray(labels, np.int64)
        strong = of_hue & (saturation >= self.surely[0]) & (value >= self.surely[1])
        found = np.bincount(np.ravel(labels)[np.ravel(strong)], minlength=count)
        keep = (stats[:, cv2.CC_STAT_AREA] >= self.area) & (found >= 100)
        keep[0] = False
        turned = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        turned[..., 0] = (turned[..., 0].astype(int) + self.turn) % 180
        return _mixed(frame, cv2.cvtColor(turned, cv2.COLOR_HSV2RGB), np.take(keep, labels), blur=1.0)


def wooden(frame: np.ndarray) -> np.ndarray:
    """The front half of the pizza's black board and crust, where no hand comes, turned brown; the apron is as black."""
    mask = np.zeros(frame.shape[:2], np.uint8)
    cv2.ellipse(mask, (650, 415), (440, 105), 0, 0, 180, 1, -1)
    return _mixed(frame, frame * 0.5 + np.array([100, 60, 25]), mask, blur=2.0)


def _mixed(frame: np.ndarray, other: np.ndarray, mask: np.ndarray, blur: float) -> np.ndarray:
    share = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), blur)[..., None]
    return np.clip(np.rint(frame + share * (other - frame.astype(np.float32))), 0, 255).astype(np.uint8)


# Clips of 1280x720 and 81 frames from the examples of ali-vilab/VACE and WeChatCV/NovaEdit.
CASES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "boxing cats, gloves": ("vace.mp4", Recolour(174, 8, (140, 20), (200, 60), 1500, 100)),
    "boxing cats, trunks": ("vace.mp4", Recolour(102, 125, (110, 8), (150, 40), 2500, 60)),
    "pizza, still board": ("pizza.mp4", wooden),
}


def slipped(keyframe: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """Shifted by up to so many pixels along each side, turned and enlarged by up to as many at the corners, and each
    colour by up to 5 % and 6 levels."""
    height, width = keyframe.shape[:2]
    turn, grow = rng.uniform(-1, 1, 2) * pixels / (np.hypot(height, width) / 2)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), float(np.rad2deg(turn)), 1 + float(grow))
    matrix[:, 2] += rng.uniform(-pixels, pixels, 2)
    moved = cv2.warpAffine(keyframe, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.clip(np.rint(moved * rng.uniform(0.95, 1.05, 3) + rng.uniform(-6, 6, 3)), 0, 255).astype(
        np.uint8
    )


class _Levels:
    """A clip of bytes as a decoded one is given, frame by frame."""

    def __init__(self, clip: np.ndarray) -> None:
        self.clip = clip

    def __getitem__(self, t: int) -> np.ndarray:
        return self.clip[t].astype(np.float32)


def measure(
    source: np.ndarray, truth: np.ndarray, keyframes: np.ndarray, indices: tuple[int, ...], kind: Restored
) -> tuple[float, float, float, float]:
    """PSNR in the edited area, shares in percent, processor seconds a frame: means over frames off the keyframes."""
    rows, started = [], time.process_time()
    frames = Restoration(_Levels(source), _Levels(source), source, keyframes, indices, kind).frames()
    seconds = (time.process_time() - started) / len(source)
    for t in sorted({*range(len(source))} - {*indices}):
        edited = np.abs(truth[t].astype(int) - source[t]).max(-1) > CHANGED
        others = cv2.dilate(edited.astype(np.uint8), np.ones((5, 5))) == 0
        error, moved = (np.square(frames[t].astype(float) - x[t]) for x in (truth, source))
        psnr = -10 * np.log10(max(error[edited].mean(), 1e-6) / 255**2)
        nearer = (error.sum(-1) < moved.sum(-1))[edited].mean()
        rows.append((psnr, 100 * nearer, 100 * (moved.max(-1) > CHANGED**2)[others].mean()))
    psnr, nearer, spilt = np.mean(rows, axis=0)
    return float(psnr), float(nearer), float(spilt), seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder of vace.mp4 and pizza.mp4")
    parser.add_argument("--size", default="1280*720", help="of the frames, width*height")
    parser.add_argument("--keyframes", default="0,16,32,48,64,80")
    parser.add_argument("--restore", choices=("keyframes", "fused"), default="fused")
    parser.add_argument(
        "--slip", type=float, default=0.0, help="pixels that the keyframes are off by at most"
    )
    parser.add_argument(
        "--keyframe_align", choices=("auto", "off"), default="auto", help="as of `wanedit edit`"
    )
    args = parser.parse_args()
    cv2.setNumThreads(1)
    height, width = parse_size(args.size)
    indices = tuple(int(i) for i in args.keyframes.split(","))
    print(
        "| clip | PSNR in the edit | nearer the truth | others changed | s a frame |\n|---|---|---|---|---|"
    )
    for name, (file, edit) in CASES.items():
        clip = read_frames(args.clips / file)
        pair = [clip, np.stack([edit(frame) for frame in clip])]
        if clip.shape[1:3] != (height, width):
            pair = [
                np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in x])
                for x in pair
            ]
        keyframes, rng = pair[1][list(indices)], np.random.default_rng(0)
        if args.slip:
            keyframes = np.stack([slipped(keyframe, args.slip, rng) for keyframe in keyframes])
        if args.keyframe_align == "auto":
            both = zip(keyframes, pair[0][list(indices)], strict=True)
            keyframes = np.stack([align(one, frame).undone(one, frame) for one, frame in both])
        psnr, nearer, spilt, seconds = measure(pair[0], pair[1], keyframes, indices, args.restore)
        print(f"| {name} | {psnr:.1f} dB | {nearer:.0f} % | {spilt:.2f} % | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
