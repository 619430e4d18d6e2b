"""The figures of an edit's steps: residual, keyframe error, gain."""

import math
from collections.abc import Sequence

from wanedit.report.chart import Band, Level, Line, chart
from wanedit.report.contraction import Contraction, contraction
from wanedit.report.markup import Html, section, tag
from wanedit.report.record import Record, mapping

COLOURS = 6
PREDICTED = "predicted contraction ∏ ρ|1 − αh|"


def curves(records: Sequence[Record], names: Sequence[str]) -> Html | None:
    """The figures of one run, or of several in one picture each; nothing where none has steps on record."""
    every = [contraction(record.steps, mapping(record.start.get("method"))) for record in records]
    found = [(name, series) for name, series in zip(names, every, strict=True) if series is not None]
    if not found:
        return None
    alone = found[0][1] if len(found) == 1 else None
    figures = [_residual(found, alone), _error(found), _gain(found)]
    grid = tag("div", *filter(None, figures), class_="charts")
    return section("convergence", "Convergence", grid, note=_note(alone))


def _residual(found: Sequence[tuple[str, Contraction]], alone: Contraction | None) -> Html:
    lines = [
        Line(_name("measured", name, alone), s.residual, k % COLOURS) for k, (name, s) in enumerate(found)
    ]
    for k, (name, series) in enumerate(found):
        if len(series.decay) > 1:
            colour = 1 if alone else k % COLOURS
            lines.append(Line(_name(PREDICTED, name, alone), series.decay, colour, dashed=True, dots=False))
    bands = [Band("what the recursion allows", alone.low, alone.high)] if alone and alone.low else []
    told = "Predicted key difference after the step, |r| = |d − h Δv|, relative to the keyframes' size."
    if any(len(series.decay) > 1 for _, series in found):
        told += (
            " Dashed: how the first value alone would fade; what stays above it is driven in anew by the model's own "
            "error e at every step."
        )
    if alone and alone.low and not math.isnan(alone.within):
        told += f" {alone.within:.0%} of the steps lie in the shaded band that the recursion allows."
    return chart("residual", "Residual at the keyframes", told, lines, bands, log=True)


def _error(found: Sequence[tuple[str, Contraction]]) -> Html | None:
    lines = [Line(name, series.error, k % COLOURS) for k, (name, series) in enumerate(found) if series.error]
    if not lines:
        return None
    lines = [Line("measured", lines[0].points)] if len(found) == 1 else lines
    told = (
        "|x̂₀[K] − x_e| / |x_e|: how far the clip that the model is heading for is from the edited keyframes."
    )
    return chart("keyframe-error", "Keyframe error", told, lines)


def _gain(found: Sequence[tuple[str, Contraction]]) -> Html | None:
    lines = [Line(name, series.gain, k % COLOURS) for k, (name, series) in enumerate(found) if series.gain]
    if not lines:
        return None
    lines = [Line("applied", lines[0].points)] if len(found) == 1 else lines
    told = (
        "Share of the predicted difference that a step takes away. At 1 all of it; beyond 2 the step overshoots "
        "further than it was off."
    )
    return chart(
        "gain", "Gain × step, αh", told, lines, levels=[Level(1.0, "exact"), Level(2.0, "limit of stability")]
    )


def _name(what: str, run: str, alone: Contraction | None) -> str:
    return what if alone is not None else f"{run}, {what}"


def _note(alone: Contraction | None) -> Html | str:
    if alone is not None and alone.unpredicted:
        return f"Nothing is predicted of this method: {alone.unpredicted}."
    return tag(
        "span",
        "The key difference d obeys d′ = (1 − αh)(ρ d + (1 − ρ) e), ρ = σ′/σ: docs/math_verification.md.",
    )
