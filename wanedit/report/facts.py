"""What a run was told, planned and made of: settings, plan, hashes, versions. From its records alone."""

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wanedit import __version__, timeline
from wanedit.report.clips import keyframe_places
from wanedit.report.record import Record, listing, mapping
from wanedit.runtime.events import Event, number
from wanedit.runtime.privacy import last_name

PACKAGES = ("torch", "diffsynth", "lightning", "av", "numpy")
Section = dict[str, object]
Fact = tuple[str, object]


def plan(record: Record) -> Section:
    """What was to be made, and what it took."""
    config, info, places = record.config, record.info, keyframe_places(record)
    output = (
        f"{info.frames} frames of {info.width} × {info.height} at {float(info.fps):.5g} fps" if info else None
    )
    files = ", ".join(keyframe_names(record))
    steps = f"{config.get('num_inference_steps')} steps, shift {_text(config.get('shift'))}"
    if levels := listing(config.get("noise_levels")):
        steps = f"{config.get('num_inference_steps')} steps at {', '.join(map(_text, levels))}"
    guidance, seed = _text(config.get("guidance_scale")), record.start.get("seed", config.get("base_seed"))
    if (low := config.get("guidance_scale_low")) is not None:
        guidance += f", then {_text(low)}"
    if record.job == "edit":
        done = edited_event(record)
        slots = ", ".join(f"{place} (slot {timeline.slot(place)})" for place in places if place >= 0)
        controller = mapping(record.edit[0].get("controller"))
        options = ", ".join(f"{name} {_text(value)}" for name, value in controller.items() if name != "kind")
        facts: list[Fact] = [
            ("Source", f"{last_name(str(config.get('video')))}, from frame {config.get('start', 0)}"),
            ("Output", output),
            ("Worked at", str(config.get("size") or "").replace("*", " × ")),
            ("Keyframes", slots or "not known"),
            ("Keyframe files", files),
            ("Method", config.get("method")),
            ("Controller", str(controller.get("kind", "")).lower() + (f" ({options})" if options else "")),
            ("Schedule", steps),
            ("Guidance", f"{guidance}; source {_text(config.get('source_guidance_scale'))}"),
            ("Seed", seed),
            ("Tokens", done.get("tokens")),
            ("Network evaluations", done.get("evaluations")),
            ("Time", seconds(done.get("seconds"))),
        ]
        segments = None
    else:
        facts = [
            ("Output", output),
            ("Keyframes", ", ".join(map(str, places)) or "not known"),
            ("Keyframe files", files),
            ("Sampler", f"{config.get('solver')}, {steps}"),
            ("Guidance", guidance),
            ("Seed", seed),
        ]
        segments = [_segment(record, name, places) for name in record.digests]
    warnings = [record.discreet.text(str(text)) for text in listing(record.start.get("warnings"))]
    return {"note": "", "facts": _known(facts), "segments": segments, "warnings": warnings}


def _known(pairs: Iterable[Fact]) -> list[Fact]:
    return [(name, value) for name, value in pairs if value not in (None, "")]


def _segment(record: Record, name: str, places: Sequence[int]) -> list[object]:
    entry = record.entries[name]
    event = next(
        (
            e
            for e in reversed(record.events)
            if (e.get("event"), e.get("segment"), e.get("digest", name)) == ("segment", entry.index, name)
        ),
        {},
    )
    # By its number it stands elsewhere, where keyframes were put in or taken out.
    place = record.chain.index(name) if name in record.chain else entry.index
    ends = places[place : place + 2]
    span = f"{ends[0]} … {ends[1]} ({ends[1] - ends[0] + 1})" if len(ends) == 2 else "–"
    asked = event.get("evaluations") or evaluations(record.config, event.get("steps"))
    taken = seconds(entry.seconds)
    return [place, span, entry.frames, event.get("tokens", "–"), asked, taken, entry.rank, name]


def evaluations(config: Mapping[str, object], steps: object) -> int | str:
    """How often the network was asked for one segment: guidance asks twice, Heun twice but for its last step. For
    records of before, whose segments do not say."""
    if not isinstance(steps, int):
        return "–"
    each = 2 * steps - 1 if config.get("solver") == "heun" else steps
    return each * (1 if config.get("guidance_scale") in (1, 1.0) else 2)


def edited_event(record: Record) -> Event:
    """The end of the edit that stands in the folder; empty where it has none."""
    name = record.edit_digest
    ends = (e for e in reversed(record.events) if e.get("event") == "edited")
    return next((e for e in ends if name is None or e.get("digest") == name), {})


def keyframe_names(record: Record) -> list[str]:
    """Last names of the keyframes' files."""
    entries = listing(record.config.get("keyframes"))
    return [last_name(str(entry[0])) for entry in entries if isinstance(entry, list | tuple) and entry]


def settings(record: Record) -> dict[str, str]:
    """Every setting by its path, as text, without folders and secrets: for tables and to compare."""
    values = record.discreet.value(record.config)
    # With alpha and iterations, what the method's own defaults are.
    method = record.discreet.value(record.edit[0])
    return dict([*_flat(values), *((f"method · {name}", value) for name, value in _flat(method))])


def _flat(value: object, at: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        parts = [_flat(part, f"{at} · {name}" if at else str(name)) for name, part in value.items()]
        return [pair for part in parts for pair in part]
    if isinstance(value, list) and value and all(isinstance(part, list) for part in value):
        return [(at, "; ".join(", ".join(map(_text, part)) for part in value))]
    return [(at, _text(value))]


def _text(value: object) -> str:
    """A setting as YAML would have it, numbers in few digits."""
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else "“”"


def provenance(records: Sequence[Record], names: Sequence[str]) -> Section:
    """What decides the pixels: of each run rows of what, which and SHA-256 for model files and the work; versions."""
    made, hashes = [], []
    for record, name in zip(records, names, strict=True):
        by, told = record.start.get("wanedit"), [record.start.get("model"), when(record.start.get("time"))]
        parts = [f"wanedit {by}" if by else None, *told]
        made.append(("Made with" if len(records) == 1 else name, ", ".join(str(p) for p in parts if p)))
        files = mapping(record.start.get("model_files"))
        # A path inside the model's folder as it is, one from the root by its last name.
        shown = {file: last_name(file) if Path(file).is_absolute() else file for file in files}
        rows: list[list[object]] = [["model file", shown[file], value] for file, value in files.items()]
        for key in listing(record.start.get("keyframes")):
            if isinstance(key, dict) and key.get("sha256"):
                rows.append(["keyframe's pixels", last_name(str(key.get("file"))), key["sha256"]])
        for digest in record.digests:
            entry = record.entries[digest]
            rows.append(["all that decides", entry.file, digest])
            rows.append(["file", entry.file, entry.file_sha256])
            if entry.latents_sha256:
                rows.append(["latents", entry.file, entry.latents_sha256])
        hashes.append(("Hashes" if len(records) == 1 else name, rows))
    here = [f"wanedit {__version__}", f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            here.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return {"note": "", "versions": _known([*made, ("Report by", ", ".join(here))]), "hashes": hashes}


def when(time: object) -> str | None:
    """A recorded time for a person, to the second."""
    whole = re.sub(r"\.\d+", "", str(time))
    return whole.replace("T", " ").replace("+00:00", " UTC") if time else None


def seconds(value: object) -> str | None:
    """Wall time in few digits; None for what is no number."""
    taken = number(value)
    if taken is None:
        return None
    return f"{taken:.1f} s" if taken < 120 else f"{taken // 60:.0f} min {taken % 60:.0f} s"
