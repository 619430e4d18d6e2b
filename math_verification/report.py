"""What a claim hands back: rows that can fail, and the table they are printed in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Size:
    """How much is measured; `QUICK` is for tests.

    Attributes:
        samples: clips of a Monte Carlo estimate.
        refinements: step counts of an order of convergence.
        budgets: network evaluations that methods are compared at.
        steps: of a run whose discretisation error must be small beside the sampling error.
        probes: random directions through wan-tiny.
    """

    samples: int = 4096
    refinements: int = 5
    budgets: tuple[int, ...] = (10, 20, 40, 80, 160)
    steps: int = 200
    probes: int = 2


FULL = Size()
QUICK = Size(samples=256, refinements=3, budgets=(20, 40), steps=60, probes=1)


@dataclass(frozen=True)
class Row:
    """One measured sentence. `error` is compared with `bound`; a NaN never passes."""

    what: str
    predicted: str
    measured: str
    error: float
    bound: float
    passed: bool


class Result(Protocol):
    """Numbers of one claim, as typed fields, and how they are judged and drawn."""

    def rows(self) -> list[Row]: ...

    def figures(self) -> dict[str, Figure]: ...


def number(value: float) -> str:
    """Four digits, the same on every line."""
    return f"{value:.4g}"


def equals(what: str, predicted: float, measured: float, tolerance: float) -> Row:
    """|measured - predicted| <= tolerance."""
    error = abs(measured - predicted)
    return Row(what, number(predicted), number(measured), error, tolerance, error <= tolerance)


def at_most(what: str, measured: float, bound: float) -> Row:
    """measured <= bound; the error is the measurement itself."""
    return Row(what, f"<= {number(bound)}", number(measured), measured, bound, measured <= bound)


def at_least(what: str, measured: float, bound: float) -> Row:
    """measured >= bound; the error is what is missing."""
    return Row(
        what, f">= {number(bound)}", number(measured), max(0.0, bound - measured), 0.0, measured >= bound
    )


def reported(what: str, *measured: float) -> Row:
    """Numbers that no theory predicts: they only have to be finite."""
    finite = all(math.isfinite(value) for value in measured)
    return Row(what, "finite", " ".join(f"{value:.2g}" for value in measured), math.nan, math.nan, finite)


def slope(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """The order p of error ~ size^p, by least squares in logarithms."""
    x = torch.tensor(sizes, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / (x * x).sum())


def print_table(claims: dict[str, tuple[str, list[Row], float]]) -> None:
    """Claim -> (its sentence, rows, seconds)."""
    from rich.console import Console
    from rich.table import Table

    # Wide enough for every column even where the output is a file.
    console = Console(width=None if Console().is_terminal else 150)
    table = Table(show_lines=False, title="math_verification")
    for name, justify in (
        ("claim", "left"),
        ("predicted", "right"),
        ("measured", "right"),
        ("error", "right"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # pyright: ignore[reportArgumentType]
    table.add_column("verdict")
    for name, (sentence, rows, seconds) in claims.items():
        table.add_section()
        table.add_row(f"[bold]{name}[/] ({seconds:.1f} s): {sentence}", "", "", "", "")
        for row in rows:
            # A number that nothing predicts cannot hold: it is there to be read.
            good = "measured" if math.isnan(row.bound) else "[green]holds[/]"
            verdict = good if row.passed else "[red]FAILS[/]"
            error = "" if math.isnan(row.bound) else f"{row.error:.1e}"
            table.add_row(f"  {row.what}", row.predicted, row.measured, error, verdict)
    console.print(table)
