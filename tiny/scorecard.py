"""A table of measured quantities beside what was asked of them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One quantity.

    Attributes:
        value: None: not measured, and `note` says why.
        bar: what is asked; None for a figure that only informs.
        at_least: the bar is a lower bound; else an upper one.
        count: clips, pictures or sprites that the value is a mean of; 0 where that means nothing.
    """

    name: str
    value: float | None
    unit: str = ""
    bar: float | None = None
    at_least: bool = True
    count: int = 0
    note: str = ""

    @property
    def verdict(self) -> str:
        """pass, MISS, or nothing where there is no bar or no value."""
        if self.value is None:
            return "not measured"
        if self.bar is None:
            return ""
        # NaN passes no bar.
        return "pass" if (self.value >= self.bar if self.at_least else self.value <= self.bar) else "MISS"


def table(rows: Sequence[Row]) -> str:
    """Aligned columns: quantity, measured, bar, clips, verdict and note."""
    lines = [("quantity", "measured", "bar", "clips", ""), *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(_line(line, widths) for line in lines)


def as_dict(rows: Sequence[Row]) -> list[dict]:
    """For JSON, which knows no NaN: the fields of every row and its verdict; null for a value that is not finite."""
    return [asdict(row) | {"value": _finite(row.value), "verdict": row.verdict} for row in rows]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    sign = ">=" if row.at_least else "<="
    end = "; ".join(part for part in (row.verdict, row.note) if part)
    return (
        row.name,
        "-" if row.value is None else _number(row.value, row.unit),
        "" if row.bar is None else f"{sign} {_number(row.bar, row.unit)}",
        str(row.count or ""),
        end,
    )


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    digits = 3 if unit == "RGB" else 2
    return f"{value:.{digits}f} {unit}".rstrip()


def _line(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    name, *numbers = cells[:4]
    padded = [
        name.ljust(widths[0]),
        *(text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)),
    ]
    return "  ".join([*padded, cells[4]]).rstrip()
