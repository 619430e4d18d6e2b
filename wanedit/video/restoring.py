"""Give a decoded edit back what the VAE lost of the source and what the sampler missed of the edited keyframes.

Residual-corrected flow once more, in pixels: there the model's error on the source is added to its velocity, here the
codec's error on the source is added to its pixels. So an edit that changes nothing gives back the very pixels of the
source. And the keyframes are carried to the frames about them along the source's motion, so far as it can be followed,
as in example-based stylisation of video (Jamriška et al. 2019); where it cannot, the model's picture stays. What either
is worth is measured in `experiments/01_keyframe_propagation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from wanedit.video.arrays import Frames
from wanedit.video.motion import motion_between, warp

Levels = Float32[np.ndarray, "t h w 3"]  # 0 … 255, not rounded
Belief = Float32[np.ndarray, "h w 1"]

# A change of this many levels leaves exp(-1) of the source's detail: over a whole range there is none to keep.
FORGETS = 127.5
# Motion that puts a picture this many levels beside the one it should explain is believed exp(-1).
DOUBTS = 48.0
# A place is untouched by the edit where that changes it by less than about so many levels.
UNTOUCHED = 32.0


def restore_source(edited: Levels, coded: Levels, source: Frames) -> Levels:
    """Add what encoding and decoding took from the source, less where the edit has changed the picture.

    Args:
        edited: the decoded edit.
        coded: the source, encoded and decoded.
        source: itself.
    """
    restored = [
        mine + _unchanged(mine, coded_frame) * (frame - coded_frame)
        for mine, coded_frame, frame in zip(edited, coded, source, strict=True)
    ]
    return np.stack(restored)


def _unchanged(edited: np.ndarray, coded: np.ndarray) -> Belief:
    change = cv2.blur(np.abs(edited - coded).max(-1), (5, 5))
    return np.exp(-np.square(change / FORGETS))[..., None]


def restore_keyframes(
    edited: Levels,
    source: Frames,
    keyframes: UInt8[np.ndarray, "k h w 3"],
    indices: Sequence[int],
    replace: bool = True,
) -> Levels:
    """Meet the keyframes exactly, and bring what they show to the frames about them.

    Each frame takes from the nearest keyframe before and after it, moved by the source's optical flow, as far as
    that motion explains the source itself.

    Args:
        edited: the decoded edit.
        source: the clip whose motion is followed.
        keyframes: edited frames.
        indices: where they belong, strictly increasing.
        replace: the keyframe takes the picture's place. Otherwise only what the edit misses at it is added, and
            what moves in the edit and not in the source moves on.
    """
    shown = {at: keyframe.astype(np.float32) for keyframe, at in zip(keyframes, indices, strict=True)}
    missing = {at: picture - edited[at] for at, picture in shown.items()}
    edits = {at: picture - source[at] for at, picture in shown.items()}
    restored = []
    for t, mine in enumerate(edited):
        if t in shown:
            restored.append(shown[t])
            continue
        sights = [_sight(source, t, at) for at in _neighbours(shown, t)]
        belief = np.max([sight.belief for sight in sights], axis=0)
        frame = mine + belief * _carried(sights, missing)
        if replace:
            frame = frame + belief * (_expected(source[t], sights, shown, edits) - frame)
        restored.append(frame)
    return np.stack(restored)


@dataclass(frozen=True, eq=False)
class _Sight:
    """How a keyframe is seen from another frame: where each pixel comes from and how far that is believed."""

    at: int
    distance: int
    flow: np.ndarray
    belief: Belief


def _neighbours(at: Sequence[int] | dict[int, np.ndarray], t: int) -> list[int]:
    """The nearest before t and the nearest after it, as far as there are."""
    return [*[i for i in at if i < t][-1:], *[i for i in at if i > t][:1]]


def _sight(source: Frames, t: int, at: int) -> _Sight:
    motion = motion_between(source[t], source[at])
    off = np.abs(source[t].astype(np.float32) - warp(source[at], motion.forward)).max(-1)
    explains = np.exp(-np.square(cv2.blur(off, (3, 3)) / DOUBTS))
    return _Sight(at, abs(t - at), motion.forward, (motion.seen_forward * explains)[..., None])


def _expected(
    frame: np.ndarray, sights: list[_Sight], shown: dict[int, np.ndarray], edits: dict[int, np.ndarray]
) -> np.ndarray:
    """What the keyframes say of a frame of the source: their picture moved, and their edit moved onto the frame.

    The first blurs and slips with the flow, the second leaves traces of what the edit has hidden: their mean is 1 to 2 dB
    better than either. Where nothing is edited the second alone is exact.
    """
    edit = _carried(sights, edits)
    size = cv2.blur(np.abs(edit).max(-1), (5, 5))[..., None]
    share = 0.5 + 0.5 * np.exp(-np.square(size / UNTOUCHED))
    return share * (frame + edit) + (1 - share) * _carried(sights, shown)


def _carried(sights: list[_Sight], pictures: dict[int, np.ndarray]) -> np.ndarray:
    """The mean of what is seen: of two believed alike the nearer counts more, one that is believed alone counts alone."""
    shares = [sight.belief / sight.distance + np.finfo(np.float32).tiny for sight in sights]
    carried = [share * warp(pictures[s.at], s.flow) for share, s in zip(shares, sights, strict=True)]
    return np.sum(carried, axis=0) / np.sum(shares, axis=0)
