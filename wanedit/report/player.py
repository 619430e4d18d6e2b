"""The part of the page that moves: panes that one clock drives, a time line with the keyframes, strips of stills."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wanedit.report.clips import AnyClip, Clips, difference, factor_for, held, painted
from wanedit.report.embed import WIDEST, Embedded, embed_image, embed_video
from wanedit.report.markup import Html, join, section, tag
from wanedit.video.arrays import AnyFrame

STRIP_RADIUS = 4
STRIP_WIDTH = 240
STILL_WIDTH = 480


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
    if edit:
        levels = difference(clips)
        if levels is not None:
            found.append(difference_pane(levels, clips.fps, factor_for(levels)))
    return found


def difference_pane(
    levels: np.ndarray, fps: float, factor: int, title: str = "Difference", row: int = 0
) -> Pane:
    """Where the result is not the source."""
    note = f"|edited − source| × {factor}; full scale {255 / factor:.0f} of 255 levels"
    return Pane(title, painted(levels, factor), fps, note, row=row)


@dataclass(frozen=True)
class Marks:
    """What the time line shows besides the time: keyframes, and the frames at which segments join."""

    keyframes: tuple[int, ...] = ()
    joins: tuple[int, ...] = ()


def player(panes: Sequence[Pane], marks: Marks, note: str | None = None) -> Html:
    """All panes and what drives them."""
    if not panes:
        return section("player", "Video", tag("p", "There are no frames to show.", class_="empty"))
    made = [embed_video(pane.frames, pane.fps) for pane in panes]
    longest = max(panes, key=lambda pane: len(pane.frames) / pane.fps)
    rows = [_row(panes, made, row, marks) for row in sorted({pane.row for pane in panes})]
    shrunk = (
        f"Shown at {WIDEST} pixels' width; the video itself is larger."
        if any(e.reduced for e in made)
        else None
    )
    body = tag(
        "div",
        *rows,
        _transport(len(longest.frames), longest.fps, marks),
        class_="player",
        data_fps=f"{longest.fps:.10g}",
        data_frames=len(longest.frames),
        data_keyframes=",".join(map(str, marks.keyframes)),
    )
    notes = " ".join(text for text in (note, shrunk) if text)
    return section("player", "Video", body, note=notes or None)


def _row(panes: Sequence[Pane], made: Sequence[Embedded], row: int, marks: Marks) -> Html:
    """Panes of one kind. Rows of up to three are equally wide, and end together: a difference below its result."""
    widest = max(sum(pane.row == other for pane in panes) for other in {pane.row for pane in panes})
    shown = [_pane(p, e, marks) for p, e in zip(panes, made, strict=True) if p.row == row]
    columns = widest if widest <= 3 else len(shown)
    return tag("div", *shown, class_="panes", data_count=columns, data_skip=(columns - len(shown)) or None)


def _pane(pane: Pane, made: Embedded, marks: Marks) -> Html:
    count, (width, height) = len(pane.frames), made.size
    clip = tag(
        "video",
        src=made.uri,
        width=width,
        height=height,
        muted=True,
        playsinline=True,
        controls=True,
        preload="auto",
        data_fps=f"{pane.fps:.10g}",
        data_frames=count,
        aria_label=f"{pane.title}: {count} frames of {width} by {height}",
    )
    enlarge = tag(
        "button",
        "⤢",
        type="button",
        class_="enlarge",
        aria_pressed="false",
        title="Enlarge",
        aria_label=f"Enlarge {pane.title}",
    )
    key = (
        tag("span", "keyframe", class_="at-key", aria_hidden="true")
        if pane.keyed and marks.keyframes
        else None
    )
    words = tag("strong", pane.title, class_="name")
    note = tag("span", pane.note, class_="hint") if pane.note else None
    caption = tag("figcaption", words, enlarge, note)
    shape = "pane tiny" if width < 64 else "pane"
    return tag("figure", tag("div", clip, key, class_="screen"), caption, class_=shape)


def _transport(frames: int, fps: float, marks: Marks) -> Html:
    slider = tag(
        "input",
        type="range",
        min=0,
        max=frames - 1,
        value=0,
        step=1,
        class_="scrub",
        aria_label="Frame",
    )
    keys = [
        _marker("key", frame, f"Keyframe {k}, frame {frame}", fps) for k, frame in enumerate(marks.keyframes)
    ]
    seen = set(marks.keyframes)
    joins = [
        _marker("join", frame, f"Join at frame {frame}", fps) for frame in marks.joins if frame not in seen
    ]
    line = tag("div", tag("div", *keys, *joins, class_="markers"), slider, class_="timeline")
    buttons = [
        ("first", "⏮", "First frame (Home)"),
        ("back", "◀", "One frame back (left arrow; with shift ten)"),
        ("play", "▶", "Play or pause (space)"),
        ("forward", "▶", "One frame on (right arrow; with shift ten)"),
        ("last", "⏭", "Last frame (End)"),
    ]
    controls = [
        tag(
            "button",
            tag("span", aria_hidden="true", class_=f"icon {name}"),
            type="button",
            data_do=name,
            title=label,
            aria_label=label,
        )
        for name, _, label in buttons
    ]
    readout = tag(
        "output",
        tag("b", "0", class_="frame"),
        f" / {frames - 1}",
        tag("span", "0.000 s", class_="time"),
        class_="readout",
        aria_live="off",
    )
    options = [tag("option", f"{rate:g}×", value=rate, selected=rate == 1) for rate in (0.1, 0.25, 0.5, 1, 2)]
    speed = tag("label", tag("span", "Speed", class_="unseen"), tag("select", *options, class_="speed"))
    loop = tag("label", tag("input", type="checkbox", class_="loop", checked=True), " Loop", class_="check")
    row = tag(
        "div",
        tag("div", *controls, class_="buttons"),
        readout,
        tag("div", speed, loop, class_="options"),
        class_="row",
    )
    hint = tag(
        "p",
        tag("kbd", "space"),
        " play, ",
        tag("kbd", "←"),
        " ",
        tag("kbd", "→"),
        " one frame, with ",
        tag("kbd", "shift"),
        " ten, ",
        tag("kbd", "home"),
        " ",
        tag("kbd", "end"),
        class_="keys",
    )
    return tag("div", line, row, hint, class_="transport", role="group", aria_label="Playback")


def _marker(kind: str, frame: int, label: str, fps: float) -> Html:
    title = f"{label}, {frame / fps:.2f} s"
    return tag(
        "button", type="button", class_=f"marker {kind}", data_frame=frame, title=title, aria_label=title
    )


def keyframe_stills(clips: Clips, names: Sequence[str]) -> Html | None:
    """Every keyframe beside what the result shows at its frame, and the source where there is one."""
    if not clips.keyframes or clips.result is None:
        return None
    groups = []
    for place, (frame, picture) in enumerate(clips.keyframes.items()):
        source = None if clips.source is None else _still(clips.source[frame], "source", frame)
        shown = clips.result[frame]
        pictures = [source, _still(picture, "keyframe", frame), _still(shown, "result", frame)]
        name = names[place] if place < len(names) else ""
        heading = tag(
            "h3",
            f"Frame {frame}",
            tag("span", f"{frame / clips.fps:.2f} s", class_="hint"),
            tag("span", name, class_="hint file"),
        )
        distance = np.abs(shown.astype(np.int16) - picture).mean()
        told = tag(
            "p", f"mean difference of keyframe and result: {distance:.2f} of 255 levels", class_="hint"
        )
        groups.append(
            tag("article", heading, tag("div", *pictures, class_="stills"), told, class_="keyframe")
        )
    return section("keyframes", "Keyframes", tag("div", *groups, class_="keyframes"))


def _still(picture: AnyFrame, name: str, frame: int) -> Html:
    made = embed_image(picture, STILL_WIDTH)
    image = tag("img", src=made.uri, width=made.size[0], height=made.size[1], alt=f"{name}, frame {frame}")
    return tag("figure", image, tag("figcaption", name))


def junction_strips(clips: Clips) -> Html | None:
    """The frames around every join, each with its change from the frame before; a click shows it in the player."""
    if not clips.joins or clips.result is None:
        return None
    strips = [_strip(clips.result, join_, clips.fps) for join_ in clips.joins]
    note = (
        "Four frames on either side of each keyframe that two segments share. The bar is the mean change from the "
        "frame before, in levels: a join that shows is a bar that stands out. A click jumps there."
    )
    return section("junctions", "Junctions", *strips, note=note)


def _strip(frames: AnyClip, at: int, fps: float) -> Html:
    near = [i for i in range(at - STRIP_RADIUS, at + STRIP_RADIUS + 1) if 0 <= i < len(frames)]
    changes = {i: _change(frames, i) for i in near if i}
    most = max(changes.values(), default=0) or 1.0
    items = []
    for i in near:
        made = embed_image(frames[i], STRIP_WIDTH)
        image = tag("img", src=made.uri, width=made.size[0], height=made.size[1], alt="")
        change = changes.get(i)
        told = "" if change is None else f"{change:.1f}"
        bar = _bar((change or 0) / most)
        word = "join" if i == at else f"{i - at:+d}"
        label = f"Frame {i}, {word}" + (f", change {told} levels" if told else "")
        caption = tag("span", tag("b", word), tag("span", told), class_="cap")
        button = tag("button", image, bar, caption, type="button", data_frame=i, aria_label=label)
        items.append(tag("li", button, class_="at" if i == at else None))
    heading = tag("h3", f"Join at frame {at}", tag("span", f"{at / fps:.2f} s", class_="hint"))
    # Not a list in a scrolling list: the box scrolls, the list does not.
    box = tag(
        "div",
        tag("ol", *items, class_="strip"),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=f"Frames around the join at frame {at}",
    )
    return join([heading, box])


def _bar(part: float) -> Html:
    """A horizontal bar, `part` of its box long."""
    whole = tag("rect", width=100, height=6, class_="room")
    filled = tag("rect", width=f"{100 * part:.1f}", height=6, class_="fill")
    return tag(
        "svg",
        whole,
        filled,
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        class_="bar",
        aria_hidden="true",
    )


def _change(frames: AnyClip, index: int) -> float:
    return float(np.abs(frames[index].astype(np.int16) - frames[index - 1]).mean())
