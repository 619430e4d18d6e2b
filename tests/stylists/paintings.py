"""Three small paintings drawn with numpy and OpenCV: references for the tests and for docs/styling.md.

`python -m tests.stylists.paintings docs` writes them as docs/style_reference_*.png.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 360, 270


def _rgb(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def _gradient(stops: list[tuple[float, str]]) -> np.ndarray:
    places = np.linspace(0, 1, HEIGHT)
    at = [p for p, _ in stops]
    colours = np.stack([_rgb(text) for _, text in stops])
    column = np.stack([np.interp(places, at, colours[:, c]) for c in range(3)], -1)
    return np.repeat(column[:, None], WIDTH, 1).astype(np.float32)


def _strokes(
    canvas: np.ndarray, seed: int, count: int, length: float, width: int, drift: float, jitter: float
) -> np.ndarray:
    """Repaint a picture with short strokes of its own colours, each a little off."""
    generator = np.random.default_rng(seed)
    source, out = canvas.copy(), canvas.copy()
    for _ in range(count):
        x, y = generator.integers(0, WIDTH), generator.integers(0, HEIGHT)
        angle = drift + generator.normal(0, 0.35)
        half = length * generator.uniform(0.5, 1.2) / 2
        dx, dy = half * np.cos(angle), half * np.sin(angle)
        colour = np.clip(source[y, x] + generator.normal(0, jitter, 3) + generator.normal(0, jitter), 0, 255)
        ends = (int(x - dx), int(y - dy)), (int(x + dx), int(y + dy))
        cv2.line(out, *ends, tuple(map(float, colour)), int(generator.integers(2, width + 1)), cv2.LINE_AA)
    return out


def dusk() -> np.ndarray:
    """A red evening over dark hills and a lake."""
    sky = [(0, "#1d1a44"), (0.3, "#6d2f6b"), (0.48, "#d3535a"), (0.58, "#f5a65b"), (0.64, "#ffe0a0")]
    canvas = _gradient([*sky, (0.641, "#3a2145"), (0.75, "#8c3f56"), (1, "#170f2c")])
    cv2.circle(canvas, (230, 158), 19, tuple(map(float, _rgb("#fff3cf"))), -1, cv2.LINE_AA)
    for base, height, colour in ((176, 30, "#5b2a5a"), (182, 18, "#2a163a")):
        x = np.arange(WIDTH)
        ridge = base - height * (0.5 + 0.3 * np.sin(x / 41 + base) + 0.2 * np.sin(x / 17))
        for column, top in enumerate(ridge):
            canvas[int(top) : 182, column] = _rgb(colour)
    for y in range(186, 262, 6):
        cv2.line(
            canvas,
            (230 - (y - 180) // 3, y),
            (230 + (y - 180) // 3, y),
            tuple(map(float, _rgb("#f7b267"))),
            2,
        )
    return _finish(_strokes(canvas, 1, 5200, 16, 4, 0.0, 6))


def meadow() -> np.ndarray:
    """A wash of blue, green and ochre on cream paper."""
    canvas = _gradient(
        [(0, "#9fc3cf"), (0.38, "#f2ead8"), (0.5, "#cfd7b0"), (0.7, "#7f9c6a"), (1, "#3d5f57")]
    )
    generator = np.random.default_rng(5)
    colours = ["#d98d6a", "#e6c06a", "#5b8f8a", "#b7657b", "#2f5563", "#f5ecd8", "#8aa86b"]
    for _ in range(130):
        x, y = int(generator.integers(0, WIDTH)), int(generator.normal(205, 38))
        blob = canvas.copy()
        size = (int(generator.integers(5, 26)), int(generator.integers(3, 13)))
        cv2.ellipse(
            blob, (x, y), size, float(generator.uniform(0, 60)), 0, 360,
            tuple(map(float, _rgb(colours[int(generator.integers(len(colours)))]))), -1, cv2.LINE_AA,
        )  # fmt: skip
        canvas = 0.35 * canvas + 0.65 * blob
    return _finish(_strokes(canvas, 2, 2600, 13, 5, 1.2, 5))


def harbour() -> np.ndarray:
    """Night: indigo water, teal and magenta lamps."""
    canvas = _gradient(
        [(0, "#0b0a24"), (0.45, "#231a55"), (0.55, "#3b1f6b"), (0.56, "#0d1030"), (1, "#050716")]
    )
    generator = np.random.default_rng(9)
    for colour in ("#16c7d9", "#e0269b", "#7a3cf0", "#ffd9a8", "#1590b8") * 4:
        x, y = int(generator.integers(10, WIDTH - 10)), int(generator.integers(80, 148))
        glow = np.zeros_like(canvas)
        cv2.circle(glow, (x, y), 7, tuple(map(float, _rgb(colour))), -1)
        cv2.line(glow, (x, 156), (x, 250), tuple(map(float, 0.55 * _rgb(colour))), 5)
        canvas += 1.8 * cv2.GaussianBlur(glow, (0, 0), 11) + 0.8 * cv2.GaussianBlur(glow, (0, 0), 2)
    return _finish(_strokes(np.clip(canvas, 0, 255), 3, 5200, 11, 4, 1.57, 4))


def _finish(canvas: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(canvas, (0, 0), 0.6)
    return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)


PAINTINGS = {"dusk": dusk, "meadow": meadow, "harbour": harbour}

if __name__ == "__main__":
    from wanedit.video import write_png

    for name, draw in PAINTINGS.items():
        write_png(Path(sys.argv[1]) / f"style_reference_{name}.png", draw())
