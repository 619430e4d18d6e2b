"""Sixteen samples on one labelled picture: between keyframes, from a first frame, from text."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tiny.sampling import SHORT, Evaluation
from wanedit.sprites.sets import Clip, linear, single_linear, single_plain, to_bytes, videos

COLUMNS, GAP, MARGIN, LINE = 7, 2, 14, 13
LIMIT = 400_000
PAPER, INK, FAINT = (255, 255, 255), (28, 32, 40), (118, 124, 136)

# A block of the sheet: a title, the strips under it, and the words above each group of strips.
Block = tuple[str, list[tuple[str, list[Tensor]]]]


@torch.no_grad()
def write_sheet(e: Evaluation, path: Path) -> None:
    """8 FLF2V, 4 first-frame and 4 text-only samples of the split's first clips, none of them twice.

    A PNG of at most `LIMIT` bytes, in fewer colours where it must be; warns where sixteen colours are still too many.
    """
    chosen: list[list[Clip]] = []
    for count, rule in ((8, linear), (4, single_linear), (4, single_plain)):
        used = {clip.seed for part in chosen for clip in part}
        left = [clip for clip in e.draw(count + len(used), rule) if clip.seed not in used]
        chosen.append(left[:count])
    flf, first, text = chosen
    video = videos(flf, 64)
    pairs = [("", [truth, ours]) for truth, ours in zip(video, e.between(flf, video), strict=True)]

    def described(clips: Sequence[Clip], made: Tensor) -> list[tuple[str, list[Tensor]]]:
        return [(clip.prompt, [ours]) for clip, ours in zip(clips, made, strict=True)]

    blocks = [
        ("Between two keyframes: truth above, sample below", pairs),
        ("From the first frame and the prompt", described(first, e.onwards(first, videos(first, 64)))),
        ("From the prompt alone", described(text, e.from_text(text, SHORT))),
    ]
    write_within(LIMIT, _draw(blocks), path)


def strip(clip: Float[Tensor, "3 T H W"], columns: int = COLUMNS) -> UInt8[np.ndarray, "H width 3"]:
    """`columns` frames at equal distances from the first to the last, side by side."""
    picks = np.linspace(0, clip.shape[1] - 1, columns).round().astype(int)
    gap = torch.ones(3, clip.shape[2], GAP)
    parts = [part for pick in picks for part in (clip[:, int(pick)], gap)][:-1]
    return to_bytes(torch.cat(parts, dim=2)).permute(1, 2, 0).numpy()


def _draw(blocks: Sequence[Block]) -> Image.Image:
    """Two columns of clips under every title."""
    width = COLUMNS * (64 + GAP) - GAP
    sheet = Image.new("RGB", (2 * width + 3 * MARGIN, 4000), PAPER)
    pen, top = ImageDraw.Draw(sheet), MARGIN
    for title, entries in blocks:
        pen.text((MARGIN, top), title, INK, ImageFont.load_default(15))
        top += 24
        for row in range(0, len(entries), 2):
            bottoms = []
            for side, (words, clips) in enumerate(entries[row : row + 2]):
                left, at = MARGIN + side * (width + MARGIN), top
                for line in textwrap.wrap(words, 84):
                    pen.text((left, at), line, FAINT, ImageFont.load_default(11))
                    at += LINE
                at += 4 if words else 0
                for clip in clips:
                    pixels = strip(clip)
                    sheet.paste(Image.fromarray(pixels), (left, at))
                    at += pixels.shape[0] + GAP
                bottoms.append(at - GAP)
            top = max(bottoms) + 10
        top += 8
    return sheet.crop((0, 0, sheet.width, top))


def write_within(limit: int, sheet: Image.Image, path: Path) -> None:
    """The first variant within `limit` bytes, else the coarsest, with a warning.

    Variants: all colours, then coarser steps of each channel, then a palette.
    """

    def variants() -> Iterator[Image.Image]:
        yield sheet
        levels = np.asarray(sheet)
        for step in (4, 8):
            yield Image.fromarray(levels // step * step + step // 2)
        for colours in (256, 64, 16):
            yield sheet.quantize(colours)

    data = b""
    for variant in variants():
        buffer = io.BytesIO()
        variant.save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
        if len(data) <= limit:
            break
    else:
        warnings.warn(f"{path} is {len(data)} bytes; expected at most {limit}", stacklevel=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
