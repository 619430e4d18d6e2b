"""The part of the page that moves: panes that one clock drives, a time line with the keyframes, strips of stills."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from wanedit.report.clips import (
    WIDEST,
    AnyClip,
    Clips,
    difference,
    embed_image,
    embed_video,
    factor_for,
    held,
    painted,
)

STRIP_RADIUS = 4
STRIP_WIDTH = 240
STILL_WIDTH = 480
Section = dict[str, object]


@dataclass(frozen=True, eq=False)
class Pane:
    """One clip of the player.

    Attributes:
        note: what is to be known of it, in few words.
        keyed: whether it is marked while a keyframe's own frame is shown.
        row: panes of one row are of one kind.
    """

    title: str
    frames: AnyClip
    fps: float
    note: str = ""
    keyed: bool = False
    row: int = 0


def panes_of(clips: Clips) -> list[Pane]:
    """Source, result, keyframes and difference, as far as they are known."""
    if clips.result is None:
        return []
    edit = clips.source is not None
    found = [Pane("Source", clips.source, clips.fps)] if clips.source is not None else []
    found.append(Pane("Edited" if edit else "Result", clips.result, clips.fps, "", not edit))
    keyed = held(clips)
    if keyed is not None:
        found.append(Pane("Keyframes", keyed, clips.fps, "each from its own frame until the next", True))
    levels = difference(clips)
    if levels is not None:
        found.append(difference_pane(levels, clips.fps, factor_for(levels)))
    return found


def difference_pane(
    levels: UInt8[np.ndarray, "_ _ _"], fps: float, factor: int, title: str = "Difference", row: int = 0
) -> Pane:
    """Where the result is not the source."""
    note = f"|edited − source| × {factor}; full scale {255 / factor:.0f} of 255 levels"
    return Pane(title, painted(levels, factor), fps, note, row=row)


def player(panes: Sequence[Pane], keyframes: Sequence[int] = (), joins: Sequence[int] = ()) -> Section:
    """All panes and what drives them.

    Args:
        keyframes, joins: what the time line shows besides the time.
    """
    if not panes:
        return {"note": "", "rows": []}
    made = [embed_video(pane.frames, pane.fps) for pane in panes]
    longest = max(panes, key=lambda pane: len(pane.frames) / pane.fps)
    by_row = [
        [(pane, clip) for pane, clip in zip(panes, made, strict=True) if pane.row == row]
        for row in sorted({pane.row for pane in panes})
    ]
    # Rows of up to three are equally wide, and end together: a difference below its result.
    widest = max(map(len, by_row))
    rows = []
    for shown in by_row:
        columns = widest if widest <= 3 else len(shown)
        rows.append({"columns": columns, "skip": columns - len(shown), "panes": shown})
    marked = [("key", frame, f"Keyframe {k}, frame {frame}") for k, frame in enumerate(keyframes)]
    marked += [("join", frame, f"Join at frame {frame}") for frame in joins if frame not in set(keyframes)]
    reduced = any(clip.reduced for clip in made)
    return {
        "note": f"Shown at {WIDEST} pixels' width; the video itself is larger." if reduced else "",
        "rows": rows,
        "fps": f"{longest.fps:.10g}",
        "frames": len(longest.frames),
        "keyframes": keyframes,
        "markers": [(kind, at, f"{label}, {at / longest.fps:.2f} s") for kind, at, label in marked],
    }


def keyframe_stills(clips: Clips, names: Sequence[str]) -> Section | None:
    """Every keyframe beside what the result shows at its frame, and the source where there is one."""
    if not clips.keyframes or clips.result is None:
        return None
    shown = []
    for place, (frame, picture) in enumerate(clips.keyframes.items()):
        stills = {} if clips.source is None else {"source": clips.source[frame]}
        stills |= {"keyframe": picture, "result": clips.result[frame]}
        shown.append(
            {
                "frame": frame,
                "time": f"{frame / clips.fps:.2f} s",
                "file": names[place] if place < len(names) else "",
                "stills": {name: embed_image(still, STILL_WIDTH) for name, still in stills.items()},
                "distance": float(np.abs(clips.result[frame].astype(np.int16) - picture).mean()),
            }
        )
    return {"note": "", "keyframes": shown}


def junction_strips(clips: Clips) -> Section | None:
    """The frames around every join, each with its change from the frame before; a click shows it in the player."""
    if not clips.joins or clips.result is None:
        return None
    frames, strips = clips.result, []
    for at in clips.joins:
        near = [i for i in range(at - STRIP_RADIUS, at + STRIP_RADIUS + 1) if 0 <= i < len(frames)]
        changes = {i: float(np.abs(frames[i].astype(np.int16) - frames[i - 1]).mean()) for i in near if i}
        most = max(changes.values(), default=0) or 1.0
        stills = [
            {
                "frame": i,
                "word": "join" if i == at else f"{i - at:+d}",
                "change": f"{changes[i]:.1f}" if i in changes else "",
                "bar": 100 * changes.get(i, 0) / most,
                "picture": embed_image(frames[i], STRIP_WIDTH),
            }
            for i in near
        ]
        strips.append({"frame": at, "time": f"{at / clips.fps:.2f} s", "stills": stills})
    note = (
        "Four frames on either side of each keyframe that two segments share. The bar is the mean change from the "
        "frame before, in levels: a join that shows is a bar that stands out. A click jumps there."
    )
    return {"note": note, "strips": strips}
