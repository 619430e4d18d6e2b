"""The palette stylist: colours of a reference and a drawing hand, offline, the same for every keyframe."""

import asyncio
import hashlib
import threading
from dataclasses import asdict, dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float32

from wanedit.stylists import STYLISTS
from wanedit.stylists.palette.looks import (
    Look,
    PaletteSettings,
    check_palette,
    find_words,
    known_words,
    look_of,
    refused_words,
    unknown_words,
)
from wanedit.stylists.palette.transport import (
    Cloud,
    ColourMap,
    cloud_of,
    cloud_of_colours,
    colour_map,
    sliced_distance,
    thumbnail,
)
from wanedit.stylists.protocol import (
    Estimate,
    Picture,
    Record,
    Request,
    Styled,
    StyleGuide,
    StyleReference,
    Verdict,
)
from wanedit.video.arrays import Frame
from wanedit.video.colour import lab_to_rgb

Plane = Float32[np.ndarray, "h w"]

DIRECTIONS = 8
BRUSH = 0.007  # of the longer side
# Small videos are the noisiest: at least so many pixels, yet not so much of a side that outlines are painted over.
SMALLEST, SMALLEST_SHARE = 6.0, 0.015
CALM = 12.0  # variance in levels squared below which neighbourhoods count as equally calm
LINE = 0.0011  # width of ink lines as a share of the longer side
LINE_RATIO, LINE_PUSH, LINE_SOFT = 1.6, 18.0, 0.035


def paint(picture: Frame, size: float) -> Frame:
    """Soft brush strokes that stop at edges; `size` 0 to 1, at which their radius is 0.7 % of the longer side;
    in small pictures up to 1.5 %.

    Every pixel takes the mean of the calmest of eight neighbourhoods around it, weighted softly (Kuwahara 1976;
    Papari, Petkov, Campisi, "Artistic edge and corner enhancing smoothing", 2007). It removes noise too.
    """
    side = max(picture.shape[:2])
    radius = size * max(BRUSH * side, min(SMALLEST, SMALLEST_SHARE * side))
    if radius < 0.7:
        return picture
    edge = int(np.ceil(radius))
    wide = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_REFLECT_101).astype(np.float32)
    grey = wide @ np.array([0.299, 0.587, 0.114], np.float32)
    kernel, sigma = (0, 0), radius / 2
    mean = cv2.GaussianBlur(wide, kernel, sigma)
    grey_mean = cv2.GaussianBlur(grey, kernel, sigma)
    variance = cv2.GaussianBlur(grey * grey, kernel, sigma) - grey_mean * grey_mean
    calm = np.square(np.square(CALM / (CALM + np.maximum(variance, 0))))
    weight = cv2.merge([calm + np.float32(1e-12)] * 3)
    sums, (height, width) = mean * weight, picture.shape[:2]
    total, norm = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 3), np.float32)
    for angle in np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS:
        down, right = edge + round(radius * np.sin(angle)), edge + round(radius * np.cos(angle))
        window = (slice(down, down + height), slice(right, right + width))
        cv2.accumulate(sums[window], total)
        cv2.accumulate(weight[window], norm)
    return np.clip(np.rint(cv2.divide(total, norm)), 0, 255).astype(np.uint8)


def ink(picture: Frame, seen: float = 1.0) -> Plane:
    """Where there is no line: 1 on blank paper, towards 0 on lines, from an extended difference of Gaussians.

    Winnemoeller, Kyprianidis, Olsen, "XDoG: an extended difference-of-Gaussians compendium", 2012, equations 7 and 5.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    sigma = max(0.6, LINE * max(picture.shape[:2]) * seen)
    fine, coarse = (cv2.GaussianBlur(grey, (0, 0), s) for s in (sigma, LINE_RATIO * sigma))
    difference = LINE_PUSH * (fine - coarse)
    return np.where(difference >= -LINE_SOFT, 1, 1 + np.tanh(1.6 * (difference + LINE_SOFT))).astype(
        np.float32
    )


@lru_cache(maxsize=2)
def paper(height: int, width: int, seed: int) -> Plane:
    """Relief of a sheet, mean 0, deviation 1: grain, fibres and a slow mottling. It belongs to the screen."""
    generator = np.random.default_rng([seed, 4])
    scale = max(height, width) / 1280
    sheet = np.zeros((height, width), np.float32)
    layers = ((0.9, 0.9, 0.55), (2.2, 2.2, 0.6), (6.0, 1.2, 0.35), (1.2, 6.0, 0.35), (28.0, 28.0, 0.45))
    for across, down, share in layers:
        noise = generator.standard_normal((height, width), dtype=np.float32)
        blurred = cv2.GaussianBlur(
            noise, (0, 0), sigmaX=max(0.5, across * scale), sigmaY=max(0.5, down * scale)
        )
        sheet += np.float32(share) * blurred / max(float(blurred.std()), 1e-6)
    sheet = (sheet - sheet.mean()) / max(float(sheet.std()), 1e-6)
    sheet.setflags(write=False)
    return sheet


SIDE = 320  # longer side at which edges are compared: lines and paper are finer than that
STRUCTURE = 0.6  # correlation of gradients below which a shape has moved or gone
FLAT = 0.7  # of the strongest hundredth of gradients: below it a picture has no shapes to keep
NEARER = 0.1  # share of the palette's distance that must be gone, of all keyframes together, at strength 1
NEAR = 3.0  # Lab units at which a palette matches anyway


@dataclass(frozen=True)
class Measured:
    """What was measured of one keyframe.

    structure: correlation of its gradient magnitudes with its source's, 1 for the same edges.
    palette_before, palette_after: sliced Wasserstein distance in Lab of source and result to the reference.
    """

    structure: float
    palette_before: float
    palette_after: float


def measure(source: Frame, styled: Frame, reference: Cloud) -> Measured:
    """Compare a restyled keyframe with its source and with the reference's colours."""
    before, after = (sliced_distance(cloud_of([p]), reference) for p in (source, styled))
    return Measured(structure(source, styled), before, after)


def structure(source: Frame, styled: Frame) -> float:
    """Correlation of gradient magnitudes; 1 where the source has none to keep."""
    x, y = _gradient(source), _gradient(styled)
    if float(np.quantile(x, 0.99)) < FLAT:
        return 1.0
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / max(np.sqrt(float(np.square(x).sum() * np.square(y).sum())), 1e-6))


def _gradient(picture: Frame) -> Float32[np.ndarray, "_ _"]:
    scale = min(1.0, SIDE / max(picture.shape[:2]))
    size = (max(8, round(picture.shape[1] * scale)), max(8, round(picture.shape[0] * scale)))
    grey = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.2)
    strength = cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) / 8
    return np.sqrt(strength)  # so that a few hard edges do not speak for all


def judge(kept: float, distances: tuple[float, float], same_map: bool, strength: float = 1.0) -> Verdict:
    """A verdict from measures.

    Args:
        kept: `structure` of the keyframe.
        distances: of the palette of all keyframes to the reference's, before and after the map: the palette is
            matched by the clip, for one keyframe may show only what the reference has little of.
        same_map: whether the keyframe was made by the map of the others.
        strength: how far colours were meant to go, 0 to 1; so far the palette must have come nearer.
    """
    (before, after), left = distances, 1 - NEARER * strength
    whole, matched = kept >= STRUCTURE, after <= max(left * before, NEAR)
    reasons = []
    if not whole:
        reasons.append(f"edges agree with the source by {kept:.2f}, expected {STRUCTURE} or more")
    if not matched:
        reasons.append(
            f"the palette is {after:.1f} Lab units from the reference, before it was {before:.1f}; expected at most "
            f"{left:.1%} of that"
        )
    if not same_map:
        reasons.append("it was not made by the colour map of the other keyframes")
    return Verdict(structure_kept=whole, style_matched=matched, consistent=same_map, reasons=reasons)


# Raised when a change to the code changes what the same settings make.
ALGORITHM = 3
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


@STYLISTS.register("palette")
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
    def settings(self) -> Record:
        """All that decides its pixels."""
        return {"stylist": "palette", "algorithm": ALGORITHM, **asdict(self._settings)}

    def check_reference(self, reference: StyleReference) -> list[str]:
        """Say at once whether it can be used; returns notes of the words that it will not follow.

        Raises:
            InputError: neither a picture nor a known word.
        """
        _look(reference)
        refused = refused_words(reference.description)
        notes = [f'"{words}": the palette stylist leaves this look out, as it is told' for words in refused]
        if lost := unknown_words(reference.description):
            named = ", ".join(f'"{words}"' for words in lost)
            notes.append(
                f"the palette stylist does not understand {named} and leaves it out; it knows {known_words()}. The "
                "gemini stylist reads free text (--stylist gemini)"
            )
        return notes

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

        def made() -> Styled:
            plan, own = self._plan(request), self._settings
            look, share = _look(request.reference), SOFTENED if request.reasons else 1.0
            hand = _Hand(
                paint=share * (look.paint if own.paint is None else own.paint),
                outline=share * (look.outline if own.outline is None else own.outline),
                paper=share * (look.paper if own.paper is None else own.paper),
            )
            image = draw(request.source, plan.map, hand, plan.darkest, own.seed)
            found = measure(request.source, image, plan.reference)
            provenance = {
                "stylist": "palette",
                "map": plan.name,
                "drawing": asdict(hand),
                "measured": {name: round(value, 3) for name, value in asdict(found).items()},
            }
            return Styled(image, provenance)

        return await asyncio.to_thread(made)

    async def verify(self, request: Request, styled: Styled, previous: Picture | None) -> Verdict:
        """Measure structure and palette, and see that it was made by the map of all the others."""

        def judged() -> Verdict:
            plan = self._plan(request)
            kept = structure(request.source, styled.image)
            same_map = styled.provenance.get("map") == plan.name
            return judge(kept, plan.distances, same_map, self._settings.strength)

        return await asyncio.to_thread(judged)

    def estimate(self, keyframes: int, retries: int) -> Estimate:
        """Nothing: no service is asked."""
        return Estimate(calls=(0, 0), price=(0.0, 0.0))

    def _plan(self, request: Request) -> _Plan:
        """The map of these keyframes and this reference; computed once, whoever asks first."""
        with self._lock:
            if self._latest is None or not self._latest.serves(request):
                self._latest = self._make_plan(request)
            return self._latest

    def _make_plan(self, request: Request) -> _Plan:
        own, look = self._settings, _look(request.reference)
        reference = _cloud(request.reference, look, own.seed)
        levels = look.posterise if own.posterise is None else own.posterise
        thumbs = [thumbnail(picture) for picture in request.keyframes]
        pooled = cloud_of(thumbs)
        made = colour_map(pooled, reference, own.strength, look.tone, levels, own.seed)
        mapped = cloud_of([made(thumb) for thumb in thumbs])
        distances = (sliced_distance(pooled, reference), sliced_distance(mapped, reference))
        # The ink is the mean of the darkest twentieth, at most a third as light as white.
        dark = reference[np.argsort(reference[:, 0], kind="stable")[: max(1, len(reference) // 20)]].mean(0)
        dark[0] = min(dark[0], 22)
        r, g, b = lab_to_rgb(dark[None].astype(np.float32))[0]
        digest = hashlib.sha256(repr(sorted(self.settings.items())).encode())
        digest.update(request.reference.description.encode())
        for picture in (*request.keyframes, request.reference.image):
            if picture is not None:
                digest.update(repr(picture.shape).encode())
                digest.update(np.ascontiguousarray(picture).data)
        return _Plan(
            keyframes=request.keyframes,
            style=request.reference,
            map=made,
            reference=reference,
            distances=distances,
            darkest=(int(r), int(g), int(b)),
            name=digest.hexdigest()[:16],
        )


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
