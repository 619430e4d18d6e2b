"""The palette stylist: colours of a reference and a drawing hand, offline, the same for every keyframe."""

import asyncio
import hashlib
import threading
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from wanedit.stylists.palette_effects import ink, paint, paper
from wanedit.stylists.palette_settings import PaletteSettings, check_palette
from wanedit.stylists.palette_verdict import judge, measure, structure
from wanedit.stylists.palette_words import Look, find_words, look_of
from wanedit.stylists.protocol import Estimate, Picture, Request, Styled, StyleGuide, StyleReference, Verdict
from wanedit.stylists.transport import (
    Cloud,
    ColourMap,
    cloud_of,
    cloud_of_colours,
    colour_map,
    sliced_distance,
    thumbnail,
)
from wanedit.video.arrays import Frame
from wanedit.video.colour import lab_to_rgb

# Raised when a change to the code changes what the same settings make.
ALGORITHM = 2
NAMED = 6  # colours in a guide
SOFTENED = 0.5  # of the drawing, for a keyframe that was rejected
GRAIN = 0.06  # deviation of brightness under all of the paper


@dataclass(frozen=True)
class _Hand:
    """The drawing, decided."""

    paint: float
    outline: float
    paper: float


@dataclass(frozen=True, eq=False)
class _Plan:
    """What one set of keyframes is restyled by: one map for all of them.

    distances: of the palette of all keyframes to the reference's, before and after the map.
    name: hash of all that decides the map.
    """

    keyframes: tuple[Picture, ...]
    style: StyleReference
    map: ColourMap
    reference: Cloud
    distances: tuple[float, float]
    darkest: tuple[int, int, int]
    name: str

    def serves(self, request: Request) -> bool:
        """Whether it was made for the very keyframes and reference of a request."""
        return self.keyframes is request.keyframes and self.style is request.reference


class PaletteStylist:
    """Implements `Stylist` by optimal colour transport (see `transport`), brush, ink and paper. No network, no key.

    Args:
        settings: see `PaletteSettings`.

    Raises:
        InputError: a setting out of range.
    """

    # Its map is computed from all keyframes together.
    pools_keyframes = True
    # It is told of a rejection once: a third attempt is the second one again.
    advice = (
        "run again with another --palette.strength, --palette.paint or --palette.outline, or with --on_reject keep to "
        "use the best attempt"
    )

    def __init__(self, settings: PaletteSettings | None = None) -> None:
        self._settings = settings or PaletteSettings()
        check_palette(self._settings)
        self._latest: _Plan | None = None
        self._lock = threading.Lock()

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides its pixels."""
        return {"stylist": "palette", "algorithm": ALGORITHM, **asdict(self._settings)}

    def check_reference(self, reference: StyleReference) -> None:
        """Say at once whether it can be used.

        Raises:
            InputError: neither a picture nor a known word.
        """
        _look(reference)

    async def analyse(self, reference: StyleReference, keyframes: tuple[Picture, ...]) -> StyleGuide:
        """Name the reference's main colours, and the way of drawing that its words ask for.

        Raises:
            InputError: neither a picture nor a known word.
        """
        look = _look(reference)
        colours = main_colours(_cloud(reference, look, self._settings.seed))
        words = ", ".join(find_words(reference.description))
        given = [text for text in ("the picture" if reference.image is not None else "", words) if text]
        return StyleGuide(
            summary=f"The colours of {' and '.join(given)}, one map for all keyframes.",
            palette=colours,
            line=look.line,
            texture=look.texture,
            light=look.light,
            do=["keep every shape where it is"],
            dont=["clip highlights", "make noise visible"],
        )

    async def restyle(self, request: Request) -> Styled:
        """Restyle one keyframe. Reasons for a rejection halve the drawing, never the colours, which must agree."""
        return await asyncio.to_thread(self._restyle, request)

    async def verify(self, request: Request, styled: Styled, previous: Picture | None) -> Verdict:
        """Measure structure and palette, and see that it was made by the map of all the others."""
        return await asyncio.to_thread(self._verify, request, styled)

    def estimate(self, keyframes: int, retries: int) -> Estimate:
        """Nothing: no service is asked."""
        return Estimate(calls=(0, 0), price=(0.0, 0.0))

    def _restyle(self, request: Request) -> Styled:
        plan = self._plan(request)
        hand = self._hand(_look(request.reference), softened=bool(request.reasons))
        image = draw(request.source, plan.map, hand, plan.darkest, self._settings.seed)
        found = measure(request.source, image, plan.reference)
        provenance = {
            "stylist": "palette",
            "map": plan.name,
            "drawing": asdict(hand),
            "measured": {name: round(value, 3) for name, value in asdict(found).items()},
        }
        return Styled(image, provenance)

    def _verify(self, request: Request, styled: Styled) -> Verdict:
        plan = self._plan(request)
        kept = structure(request.source, styled.image)
        same_map = styled.provenance.get("map") == plan.name
        return judge(kept, plan.distances, same_map, self._settings.strength)

    def _plan(self, request: Request) -> _Plan:
        """The map of these keyframes and this reference; computed once, whoever asks first."""
        with self._lock:
            if self._latest is None or not self._latest.serves(request):
                self._latest = self._make_plan(request)
            return self._latest

    def _name(self, request: Request) -> str:
        digest = hashlib.sha256(repr(sorted(self.settings.items())).encode())
        digest.update(request.reference.description.encode())
        pictures = [*request.keyframes, request.reference.image]
        for picture in (p for p in pictures if p is not None):
            digest.update(repr(picture.shape).encode())
            digest.update(np.ascontiguousarray(picture).data)
        return digest.hexdigest()[:16]

    def _make_plan(self, request: Request) -> _Plan:
        own, look = self._settings, _look(request.reference)
        reference = _cloud(request.reference, look, own.seed)
        levels = look.posterise if own.posterise is None else own.posterise
        thumbs = [thumbnail(picture) for picture in request.keyframes]
        pooled = cloud_of(thumbs)
        made = colour_map(pooled, reference, own.strength, look.tone, levels, own.seed)
        mapped = cloud_of([made(thumb) for thumb in thumbs])
        distances = (sliced_distance(pooled, reference), sliced_distance(mapped, reference))
        name = self._name(request)
        return _Plan(
            request.keyframes, request.reference, made, reference, distances, _darkest(reference), name
        )

    def _hand(self, look: Look, softened: bool) -> _Hand:
        own, share = self._settings, SOFTENED if softened else 1.0
        given = {
            "paint": look.paint if own.paint is None else own.paint,
            "outline": look.outline if own.outline is None else own.outline,
            "paper": look.paper if own.paper is None else own.paper,
        }
        return _Hand(**{name: share * value for name, value in given.items()})


def draw(
    source: Frame, colours: ColourMap, hand: _Hand, line_colour: tuple[int, int, int], seed: int
) -> Frame:
    """Brush, then colours, then lines, then paper."""
    brushed = paint(source, hand.paint) if hand.paint else source
    picture = colours(brushed)
    if not (hand.outline or hand.paper):
        return picture
    out = picture.astype(np.float32)
    if hand.outline:
        lines = hand.outline * (1 - ink(brushed))
        out += cv2.merge([lines] * 3) * (np.array(line_colour, np.float32) - out)
    if hand.paper:
        sheet = hand.paper * GRAIN * paper(*source.shape[:2], seed)
        # multiplied, and the less the nearer to black or white: neither gets lost under it
        room = cv2.merge([sheet] * 3) * (1 - np.square(out / 255 * 0.8))
        out *= 1 + room
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def main_colours(cloud: Cloud, count: int = NAMED) -> list[str]:
    """The main colours of a cloud as "#rrggbb", the most frequent first, by k-means."""
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 0.2)
    thinned = np.ascontiguousarray(cloud[:: max(1, len(cloud) // 4000)])
    _, labels, centres = cv2.kmeans(thinned, count, None, criteria, 2, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    order = np.argsort(-np.bincount(labels.ravel(), minlength=count), kind="stable")
    return ["#" + bytes(lab_to_rgb(centres[i : i + 1])[0]).hex() for i in order]


def _cloud(reference: StyleReference, look: Look, seed: int) -> Cloud:
    if reference.image is not None:
        return cloud_of([reference.image])
    return cloud_of_colours(look.colours, seed)


def _look(reference: StyleReference) -> Look:
    return look_of(reference.description, reference.image is not None)


def _darkest(cloud: Cloud) -> tuple[int, int, int]:
    """The colour of the ink: the mean of the darkest twentieth, at most a third as light as white."""
    dark = cloud[np.argsort(cloud[:, 0], kind="stable")[: max(1, len(cloud) // 20)]].mean(0)
    dark[0] = min(dark[0], 22)
    r, g, b = lab_to_rgb(dark[None].astype(np.float32))[0]
    return int(r), int(g), int(b)
