"""Colour transport: one smooth map of colours that takes the palette of some pictures to that of a reference.

Optimal transport in CIE Lab between two clouds of colours, by one-dimensional transports along random directions
(Pitie, Kokaram, Dahyot, "Automated colour grading using colour distribution transfer", 2007; Rabin, Peyre, Delon,
Bernot, "Wasserstein barycenter and its application to texture mixing", 2011). Such a transport follows every speck of
the clouds, which shows as noise and bands; so it is not applied but regressed: a Gaussian kernel in colour, falling
back to a linear map where no colours were seen, in the spirit of the linear Monge-Kantorovich map of Pitie and Kokaram,
"The linear Monge-Kantorovitch linear colour mapping", 2007. The result is a table of 33^3 colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32
from PIL import Image, ImageFilter

from wanedit.video.arrays import AnyFrame
from wanedit.video.colour import rgb_to_lab

Cloud = Float32[np.ndarray, "_ 3"]
Table = Float32[np.ndarray, "n n n 3"]

NODES = 33
SIDE = 72  # of the thumbnails whose colours are pooled
ROUNDS = 20
CENTRES = 1200  # colours that the map is regressed on
KERNEL = np.array([12.0, 9.0, 9.0], np.float32)  # widths in L, a, b: smooth, yet two hues stay two
FAITH = 0.5  # weight of the linear map against the colours seen nearby, in colours
SLOPES = (0.55, 1.6)  # of lightness: no blown highlights, no noise pulled out of shadows
CHROMA_GAIN = 1.5  # of how far two near colours may be pulled apart in a and b
REACH = (
    1.2,
    2.6,
)  # deviations of the reference in a and b: from the first on colours are drawn in, to the second
RARE = 1.5  # deviation in Lab units that every direction has at least
KNEE = 0.75  # of the chroma that sRGB can show: from here on it is compressed, not clipped

_LEVELS = np.linspace(0, 1, NODES)
_FROM_XYZ = np.linalg.inv(
    np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
)  # fmt: skip
_WHITE = np.linalg.inv(_FROM_XYZ).sum(1)


@dataclass(frozen=True, eq=False)
class ColourMap:
    """RGB -> RGB as a table over the cube: table[r, g, b], values in [0, 1]."""

    table: Table

    def __call__(self, picture: AnyFrame) -> AnyFrame:
        """Apply it, trilinear between the nodes."""
        # Pillow's table runs through red first.
        flat = np.ascontiguousarray(self.table.transpose(2, 1, 0, 3)).reshape(-1)
        mapped = Image.fromarray(picture).filter(ImageFilter.Color3DLUT(len(self.table), flat))  # type: ignore[arg-type]
        return np.array(mapped)


def cloud_of(pictures: Sequence[AnyFrame]) -> Cloud:
    """The Lab colours of thumbnails of pictures, pooled."""
    return np.concatenate([rgb_to_lab(thumbnail(picture)).reshape(-1, 3) for picture in pictures])


def thumbnail(picture: AnyFrame) -> AnyFrame:
    """A picture's colours at 72x72, whatever its shape; of a picture of that size, itself."""
    if picture.shape[:2] == (SIDE, SIDE):
        return picture
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)


def cloud_of_colours(colours: Sequence[tuple[str, float]], seed: int) -> Cloud:
    """A cloud around swatches "#rrggbb" with shares, joined along their order, so that there are colours between."""
    generator = np.random.default_rng([seed, 1])
    rgb = np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text, _ in colours], np.uint8)
    lab, shares = rgb_to_lab(rgb), np.array([share for _, share in colours])
    # half of the cloud near its swatches, half on the way from one to the next
    place = np.repeat(np.arange(len(lab)), np.rint(4000 * shares / shares.sum()).astype(int))
    onward = np.minimum(place + 1, len(lab) - 1)
    part = (generator.random(len(place)) * (np.arange(len(place)) % 2))[:, None]
    cloud = (1 - part) * lab[place] + part * lab[onward]
    spread = generator.standard_normal(cloud.shape) * np.array([3.0, 2.5, 2.5])
    cloud = cloud + spread
    cloud[:, 0] = np.clip(cloud[:, 0], 0, 100)
    return cloud.astype(np.float32)


def sliced_distance(x: Cloud, y: Cloud, directions: int = 16) -> float:
    """Sliced Wasserstein distance of order 1 between two clouds, in Lab units."""
    generator = np.random.default_rng(7)
    axes = generator.standard_normal((3, directions))
    axes = (axes / np.linalg.norm(axes, axis=0)).astype(np.float32)
    ranks = np.linspace(0, 1, 200)
    gap = np.quantile(x @ axes, ranks, axis=0) - np.quantile(y @ axes, ranks, axis=0)
    return float(np.abs(gap).mean())


def colour_map(
    pooled: Cloud, reference: Cloud, strength: float, tone: float, levels: int = 0, seed: int = 0
) -> ColourMap:
    """The map of the colours `pooled` to those of `reference`.

    Args:
        strength: 1 for all the way.
        tone: how far lightness follows the reference's distribution; colour follows wholly.
        levels: of lightness, softly stepped; 0 for none.
        seed: of the directions.
    """
    curve = tone_curve(pooled[:, 0], reference[:, 0], tone)
    shift = _chroma_shift(pooled, reference, seed)
    grid = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), -1).reshape(-1, 3)
    nodes = _lab(grid)
    mapped = np.empty_like(nodes)
    mapped[:, 0] = np.interp(nodes[:, 0], np.linspace(0, 100, len(curve)), curve)
    mapped[:, 1:] = within_reach(nodes[:, 1:] + shift(nodes), reference[:, 1:])
    mapped = nodes + np.float32(strength) * (mapped - nodes)
    if levels:
        mapped[:, 0] = soft_steps(mapped[:, 0], levels)
    light = np.clip(_linear_rgb(in_gamut(mapped)), 0, 1)
    rgb = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return ColourMap(rgb.reshape(NODES, NODES, NODES, 3).astype(np.float32))


def tone_curve(
    source: Float32[np.ndarray, "_"], target: Float32[np.ndarray, "_"], share: float
) -> Float[np.ndarray, "101"]:
    """Lightness 0 … 100 -> lightness: `share` of the way to matched distributions, of bounded slope, smooth."""
    ranks = np.linspace(0.01, 0.99, 50)
    before = np.maximum.accumulate(np.quantile(source, ranks) + np.arange(50) * 1e-3)
    after = (1 - share) * before + share * np.quantile(target, ranks)
    lightness = np.arange(101.0)
    curve = np.interp(lightness, before, after)
    curve += np.minimum(lightness - before[0], 0) + np.maximum(lightness - before[-1], 0)
    slopes = np.clip(np.diff(curve), *SLOPES)
    slopes = np.convolve(np.pad(slopes, 6, mode="edge"), np.hanning(15)[1:-1] / np.hanning(15).sum(), "valid")
    middle = int(np.clip(np.median(source), 1, 99))
    bounded = np.concatenate([[0], np.cumsum(slopes)])
    bounded += curve[middle] - bounded[middle]
    # The parts below 0 and above 100 are squeezed back in, from their pivots on, instead of clipped flat.
    low, high = 15.0, 85.0
    if bounded[0] < 0:
        bounded = np.where(bounded < low, low - (low - bounded) * low / (low - bounded[0]), bounded)
    if bounded[-1] > 100:
        squeezed = high + (bounded - high) * (100 - high) / (bounded[-1] - high)
        bounded = np.where(bounded > high, squeezed, bounded)
    return np.clip(bounded, 0, 100)


def transport(x: Cloud, y: Cloud, seed: int) -> Cloud:
    """Where each colour of x goes in y: optimal in one dimension along three axes at a time, many times over."""
    generator = np.random.default_rng([seed, 2])
    moved, places = x.astype(np.float64), np.linspace(0, 1, len(x))
    for _ in range(ROUNDS):
        axes, _ = np.linalg.qr(generator.standard_normal((3, 3)))
        at, goal = moved @ axes, y @ axes
        for axis in range(3):
            order = np.argsort(at[:, axis], kind="stable")
            at[order, axis] = np.quantile(goal[:, axis], places)
        moved = at @ axes.T
    return moved.astype(np.float32)


def _chroma_shift(pooled: Cloud, reference: Cloud, seed: int):
    """What to add to a and b, as a smooth function of Lab."""
    generator = np.random.default_rng([seed, 3])
    x = pooled[generator.choice(len(pooled), min(len(pooled), 8000), replace=False)]
    y = reference[generator.choice(len(reference), min(len(reference), 8000), replace=False)]
    # Lightness is compared by rank: shadows take the colours of shadows, however dark the reference is.
    ranked = x.copy()
    ranked[np.argsort(x[:, 0], kind="stable"), 0] = np.quantile(y[:, 0], np.linspace(0, 1, len(x)))
    shift = transport(ranked, y, seed)[:, 1:] - x[:, 1:]
    centres, shifts = x[:CENTRES], shift[:CENTRES]
    linear = _linear_fit(x, shift)

    def at(lab: Cloud) -> Float32[np.ndarray, "_ 2"]:
        base = linear(lab)
        out = np.empty_like(base)
        rest = shifts - linear(centres)
        for start in range(0, len(lab), 4096):
            part = slice(start, start + 4096)
            scaled, own = lab[part] / KERNEL, centres / KERNEL
            apart = np.square(scaled).sum(1)[:, None] + np.square(own).sum(1)[None] - 2 * scaled @ own.T
            weights = np.exp(-0.5 * np.maximum(apart, 0))
            out[part] = base[part] + weights @ rest / (weights.sum(1, keepdims=True) + FAITH)
        return out

    return at


def _linear_fit(x: Cloud, shift: Float32[np.ndarray, "_ 2"]):
    """shift ~ a linear function of Lab (ridge), so that colours never seen move as their like do."""
    mean, offset = x.mean(0), shift.mean(0)
    centred = (x - mean).astype(np.float64)
    ridge = 25.0 * len(x) * np.eye(3)
    gain = np.linalg.solve(centred.T @ centred + ridge, centred.T @ (shift - offset))
    left, size, right = np.linalg.svd(gain, full_matrices=False)
    gain = ((left * np.minimum(size, CHROMA_GAIN - 1 + 0.5)) @ right).astype(np.float32)
    return lambda lab: ((lab - mean) @ gain + offset).astype(np.float32)


def within_reach(
    chroma: Float32[np.ndarray, "n 2"], reference: Float32[np.ndarray, "m 2"]
) -> Float32[np.ndarray, "n 2"]:
    """Draw a and b softly into the reference's ellipse: a colour too rare to be transported must not stand out."""
    mean, spread = reference.mean(0), np.cov(reference.T.astype(np.float64)) + RARE**2 * np.eye(2)
    size, axes = np.linalg.eigh(spread)
    scaled = (chroma - mean) @ axes / np.sqrt(size)
    radius = np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-6)
    inner, room = REACH[0], REACH[1] - REACH[0]
    kept = np.where(radius > inner, inner + room * np.tanh((radius - inner) / room), radius) / radius
    return ((scaled * kept) * np.sqrt(size) @ axes.T + mean).astype(np.float32)


def soft_steps(lightness: Float32[np.ndarray, "n"], levels: int) -> Float32[np.ndarray, "n"]:
    """Lightness in `levels` steps: flat in the middle of each, steep between, and monotone everywhere."""
    width = np.float32(100 / levels)
    middle = (np.floor(lightness / width) + np.float32(0.5)) * width
    part = (lightness - middle) / (width / 2)
    return middle + width / 2 * (np.float32(0.25) * part + np.float32(0.75) * part**3)


def in_gamut(lab: Cloud) -> Cloud:
    """Less chroma, same hue and lightness, for what sRGB cannot show; compressed from `KNEE` of its limit on."""
    low, high = np.zeros(len(lab), np.float32), np.full(len(lab), 3.0, np.float32)
    for _ in range(14):
        middle = (low + high) / 2
        linear = _linear_rgb(np.column_stack([lab[:, :1], lab[:, 1:] * middle[:, None]]))
        inside = ((linear >= -1e-4) & (linear <= 1 + 1e-4)).all(1)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    limit = np.maximum(low, 1e-6)  # times the chroma
    used = 1 / limit
    over = np.maximum(used - KNEE, 0) / (1 - KNEE)
    kept = np.where(used > KNEE, (KNEE + (1 - KNEE) * np.tanh(over)) / used, 1)
    return np.column_stack([lab[:, :1], lab[:, 1:] * kept[:, None]]).astype(np.float32)


def _lab(rgb: Float[np.ndarray, "n 3"]) -> Cloud:
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ np.linalg.inv(_FROM_XYZ).T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.column_stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])])
    return lab.astype(np.float32)


def _linear_rgb(lab: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    y = (lab[:, 0] + 16) / 116
    f = np.column_stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return (xyz * _WHITE) @ _FROM_XYZ.T
