"""Give a decoded edit back what the VAE lost of the source and what the sampler missed of the edited keyframes.

Residual-corrected flow once more, in pixels: there the model's error on the source is added to its velocity, here the
codec's error on the source is added to its pixels. So latents that are the source's give back its very pixels; and
where the source is larger than the model's frames, its detail comes back in the source's own size. The
keyframes are carried to the frames about them along the source's motion, so far as it can be followed, as in
example-based stylisation of video (Jamriška et al. 2019); where it cannot, the model's picture stays. What each is
worth is measured in `experiments/01_keyframe_propagation`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from wanedit.video.arrays import Frames
from wanedit.video.motion import motion_between, warp

Restored = Literal["source", "residual", "keyframes"]
Restore = Literal["none", "source", "residual", "keyframes"]
Levels = Float32[np.ndarray, "h w 3"]  # 0 … 255, not rounded
Belief = Float32[np.ndarray, "h w 1"]


@runtime_checkable
class LevelFrames(Protocol):
    """Frames that can be looked at one by one; an array (T, h, w, 3) is such."""

    def __getitem__(self, t: int, /) -> np.ndarray: ...


# A change of this many levels leaves exp(-1) of the source's detail: over a whole range there is none to keep.
FORGETS = 127.5
# Motion that puts a picture this many levels beside the one it should explain is believed exp(-1).
DOUBTS = 48.0
# A place is untouched by the edit where that changes it by less than about so many levels.
UNTOUCHED = 32.0
# Motion is estimated on frames of at most this side: on larger ones the flow of smooth surfaces is noise, and a still
# table is doubted in spots.
MOTION_SIDE = 256


@dataclass(frozen=True)
class _Sight:
    """How a keyframe is seen from another frame: where each pixel comes from and how far that is believed."""

    at: int
    distance: int
    flow: np.ndarray
    belief: np.ndarray


@dataclass(frozen=True, eq=False)
class Restoration:
    """A decoded edit beside what is known of it.

    Attributes:
        edited: the decoded edit, frame by frame (h, w, 3) in levels 0 … 255, not rounded; of one size.
        coded: the source, encoded and decoded.
        source: itself, of any size, which the result has.
        keyframes: edited frames of the source's size.
        indices: where they belong, strictly increasing.
        kind: "source" adds what coding took from the source, less where the edit has changed the picture. "residual"
            also meets the keyframes exactly and carries what the edit misses at them to the frames about them. With
            "keyframes" these take the picture's place wherever the source's motion leads to them; what moves in the
            edit and not in the source then stands still.
    """

    edited: LevelFrames
    coded: LevelFrames
    source: Frames
    keyframes: UInt8[np.ndarray, "k h w 3"]
    indices: tuple[int, ...]
    kind: Restored = "keyframes"

    def frames(self) -> Frames:
        """All frames, rounded; made one by one, since in floating point a long clip would not fit in memory."""
        restored = np.empty_like(self.source)
        for t in range(len(restored)):
            restored[t] = np.clip(np.rint(self.frame(t)), 0, 255)
        return restored

    def frame(self, t: int) -> Levels:
        """The restored frame t."""
        if self.kind == "source":
            return self._with_source(t)
        if t in self._shown:
            return self._shown[t]
        before, after = [i for i in self.indices if i < t][-1:], [i for i in self.indices if i > t][:1]
        sights = [self._sight(t, at) for at in (*before, *after)]
        belief = np.max([sight.belief for sight in sights], axis=0)
        mine = self._with_source(t) + belief * _carried(sights, self._missing)
        return mine if self.kind == "residual" else mine + belief * (self._expected(t, sights) - mine)

    def _with_source(self, t: int) -> Levels:
        edited, coded = self._resized(self.edited[t]), self._resized(self.coded[t])
        change = cv2.blur(np.abs(edited - coded).max(-1), (5, 5))
        return edited + np.exp(-np.square(change / FORGETS))[..., None] * (self.source[t] - coded)

    def _resized(self, picture: np.ndarray) -> Levels:
        height, width = self.source.shape[1:3]
        if picture.shape[:2] == (height, width):
            return picture
        smaller = height * width < picture.shape[0] * picture.shape[1]
        way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        return cv2.resize(picture, (width, height), interpolation=way)

    @cached_property
    def _shown(self) -> dict[int, np.ndarray]:
        return {at: k.astype(np.float32) for at, k in zip(self.indices, self.keyframes, strict=True)}

    @cached_property
    def _missing(self) -> dict[int, np.ndarray]:
        return {at: picture - self._with_source(at) for at, picture in self._shown.items()}

    @cached_property
    def _edits(self) -> dict[int, np.ndarray]:
        return {at: picture - self.source[at] for at, picture in self._shown.items()}

    def _sight(self, t: int, at: int) -> _Sight:
        height, width = self.source.shape[1:3]
        here, there = _reduced(self.source[t]), _reduced(self.source[at])
        motion = motion_between(here, there)
        off = np.abs(here.astype(np.float32) - warp(there, motion.forward)).max(-1)
        explains = np.exp(-np.square(cv2.blur(off, (3, 3)) / DOUBTS))
        pixels = np.array([width / here.shape[1], height / here.shape[0]], np.float32)
        flow = cv2.resize(motion.forward, (width, height)) * pixels
        belief = cv2.resize(motion.seen_forward * explains, (width, height))
        return _Sight(at, abs(t - at), flow, belief[..., None])

    def _expected(self, t: int, sights: list[_Sight]) -> Levels:
        """What the keyframes say of frame t: their picture moved, and their edit moved onto the source's frame.

        The first blurs and slips with the flow, the second leaves traces of what the edit has hidden: their mean is 1
        to 2 dB better than either. Where nothing is edited the second alone is exact.
        """
        edit = _carried(sights, self._edits)
        size = cv2.blur(np.abs(edit).max(-1), (5, 5))[..., None]
        share = 0.5 + 0.5 * np.exp(-np.square(size / UNTOUCHED))
        return share * (self.source[t] + edit) + (1 - share) * _carried(sights, self._shown)


def _reduced(frame: np.ndarray) -> np.ndarray:
    """A frame for optical flow."""
    scale = MOTION_SIDE / max(frame.shape[:2])
    return frame if scale >= 1 else cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _carried(sights: list[_Sight], pictures: dict[int, np.ndarray]) -> Levels:
    """The mean of what is seen: of two believed alike the nearer counts more, one believed alone counts alone."""
    shares = [sight.belief / sight.distance + np.finfo(np.float32).tiny for sight in sights]
    carried = [share * warp(pictures[s.at], s.flow) for share, s in zip(shares, sights, strict=True)]
    return np.sum(carried, axis=0) / np.sum(shares, axis=0)
