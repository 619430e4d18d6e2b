"""What a run was told, planned and made of: settings, plan, hashes, versions. From its records alone."""

import platform
from collections.abc import Sequence
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wanedit import timeline
from wanedit.report.clips import keyframe_places
from wanedit.report.markup import Html, details, join, section, table, tag
from wanedit.report.privacy import last_name
from wanedit.report.record import Record, listing, mapping

PACKAGES = ("torch", "diffsynth", "lightning", "av", "numpy")
SHORT = 12
Fact = tuple[str, Any]


def facts(pairs: Sequence[Fact]) -> Html:
    """Names and values side by side; those without a value are left out."""
    return tag(
        "dl", *(join([tag("dt", n), tag("dd", v)]) for n, v in pairs if v not in (None, "")), class_="facts"
    )


def plan_section(record: Record) -> Html:
    """What was to be made, and what it took."""
    body = _edit_plan(record) if record.kind == "edit" else _generation_plan(record)
    warnings = [record.discreet.text(str(text)) for text in listing(record.start.get("warnings"))]
    told = None
    if warnings:
        items = tag("ul", *(tag("li", text) for text in warnings))
        told = tag("div", tag("h3", "Warnings"), items, class_="warnings")
    return section("plan", "Plan", body, told)


def _edit_plan(record: Record) -> Html:
    config, done = record.config, edited_event(record)
    info, places = record.info, keyframe_places(record)
    steps = f"{config.get('num_inference_steps')} steps, shift {_number(config.get('shift'))}"
    guided = f"{_number(config.get('guidance_scale'))}; source {_number(config.get('source_guidance_scale'))}"
    slots = ", ".join(f"{place} (slot {timeline.slot(place)})" for place in places if place >= 0)
    output = (
        f"{info.frames} frames of {info.width} × {info.height} at {_rate(info.fps)} fps" if info else None
    )
    return facts(
        [
            ("Source", f"{last_name(str(config.get('video')))}, from frame {config.get('start', 0)}"),
            ("Output", output),
            ("Worked at", str(config.get("size") or "").replace("*", " × ") or None),
            ("Keyframes", f"{slots or 'not known'}"),
            ("Keyframe files", ", ".join(keyframe_names(record)) or None),
            ("Method", config.get("method")),
            ("Controller", _controller(record)),
            ("Schedule", steps),
            ("Guidance", guided),
            ("Seed", record.start.get("seed", config.get("base_seed"))),
            ("Tokens", done.get("tokens")),
            ("Network evaluations", done.get("evaluations")),
            ("Time", seconds(done.get("seconds"))),
        ]
    )


def _controller(record: Record) -> str | None:
    chosen = mapping(record.start.get("method")).get("controller")
    if not isinstance(chosen, dict):
        return None
    rest = ", ".join(f"{name} {_number(value)}" for name, value in chosen.items() if name != "kind")
    return f"{str(chosen.get('kind', '')).lower()}{f' ({rest})' if rest else ''}"


def _generation_plan(record: Record) -> Html:
    config, info, places = record.config, record.info, keyframe_places(record)
    solver = config.get("solver")
    output = (
        f"{info.frames} frames of {info.width} × {info.height} at {_rate(info.fps)} fps" if info else None
    )
    top = facts(
        [
            ("Output", output),
            ("Keyframes", ", ".join(map(str, places)) or "not known"),
            ("Keyframe files", ", ".join(keyframe_names(record)) or None),
            (
                "Sampler",
                f"{solver}, {config.get('num_inference_steps')} steps, shift {_number(config.get('shift'))}",
            ),
            ("Guidance", _number(config.get("guidance_scale"))),
            ("Seed", record.start.get("seed", config.get("base_seed"))),
        ]
    )
    rows = [_segment_row(record, name, places) for name in record.digests]
    if not rows:
        return join([top, tag("p", "No segment is complete.", class_="empty")])
    heads = ["Segment", "Frames", "Sampled", "Tokens", "Evaluations", "Time", "Rank", "Hash"]
    return join([top, table(heads, rows, "Segments", numbers=True)])


def _segment_row(record: Record, name: str, places: Sequence[int]) -> list[Any]:
    entry = record.entries[name]
    event = next((e for e in reversed(record.events) if e.get("segment") == entry.index), {})
    ends = places[entry.index : entry.index + 2]
    span = f"{ends[0]} … {ends[1]} ({ends[1] - ends[0] + 1})" if len(ends) == 2 else "–"
    asked, tokens = event.get("steps"), event.get("tokens", "–")
    return [
        entry.index,
        span,
        entry.frames,
        tokens,
        evaluations(record.config, asked),
        seconds(entry.seconds),
        entry.rank,
        tag("code", name[:SHORT], title=name),
    ]


def evaluations(config: dict[str, Any], steps: Any) -> Any:
    """How often the network was asked for one segment: guidance asks twice, Heun twice but for its last step."""
    if not isinstance(steps, int):
        return "–"
    each = 2 * steps - 1 if config.get("solver") == "heun" else steps
    return each * (1 if config.get("guidance_scale") in (1, 1.0) else 2)


def edited_event(record: Record) -> dict[str, Any]:
    """The end of the edit that stands in the folder; empty where it has none."""
    name = record.start.get("edit")
    done = [
        e for e in record.events if e.get("event") == "edited" and (name is None or e.get("digest") == name)
    ]
    return done[-1] if done else {}


def keyframe_names(record: Record) -> list[str]:
    """Last names of the keyframes' files."""
    given = record.config.get("keyframes")
    entries = given if isinstance(given, list) else []
    return [last_name(str(entry[0])) for entry in entries if isinstance(entry, list | tuple) and entry]


def settings(record: Record) -> dict[str, str]:
    """Every setting by its path, as text, without folders and secrets: for tables and to compare."""
    values = record.discreet.value(record.config)
    # With alpha and iterations, what the method's own defaults are.
    method = record.discreet.value(mapping(record.start.get("method")))
    return dict([*_flat(values), *((f"method · {name}", value) for name, value in _flat(method))])


def _flat(value: Any, at: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [
            pair
            for name, part in value.items()
            for pair in _flat(part, f"{at} · {name}" if at else str(name))
        ]
    if isinstance(value, list) and value and all(isinstance(part, list) for part in value):
        return [(at, "; ".join(", ".join(map(_text, part)) for part in value))]
    return [(at, _text(value))]


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return _number(value) if isinstance(value, float) else str(value) if value != "" else "“”"


def config_section(record: Record) -> Html:
    """Every setting, to be opened."""
    rows = [[name, tag("span", value, class_="wrap")] for name, value in settings(record).items()]
    shown = details(f"All {len(rows)} settings", table(["Setting", "Value"], rows, "Settings"))
    return section(
        "config", "Configuration", shown, note="As resolved by the run. Of paths only the last name."
    )


def provenance_section(records: Sequence[Record], names: Sequence[str]) -> Html:
    """What decides the pixels: hashes of model files and of the work, versions."""
    parts = []
    for record, name in zip(records, names, strict=True):
        title = "Hashes" if len(records) == 1 else name
        parts.append(details(title, _hashes(record)))
    return section("provenance", "Provenance", _versions(records, names), *parts)


def _hashes(record: Record) -> Html:
    files = mapping(record.start.get("model_files"))
    rows = [["model file", last_part(name), _code(value)] for name, value in files.items()]
    for key in listing(record.start.get("keyframes")):
        if isinstance(key, dict) and key.get("sha256"):
            rows.append(["keyframe's pixels", last_name(str(key.get("file"))), _code(key["sha256"])])
    for name in record.digests:
        entry = record.entries[name]
        rows.append(["all that decides", entry.file, _code(name)])
        rows.append(["file", entry.file, _code(entry.file_sha256)])
        if entry.latents_sha256:
            rows.append(["latents", entry.file, _code(entry.latents_sha256)])
    return table(["SHA-256 of", "Name", "Hash"], rows, "Hashes")


def last_part(name: str) -> str:
    """A path inside the model's folder as it is, one from the root by its last name."""
    return last_name(name) if Path(name).is_absolute() else name


def _code(value: Any) -> Html:
    return tag("code", value)


def _versions(records: Sequence[Record], names: Sequence[str]) -> Html:
    made = [(r.start.get("wanedit"), r.start.get("time"), r.start.get("model")) for r in records]
    found: list[Fact] = []
    for name, (by, at, model) in zip(names, made, strict=True):
        told = ", ".join(str(part) for part in (f"wanedit {by}" if by else None, model, when(at)) if part)
        found.append(("Made with" if len(records) == 1 else name, told))
    here = ", ".join(f"{name} {installed(name)}" for name in PACKAGES if installed(name))
    return facts(
        [*found, ("Report by", f"wanedit {own_version()}, Python {platform.python_version()}, {here}")]
    )


def own_version() -> str:
    """Of this code."""
    from wanedit import __version__

    return __version__


def installed(name: str) -> str | None:
    """The version of a package; None where it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def when(time: Any) -> str | None:
    """A recorded time for a person."""
    return str(time).replace("T", " ").replace("+00:00", " UTC") if time else None


def seconds(value: Any) -> str | None:
    """Wall time in few digits."""
    if not isinstance(value, int | float):
        return None
    return f"{value:.1f} s" if value < 120 else f"{value // 60:.0f} min {value % 60:.0f} s"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _rate(fps: Fraction) -> str:
    return f"{float(fps):.5g}"
