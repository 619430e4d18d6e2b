"""Pictures of a video that a person looks at first: a contact sheet, and every join up close."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Frame, Frames, Rate

PAPER, INK, FAINT, ACCENT = (255, 255, 255), (28, 30, 34), (128, 132, 140), (226, 74, 36)
# Rows or columns of a sheet.
MOST = 24
MARGIN, GAP, CAPTION, TITLE, FRAME_LINE, FONT = 24, 14, 26, 40, 4, 15


def contact_indices(count: int, keyframes: Sequence[int] = (), limit: int = 12) -> list[int]:
    """Which frames a contact sheet shows: first, last, the keyframes, and an even spread; `limit` at most."""
    fixed = sorted({0, count - 1, *keyframes})
    if len(fixed) > limit:
        return [round(i) for i in np.linspace(0, count - 1, limit)]
    gaps = list(pairwise(fixed))
    parts = [1] * len(gaps)
    for _ in range(min(count, limit) - len(fixed)):  # one more cut where the steps are the widest
        steps = [(right - left) / part for (left, right), part in zip(gaps, parts, strict=True)]
        parts[steps.index(max(steps))] += 1
    inner = zip(gaps, parts, strict=True)
    return sorted({round(i) for (a, b), part in inner for i in np.linspace(a, b, part + 1)} | {*fixed})


def spread(items: Sequence[int], most: int = MOST) -> list[int]:
    """At most `most` of the items, evenly, the first and the last among them: no viewer shows a page of hundreds."""
    if len(items) <= most:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, most)]


def contact_sheet(
    frames: Frames,
    keyframes: Sequence[int] = (),
    fps: Rate = 16,
    indices: Sequence[int] | None = None,
    title: str = "",
) -> AnyFrame:
    """A grid of at most 12 frames with their number and time; keyframes have a coloured border.

    `frames` is the whole video, or, with `indices`, only those frames of it (see `contact_indices`).

    Raises:
        InputError: no frames, or another number of indices than frames.
    """
    shown = _numbered(frames, indices)
    if indices is None:
        shown = {index: shown[index] for index in contact_indices(len(frames), keyframes)}
    width, height = _thumb_size(frames, 300)
    columns = min(len(shown), 4 if width >= height else 6)
    sheet = _Sheet(columns, ceil(len(shown) / columns), width, height, title)
    for place, (index, frame) in enumerate(shown.items()):
        mark = index in keyframes
        name = f"frame {index}, key" if mark else f"frame {index}"
        sheet.thumb(frame, place % columns, place // columns, name, f"{float(index / fps):.2f} s", mark)
    return sheet.pixels()


def comparison_sheet(
    rows: Mapping[str, Mapping[int, Frame]],
    indices: Sequence[int],
    keyframes: Sequence[int] = (),
    fps: Rate = 16,
    title: str = "",
    times: Sequence[float] | None = None,
) -> AnyFrame:
    """One row for each clip, one column for each frame: source, edit and keyframes one below the other.

    rows: name -> frame index -> picture, all of one size; a row may lack frames. Columns in `keyframes` have a border.
    times: seconds of every frame of the clip, where they are not evenly `fps`.

    Raises:
        InputError: no rows or indices, or no row shows any of them.
    """
    shown = [frame for row in rows.values() for index, frame in row.items() if index in indices]
    if not shown:
        raise InputError(f"comparison sheet: rows {list(rows)} show none of the frames {list(indices)}")
    width, height = _thumb_size(shown[0][None], 168)
    sheet = _Sheet(len(indices), len(rows), width, height, title, heading=True)
    for place, (name, row) in enumerate(rows.items()):
        sheet.heading(place, name, "")
        for column, index in enumerate(indices):
            if index in row:
                mark = index in keyframes
                at = float(index / fps) if times is None else times[index]
                sheet.thumb(row[index], column, place, f"{index}", f"{at:.2f} s", mark)
    return sheet.pixels()


def junction_indices(count: int, junctions: Sequence[int], radius: int = 4) -> list[int]:
    """Which frames a junction sheet needs: those it shows, and the one before each row."""
    near = {i for j in junctions for i in range(j - radius - 1, j + radius + 1)}
    return sorted(i for i in near if 0 <= i < count)


def junction_sheet(
    frames: Frames,
    junctions: Sequence[int],
    radius: int = 4,
    fps: Rate = 16,
    indices: Sequence[int] | None = None,
    title: str = "",
) -> AnyFrame:
    """One row for each join: `radius` frames on either side of it and the keyframe itself, marked.

    On the right below each frame stands its mean change in levels from the frame before: a join that shows
    is a number that stands out. `frames` is the whole video, or with `indices` those of `junction_indices`.

    Raises:
        InputError: no frames, no junctions, or a junction that is not among the frames.
    """
    shown = _numbered(frames, indices)
    absent = [junction for junction in junctions if junction not in shown]
    if absent or not junctions:
        raise InputError(f"junction sheet: expected joins among the frames, got {absent or 'none'}")
    width, height = _thumb_size(frames, 168)
    sheet = _Sheet(2 * radius + 1, len(junctions), width, height, title, heading=True)
    for row, junction in enumerate(junctions):
        explained = "" if row else "   |   on the right: mean change from the frame before, in levels"
        sheet.heading(row, f"join at frame {junction}", f"{float(junction / fps):.2f} s{explained}")
        for offset in range(-radius, radius + 1):
            index = junction + offset
            if index in shown:
                name = f"{offset:+d}" if offset else "key"
                change = ""
                if index - 1 in shown:
                    change = f"{np.abs(shown[index].astype(np.int16) - shown[index - 1]).mean():.1f}"
                sheet.thumb(shown[index], radius + offset, row, name, change, offset == 0)
    return sheet.pixels()


def _numbered(frames: Frames, indices: Sequence[int] | None) -> dict[int, Frame]:
    numbers = range(len(frames)) if indices is None else indices
    if not len(frames) or len(numbers) != len(frames):
        raise InputError(f"sheet: {len(frames)} frames and {len(numbers)} indices")
    return dict(zip(numbers, frames, strict=True))


def _thumb_size(frames: Frames, long_side: int) -> tuple[int, int]:
    height, width = frames.shape[1:3]
    scale = long_side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


class _Sheet:
    """A white page with a grid of captioned pictures."""

    def __init__(
        self, columns: int, rows: int, width: int, height: int, title: str, heading: bool = False
    ) -> None:
        self.width, self.height = width, height
        self.top = MARGIN + (TITLE if title else 0)
        self.head = CAPTION + 4 if heading else 0
        self.step = self.head + height + CAPTION + GAP
        page = (2 * MARGIN + columns * (width + GAP) - GAP, self.top + rows * self.step - GAP + MARGIN)
        self.page = Image.new("RGB", page, PAPER)
        self.draw = ImageDraw.Draw(self.page)
        self.font, self.title_font = (ImageFont.load_default(size) for size in (FONT, FONT + 6))
        self.draw.text((MARGIN, MARGIN), title, INK, self.title_font, anchor="la")

    def heading(self, row: int, name: str, note: str) -> None:
        base = self.top + row * self.step + self.head - 10
        self.draw.text((MARGIN, base), name, INK, self.font, anchor="ls")
        after = MARGIN + self.draw.textlength(name + "   ", self.font)
        self.draw.text((after, base), note, FAINT, self.font, anchor="ls")

    def thumb(self, frame: Frame, column: int, row: int, name: str, note: str, mark: bool) -> None:
        left = MARGIN + column * (self.width + GAP)
        top = self.top + row * self.step + self.head
        picture = Image.fromarray(frame).resize((self.width, self.height), Image.Resampling.LANCZOS)
        self.page.paste(picture, (left, top))
        if mark:
            box = (left - FRAME_LINE, top - FRAME_LINE, left + self.width + 3, top + self.height + 3)
            self.draw.rectangle(box, outline=ACCENT, width=FRAME_LINE)
        base = top + self.height + CAPTION - 6
        self.draw.text((left, base), name, ACCENT if mark else INK, self.font, anchor="ls")
        self.draw.text((left + self.width, base), note, FAINT, self.font, anchor="rs")

    def pixels(self) -> AnyFrame:
        return np.array(self.page)
