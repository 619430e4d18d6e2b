"""A decoded edit given back what the VAE lost of its source, and its keyframes carried along the source's motion."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Literal, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from wanedit.progress import counted
from wanedit.video.arrays import Frame, Frames
from wanedit.video.motion import Flow, Weight, consistency, dis_flow, warp

Restored = Literal["source", "residual", "keyframes", "fused"]
Restore = Literal["none", "source", "residual", "keyframes", "fused"]
Levels = Float32[np.ndarray, "h w 3"]  # 0 … 255, not rounded

# The kinds that carry the keyframes along, each with a number that is raised when a change to the code changes what it
# makes: part of the hash of such an edit.
CARRIED: dict[str, int] = {"residual": 3, "keyframes": 4, "fused": 6}
# A change of this many levels leaves exp(-1) of the source's detail: over a whole range there is none to keep.
FORGETS = 127.5
# Motion that puts a picture this many levels beside the one it should explain is believed exp(-1).
DOUBTS = 48.0
# A place is untouched by the edit where that changes it by less than about so many levels.
UNTOUCHED = 32.0
# Motion is estimated on frames of at most this side: on larger ones the flow of smooth surfaces is noise, and a still
# table is doubted in spots.
MOTION_SIDE = 256
# And for "fused" on frames of at least this side: on 64 pixels much of the motion is lost between its patches.
LEAST_MOTION_SIDE = 128
# Light that differs by this many nats, of a place that is followed, leaves exp(-1) of what is believed. A gain of light
# is measured where colours are well above this many levels, and at most so large, or its inverse.
RELIT, DARK, MOST_LIGHT = 0.7, 10.0, 2.5
# Two keyframes that are carried to one place and believed, but say so many levels of different edits of it, leave
# exp(-1) undisputed; and a picture so many levels off from every mixture of both leaves exp(-1) of their belief. The
# least side of what is disputed for it to be a thing, and not an edge that slipped, in pixels of a frame of LOOK_SIDE.
DISPUTED, BROAD = 32.0, 3
# Two carried keyframes and the model's picture are judged by each other within windows of this share of a frame's
# longer side; where both keyframes are believed over AGREED of a window, that is half trusted.
WINDOW, AGREED = 0.15, 0.1
# What keeps a ratio defined where there is nothing.
EPSILON = np.float32(1e-3)
# Spread: levels of a picture that tell nothing, the share of a neighbourhood that must be known for it to be half
# trusted, and the finest neighbourhood, in halvings.
NOTHING, KNOWN, FINEST = 5.0, 0.02, 1
# Where nothing is known, the source is thought to be off by so many levels from the edit, the model's picture by none;
# and the model's picture anywhere by at most so many times what it misses beside.
UNHEARD, AT_MOST = 64.0, 3
# Motion that is believed so far needs no look-up.
SURE = 0.99
# The look-up: pixels along a cell, at MOTION_SIDE, and levels of a colour in it; how many cells away a place still
# counts a quarter; the share of a cell that must be filled for an answer to be half trusted; levels that are no change.
CELL, COLOUR, REACH, SUPPORT, NOISE = 16, 16, 2.0, 0.0015, 8.0
SHADES = 255 // COLOUR + 2
# The model's picture is compared with it on frames of at most this side; the share of them that must be known for that.
ASKED_SIDE, LEARNT = 128, 0.002
# It is read on frames of at most this side, and the answer enlarged.
LOOK_SIDE = 384


@runtime_checkable
class LevelFrames(Protocol):
    """Frames that can be looked at one by one; an array (T, h, w, 3) is such."""

    def __getitem__(self, t: int, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Restoration:
    """A decoded edit beside what is known of it, and the edit with what the VAE and the sampler missed given back.

    Residual-corrected flow once more, in pixels: there the model's error on the source is added to its velocity, here
    the codec's error on the source is added to its pixels. So latents that are the source's give back its very pixels;
    and where the source is larger than the model's frames, its detail comes back in the source's own size. The
    keyframes are carried to the frames about them along the source's motion, so far as it can be followed, as in
    example-based stylisation of video (Jamriška et al. 2019); where it cannot, what the edit does to a colour at a
    place is looked up in the keyframes (`EditTable`); where they do not say, the model's picture stays. What each is
    worth is measured in `experiments/01_keyframe_propagation` and by `benchmarks/restoring.py`.

    Attributes:
        edited: the decoded edit, frame by frame (h, w, 3) in levels 0 … 255, rounded or not; of one size.
        coded: the source, encoded and decoded.
        source: itself, of any size, which the result has.
        keyframes: edited frames of the source's size.
        indices: where they belong, strictly increasing.
        kind: "source" adds what coding took from the source, less where the edit has changed the picture. "residual"
            also meets the keyframes exactly and carries what the edit misses at them to the frames about them. With
            "keyframes" these take the picture's place wherever the source's motion leads to them, or the look-up
            answers; what moves in the edit and not in the source then stands still. "fused" is that in
            the light of each frame (`light_gain`); where the two keyframes about it contradict each other, as what
            moves in the edit alone stands in each at another place, the model's picture decides (`settle`); where
            motion misleads them it counts beside them, by how the three differ (`three_cornered_hat`); and where the
            keyframes say nothing, it and the source, each so far as it is right beside what they do say (`spread`).
    """

    edited: LevelFrames
    coded: LevelFrames
    source: Frames
    keyframes: UInt8[np.ndarray, "k h w 3"]
    indices: tuple[int, ...]
    kind: Restored = "keyframes"

    def frames(self) -> Frames:
        """All frames, rounded."""
        restored = np.empty_like(self.source)
        for t, frame in enumerate(counted(self, "restoring", "frames", len(restored))):
            restored[t] = np.clip(np.rint(frame), 0, 255)
        return restored

    def __iter__(self) -> Iterator[Levels]:
        """The restored frames in order, not rounded.

        What is held: the one or two keyframes about a frame in full size, and the motion to the later of the two, at
        MOTION_SIDE, from every frame between them.
        """
        if self.kind == "source":
            yield from (self._with_source(t) for t in range(len(self.source)))
            return
        ends = (None, *self.indices, None)
        for before, after in zip(ends, ends[1:], strict=False):
            if before is not None:
                yield self.keyframes[self.indices.index(before)].astype(np.float32)
            yield from self._stretch(before, after)

    def _stretch(self, before: int | None, after: int | None) -> Iterator[Levels]:
        """The frames between two neighbouring keyframes; before the first one and after the last there is only one."""
        frames = range(0 if before is None else before + 1, len(self.source) if after is None else after)
        if not frames:
            return
        ways: list[Iterator[Sight]] = []
        if before is not None:
            ways.append(self.seen(before, frames))
        if after is not None:
            # Motion is followed away from its keyframe, so this side is known only when all of it is.
            ways.append(iter([*self.seen(after, frames[::-1])][::-1]))
        ends = [at for at in (before, after) if at is not None]
        edits = [(self.source[at], self.keyframes[self.indices.index(at)]) for at in ends]
        if self.kind == "residual":
            missing = [shown - self._with_source(at) for at, (_, shown) in zip(ends, edits, strict=True)]
            for t, *sights in zip(frames, *ways, strict=True):
                carried = self._carried(sights, missing)
                yield self._with_source(t) + self._enlarged(_belief(sights))[..., None] * carried
            return
        table = EditTable(
            [(_reduced(own, MOTION_SIDE), _reduced(shown, MOTION_SIDE)) for own, shown in edits]
        )
        own, shown = ([picture.astype(np.float32) for picture in pair] for pair in zip(*edits, strict=True))
        for t, *sights in zip(frames, *ways, strict=True):
            yield self._with_keyframes(t, sights, own, shown, table)

    def _with_keyframes(
        self, t: int, sights: Sequence["Sight"], own: list[Levels], shown: list[Levels], table: "EditTable"
    ) -> Levels:
        """What the keyframes say of frame t, in the model's picture as far as they can be believed."""
        source, made = self.source[t].astype(np.float32), self._with_source(t)
        ways = [self._moved(sight, own[k], shown[k]) for k, sight in enumerate(sights)]
        shares, beliefs = self._shares(sights), np.dstack([self._enlarged(sight.belief) for sight in sights])
        moving, count = np.zeros((*made.shape[:2], 1), np.float32), None
        if self.kind == "fused" and len(ways) == 2:
            small = [[_reduced(one, LOOK_SIDE) for one in way] for way in ways]
            given, picture = (_reduced(one, LOOK_SIDE) for one in (source, made))
            told, believed = (_reduced(one, LOOK_SIDE) for one in (shares, beliefs))
            told, believed, added = settle(given, picture, told, believed, small)
            edits = [_laid(given, *way) for way in small]
            hat = three_cornered_hat(given, picture, told, believed, edits)
            shares, beliefs, moving, count = (
                self._enlarged(one).reshape(*made.shape[:2], -1) for one in (told, believed, added, hat)
            )
        belief = beliefs.max(-1, keepdims=True) * (1 - moving)
        unedited, picture = (_mean(shares, pictures) for pictures in zip(*ways, strict=True))
        look = _reduced(self.source[t], LOOK_SIDE)
        answer = self._enlarged(table.read(look, cv2.resize(belief, look.shape[1::-1]) < SURE)) * (1 - moving)
        trust, change = np.split(answer, [1], axis=-1)
        edited = _laid(source, unedited, picture)
        if count is not None:
            edited = made + count * (edited - made)
        # Motion that is half believed has as often gone astray: beside a trusted look-up it counts little, without one
        # still more than the model's picture.
        # Where the model has changed the picture to something else, it may know what the keyframes do not show.
        given = trust * (self._resized(self.edited[t]) - self._resized(self.coded[t]))
        other = cv2.blur(np.minimum(_largest(given), _largest(given - change)), (5, 5))
        damped = 1 - np.exp(-np.square(other / UNTOUCHED))[..., None]
        if self.kind == "fused":
            damped *= table.heard(self.source[t], edited, made, belief)
        answer *= 1 - damped  # trust and change with it
        surely = np.square(np.square(belief))
        share = (1 - trust) * belief * (2 - belief) + trust * surely
        looked = (1 - surely) * (trust * (source - made) + change)
        if self.kind != "fused":
            made = made + share * (edited - made)
            made += looked
            return made
        said = share * (edited - made) + looked
        sure = np.clip(share + (1 - surely) * trust, 0, 1)
        # What the model leaves as it is, such as a hand that comes in, keeps the source's detail.
        left = np.exp(-np.square(cv2.blur(_largest(made - source), (5, 5)) / UNTOUCHED))[..., None]
        # Beside what is carried alone: what is looked up was seen somewhere else. Of both guesses the mean of the least
        # variance. What they differ by beyond what the model can miss, the source misses.
        guess, doubt = spread(made, edited, share[..., 0])
        unchanged, risk = spread(source, edited, share[..., 0], UNHEARD**2)
        apart = cv2.blur(np.square(guess - unchanged).sum(-1), (5, 5))[..., None]
        risk = np.maximum(risk, apart - AT_MOST**2 * doubt)
        guess += (doubt + NOTHING**2) / (doubt + risk + 2 * NOTHING**2) * (unchanged - guess)
        made += (1 - sure) * (1 - left) * (1 - moving) * (guess - made)
        return made + said

    def _with_source(self, t: int) -> Levels:
        edited, coded = self._resized(self.edited[t]), self._resized(self.coded[t])
        change = cv2.blur(_largest(edited - coded), (5, 5))
        return edited + np.exp(-np.square(change / FORGETS))[..., None] * (self.source[t] - coded)

    def _resized(self, picture: np.ndarray) -> Levels:
        height, width = self.source.shape[1:3]
        if picture.shape[:2] == (height, width):
            return picture.astype(np.float32, copy=False)
        smaller = height * width < picture.shape[0] * picture.shape[1]
        way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        return cv2.resize(picture, (width, height), interpolation=way)

    def _enlarged(self, values: np.ndarray) -> np.ndarray:
        return cv2.resize(values, self.source.shape[2:0:-1])

    def seen(self, at: int, frames: range) -> Iterator["Sight"]:
        """How the keyframe `at` is seen from each of `frames`, which lead away from it one by one.

        Motion is estimated in one hop and along the frames between, and each pixel takes the more believed of the two:
        the chain follows what goes far, the hop has no error that adds up and sees again what was hidden meanwhile.
        """
        there = previous = self._followed(at)
        chain = (np.zeros((*there.shape[:2], 2), np.float32),) * 2
        for t in frames:
            here = self._followed(t)
            step, back = dis_flow(here, previous), dis_flow(previous, here)
            chain = step + warp(chain[0], step), chain[1] + warp(back, chain[1])
            ways = [chain]
            if previous is not there:
                ways.append((dis_flow(here, there), dis_flow(there, here)))
            sight = self._sight(abs(t - at), here, there, *ways[0])
            for hop in ways[1:]:
                other = self._sight(sight.distance, here, there, *hop)
                better = other.belief > sight.belief
                sight = Sight(
                    sight.distance,
                    np.where(better[..., None], other.flow, sight.flow),
                    np.maximum(other.belief, sight.belief),
                    np.where(better, other.light, sight.light),
                )
            yield sight
            previous = here

    def _followed(self, t: int) -> Frame:
        """A frame of the source as motion is followed on it."""
        frame = _reduced(self.source[t], MOTION_SIDE)
        scale = LEAST_MOTION_SIDE / max(frame.shape[:2])
        if self.kind != "fused" or scale <= 1:
            return frame
        return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)

    def _sight(self, distance: int, here: Frame, there: Frame, forward: Flow, backward: Flow) -> "Sight":
        """Motion that leads back to where it began is believed, and there to what looks alike, in its own light."""
        own, moved = here.astype(np.float32), warp(there, forward)
        belief, light = consistency(forward, backward), np.ones(forward.shape[:2], np.float32)
        if self.kind == "fused":
            light = light_gain(own, moved)
            moved *= light[..., None]
            belief = belief * np.exp(-np.square(np.log(light) / RELIT))
        off = _largest(own - moved)
        return Sight(distance, forward, belief * np.exp(-np.square(cv2.blur(off, (3, 3)) / DOUBTS)), light)

    def _carried(self, sights: Sequence["Sight"], pictures: Sequence[Levels]) -> Levels:
        """Pictures, one of every keyframe, as the sights see them: their mean."""
        ways = [self._moved(sight, picture)[0] for sight, picture in zip(sights, pictures, strict=True)]
        return _mean(self._shares(sights), ways)

    def _shares(self, sights: Sequence["Sight"]) -> Float32[np.ndarray, "h w k"]:
        """Of two keyframes that are believed alike the nearer counts more, one that is believed alone counts alone."""
        # The smallest number there is keeps the mean defined where nothing is believed.
        shares = np.stack([s.belief / s.distance + np.finfo(np.float32).tiny for s in sights], axis=-1)
        return self._enlarged(shares / shares.sum(-1, keepdims=True)).reshape(*self.source.shape[1:3], -1)

    def _moved(self, sight: "Sight", *pictures: Levels) -> list[Levels]:
        """Pictures of a keyframe as the sight sees them."""
        height, width = self.source.shape[1:3]
        flow = self._enlarged(sight.flow)
        x = np.arange(width, dtype=np.float32) + flow[..., 0] * np.float32(width / sight.flow.shape[1])
        y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1] * np.float32(
            height / sight.flow.shape[0]
        )
        light = self._enlarged(sight.light)[..., None] if self.kind == "fused" else np.float32(1)
        return [
            cv2.remap(one, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * light
            for one in pictures
        ]


def restored_segment(
    frames: Frames, first: Frame, last: Frame, kind: Literal["residual", "keyframes"]
) -> Frames:
    """A decoded segment (T, H, W, 3) with its two keyframes restored in it, along its own motion.

    It is its own source: an edit that changes its keyframes alone, by what the VAE and the sampler missed of them.
    The first and the last frame are the keyframes then, to the level.
    """
    return Restoration(frames, frames, frames, np.stack([first, last]), (0, len(frames) - 1), kind).frames()


@dataclass(frozen=True)
class Sight:
    """How a keyframe is seen from another frame, at MOTION_SIDE: where each pixel comes from, how far believed, and how
    many times as bright it is here."""

    distance: int
    flow: Flow
    belief: Weight
    light: Weight


def _belief(sights: Sequence[Sight]) -> Weight:
    """The more one keyframe is believed, the less others need be; they do not add up."""
    return np.max([sight.belief for sight in sights], axis=0)


def light_gain(here: Levels, moved: Levels) -> Weight:
    """How many times as bright a frame is as what was moved onto it: the least squares of the nine pixels about.

    An edit is lit like its source: what light, shadow or boiling do to the source multiplies the keyframe too.
    """
    common, own = (cv2.blur(np.einsum("hwc,hwc->hw", moved, other), (3, 3)) for other in (here, moved))
    dark = 3 * DARK**2
    return np.clip((common + dark) / (own + dark), 1 / MOST_LIGHT, MOST_LIGHT)


def spread(
    guess: Levels, evidence: Levels, sure: Weight, unheard: float = 0
) -> tuple[Levels, Float32[np.ndarray, "h w 1"]]:
    """What a guess becomes beside evidence that is `sure`, in [0, 1], in other places: the linear estimate of the
    least mean square, `mean(e) + cov(e, g) / var(g) (g - mean(g))`, Kalman's update with measured moments; and its
    mean square error there, by which guesses are weighed against each other.

    The moments are those of the nearest neighbourhood that holds enough of what is sure, by a pyramid (push and pull,
    Gortler et al. 1996), so that there is no seam: a guess that is right but for its colour is shifted, and one that
    has nothing in common with its neighbours is smoothed away.

    Args:
        unheard: the mean square error where nothing is known anywhere.
    """
    height, width = guess.shape[:2]
    scale = min(1, MOTION_SIDE / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    known, e, g = (
        cv2.resize(x, small, interpolation=cv2.INTER_AREA)
        for x in (np.square(np.square(sure)), evidence, guess)
    )
    known = known[..., None]
    squares = [(a * b).sum(-1) for a, b in ((e, g), (g, g), (e, e))]
    sums = np.dstack([np.ones_like(known), e, g, *squares]) * known
    levels = []
    while True:
        weight = sums[..., :1]
        mean_e, mean_g, products = np.split(sums[..., 1:] / (weight + 1e-4 * KNOWN), [3, 6], axis=-1)
        common = products[..., :1] - (mean_e * mean_g).sum(-1, keepdims=True)
        own = products[..., 1:2] - np.square(mean_g).sum(-1, keepdims=True)
        gain = np.clip((common + NOTHING**2) / (own + NOTHING**2), 0, 1)
        theirs = products[..., 2:] - np.square(mean_e).sum(-1, keepdims=True)
        missed = np.maximum(theirs + gain * (gain * own - 2 * common), 0)
        levels.append((weight / (weight + KNOWN), np.dstack([gain, mean_e - gain * mean_g, missed])))
        if max(sums.shape[:2]) <= 4:
            break
        sums = cv2.pyrDown(sums)
    # Where nothing is known anywhere the guess stays: factor 1, nothing added.
    line = np.broadcast_to(np.array([1, 0, 0, 0, unheard], np.float32), levels[-1][1].shape)
    for trust, own_line in reversed(levels[FINEST:]):
        line = cv2.resize(np.ascontiguousarray(line), own_line.shape[1::-1])
        line = line + trust * (own_line - line)
    line = cv2.resize(line, (width, height))
    return line[..., :1] * guess + line[..., 1:4], line[..., 4:]


def settle(
    source: Levels,
    made: Levels,
    shares: Float32[np.ndarray, "h w 2"],
    beliefs: Float32[np.ndarray, "h w 2"],
    ways: Sequence[Sequence[Levels]],
) -> tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w 1"]]:
    """Let a picture decide where something stands that moves in the edit and not in the source.

    Carried along the source's motion it stands where it was in the one keyframe and again where it was in the other: at
    both places one keyframe shows it and the other what is behind it, and right is the mixture of both that is nearest
    to the picture; neither is where the picture is near none. Where it is meanwhile, both say alike that there is
    nothing; it is known by its colours there: those of which much is disputed (back projection, Swain and Ballard
    1991). The picture is heard so far as it shows the edits that are not disputed, and the thing, which must stand in
    both keyframes. All else that keyframes say differently, such as a tint that comes or a texture that each of them
    has its own of, fades from one to the other.

    Args:
        source: the frame before the edit.
        made: it as a model edited it.
        shares: what each keyframe counts, 1 in sum.
        beliefs: how far each is believed, in [0, 1].
        ways: of each its source's frame and itself, carried here.

    Returns:
        `shares` and `beliefs` as they are then, and how surely a place shows what moves.
    """
    edits = [picture - unedited for unedited, picture in ways]
    apart = edits[0] - edits[1]
    # Of the two one shows the thing and the other, which edits much less, what is behind it: what both edit, each in
    # another way, fades from one to the other.
    strong = np.stack([cv2.blur(_largest(edit), (3, 3)) for edit in edits])
    alone = np.clip(1 - 2 * strong.min(0) / (strong.max(0) + EPSILON), 0, 1)
    disputed = beliefs.min(-1) * alone * (1 - np.exp(-((cv2.blur(_largest(apart), (3, 3)) / DISPUTED) ** 4)))
    # It is added: what the edit changes of the source and motion loses leaves the source otherwise here.
    left = np.where(strong.argmax(0) == 0, *(_largest(unedited - source) for unedited, _ in ways))
    disputed *= np.exp(-np.square(cv2.blur(left, (3, 3)) / UNTOUCHED))
    thing = cv2.morphologyEx(disputed, cv2.MORPH_OPEN, np.ones((BROAD, BROAD), np.uint8))
    unedited, picture = (_mean(shares, pictures) for pictures in zip(*ways, strict=True))
    known = (1 - disputed) * beliefs.max(-1)
    things = [thing * (strong.argmax(0) == k) for k in range(2)]
    seen = [_histogram(way[1], where) for way, where in zip(ways, things, strict=True)]
    its = seen[0] + seen[1]
    share = its / (its + _histogram(picture, known) + EPSILON)
    red, green, blue = np.moveaxis(_shade(made), -1, 0)
    coloured = share[red, green, blue]
    moving = coloured * (1 - np.exp(-np.square(_largest(made - picture) / UNTOUCHED)))
    # Without specks, with its rim, whose colours are mixed: surely from three quarters on, not below a quarter.
    moving = cv2.dilate(cv2.blur(moving, (3, 3)), np.ones((3, 3), np.uint8))
    moving = cv2.blur(np.clip(2 * moving - 0.5, 0, 1), (3, 3))
    missed = np.square(known) * (1 - moving) * np.square(made - source - (picture - unedited)).sum(-1)
    told = np.square(known) * np.square(picture - unedited).sum(-1) + disputed * np.square(apart).sum(-1)
    right = max(0, 1 - missed.sum() / (told.sum() + EPSILON))
    # The same thing must stand in both keyframes and in the picture, half of it at least: what comes nearer grows, and
    # a picture is blurred.
    size = max(where.sum() for where in things) + EPSILON
    shown = coloured * (1 - np.exp(-np.square(_largest(made - source) / UNTOUCHED)))
    right *= min(1, 2 * np.minimum(*seen).sum() / size) * min(1, 2 * shown.sum() / size)
    disputed = right * disputed[..., None]
    # The mixture of both that is nearest to the picture: all of the one or the other where a thing moves.
    one, other = (way[1] for way in ways)
    along, length = (cv2.blur((x * (one - other)).sum(-1), (3, 3)) for x in (made - other, one - other))
    first = np.clip(along / (length + EPSILON), 0, 1)[..., None]
    off = cv2.blur(_largest(made - other - first * (one - other)), (3, 3))[..., None]
    shares = shares + disputed * (np.dstack([first, 1 - first]) - shares)
    beliefs = beliefs * (1 - disputed * (1 - np.exp(-np.square(off / DISPUTED))))
    return shares, beliefs, right * moving[..., None]


def three_cornered_hat(
    source: Levels,
    made: Levels,
    shares: Float32[np.ndarray, "h w 2"],
    beliefs: Float32[np.ndarray, "h w 2"],
    edits: Sequence[Levels],
) -> Float32[np.ndarray, "h w 1"]:
    """What two carried keyframes count beside a model's picture, in [0, 1]: inverse to their error variances.

    None of the three is known to be right, but errors that are independent add up in the differences: from their
    variances `d(a, b) = e(a) + e(b)` each error follows, `e(a) = (d(a, b) + d(a, c) - d(b, c)) / 2`, as clocks are
    judged by each other (Gray and Allan 1974). Keyframes that motion misled show the same at two places, and a good
    picture lies between; where they agree, they stay. It is variance within a window: by a tint or a light, which are
    smooth, keyframes may mean to differ.

    Independence is put to the proof. The keyframes' mean must miss the picture by as much as their own error: in a fade
    it is right, though they differ. And a picture that does not show the edit shares its error, the source, with
    keyframes that slipped: it counts so far as it shows what the mean says. Near to one of them neither is asked.

    Args:
        source: the frame before the edit.
        made: it as a model edited it.
        shares: what each keyframe counts in their mean, 1 in sum.
        beliefs: how far each is believed, in [0, 1]; where not both are, they count alone.
        edits: the frame as each of them has it.
    """
    side = int(WINDOW * max(made.shape[:2])) | 1
    both = np.square(beliefs.min(-1))
    known = cv2.blur(both, (side, side))

    def variance(off: Levels) -> Weight:
        square, *means = (
            cv2.blur(both * x, (side, side)) / (known + EPSILON)
            for x in (np.square(off).sum(-1), *cv2.split(off))
        )
        return np.maximum(0, square - sum(map(np.square, means)))

    first, second = edits
    mean = _mean(shares, edits)
    between, to_first, to_second = (variance(x) for x in (first - second, made - first, made - second))
    own, *errors = (
        np.maximum(0, one + other - apart) / 2
        for one, other, apart in (
            (to_first, to_second, between),
            (between, to_first, to_second),
            (between, to_second, to_first),
        )
    )
    slipped = sum(np.square(shares[..., k]) * error for k, error in enumerate(errors))
    # None below a quarter of what independence foretells, full from three quarters on.
    proof = np.clip(2 * variance(mean - made) / (slipped + EPSILON) - 0.5, 0, 1)
    missed, told = ((both * np.square(mean - x).sum(-1)).sum() for x in (made, source))
    # Of what is told less what slipped, but where that is little the share would be chance.
    right = np.clip((told - missed) / (max(told / 4, told - (both * slipped).sum()) + EPSILON), 0, 1)
    trust = right * proof * 4 * shares.prod(-1) * known / (known + AGREED)
    return (1 - trust * slipped / (own + slipped + NOTHING**2))[..., None]


def _laid(source: Levels, unedited: Levels, picture: Levels) -> Levels:
    """A keyframe, which was carried here with its source's frame, on the source here."""
    # Its picture moved, and its edit moved onto the source's frame. The first blurs and slips with the flow, the second
    # leaves traces of what the edit has hidden: their mean is 1 to 2 dB better than either. Where nothing is edited the
    # second alone is exact.
    edited = picture - unedited
    size = cv2.blur(_largest(edited), (5, 5))[..., None]
    edited += source
    edited += (0.5 - 0.5 * np.exp(-np.square(size / UNTOUCHED))) * (picture - edited)
    return edited


def _shade(picture: Levels) -> np.ndarray:
    return np.clip(np.rint(picture / np.float32(COLOUR)), 0, SHADES - 1).astype(np.int64)


def _histogram(picture: Levels, weight: Weight) -> Float32[np.ndarray, "r g b"]:
    """How much of a weight has each colour, and those beside it."""
    index = np.ravel_multi_index(tuple(np.moveaxis(_shade(picture), -1, 0)), (SHADES,) * 3)
    grid = np.bincount(index.ravel(), weight.ravel(), SHADES**3).astype(np.float32).reshape((SHADES,) * 3)
    return _blurred(grid)


def _mean(shares: Float32[np.ndarray, "h w k"], pictures: Sequence[Levels]) -> Levels:
    mean = pictures[0]
    for k, picture in enumerate(pictures[1:], 1):
        mean = mean + shares[..., k : k + 1] * (picture - mean)
    return mean


def _largest(change: Levels) -> Weight:
    """Over the three colours, without sign. Three planes: a reduction along the last axis takes three times as long."""
    return reduce(np.maximum, cv2.split(np.abs(change)))


def _reduced(frame: np.ndarray, side: int) -> np.ndarray:
    # A strip stays a pixel wide.
    scale = max(side / max(frame.shape[:2]), 1 / min(frame.shape[:2]))
    return frame if scale >= 1 else cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


class EditTable:
    """What an edit adds to a colour at a place, looked up in its keyframes.

    A bilateral grid (Chen, Paris, Durand 2007) over row, column, red, green and blue, into which every pixel of the
    keyframes puts what the edit adds to it. An answer is the mean of what lies near, and trusted so far as

    - there is something near: a place far away counts little (SUPPORT);
    - what is near agrees: a black board that turns brown says nothing about a black apron beside it;
    - with two keyframes, each foretells the other: what one says where the other shows it wrong is not said.
    """

    def __init__(self, keyframes: Sequence[tuple[Frame, Frame]]) -> None:
        """
        Args:
            keyframes: each as (source, edited), all of one size.
        """
        height, width = keyframes[0][0].shape[:2]
        self.rows, self.columns = (max(1, round(side / CELL)) for side in (height, width))
        place = np.argwhere(np.ones((self.rows, self.columns)))
        gap = np.square(place[:, None] - place).sum(-1) / REACH**2
        # Heavy-tailed: where the near places say nothing, the far ones may.
        self._near = (1 / np.square(1 + gap)).astype(np.float32)
        said = []
        for source, edited in keyframes:
            change = edited.astype(np.float32) - source
            one = np.full((height, width, 1), 1 / CELL**2, np.float32)
            said.append(
                self._gathered(
                    source, np.dstack([one, one * change, one * np.square(change).sum(-1, keepdims=True)])
                )
            )
        weight, mean, variance = _moments(sum(said[1:], said[0]))
        # The gain of saying something is the square of what is said, its cost the variance.
        worth = np.square(mean).sum(-1, keepdims=True) + NOISE**2
        trust = weight / (weight + SUPPORT) * _allowed(variance / worth)
        if len(keyframes) == 2:
            missed, everywhere = np.zeros((), np.float32), np.ones((height, width), bool)
            for (source, edited), other in zip(keyframes, said[::-1], strict=True):
                count, foretold, _ = _moments(
                    self._interpolated(other, source, everywhere).reshape(height, width, -1)
                )
                heard = count / (count + SUPPORT)
                error = np.square(foretold - (edited.astype(np.float32) - source)).sum(-1, keepdims=True)
                missed = missed + self._gathered(source, np.dstack([heard, heard * error]))
            trust = trust * _allowed(missed[..., 1:] / (missed[..., :1] + 1e-9) / worth)
        self._answers = np.concatenate([trust, trust * mean], axis=-1)

    def read(self, picture: Frame, where: np.ndarray) -> Float32[np.ndarray, "h w 4"]:
        """Trust in [0, 1] and trust times what is added to red, green and blue; zero outside the mask `where`."""
        answer = np.zeros((*picture.shape[:2], 4), np.float32)
        answer[where] = self._interpolated(self._answers, picture, where)
        return answer

    def heard(self, source: Frame, edited: Levels, made: Levels, sure: Float32[np.ndarray, "h w 1"]) -> float:
        """How far a model is heard where it says something else than the table, in [0, 1].

        By the mean square errors of both where an edit is known, inverse and squared. Where none is, the table is
        thought to be off by UNHEARD, the model by nothing.

        Args:
            source: the frame before the edit.
            edited: it after the edit, as far as that is `sure`: as the keyframes have it, where motion misleads two of
                them with what the model says.
            made: it as the model edited it.
        """
        source, edited, made, sure = (_reduced(x, ASKED_SIDE) for x in (source, edited, made, sure))
        answer = self.read(source, np.ones(source.shape[:2], bool))
        trust, change = answer[..., 0], answer[..., 1:] / np.maximum(answer[..., :1], EPSILON)
        known = np.square(np.square(sure.reshape(trust.shape)))
        known *= 1 - np.exp(-np.square(_largest(edited - source) / UNTOUCHED))
        least = LEARNT * known.size
        own, theirs = (
            (least * unknown + (weight * np.square(said - edited).sum(-1)).sum()) / (least + weight.sum())
            for said, weight, unknown in ((source + change, known * trust, UNHEARD**2), (made, known, 0))
        )
        own, theirs = ((error + NOTHING**2) ** 2 for error in (own, theirs))
        return float(own / (own + theirs))

    def _gathered(self, picture: Frame, values: np.ndarray) -> np.ndarray:
        """(places, colours, c): the sum of the pixels' values (h, w, c) in and near every cell."""
        height, width = picture.shape[:2]
        row = np.arange(height) * self.rows // height
        column = np.arange(width) * self.columns // width
        place = row[:, None] * self.columns + column
        red, green, blue = np.moveaxis(np.rint(picture / np.float32(COLOUR)).astype(np.int64), -1, 0)
        index = (((place * SHADES + red) * SHADES + green) * SHADES + blue).ravel()
        size = self.rows * self.columns * SHADES**3
        sums = [np.bincount(index, v.ravel(), size) for v in np.moveaxis(values, -1, 0)]
        grid = np.stack(sums, -1).astype(np.float32).reshape(self.rows * self.columns, -1)
        grid = (self._near @ grid).reshape(-1, SHADES, SHADES, SHADES, values.shape[-1])
        grid = np.moveaxis(_blurred(np.moveaxis(grid, 0, -1)), -1, 0)
        return grid.reshape(self.rows * self.columns, SHADES**3, -1)

    def _interpolated(self, grid: np.ndarray, picture: Frame, where: np.ndarray) -> np.ndarray:
        """The grid's values (n, c) at the place and colour of the n pixels in `where`, linear between cells."""
        height, width = picture.shape[:2]
        row = np.clip((np.arange(height) + 0.5) * self.rows / height - 0.5, 0, self.rows - 1)
        column = np.clip((np.arange(width) + 0.5) * self.columns / width - 0.5, 0, self.columns - 1)
        places = np.stack(np.meshgrid(row, column, indexing="ij"), -1)
        at = np.concatenate([places, picture / COLOUR], axis=-1).astype(np.float32)
        at = at[where]
        cells = grid.reshape(-1, grid.shape[-1])
        low = np.floor(at).astype(np.int64)
        part = at - low
        last = np.array([self.rows - 1, self.columns - 1, *[SHADES - 1] * 3])
        stride = np.array([self.columns * SHADES**3, SHADES**3, SHADES**2, SHADES, 1])
        ends = np.stack([low * stride, np.minimum(low + 1, last) * stride]).transpose(0, 2, 1).copy()
        parts = np.stack([1 - part, part]).transpose(0, 2, 1).copy()
        total = np.zeros((len(at), grid.shape[-1]), np.float32)
        for corner in product((0, 1), repeat=5):
            index = reduce(np.add, [ends[bit, axis] for axis, bit in enumerate(corner)])
            share = reduce(np.multiply, [parts[bit, axis] for axis, bit in enumerate(corner)])
            total += share[..., None] * cells[index]
        return total


def _blurred(grid: np.ndarray) -> np.ndarray:
    """Over red, green and blue, the first three axes: a quarter, a half, a quarter."""
    for axis in range(3):
        grid = np.moveaxis(grid, axis, 0)
        blurred = 0.5 * grid
        blurred[1:] += 0.25 * grid[:-1]
        blurred[:-1] += 0.25 * grid[1:]
        grid = np.moveaxis(blurred, 0, axis)
    return grid


def _moments(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight (…, 1), mean (…, 3) and variance (…, 1) from sums of weight, values and squares."""
    weight = sums[..., :1]
    mean, square = (part / np.maximum(weight, 1e-9) for part in (sums[..., 1:4], sums[..., 4:5]))
    return weight, mean, np.maximum(square - np.square(mean).sum(-1, keepdims=True), 0)


def _allowed(cost: np.ndarray) -> np.ndarray:
    """1 where an answer costs less than two thirds of what it gains, 0 where it costs as much."""
    return np.clip(3 * (1 - cost), 0, 1)
