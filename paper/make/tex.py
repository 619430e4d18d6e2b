"""Numbers, tables and escapes for LaTeX."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HEAD = "% Made by `make figures` from recorded results. Do not edit.\n"
_ESCAPES = {letter: f"\\{letter}" for letter in "_%&#{}$"} | {letter: f"${letter}$" for letter in "<>|"}


def escape(text: str) -> str:
    """Plain text for LaTeX; what stands between backquotes is code."""
    plain = "".join(_ESCAPES.get(letter, letter) for letter in text)
    return re.sub(r"`([^`]*)`", r"\\texttt{\1}", plain)


def signed(value: float, digits: int = 2) -> str:
    """With its sign, and a true minus."""
    return f"${value:+.{digits}f}$"


def scientific(value: float) -> str:
    """One digit and a power of ten, as mathematics."""
    digits, power = f"{value:.1e}".split("e")
    return rf"${digits}\cdot10^{{{int(power)}}}$"


def between(middle: str, low: float, high: float, digits: int = 2) -> str:
    """A value and its interval."""
    return rf"{middle} \interval{{{low:+.{digits}f}}}{{{high:+.{digits}f}}}"


@dataclass
class Numbers:
    r"""Every number of the text, by a key that `\val{key}` looks up in numbers.tex."""

    values: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, value: str | int) -> None:
        """Keep one number as the text shows it.

        Raises:
            ValueError: the key is taken.
        """
        if key in self.values:
            raise ValueError(f"two numbers are named {key}")
        self.values[key] = str(value)

    def write(self, path: Path) -> None:
        """numbers.tex: one macro for each number, whose name is its key."""
        lines = [
            rf"\expandafter\newcommand\csname val:{key}\endcsname{{{value}}}"
            for key, value in sorted(self.values.items())
        ]
        path.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


def write_table(
    path: Path, columns: str, header: Sequence[str], blocks: Iterable[Sequence[Sequence[str]]]
) -> None:
    """A booktabs table; blocks of rows are set apart by a thin rule. Cells are LaTeX."""
    rows = [" & ".join(header) + r" \\"]
    for block in blocks:
        rows += [r"\midrule", *(" & ".join(row) + r" \\" for row in block)]
    body = "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *rows, r"\bottomrule", r"\end{tabular}"]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + body + "\n", encoding="utf-8")
