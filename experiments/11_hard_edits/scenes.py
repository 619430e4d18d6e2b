"""Drawn edits that warping a keyframe gets wrong, one family of scenes for each cause, with exact truth and visibility.

A scene is drawn before and after its edit under the same `Conditions`: light, shadow, boiling texture, glass, bending.
What a pixel of the edited clip shows is followed in closed form to every keyframe, so that it is known which pixels no
keyframe shows: the point is out of the picture or behind something there, or looks otherwise by light or texture.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from wanedit.errors import InputError
from wanedit.lit.tasks import EditTask
from wanedit.sprites import (
    TEXTURES,
    Camera,
    Edited,
    Motion,
    Scene,
    apply_edit,
    caption,
    frame_times,
    optical_flow,
    render,
    sample_edit,
    sample_scene,
)
from wanedit.sprites.scene import SPLITS
from wanedit.video import to_uint8

FPS = 16
# A bent scene is drawn at so many times its size and sampled.
FINE = 4
# A point looks otherwise than in a keyframe where its light differs by this factor, less one.
RELIT = 0.05
# Of the pixels that an edit may change, the share that no keyframe shows which a scene of most families must have.
LEAST_UNSHOWN = 0.03
Video = UInt8[np.ndarray, "T H W 3"]
Field = Float32[np.ndarray, "T H W"]


@dataclass(frozen=True, eq=False)
class Conditions:
    """What happens to a drawn scene whatever its edit.

    Attributes:
        light: factor of every pixel.
        glass: index of a sprite that half of what is behind is seen through.
        bend: what pixel p shows lies at p + bend(p) of the drawn scene, (T, H, W, 2) in pixels, x first.
        drift: what an image model does to the edited keyframes beside the edit.
    """

    light: Field | None = None
    glass: int | None = None
    bend: np.ndarray | None = None
    drift: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class Follow:
    """Where a frame's pixels are in a keyframe: displacement (H, W, 2) in pixels, x first; whether they are seen there,
    and whether they also look there as they do here."""

    flow: Float32[np.ndarray, "H W 2"]
    seen: Bool[np.ndarray, "H W"]
    alike: Bool[np.ndarray, "H W"]


@dataclass(frozen=True, eq=False)
class Case:
    """One edited scene of one cause.

    Attributes:
        source, truth: before and after.
        keyframes: of the edit as they are given, at `indices`; `truth` there, unless they drift.
        changed: pixels that the edit changes.
        shown: pixels that some keyframe shows.
        follow: of frame t and the k-th keyframe at [t][k].
        prompts: captions of source and truth.
    """

    cause: str
    seed: int
    kind: str
    source: Video
    truth: Video
    keyframes: Video
    indices: tuple[int, ...]
    changed: Bool[np.ndarray, "T H W"]
    shown: Bool[np.ndarray, "T H W"]
    follow: list[list[Follow]]
    prompts: tuple[str, str]

    def at(self, t: int, k: int) -> np.ndarray:
        """Where the k-th keyframe has what frame t shows: (H, W, 2), x first."""
        return _pixels(self.source.shape[1:3]) + self.follow[t][k].flow

    def task(self, noise_seed: int) -> EditTask:
        """What an editor is given."""
        source_prompt, prompt = self.prompts
        return EditTask(
            self.seed, self.source, self.keyframes, self.indices, prompt, source_prompt, "", noise_seed, ""
        )


def cases(
    cause: str, count: int, num_frames: int, size: tuple[int, int], split: str = "test"
) -> Iterator[Case]:
    """The first `count` scenes of a cause that its edits allow, and in which no keyframe shows enough."""
    seed, found = 0, 0
    while found < count:
        case = draw(cause, seed, num_frames, size, split)
        seed += 1
        if case is not None:
            found += 1
            yield case


def draw(cause: str, seed: int, num_frames: int, size: tuple[int, int], split: str = "test") -> Case | None:
    """The scene of a seed; None where it is left out."""
    rng = np.random.default_rng([11, list(CAUSES).index(cause), SPLITS.index(split), seed])
    times = frame_times(num_frames, FPS)
    try:
        before, edited, kind, conditions = CAUSES[cause](Start(seed, split, rng, times, size))
    except InputError:  # an edit that this scene does not allow
        return None
    source = drawn(before, times, size, "plain", conditions)
    truth = drawn(edited.scene, times, size, edited.style, conditions)
    indices = (0, num_frames - 1)
    follow = [
        [followed(edited.scene, times, t, k, size, conditions) for k in indices] for t in range(num_frames)
    ]
    shown = np.array([np.any([one.seen & one.alike for one in ways], axis=0) for ways in follow])
    changed = (truth != source).any(-1)
    unshown = (changed & ~shown).sum() / max(1, changed.sum())
    if changed.mean() < 0.01 or (cause not in SHOWN and unshown < LEAST_UNSHOWN):
        return None
    keyframes = truth[list(indices)]
    if conditions.drift is not None:
        keyframes = np.stack([conditions.drift(frame) for frame in keyframes])
    prompts = caption(before), edited.caption
    return Case(cause, seed, kind, source, truth, keyframes, indices, changed, shown, follow, prompts)


def drawn(
    scene: Scene, times: np.ndarray, size: tuple[int, int], style: str, conditions: Conditions
) -> Video:
    """The clip under its conditions."""
    fine = size if conditions.bend is None else (size[0] * FINE, size[1] * FINE)
    picture = render(scene, times, fine, style).video
    if conditions.glass is not None:
        behind = tuple(s for i, s in enumerate(scene.sprites) if i != conditions.glass)
        picture = (picture + render(replace(scene, sprites=behind), times, fine, style).video) / 2
    picture = (picture.movedim(0, -1).numpy() + 1) / 2
    if conditions.bend is not None:
        small = [
            sampled(cv2.blur(frame, (FINE, FINE)), FINE * (_pixels(size) + 0.5 + bend) - 0.5)
            for frame, bend in zip(picture, conditions.bend, strict=True)
        ]
        picture = np.stack(small)
    if conditions.light is not None:
        picture = picture * conditions.light[..., None]
    return to_uint8(torch.from_numpy(picture.clip(0, 1) * 2 - 1).movedim(-1, 0).float())


def followed(
    scene: Scene, times: np.ndarray, t: int, k: int, size: tuple[int, int], conditions: Conditions
) -> Follow:
    """Frame t's pixels in frame k."""
    here = _pixels(size)
    bend, fine = conditions.bend, 1 if conditions.bend is None else FINE
    exact = optical_flow(scene, times[t], times[k], (size[0] * fine, size[1] * fine))
    flow, seen = exact.displacement[0].movedim(0, -1).numpy(), exact.visible[0].numpy()
    if bend is not None:
        at = FINE * (here + 0.5 + bend[t]) - 0.5
        # The nearest: between two layers there is no mean.
        flow = sampled(flow, at, cv2.INTER_NEAREST) / FINE
        seen = sampled(seen.astype(np.float32), at, cv2.INTER_NEAREST) > 0.5
        goal = here + bend[t] + flow
        there = goal
        for _ in range(8):  # q + bend(q) = goal, by fixed points: a bend's slope is below one
            there = goal - sampled(bend[k], there)
        flow = there - here
        inside = (there > -0.5).all(-1) & (there[..., 0] < size[1] - 0.5) & (there[..., 1] < size[0] - 0.5)
        seen = seen & inside
    alike = np.ones(size, bool)
    if conditions.light is not None:
        ratio = conditions.light[t] / sampled(conditions.light[k], here + flow)
        alike = np.abs(np.log(ratio)) < RELIT
    if conditions.glass is not None:
        alone = replace(scene, sprites=(scene.sprites[conditions.glass],))
        masks = render(alone, times[[t, k]], size).masks[0].numpy()
        # Through glass two things are seen, which move apart: nowhere else are they seen together.
        alike = alike & (masks[0] == 0) & (sampled(masks[1], here + flow) < 0.01) if t != k else alike
    return Follow(flow.astype(np.float32), seen, alike)


def _pixels(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 2), x first."""
    return np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), -1).astype(np.float32)


def sampled(image: np.ndarray, at: np.ndarray, way: int = cv2.INTER_LINEAR) -> np.ndarray:
    """The image at places (H, W, 2), x first; its edges repeated."""
    at = at.astype(np.float32)
    return cv2.remap(
        np.ascontiguousarray(image), at[..., 0], at[..., 1], way, borderMode=cv2.BORDER_REPLICATE
    )


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], radius: float) -> np.ndarray:
    """Smooth noise of standard deviation 1 in every picture of (…, H, W)."""
    noise = rng.normal(size=shape)
    flat = noise.reshape(-1, *shape[-2:])
    flat = np.stack([cv2.GaussianBlur(one, (0, 0), radius, borderType=cv2.BORDER_REFLECT) for one in flat])
    return (flat / flat.std((-2, -1), keepdims=True)).reshape(shape)


def _away_and_back(rng: np.random.Generator, duration: float, reach: float) -> Motion:
    """From a place out and nearly back to it, `reach` world units away in the middle."""
    start = rng.uniform(-0.4, 0.4, 2)
    angle = rng.uniform(0, 2 * np.pi)
    bulge = 4 * reach * np.array([np.cos(angle), np.sin(angle)])
    end = start + rng.uniform(-0.1, 0.1, 2)
    return Motion("accelerated", _pair(start), _pair(end), duration, _pair(bulge))


def _pair(point: np.ndarray) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _edit(scene: Scene, seed: int, kinds: tuple[str, ...], sprite: int | None = None) -> tuple[Edited, str]:
    """One of `kinds`, in turn by seed; of that sprite, where the kind is one of sprites."""
    kind = kinds[seed % len(kinds)]
    for attempt in range(64):
        edit = sample_edit(scene, 64 * seed + attempt, (kind,))
        # Neon lights up what is about a sprite, which moves with it and is not followed here.
        if edit.value != "neon" and (sprite is None or edit.sprite in (None, sprite)):
            return apply_edit(scene, edit), kind
    raise InputError(f"{kind} of sprite {sprite}: got a scene that allows none")


@dataclass(frozen=True, eq=False)
class Start:
    """What a family draws a scene from."""

    seed: int
    split: str
    rng: np.random.Generator
    times: np.ndarray
    size: tuple[int, int]

    def scene(self, num_sprites: int | None = None) -> Scene:
        return sample_scene(self.seed, self.split, float(self.times[-1]), num_sprites)


Sampled = tuple[Scene, Edited, str, Conditions]


def disocclusion(start: Start) -> Sampled:
    """A sprite stands before the same place in both keyframes and moves away between; the background is edited."""
    scene = start.scene(1)
    motion = _away_and_back(start.rng, scene.duration, start.rng.uniform(0.7, 1.1))
    scene = replace(scene, camera=Camera()).with_sprite(
        0, motion=motion, size=start.rng.uniform(0.4, 0.6), zoom=0.0
    )
    edited, kind = _edit(scene, start.seed, ("background", "style"))
    return scene, edited, kind, Conditions()


def entering(start: Start) -> Sampled:
    """A sprite comes and leaves between the keyframes; all is restyled, or the caption alone says its new colour."""
    scene = start.scene(2)
    big = start.rng.uniform(0.25, 0.4)
    angle, off = start.rng.uniform(0, 2 * np.pi), start.rng.uniform(-0.4, 0.4)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    # A square's corner is the furthest thing in view.
    reach = 2**0.5 + big
    ends = [_pair(side * reach * along + off * across) for side in (-1, 1)]
    motion = Motion("linear", ends[0], ends[1], scene.duration)
    scene = replace(scene, camera=Camera()).with_sprite(1, motion=motion, size=big, zoom=0.0)
    edited, kind = _edit(scene, start.seed, ("style", "recolour"), sprite=1)
    return scene, edited, kind, Conditions()


def occluder(start: Start) -> Sampled:
    """In both keyframes something in front hides most of the edited sprite, and moves away between."""
    scene = start.scene(2)
    motion = _away_and_back(start.rng, scene.duration, start.rng.uniform(0.7, 1.1))
    angle, big = start.rng.uniform(0, 2 * np.pi), start.rng.uniform(0.4, 0.55)
    behind = np.array(motion.start) + 0.5 * big * np.array([np.cos(angle), np.sin(angle)])
    drift = start.rng.uniform(-0.15, 0.15, 2)
    scene = replace(scene, camera=Camera())
    scene = scene.with_sprite(1, motion=motion, size=big, zoom=0.0)
    slow = Motion("linear", _pair(behind), _pair(behind + drift), scene.duration)
    texture = str(start.rng.choice(TEXTURES[1:]))
    scene = scene.with_sprite(0, motion=slow, size=0.9 * big, zoom=0.0, texture=texture)
    edited, kind = _edit(scene, start.seed, ("recolour", "style"), sprite=0)
    return scene, edited, kind, Conditions()


def lighting(start: Start) -> Sampled:
    """Light swings across the picture between the keyframes."""
    scene = start.scene()
    edited, kind = _edit(scene, start.seed, ("background", "recolour", "style"))
    ramp = (_pixels(start.size) / start.size[0] - 0.5) @ _direction(start.rng)
    swing = np.sin(np.pi * start.times / start.times[-1]) * start.rng.uniform(0.4, 0.7)
    fall = swing[:, None, None] * (ramp - 0.5 + 0.3 * _smooth(start.rng, start.size, 12.0))
    return scene, edited, kind, Conditions(light=np.exp(fall).astype(np.float32))


def shadow(start: Start) -> Sampled:
    """A sprite throws a soft shadow on an edited background; with odd seeds it is half transparent."""
    scene = start.scene(1)
    scene = replace(scene, camera=Camera())
    edited, kind = _edit(scene, start.seed // 2, ("background", "style"))
    if start.seed % 2:
        return scene, edited, kind, Conditions(glass=0)
    mask = render(scene, start.times, start.size).masks[0].numpy()
    off = start.rng.uniform(4, 8) * _direction(start.rng)
    at = _pixels(start.size) - off
    cast = [cv2.GaussianBlur(_fallen(one, at), (0, 0), 2.5) for one in mask]
    return scene, edited, kind, Conditions(light=(1 - 0.55 * np.stack(cast) * (1 - mask)).astype(np.float32))


def _fallen(mask: np.ndarray, at: np.ndarray) -> np.ndarray:
    at = at.astype(np.float32)
    return cv2.remap(mask, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def deformation(start: Start) -> Sampled:
    """All bends like something seen through moving water."""
    scene = start.scene()
    edited, kind = _edit(scene, start.seed, ("recolour", "background", "retexture"))
    patterns = _smooth(start.rng, (2, 3, *start.size), 7.0)
    phases = start.rng.uniform(0, 2 * np.pi, (2, 3))
    swing = np.sin(2 * np.pi * start.times[:, None, None] * start.rng.uniform(0.7, 1.3) + phases)
    bend = 1.6 * np.einsum("tcn,cnhw->thwc", swing, patterns)
    return scene, edited, kind, Conditions(bend=bend.astype(np.float32))


def boiling(start: Start) -> Sampled:
    """What is edited has a texture that is another one in every frame."""
    scene = start.scene(1)
    edited, kind = _edit(scene, start.seed, ("recolour", "background"))
    mask = render(scene, start.times, start.size).masks[0].numpy()
    where = mask if kind == "recolour" else 1 - mask
    light = np.exp(0.25 * where * (_smooth(start.rng, (len(start.times), *start.size), 1.5) - 1))
    return scene, edited, kind, Conditions(light=light.astype(np.float32))


def reshaped(start: Start) -> Sampled:
    """A sprite becomes another shape: the source moves where the edit no longer does."""
    scene = start.scene()
    return scene, *_edit(scene, start.seed, ("reshape",)), Conditions()


def added(start: Start) -> Sampled:
    """A moving thing is added that the source does not have."""
    scene = start.scene(2)
    before, _ = _edit(scene, start.seed, ("remove",))
    return before.scene, Edited(scene, "plain", "", caption(scene)), "add", Conditions()


def misregistered(start: Start) -> Sampled:
    """The edited keyframes are off by a pixel or two and in colour, each otherwise, as image models give them."""
    scene = start.scene()
    edited, kind = _edit(scene, start.seed, ("recolour", "background", "retexture"))

    def drift(frame: np.ndarray) -> np.ndarray:
        here = _pixels(start.size)
        turn, grow = np.deg2rad(start.rng.uniform(-1.5, 1.5)), start.rng.uniform(0.975, 1.025)
        centre = np.array(start.size[::-1]) / 2
        matrix = grow * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        wave = 0.5 * np.moveaxis(_smooth(start.rng, (2, *start.size), 9.0), 0, -1)
        moved = sampled(frame, (here - centre) @ matrix.T + centre + start.rng.uniform(-1.5, 1.5, 2) + wave)
        colour = moved * start.rng.uniform(0.95, 1.05, 3) + start.rng.uniform(-6, 6, 3)
        return np.clip(np.rint(colour), 0, 255).astype(np.uint8)

    return scene, edited, kind, Conditions(drift=drift)


def _direction(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


CAUSES: dict[str, Callable[[Start], Sampled]] = {
    "disocclusion": disocclusion,
    "entering": entering,
    "occluder": occluder,
    "lighting": lighting,
    "shadow": shadow,
    "deformation": deformation,
    "boiling": boiling,
    "reshaped": reshaped,
    "added": added,
    "misregistered": misregistered,
}
# Here not visibility makes warping fail.
SHOWN = ("deformation", "reshaped", "added", "misregistered")
