"""What math_verification measured: a table of verdicts, the numbers of the text, three figures."""

import math
import re
from pathlib import Path
from typing import Any

from math_verification.claims import CLAIMS as MODULES
from math_verification.claims.modes import GAINS, SETTINGS
from math_verification.figures import CONTROLLER_STYLE
from math_verification.report import Row
from math_verification.store import Stored, read
from paper.make.look import SERIES, WIDTH, axes_row, save
from paper.make.records import CLAIMS, need
from paper.make.tex import Numbers, escape, scientific, write_table

# Claim -> (where main.tex proves it, what the table calls it, the beginning of the row that it shows).
SHOWN = {
    "recursion": ("prop:recursion", "recursion", "residual, lambda 1"),
    "stability": ("prop:stability", "stability", "alpha h at which a kick"),
    "exponential": ("prop:exponential", "exponential gain", "residual against exponential: order"),
    "degenerate": ("prop:degenerate", "degenerate branches", "pure noise, both denoised: result of edit A"),
    "identity": ("prop:identity", "identity edit", "covariance full"),
    "identity_tiny": ("prop:identity", "the same, wan-tiny", "covariance full"),
    "tweedie": ("prop:tweedie", "covariance product", "mixture, sigma 0.95"),
    "symmetry": ("prop:symmetry", "symmetry", "mixture: |(J"),
    "symmetry_tiny": ("", "symmetry, wan-tiny", "conjugate residuals leave"),
    "conditional": ("prop:conditional", "conditional sampling", "full: order of the mean"),
    "matheron": ("prop:matheron", "Matheron's rule", "full: order of the error"),
    "modes": ("", "modes", "one key, lambda 1: covariance full, right"),
    "solvers": ("", "order of solvers", "Gaussian, unipc"),
}
# Words of a row's name that the paper sets otherwise.
PRETTY = (
    (r"\|d' - rule\|", r"$|d'-\\text{rule}|$"),
    (r"alpha h", r"$\\alpha h$"),
    (r"lambda (\d)", r"$\\lambda=\1$"),
    (r"sigma (\d\.\d+) to (\d\.\d+)", r"$\\sigma$ from \1 to \2"),
    (r"\|result - x_s\|", r"$|x-x_s|$"),
    (r"\|\(J - J\^T\) u\| / \|J u\|", r"$|(J-J^\\top)u|/|Ju|$"),
    (r" in h\b", r" in $h$"),
)


def make(out: Path, numbers: Numbers) -> None:
    """All of it."""
    claims = read(need(CLAIMS), MODULES)
    _verdicts(out / "tables" / "claims.tex", numbers, claims)
    results: dict[str, Any] = {name: stored.result for name, stored in claims.items()}
    _numbers(numbers, results, claims)
    stability = results["stability"].figures()["stability"]
    stability.set_size_inches(WIDTH, 2.1)
    stability.axes[0].set_xticks([1.9, 1.95, 2.0, 2.05, 2.1])
    save(stability, out / "figures" / "stability.pdf")
    _spread(out / "figures" / "closed_form.pdf", results)
    _trained(out / "figures" / "trained.pdf", results["symmetry_tiny"])


def predicted(row: Row) -> bool:
    """Whether a theory says what this row should be."""
    return not math.isnan(row.bound) or not row.passed


def _verdicts(path: Path, numbers: Numbers, claims: dict[str, Stored]) -> None:
    rows = []
    for name, (proof, title, start) in SHOWN.items():
        found = claims[name].rows
        judged = [row for row in found if predicted(row)]
        shown = next(row for row in found if row.what.startswith(start))
        where = rf"Prop.~\ref{{{proof}}}" if proof else "measured only"
        verdict = f"{sum(row.passed for row in judged)}/{len(judged)}"
        rows.append(
            [title, where, verdict, _words(shown.what), _number(shown.predicted), _number(shown.measured)]
        )
    every = [row for stored in claims.values() for row in stored.rows]
    numbers.add("claims.count", len(claims))
    numbers.add("claims.rows", sum(map(predicted, every)))
    numbers.add("claims.hold", sum(row.passed for row in every if predicted(row)))
    numbers.add("claims.measured", sum(not predicted(row) for row in every))
    header = ["claim", "proof", "hold", "for example", "predicted", "measured"]
    write_table(path, "lllp{5.2cm}rr", header, [rows])


def _words(what: str) -> str:
    """A row's name as the paper writes it."""
    parts = [what.replace(", Gaussian and mixture", "")]
    for pattern, mathematics in PRETTY:
        parts = [piece for part in parts for piece in _cut(part, pattern, mathematics)]
    return "".join(part if part.startswith("$") else escape(part) for part in parts)


def _cut(part: str, pattern: str, mathematics: str) -> list[str]:
    """A part with its matches set as mathematics; they stay parts of their own, so that they are not escaped."""
    if part.startswith("$"):
        return [part]
    pieces = re.split(r"(\$[^$]*\$)", re.sub(pattern, mathematics, part))
    return [piece for piece in pieces if piece]


def _number(text: str) -> str:
    """`<= 1e-10`, `4.009e-15` or `1` for LaTeX."""
    sign, value = re.fullmatch(r"(?:([<>]=) )?(.+)", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
    number = float(value)
    small = number != 0 and abs(number) < 1e-3
    body = scientific(number) if small else f"${number:.4g}$"
    return {None: "", "<=": r"$\le$ ", ">=": r"$\ge$ "}[sign] + body


def _numbers(numbers: Numbers, results: dict[str, Any], claims: dict[str, Stored]) -> None:
    for key, shift, steps in (("short", 5.0, 20), ("long", 16.0, 50)):
        numbers.add(f"overshoot.{key}", f"{abs(results['recursion'].last['residual', shift, steps]):.2f}")
    for row in claims["stability"].rows:
        if row.what.startswith("fewest steps"):
            numbers.add(f"stable.shift{row.what.rsplit(' ', 1)[1]}", row.measured)
    numbers.add("stable.critical", f"{results['stability'].critical:.3f}")
    for name, share in results["matheron"].share.items():
        if name != "covariance scalar":
            numbers.add(f"share.{name.split()[0]}", rf"{100 * share:.0f}\,\%")
    numbers.add("matheron.error", scientific(results["matheron"].official["covariance full"]))
    for name in (*GAINS, "covariance full"):
        numbers.add(f"mahalanobis.{name.split()[0]}", f"{results['conditional'].distance[name]:.2g}")
    _modes(numbers, results["modes"])
    numbers.add("guided.eigenvalue", f"${results['symmetry'].least['guided']:.1f}$")
    numbers.add("identity.wan", scientific(max(results["identity_tiny"].errors.values())))
    _asymmetry(numbers, results["symmetry_tiny"])


def _modes(numbers: Numbers, modes: Any) -> None:
    first = next(iter(SETTINGS))
    best = max(modes.outcomes[first, name].right for name in GAINS)
    numbers.add("modes.gains", rf"{100 * best:.0f}\,\%")
    numbers.add("modes.covariance", rf"{100 * modes.outcomes[first, 'covariance full'].right:.0f}\,\%")
    named = next(s for s in SETTINGS if "names the mode" in s)
    best = max(modes.outcomes[named, name].right for name in GAINS)
    numbers.add("modes.named.gains", rf"{100 * best:.0f}\,\%")
    numbers.add("modes.named.covariance", rf"{100 * modes.outcomes[named, 'covariance full'].right:.0f}\,\%")
    numbers.add("modes.budget", max(outcome.evaluations for outcome in modes.outcomes.values()))


def _asymmetry(numbers: Numbers, tiny: Any) -> None:
    sigmas = [sigma for scale, sigma in tiny.probes if scale == 1.0]
    high, low = max(sigmas), min(sigmas)
    numbers.add("asymmetry.sigma.high", f"{high:g}")
    numbers.add("asymmetry.sigma.low", f"{low:g}")
    numbers.add("asymmetry.high", f"{tiny.probes[1.0, high].asymmetry:.2f}")
    numbers.add("asymmetry.low", f"{tiny.probes[1.0, low].asymmetry:.2f}")
    numbers.add("solver.gradients", f"{max(p.gradients for p in tiny.probes.values()):.0f}")
    numbers.add("solver.residuals", f"{max(p.residuals for p in tiny.probes.values()):.2f}")


def _spread(path: Path, results: dict[str, Any]) -> None:
    """How far one edited slot reaches for Gaussian data; which share of clips a keyframe takes to its mode."""
    figure, (left, right) = axes_row(2, 2.3)
    for name, profile in results["matheron"].profiles.items():
        colour, line = CONTROLLER_STYLE[name]
        if name == "covariance scalar":
            # With one key slot it is the full solve.
            continue
        shape = {"marker": "o", "linestyle": "none"} if name == "covariance full" else {"linestyle": line}
        left.plot(profile, color=colour, label=name, **shape)
    left.set(
        xlabel="slot",
        ylabel="change of the clip",
        title="one slot of Gaussian data edited by 1",
        ylim=(0, 1.35),
    )
    left.legend(ncols=2, loc="upper left")
    names = (*GAINS, "covariance scalar", "covariance full")
    labels = [s.replace("prompt names the mode", "mode named").replace(", ", "\n") for s in SETTINGS]
    for i, name in enumerate(names):
        values = [results["modes"].outcomes[setting, name].right for setting in SETTINGS]
        places = [j + 0.16 * (i - 2) for j in range(len(SETTINGS))]
        right.bar(places, values, 0.15, color=CONTROLLER_STYLE[name][0], label=name)
    right.set_xticks(
        range(len(SETTINGS)), [label.replace("lambda", "$\\lambda$ =") for label in labels], fontsize=7
    )
    right.set(title="share of mixture clips taken to the edited mode", ylim=(0, 1.45))
    right.set_yticks([0, 0.25, 0.5, 0.75, 1])
    right.grid(axis="x", visible=False)
    right.legend(ncols=2, loc="upper left")
    save(figure, path)


def _trained(path: Path, tiny: Any) -> None:
    """How far wan-tiny's derivative is from a covariance, and what solvers make of it."""
    figure, (left, right) = axes_row(2, 2.0)
    scales = list(dict.fromkeys(scale for scale, _ in tiny.probes))
    sigmas = list(dict.fromkeys(sigma for _, sigma in tiny.probes))
    for k, scale in enumerate(scales):
        probes = [tiny.probes[scale, sigma] for sigma in sigmas]
        colour, look = SERIES[k]
        left.plot(sigmas, [p.asymmetry for p in probes], look, color=colour, label=f"guidance {scale:g}")
        for j, kind in enumerate(("gradients", "residuals")):
            colour, look = SERIES[k + 2 * j]
            values = [getattr(p, kind) for p in probes]
            right.plot(sigmas, values, look, color=colour, label=f"conj. {kind}, guidance {scale:g}")
    left.axhline(math.sqrt(2), color="black", linewidth=0.8, linestyle=":")
    left.set(xlabel=r"$\sigma$", title=r"$|J-J^\top|_F/|J|_F$ on the key slots", ylim=(0, 1.6))
    left.text(0.2, 1.44, "independent entries", fontsize=7, va="bottom")
    right.axhline(1, color="black", linewidth=0.8, linestyle=":")
    right.set(
        xlabel=r"$\sigma$", title="what four products leave of the error", yscale="log", ylim=(0.08, 2e4)
    )
    left.legend(loc="lower right")
    right.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    right.minorticks_off()
    right.legend(ncols=1, loc="upper left")
    save(figure, path)
