"""The page of one run."""

from wanedit.jobs.evaluate.run import Evaluation
from wanedit.report.clips import Clips, gather
from wanedit.report.curves import curves
from wanedit.report.facts import (
    config_section,
    edited_event,
    keyframe_names,
    plan_section,
    provenance_section,
    seconds,
    when,
)
from wanedit.report.markup import Html, join, tag
from wanedit.report.measures import measure, metric_tables
from wanedit.report.page import page
from wanedit.report.player import Marks, junction_strips, keyframe_stills, panes_of, player
from wanedit.report.record import Record


def run_page(record: Record, metrics: str) -> str:
    """All of one run, from what a person looks at first to what proves it."""
    clips, notes = gather(record)
    found = measure(record.root, metrics)
    marks = Marks(clips.places, clips.joins)
    return page(
        f"{record.name} · wanedit",
        _header(record, clips, found[0], [*record.notes, *notes]),
        [
            player(panes_of(clips), marks),
            keyframe_stills(clips, keyframe_names(record)),
            junction_strips(clips),
            curves([record], [record.name]),
            metric_tables([record.name], [found], record.discreet),
            plan_section(record),
            config_section(record),
            provenance_section([record], [record.name]),
        ],
    )


def _header(record: Record, clips: Clips, result: Evaluation | None, notes: list[str]) -> Html:
    prompt = str(record.config.get("prompt") or "")
    quote = tag("p", prompt, class_="prompt") if prompt else None
    tiles = tag("ul", *(_tile(*tile) for tile in _tiles(record, clips, result)), class_="tiles")
    return tag(
        "div",
        tag("p", record.kind, class_="kind"),
        tag("h1", record.name),
        quote,
        tag("p", _line(record, clips), class_="line"),
        notice(record, notes),
        tiles,
        class_="title",
    )


def notice(record: Record, notes: list[str]) -> Html | None:
    """What is amiss, where the reader begins."""
    lines = list(dict.fromkeys(record.discreet.text(note) for note in notes))
    if not lines:
        return None
    return tag(
        "div",
        tag("strong", "Not all is here"),
        tag("ul", *(tag("li", line) for line in lines)),
        class_="notice",
        role="note",
    )


def _line(record: Record, clips: Clips) -> Html:
    parts = [record.start.get("model"), when(record.start.get("time"))]
    if clips.result is not None and clips.size is not None:
        count = len(clips.result)
        parts[1:1] = [
            f"{clips.size[0]} × {clips.size[1]}",
            f"{count} frames, {count / clips.fps:.2f} s at {clips.fps:g} fps",
        ]
    seed = record.start.get("seed")
    parts.append(None if seed is None else f"seed {seed}")
    return join([tag("span", part) for part in parts if part])


def _tile(name: str, value: str, hint: str = "") -> Html:
    return tag("li", tag("b", value), tag("span", name), tag("small", hint) if hint else None)


def _tiles(record: Record, clips: Clips, result: Evaluation | None) -> list[tuple[str, str, str]]:
    """The few numbers by which a run is judged at a glance; those that are known."""
    metrics = result.metrics if result else {}
    tiles: list[tuple[str, str, str]] = []
    for group, words in (("keyframes", "at the keyframes"), ("fidelity", "to the source")):
        psnr = metrics.get(group, {}).get("psnr")
        if isinstance(psnr, int | float):
            tiles.append(("PSNR " + words, "∞ dB" if psnr == float("inf") else f"{psnr:.1f} dB", ""))
    error = edited_event(record).get("keyframe_error")
    if isinstance(error, int | float):
        tiles.append(("keyframe error, last step", f"{error:.3f}", ""))
    joins = metrics.get("junctions")
    if joins:
        showing = sum(
            any(isinstance(v, dict) and v.get("shows") for v in row.values()) for row in joins.values()
        )
        tiles.append(("joins that show", f"{showing} of {len(joins)}", ""))
    times = [record.entries[name].seconds for name in record.digests]
    if times:
        tiles.append(("sampling time", seconds(sum(times)) or "", ""))
    asked = edited_event(record).get("evaluations")
    if asked is not None:
        tiles.append(("network evaluations", str(asked), ""))
    return tiles
