"""HTML from plain values. Every text is escaped here and nowhere else; what is HTML already says so by its type."""

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: Any) -> Html:
    """Any value as HTML; what is HTML stays."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Parts one after the other; those that are None are left out."""
    return Html(between.join(escape(part) for part in parts if part is not None))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """One element. `class_` is class, `data_fps` is data-fps; True is an attribute without value, None is none."""
    opened = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        opened.append(word if value is True else f'{word}="{escape(value)}"')
    start = f"<{' '.join(opened)}>"
    return Html(start if name in VOID else f"{start}{join(children)}</{name}>")


VOID = ("img", "input", "br", "meta", "source")


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str, numbers: bool = False) -> Html:
    """A table that scrolls in its own box; the first cell of a row is its heading, numbers stand on the right."""
    kind = "numbers" if numbers else None
    heads = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)) for first, *rest in rows
    ]
    whole = tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", heads),
        tag("tbody", *body),
        class_=kind,
    )
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def section(name: str, title: str, *children: Any, note: Any = None) -> Html:
    """A part of the page with its heading, which names it for a screen reader."""
    lead = None if note is None else tag("p", note, class_="note")
    heading = tag("h2", title, id=f"{name}-title")
    return tag("section", heading, lead, *children, id=name, aria_labelledby=f"{name}-title")


def details(title: Any, *children: Any, shown: bool = False) -> Html:
    """Something to be opened."""
    return tag("details", tag("summary", title), *children, open=shown)
