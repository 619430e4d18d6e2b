"""The page that compares runs: what differs first, then the pictures side by side, then the numbers."""

from collections.abc import Sequence

import numpy as np

from wanedit.report.clips import Clips, difference, factor_for, gather
from wanedit.report.curves import curves
from wanedit.report.facts import provenance_section, settings, when
from wanedit.report.markup import Html, details, section, table, tag
from wanedit.report.measures import measure, metric_tables
from wanedit.report.page import page
from wanedit.report.player import Marks, Pane, difference_pane, player
from wanedit.report.privacy import Discreet
from wanedit.report.record import Record

# Where a run wrote to is no difference between runs.
PLACES = ("output",)


def comparison_page(records: Sequence[Record], metrics: str) -> str:
    """All of several runs, side by side."""
    names = short_names(records)
    gathered = [gather(record) for record in records]
    clips = [found for found, _ in gathered]
    discreet = Discreet([folder for record in records for folder in record.discreet.known])
    notes = [
        f"{name}: {discreet.text(note)}"
        for name, record, (_, more) in zip(names, records, gathered, strict=True)
        for note in [*record.notes, *more]
    ]
    found = [measure(record.root, metrics) for record in records]
    return page(
        f"{' / '.join(names)} · wanedit",
        _header(records, names, notes),
        [
            _differences(records, names),
            player(_panes(clips, names), _marks(clips)),
            curves(records, names),
            metric_tables(names, found, discreet),
            _all_settings(records, names),
            provenance_section(records, names),
        ],
    )


def short_names(records: Sequence[Record]) -> list[str]:
    """The folders' names, with as many of the folders above as tell them apart."""
    parts = [record.root.resolve().parts for record in records]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(path[1:]) for path in parts]


def _header(records: Sequence[Record], names: Sequence[str], notes: list[str]) -> Html:
    items = []
    for k, (record, name) in enumerate(zip(records, names, strict=True)):
        mark = tag("i", class_=f"swatch solid s{k % 6}", aria_hidden="true")
        told = ", ".join(
            str(p) for p in (record.kind, record.start.get("model"), when(record.start.get("time"))) if p
        )
        items.append(tag("li", mark, tag("strong", name), tag("span", told, class_="hint")))
    told = None
    if notes:
        lines = tag("ul", *(tag("li", note) for note in dict.fromkeys(notes)))
        told = tag("div", tag("strong", "Not all is here"), lines, class_="notice", role="note")
    return tag(
        "div",
        tag("p", "comparison", class_="kind"),
        tag("h1", f"{len(records)} runs side by side"),
        tag("ul", *items, class_="runs"),
        told,
        class_="title",
    )


def _differences(records: Sequence[Record], names: Sequence[str]) -> Html:
    every = [settings(record) for record in records]
    fields = [name for name in dict.fromkeys(n for values in every for n in values) if name not in PLACES]
    rows = []
    for field in fields:
        values = [values.get(field, "–") for values in every]
        if len(set(values)) > 1:
            rows.append([field, *(tag("span", value, class_="wrap") for value in values)])
    if not rows:
        return section("differences", "Differences", tag("p", "The settings are the same.", class_="empty"))
    note = f"{len(rows)} of {len(fields)} settings differ."
    return section(
        "differences", "Differences", table(["Setting", *names], rows, "Settings that differ"), note=note
    )


def _panes(clips: Sequence[Clips], names: Sequence[str]) -> list[Pane]:
    """The source once if all edited the same one, every result, then every difference at one amplification."""
    sources = [found.source for found in clips]
    shared = sources[0] is not None and all(s is not None and np.array_equal(s, sources[0]) for s in sources)
    panes: list[Pane] = []
    for name, found in zip(names, clips, strict=True):
        if found.source is not None and (not shared or not panes):
            title = "Source" if shared else f"Source of {name}"
            panes.append(Pane(title, found.source, found.fps))
        if found.result is not None:
            panes.append(Pane(name, found.result, found.fps, "", True))
    return panes + _difference_panes(clips, names)


def _difference_panes(clips: Sequence[Clips], names: Sequence[str]) -> list[Pane]:
    levels = {name: (difference(found), found.fps) for name, found in zip(names, clips, strict=True)}
    known = {name: (found, fps) for name, (found, fps) in levels.items() if found is not None}
    if not known:
        return []
    factor = min(factor_for(found) for found, _ in known.values())
    return [
        difference_pane(found, fps, factor, f"{name}, difference", row=1)
        for name, (found, fps) in known.items()
    ]


def _marks(clips: Sequence[Clips]) -> Marks:
    """Those that all runs share, for there is one time line."""
    keys = set(clips[0].places).intersection(*(found.places for found in clips[1:]))
    joins = set(clips[0].joins).intersection(*(found.joins for found in clips[1:]))
    return Marks(tuple(sorted(keys)), tuple(sorted(joins)))


def _all_settings(records: Sequence[Record], names: Sequence[str]) -> Html:
    every = [settings(record) for record in records]
    fields = list(dict.fromkeys(name for values in every for name in values))
    rows = [[f, *(tag("span", values.get(f, "–"), class_="wrap") for values in every)] for f in fields]
    shown = details(f"All {len(fields)} settings", table(["Setting", *names], rows, "Settings"))
    return section(
        "config", "Configuration", shown, note="As resolved by the runs. Of paths only the last name."
    )
