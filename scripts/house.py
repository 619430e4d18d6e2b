"""The code's shape in figures: `python scripts/house.py --trace --json > before.json`; later `--compare before.json`.

Code lines: not blank, no comment alone on its line, no docstring. Comments: percent of non-blank lines.
Functions: every `def`, also of methods and nested; private: one leading underscore. Once-called: a private one whose
    name is read once in its module outside its own body, to call it or to pass it on; imports are no uses, and two
    of one name in a module share theirs. Other modules are not looked at: there, the name is another's. Length: `def`
    to end, without decorators.
Any: uses of the name per 1,000 lines, without imports and text.
Import depth: most imports in a row when one module is imported; a cycle is one module. Cycles: groups of modules that
    import each other, also inside functions. Imports under TYPE_CHECKING or of a name in a string are not seen.
Hops (--trace): our functions on the stack between `cli.main` and the loop (a solver, an editing method), without these
    two. Closures belong to the function around them; lambdas, comprehensions and generators do not count.
Functions before the network: of ours, closures too, entered before the transformer's first `velocity` or `forward`, in
    a fresh process for each command, on its main thread; what a dataclass generates does not count.
"""

import argparse
import ast
import contextlib
import importlib.util
import inspect
import io
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from types import CodeType, FrameType

Figures = dict[str, float]
Function = ast.FunctionDef | ast.AsyncFunctionDef
LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
NO_CODE = {tokenize.COMMENT, *LAYOUT}
# Where each command's loop stands: a file or a folder of this name, wherever it is.
LOOPS = {"generate": "solvers", "edit": "methods"}


class Module:
    """A source file, named as it is imported."""

    def __init__(self, path: Path, folder: Path) -> None:
        parts = (folder.resolve().name, *path.relative_to(folder).with_suffix("").parts)
        self.name = ".".join(parts).removesuffix(".__init__")
        self.package = ".".join(parts[:-1])
        self.top = "/".join([*parts[:-1][:2], ""])
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.functions = [node for node in ast.walk(self.tree) if isinstance(node, Function)]
        self.uses = uses(self.tree)

    @cached_property
    def lines(self) -> Counter[str]:
        """How many there are of each kind."""
        rows = self.text.splitlines()
        tokens = list(tokenize.generate_tokens(io.StringIO(self.text).readline))
        solid = [token for token in tokens if token.type not in NO_CODE]
        code = {row for token in solid for row in range(token.start[0], token.end[0] + 1)}
        comments = [token.start for token in tokens if token.type == tokenize.COMMENT]
        alone = sum(not rows[row - 1][:column].strip() for row, column in comments)
        code = len(code.difference(*map(docstring, ast.walk(self.tree))))
        filled = sum(bool(row.strip()) for row in rows)
        return Counter(lines=len(rows), filled=filled, code=code, comments=len(comments), alone=alone)


def read(folder: Path) -> list[Module]:
    return [Module(path, folder) for path in sorted(folder.rglob("*.py"))]


def uses(tree: ast.AST) -> Counter[str]:
    """How often each name is read, alone or after a dot."""
    reads = (
        n for n in ast.walk(tree) if isinstance(n, ast.Name | ast.Attribute) and isinstance(n.ctx, ast.Load)
    )
    return Counter(node.id if isinstance(node, ast.Name) else node.attr for node in reads)


def docstring(node: ast.AST) -> range:
    """Its lines."""
    if not isinstance(node, Function | ast.ClassDef | ast.Module) or ast.get_docstring(node) is None:
        return range(0)
    return range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)


def size(modules: list[Module], label: str = "") -> Figures:
    lines = sum((module.lines for module in modules), Counter[str]())
    return {f"{label}files": len(modules), f"{label}lines": lines["lines"], f"{label}code": lines["code"]}


def static(modules: list[Module]) -> Figures:
    """What is seen without running anything."""
    lines = sum((module.lines for module in modules), Counter[str]())
    functions = [function for module in modules for function in module.functions]
    private = [count for module in modules for count in private_uses(module)]
    spans = [(f.end_lineno or 0) - f.lineno + 1 for f in functions]
    return {
        **size(modules),
        "functions": len(functions),
        "private": len(private),
        "once-called": private.count(1),
        "once-called, % of functions": percent(private.count(1), len(functions)),
        **spread("function", spans),
        **spread("without docstring", [n - len(docstring(f)) for n, f in zip(spans, functions, strict=True)]),
        "comment lines, %": percent(lines["alone"], lines["filled"]),
        "and trailing comments, %": percent(lines["comments"], lines["filled"]),
        "Any per 1,000 lines": percent(10 * sum(module.uses["Any"] for module in modules), lines["lines"]),
        **imports(modules),
    }


def percent(part: int, whole: int) -> float:
    return round(100 * part / max(whole, 1), 1)


def private_uses(module: Module) -> list[int]:
    """For each private function how often it is used."""
    private = [f for f in module.functions if f.name[0] == "_" and f.name[:2] != "__"]
    return [module.uses[f.name] - uses(f)[f.name] for f in private]


def spread(name: str, values: list[int]) -> Figures:
    # Not interpolated: each figure is the length of a function that can be looked at.
    ranks, ordered = {"median": 0.5, "p90": 0.9, "max": 1.0}, sorted(values) or [0]
    return {f"{name}, {rank}": ordered[round(q * (len(ordered) - 1))] for rank, q in ranks.items()}


def imports(modules: list[Module]) -> Figures:
    # Comes with torch.
    import networkx as nx

    known = {module.name for module in modules}
    at_import, ever = (
        nx.DiGraph({m.name: list(imported(m, known, inside)) for m in modules}) for inside in (False, True)
    )
    cycles = [group for group in nx.strongly_connected_components(ever) if len(group) > 1]
    depth = nx.dag_longest_path_length(nx.condensation(at_import)) if modules else 0
    return {"import depth": depth, "import cycles": len(cycles), "modules in cycles": sum(map(len, cycles))}


def imported(module: Module, known: set[str], inside: bool) -> Iterator[str]:
    """The modules that one imports; `inside` its functions too."""
    for node in executed(module.tree, inside):
        if isinstance(node, ast.Import):
            yield from known & {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), module.package)
            # `from a import b`: b is a module, or a name in a.
            found = (f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names)
            yield from known & set(found)


def executed(tree: ast.AST, inside: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not for_types and (inside or not isinstance(node, Function)):
            yield node
            yield from executed(node, inside)


class Tracer:
    """A profile function: which functions of a folder lead to the first call of the network."""

    def __init__(self, folder: Path, loop: str) -> None:
        self.folder, self.loop = folder, loop
        self.entered: set[CodeType] = set()
        self.before: int | None = None
        self.path: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or not self._ours(code):
            return
        if code.co_name in ("velocity", "forward") and Path(code.co_filename).stem == "transformer":
            self.before = len(self.entered) if self.before is None else self.before
            self.path = self._path(frame)
            # A network may also answer outside of the loop; listen until it is asked by it.
            if self.path:
                sys.setprofile(None)
        self.entered.add(code)

    def _ours(self, code: CodeType) -> bool:
        # The body of a class is code too, but no function.
        function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
        return bool(function) and code.co_filename.startswith(f"{self.folder}{os.sep}")

    def _path(self, frame: FrameType | None) -> list[str]:
        """The functions from `main` to the loop, both included; none where no loop is on the stack."""
        stack: list[tuple[str, ...]] = []
        while frame is not None:
            code, frame = frame.f_code, frame.f_back
            if self._ours(code) and not code.co_flags & inspect.CO_GENERATOR:
                file = Path(code.co_filename).relative_to(self.folder).with_suffix("")
                stack.append((*file.parts, code.co_qualname.split(".<locals>")[0]))
        called = [parts for parts, _ in itertools.groupby(reversed(stack))]
        loops = [place for place, parts in enumerate(called) if self.loop in parts[:-1]]
        return [".".join(parts) for parts in called[: loops[0] + 1]] if loops else []


def trace(folder: Path, command: str) -> tuple[Figures, list[str]]:
    """Run a command on pictures of one colour, and listen."""
    sys.path.insert(0, str(folder.parent))
    main = importlib.import_module(f"{folder.name}.cli").main
    tracer = Tracer(folder, LOOPS[command])
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        words = arguments(command, Path(scratch))
        sys.setprofile(tracer)
        code = main(words)
        sys.setprofile(None)
    if code or tracer.before is None or not tracer.path:
        raise RuntimeError(f"{command}: exit code {code}, loop {tracer.loop!r} found: {bool(tracer.path)}")
    hops = len(tracer.path) - 2
    return {f"{command}: hops": hops, f"{command}: functions before the network": tracer.before}, tracer.path


def arguments(command: str, scratch: Path) -> list[str]:
    """A command line for the smallest run that there is."""
    from PIL import Image

    (scratch / "video").mkdir()
    for number in range(5):
        Image.new("RGB", (32, 32), (50 * number, 90, 120)).save(scratch / "video" / f"{number:04}.png")
    first, last = (scratch / "video" / f"{number:04}.png" for number in (0, 4))
    common = ["--size", "32*32", "--fps", "4", "--quiet", "--output", str(scratch / "made")]
    if command == "generate":
        steps = ["--sample_steps", "1", "--sample_guide_scale", "1"]
        return [command, "--keyframes", f"{first}:0,{last}:1", *steps, *common]
    steps = ["--num_inference_steps", "1", "--cfg_scale", "1"]
    return [command, str(scratch / "video"), "--keyframes", f"{first}:0,{last}:4", *steps, *common]


def measure(folder: Path, others: list[Path], traced: bool) -> dict[str, dict]:
    modules = read(folder)
    figures, paths = static(modules), {}
    for name in sorted({module.top for module in modules}):
        figures |= size([module for module in modules if module.top == name], f"{name} ")
    rest = {other.name: read(other) for other in others}
    for name, found in rest.items():
        figures |= size(found, f"{name}/ ")
    if rest:
        shipped = [module for name, found in rest.items() if name != "tests" for module in found]
        figures |= size(modules + shipped, "all but tests/ ")
    if traced:
        # A fresh process for each: what one command has imported and cached, the next would not enter.
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, fresh, max_tasks_per_child=1) as pool:
            for command, runs in zip(LOOPS, pool.map(partial(trace, folder.resolve()), LOOPS), strict=True):
                figures, paths[command] = figures | runs[0], runs[1]
    return {"figures": figures, "paths": paths}


def show(now: dict[str, dict], before: Path | None) -> None:
    """A table, beside the figures of an earlier one."""
    earlier = json.loads(before.read_text(encoding="utf-8"))["figures"] if before else {}
    if before:
        print(f"{'':40}{'before':>10}{'now':>10}")
    for name in now["figures"] | earlier:
        columns = [earlier, now["figures"]] if before else [now["figures"]]
        cells = (f"{column[name]:,}" if name in column else "-" for column in columns)
        print(f"{name:40}" + "".join(f"{cell:>10}" for cell in cells))
    for command, path in now["paths"].items():
        print(f"\n{command}:", *path, sep="\n  ")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Figures of the code's shape.", allow_abbrev=False)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("wanedit"))
    parser.add_argument(
        "--other", nargs="+", type=Path, default=[], help="folders of which only the size is counted"
    )
    parser.add_argument("--trace", action="store_true", help="run a tiny generation and a tiny edit")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--compare", type=Path, metavar="FILE.json", help="what --json printed before")
    given = parser.parse_args(words)
    now = measure(given.folder, given.other, given.trace)
    print(json.dumps(now, indent=1)) if given.json else show(now, given.compare)


if __name__ == "__main__":
    main()
