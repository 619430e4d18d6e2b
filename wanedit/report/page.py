"""The shell of a report: one file that asks nothing of any network, with its own style and script."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from wanedit.report.facts import own_version
from wanedit.report.markup import Html, escape, join, tag

# In the order in which the sections stand, for the list of contents.
CONTENTS = {
    "differences": "Differences",
    "player": "Video",
    "keyframes": "Keyframes",
    "junctions": "Junctions",
    "convergence": "Convergence",
    "metrics": "Metrics",
    "plan": "Plan",
    "config": "Configuration",
    "provenance": "Provenance",
}


def page(title: str, header: Html, sections: Sequence[Html | None]) -> str:
    """The whole file."""
    body = join(sections)
    shown = [(name, word) for name, word in CONTENTS.items() if f'<section id="{name}"' in body]
    links = tag("ul", *(tag("li", tag("a", word, href=f"#{name}")) for name, word in shown))
    style, script = _asset("style.css"), _asset("script.js")
    parts = {
        "policy": Html(_policy(style, script)),
        "title": escape(title),
        "style": Html(style),
        "script": Html(script),
        "header": header,
        "contents": links,
        "main": body,
        "version": escape(own_version()),
    }
    # One pass, so that no text of a run is taken for a place to be filled.
    pieces = _asset("page.html").split("{{")
    parts["size"] = escape(_megabytes(sum(len(part.encode()) for part in [*pieces, *parts.values()])))
    return "".join([pieces[0], *(_filled(piece, parts) for piece in pieces[1:])])


def _filled(piece: str, parts: dict[str, Html]) -> str:
    name, rest = piece.split("}}", 1)
    return parts[name] + rest


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size < 1e7 else f"{size / 1e6:.0f} MB"


def _policy(style: str, script: str) -> str:
    """Nothing from anywhere but this file: data URIs, and the one style and the one script by their hashes."""
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return files("wanedit.report").joinpath(name).read_text(encoding="utf-8")
