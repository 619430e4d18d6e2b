"""The page: what stands on it for one run and for several, and the file that it becomes."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wanedit import __version__
from wanedit.errors import InputError
from wanedit.files import NO_UNICODE, system_errors, write_text
from wanedit.report import charts, facts
from wanedit.report.clips import (
    Clips,
    Pane,
    Section,
    difference,
    difference_pane,
    factor_for,
    gather,
    junction_strips,
    keyframe_stills,
    panes_of,
    player,
    same_frames,
)
from wanedit.report.measures import Measured, measure, metric_tables
from wanedit.report.record import Record, listing, read_record
from wanedit.runtime.events import number
from wanedit.runtime.inputs import run_folder
from wanedit.runtime.outputs import REPORT_NAME, page_file
from wanedit.runtime.privacy import Discreet

# A section of this name is drawn by the template of this name.
TITLES = {
    "differences": "Differences",
    "player": "Video",
    "keyframes": "Keyframes",
    "junctions": "Junctions",
    "reach": "Reach of the edit",
    "convergence": "Convergence",
    "metrics": "Metrics",
    "plan": "Plan",
    "config": "Configuration",
    "provenance": "Provenance",
}
SETTINGS_NOTE = "Of paths only the last name."
TEMPLATES = Environment(
    loader=PackageLoader("wanedit.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["short_number"] = charts.short_number
TEMPLATES.filters["sha256"] = lambda text: (
    "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
)


@dataclass(frozen=True)
class Header:
    """What a reader sees first.

    Attributes:
        line: facts of one run.
        runs: (name, what it is) of several.
        notes: what is amiss.
        tiles: (name, value) of the few numbers by which a run is judged at a glance.
    """

    kind: str
    heading: str
    prompt: str = ""
    line: Sequence[str] = ()
    runs: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    tiles: Sequence[tuple[str, str]] = ()


@system_errors()
def write_report(root: Path, output: Path | None = None, metrics: str = "auto") -> Path:
    """Write the page of one run, whole or not, and return where it is.

    Args:
        root: the run's folder, or its finished video.
        output: the file; None for report.html in the run's folder.
        metrics: "auto" for all that can be measured, "none", or names as `wanedit evaluate --metrics` takes them.

    Raises:
        InputError: no run, or the file cannot be written.
    """
    folder = run_folder(Path(root))
    target = _target(folder / REPORT_NAME if output is None else output)
    write_text(target, run_page(read_record(folder), metrics))
    return target


@system_errors()
def write_comparison(roots: Sequence[Path], output: Path, metrics: str = "auto") -> Path:
    """Write one page that compares runs. Arguments and errors as `write_report`.

    Raises:
        InputError: fewer than two runs, or one named twice.
    """
    folders = [run_folder(Path(root)) for root in roots]
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError(
            f"a comparison of {len(folders)} runs, some perhaps the same; expected two different ones or more"
        )
    target = _target(output)
    write_text(target, comparison_page([read_record(folder) for folder in folders], metrics))
    return target


def _target(output: Path) -> Path:
    target = page_file(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def render(template: str, **values: object) -> str:
    """A template of this folder with these values, every one of which is escaped."""
    return TEMPLATES.get_template(template).render(values)


def page(title: str, header: Header, sections: Mapping[str, Section | None]) -> str:
    """The whole file; a section that is None is left out."""
    assets = Path(__file__).parent / "templates"
    style, script = (
        Markup((assets / name).read_text(encoding="utf-8")) for name in ("style.css", "script.js")
    )

    def filled(size: int) -> str:
        return render(
            "page.html.j2",
            title=title,
            header=header,
            sections={name: sections[name] for name in TITLES if sections.get(name) is not None},
            titles=TITLES,
            style=style,
            script=script,
            version=__version__,
            size=f"{size / 1e6:.2f} MB" if size < 1e7 else f"{size / 1e6:.0f} MB",
        )

    # The page tells its own size.
    return filled(len(filled(0).encode(errors=NO_UNICODE)))


def run_page(record: Record, metrics: str) -> str:
    """All of one run, from what a person looks at first to what proves it."""
    clips, notes = gather(record)
    measured = measure(record.root, metrics)
    start, line = record.start, [record.start.get("model")]
    if clips.result is not None and clips.size is not None:
        count = len(clips.result)
        line.append(f"{clips.size[0]} × {clips.size[1]}")
        line.append(f"{count} frames, {count / clips.fps:.2f} s at {clips.fps:g} fps")
    line += [
        facts.when(start.get("time")),
        f"seed {start['seed']}" if start.get("seed") is not None else None,
    ]
    header = Header(
        record.kind,
        record.name,
        str(record.config.get("prompt") or ""),
        line=[str(part) for part in line if part],
        notes=list(dict.fromkeys(record.discreet.text(note) for note in [*record.notes, *notes])),
        tiles=_tiles(record, measured),
    )
    rows = [[name, value] for name, value in facts.settings(record).items()]
    return page(
        f"{record.name} · wanedit",
        header,
        {
            "player": player(panes_of(clips), clips.places, clips.joins),
            "keyframes": keyframe_stills(clips, facts.keyframe_names(record)),
            "junctions": junction_strips(clips),
            "reach": charts.reach([record], [record.name]),
            "convergence": charts.convergence([record], [record.name]),
            "metrics": metric_tables([record.name], [measured], record.discreet),
            "plan": facts.plan(record),
            "config": {
                "note": f"As resolved by the run. {SETTINGS_NOTE}",
                "head": ["Setting", "Value"],
                "rows": rows,
            },
            "provenance": facts.provenance([record], [record.name]),
        },
    )


def _tiles(record: Record, measured: Measured) -> list[tuple[str, str]]:
    """Those that are known."""
    metrics = measured[0].metrics if measured[0] else {}
    tiles = []
    for group, words in (("keyframes", "at the keyframes"), ("fidelity", "to the source")):
        psnr = metrics.get(group, {}).get("psnr")
        if isinstance(psnr, int | float):
            tiles.append((f"PSNR {words}", "∞ dB" if psnr == math.inf else f"{psnr:.1f} dB"))
    shares = [
        s for s in map(number, listing(record.reached.get("shares"))) if s is not None and math.isfinite(s)
    ]
    if shares:
        tiles.append(("of the edit carried, at the least", f"{min(shares):.0%}"))
    done = facts.edited_event(record)
    error = number(done.get("keyframe_error"))
    if error is not None:
        tiles.append(("keyframe error, last step", f"{error:.3f}"))
    joins = metrics.get("junctions")
    if joins:
        scores = [[v for v in row.values() if isinstance(v, dict)] for row in joins.values()]
        showing = sum(any(score.get("shows") for score in row) for row in scores)
        tiles.append(("joins that show", f"{showing} of {len(joins)}"))
    times = [record.entries[name].seconds for name in record.digests]
    if times:
        tiles.append(("sampling time", facts.seconds(sum(times)) or ""))
    if done.get("evaluations") is not None:
        tiles.append(("network evaluations", str(done["evaluations"])))
    return tiles


def comparison_page(records: Sequence[Record], metrics: str) -> str:
    """All of several runs, side by side: what differs first, then the pictures, then the numbers."""
    names = short_names(records)
    gathered = [gather(record) for record in records]
    clips = [found for found, _ in gathered]
    discreet = Discreet([folder for record in records for folder in record.discreet.known])
    notes, runs = [], []
    for name, record, (_, more) in zip(names, records, gathered, strict=True):
        notes += [f"{name}: {discreet.text(note)}" for note in [*record.notes, *more]]
        told = (record.kind, record.start.get("model"), facts.when(record.start.get("time")))
        runs.append((name, ", ".join(str(part) for part in told if part)))
    header = Header(
        "comparison", f"{len(records)} runs side by side", runs=runs, notes=list(dict.fromkeys(notes))
    )
    every = [facts.settings(record) for record in records]
    fields = dict.fromkeys(name for values in every for name in values)
    rows = [[name, *(values.get(name, "–") for values in every)] for name in fields]
    # Where a run wrote to is no difference between runs.
    telling = [row for row in rows if row[0] != "output"]
    differing = [row for row in telling if len(set(row[1:])) > 1]
    # There is one time line: it shows what all runs share.
    keyframes = set(clips[0].places).intersection(*(found.places for found in clips[1:]))
    joins = set(clips[0].joins).intersection(*(found.joins for found in clips[1:]))
    return page(
        f"{' / '.join(names)} · wanedit",
        header,
        {
            "differences": {
                "note": f"{len(differing)} of {len(telling)} settings differ." if differing else "",
                "head": ["Setting", *names],
                "rows": differing,
            },
            "player": player(_panes(clips, names), sorted(keyframes), sorted(joins)),
            "reach": charts.reach(records, names),
            "convergence": charts.convergence(records, names),
            "metrics": metric_tables(names, [measure(record.root, metrics) for record in records], discreet),
            "config": {
                "note": f"As resolved by the runs. {SETTINGS_NOTE}",
                "head": ["Setting", *names],
                "rows": rows,
            },
            "provenance": facts.provenance(records, names),
        },
    )


def short_names(records: Sequence[Record]) -> list[str]:
    """The folders' names, with as many of the folders above as tell them apart."""
    parts = [record.root.resolve().parts for record in records]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(path[1:]) for path in parts]


def _panes(clips: Sequence[Clips], names: Sequence[str]) -> list[Pane]:
    """The source once if all edited the same one, every result, then every difference at one amplification."""
    sources = [found.source for found in clips]
    shared = all(same_frames(source, sources[0]) for source in sources)
    panes: list[Pane] = []
    differences = []
    for name, found in zip(names, clips, strict=True):
        if found.source is not None and (not shared or not panes):
            title = "Source" if shared else f"Source of {name}"
            panes.append(Pane(title, found.source, found.fps))
        if found.result is not None:
            panes.append(Pane(name, found.result, found.fps, "", True, sound=found.sound))
        levels = difference(found)
        if levels is not None:
            differences.append((name, levels, found.fps))
    factor = min((factor_for(levels) for _, levels, _ in differences), default=1)
    return panes + [
        difference_pane(levels, fps, factor, f"{name}, difference", row=1)
        for name, levels, fps in differences
    ]
