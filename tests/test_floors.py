"""Each floor of wanedit imports only lower floors, and the wings of floor 1 not each other (design, section 1)."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

# `from wanedit import __version__` reads a string of the package, which stands on no floor.
FOUNDATION = {
    "rng",
    "timeline",
    "errors",
    "files",
    "outside",
    "progress",
    "registry",
    "interrupts",
    "__version__",
}
WINGS = {"flow", "wan", "video", "metrics", "sprites", "stylists"}
RUNTIME = WINGS | {"lit", "runtime"}
# Packages beside this one in the repository, which build on it.
BESIDE = ("tiny", "experiments", "math_verification", "paper", "benchmarks", "tests")
# Part -> parts that it may import besides itself and the foundation. None: anything.
ALLOWED: dict[str, set[str] | None] = {
    **{part: set() for part in FOUNDATION | WINGS},
    "stylists": {"video"},
    # Optical flow and CIELAB stand in video; a second copy of them for what is measured would be worse.
    "metrics": {"video"},
    "lit": WINGS,
    "runtime": WINGS | {"lit"},
    "tracking": RUNTIME,
    # No job knows another, except those that run others.
    **{f"jobs.{job}": RUNTIME | {"tracking"} for job in ("generate", "edit", "style", "evaluate")},
    "jobs.ablate": RUNTIME | {"tracking", "jobs.generate", "jobs.edit", "jobs.evaluate"},
    "jobs.integrated": RUNTIME | {"tracking", "jobs.style", "jobs.edit"},
    "jobs.many": RUNTIME | {"tracking"},
    "jobs": set(),
    "report": RUNTIME | {"tracking", "jobs.evaluate"},
    "board": RUNTIME
    | {"tracking", "jobs.generate", "jobs.edit", "jobs.style", "jobs.integrated", "report", "cli"},
    "commands": None,
    "cli": None,
    "__main__": None,
    "__init__": None,
}
# Imports of before the house was rebuilt; every line goes.
OPEN: set[str] = set()


def imported(source: str) -> set[str]:
    """Modules of this repository that a source imports, at the top or inside a function, or loads by name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import; write the module's full name"
            # `from wanedit import wan` imports a module, `from wanedit.wan import load_wan` a name of one.
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
            names |= {str(node.args[0].value)} if isinstance(node.args[0], ast.Constant) else set()
    return {name for name in names if name.split(".")[0] in ("wanedit", *BESIDE)}


def part_of(module: str) -> str:
    """wanedit.flow.path belongs to flow, wanedit.jobs.edit.plan to jobs.edit, wanedit itself to __init__."""
    parts = [*module.split("."), "__init__"][1:]
    return ".".join(parts[:2]) if parts[0] == "jobs" and parts[1] != "__init__" else parts[0]


def circles(sources: dict[str, str]) -> list[set[str]]:
    """Modules that import each other, directly or by way of others, at the top or inside a function."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        # A name of a module stands for the module.
        targets = {name if name in sources else name.rpartition(".")[0] for name in imported(source)}
        graph[module] = {target for target in targets if target in sources and target != module}
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, left = set(), [start]
        while left:
            for target in graph[left.pop()] - seen:
                seen.add(target)
                left.append(target)
        reach[start] = seen
    found = {frozenset(b for b in graph if b in reach[a] and a in reach[b]) for a in graph if a in reach[a]}
    return [set(circle) for circle in found]


def violations(module: str, source: str) -> list[str]:
    """Imports of `source` that a module of this name may not have."""
    beside = [f"{module} imports {name}" for name in sorted(imported(source)) if name.split(".")[0] in BESIDE]
    part = part_of(module)
    if beside or part not in ALLOWED:
        return beside or [f"{module}: {part} stands on no floor"]
    allowed = ALLOWED[part]
    if allowed is None:
        return []
    reachable = allowed | {part} | FOUNDATION
    return [f"{module} imports {name}" for name in sorted(imported(source)) if part_of(name) not in reachable]


def modules(repository: Path) -> dict[str, str]:
    root = repository / "wanedit"
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = ("wanedit", *path.relative_to(root).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


def test_no_module_imports_a_higher_floor_or_another_wing(repository: Path) -> None:
    sources = modules(repository)
    assert len(sources) > 20
    found = {v for name, source in sources.items() for v in violations(name, source)}
    assert sorted(found - OPEN) == []
    assert sorted(OPEN - found) == [], "mended: take it out of OPEN"


def test_no_modules_import_each_other_in_a_circle(repository: Path) -> None:
    assert circles(modules(repository)) == []


def test_the_checker_sees_a_circle() -> None:
    sources = {
        "wanedit.a": "from wanedit.b import f",
        "wanedit.b": "def f():\n    import wanedit.c",
        "wanedit.c": "",
    }
    assert circles(sources) == []
    assert circles(sources | {"wanedit.c": "from wanedit import a"}) == [
        {"wanedit.a", "wanedit.b", "wanedit.c"}
    ]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("wanedit.flow.path", "from wanedit.wan.config import WanConfig"),
        ("wanedit.wan.vae", "def f():\n    import wanedit.flow.path"),
        ("wanedit.timeline", "from wanedit.flow import path"),
        ("wanedit.video.decode", "from wanedit import lit"),
        ("wanedit.lit.chain", "from wanedit.jobs.generate.plan import build"),
        ("wanedit.jobs.generate.plan", "from wanedit import cli"),
        ("wanedit.jobs.edit.plan", "from wanedit.jobs.generate.plan import make_plan"),
        ("wanedit.runtime.record", "from wanedit.jobs.edit.config import EditConfig"),
        ("wanedit.metrics.lpips", 'import importlib\nimportlib.import_module("wanedit.wan")'),
        ("wanedit.commands.evaluate", "def f():\n    from tiny.common import cosine"),
        ("wanedit.newcomer", ""),
    ],
)
def test_the_checker_sees_a_violation(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("wanedit.stylists.palette.stylist", "from wanedit.video import read"),
        ("wanedit.flow.path", "from wanedit.errors import InputError\nimport torch"),
        ("wanedit.lit.chain", "from wanedit.wan.load import load_wan\nfrom wanedit.flow.path import Step"),
        ("wanedit.jobs.generate.plan", "from wanedit.lit.chain import SegmentTask"),
        ("wanedit.cli", "from wanedit.jobs.generate.run import generate"),
    ],
)
def test_the_checker_lets_the_rest_pass(module: str, source: str) -> None:
    assert violations(module, source) == []


HEAVY = ("torch", "numpy", "lightning", "diffsynth", "transformers", "cv2", "pydantic")
HELP = """
import contextlib, io
from wanedit.cli import main
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    main({words})
assert "{expected}" in text.getvalue()
"""
REPORT = f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"


@pytest.mark.parametrize(
    "code",
    ["import wanedit", HELP.format(words=["--help"], expected="generate")],
    ids=["import", "help"],
)
def test_import_and_help_import_nothing_heavy(code: str) -> None:
    # What is imported, and not how long it takes, which depends on what else the machine does.
    done = subprocess.run([sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
