"""The code's shape in figures: `python scripts/house.py --trace --json > before.json`; later `--compare before.json`.

Code lines: not blank, no comment alone on its line, no docstring. Comments: percent of non-blank lines.
Once-called: private functions (one underscore) whose name is read once in their module outside their own body.
Import depth: most imports in a row when a module is imported, a cycle being one; cycles: also inside functions.
Hops: our functions on the stack between `cli.main` and the loop (a solver, an editing method), without these two.
    Closures belong to the function around them; lambdas, comprehensions and generators do not count.
Functions before the network: entered before the transformer first answers, in a fresh process for each command.
"""

import argparse
import ast
import contextlib
import importlib
import inspect
import io
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import tokenize
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType

import networkx as nx  # comes with torch
from PIL import Image

Figures = dict[str, float]
Function = ast.FunctionDef | ast.AsyncFunctionDef
LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
# Where each command's loop stands: a file or a folder of this name, wherever it is.
LOOPS = {"generate": "solvers", "edit": "methods"}


class Module:
    """A source file, named as it is imported, and how many lines it has of each kind."""

    def __init__(self, path: Path, folder: Path) -> None:
        parts = (folder.resolve().name, *path.relative_to(folder).with_suffix("").parts)
        self.name, self.top = ".".join(parts).removesuffix(".__init__"), "/".join([*parts[:-1][:2], ""])
        text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(text)
        self.functions = [node for node in ast.walk(self.tree) if isinstance(node, Function)]
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        comments = [token for token in tokens if token.type == tokenize.COMMENT]
        solid = [token for token in tokens if token.type not in LAYOUT | {tokenize.COMMENT}]
        code = {row for token in solid for row in range(token.start[0], token.end[0] + 1)}
        self.lines = Counter(
            lines=len(text.splitlines()),
            filled=sum(bool(row.strip()) for row in text.splitlines()),
            code=len(code.difference(*map(docstring, ast.walk(self.tree)))),
            comments=len(comments),
            alone=sum(token.line.lstrip().startswith("#") for token in comments),
        )

    def imports(self, known: set[str], inside: bool) -> set[str]:
        """The modules of `known` that this one imports; `inside` its functions too."""
        found: set[str] = set()
        for node in executed(self.tree, inside):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # `from a import b`: b is a module, or a name in a.
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {name if name in known else str(node.module) for name in whole}
        return found & known


def executed(tree: ast.AST, inside: bool) -> Iterator[ast.AST]:
    """What runs when a module is imported, and `inside` what its functions run later; not what is for types only."""
    for node in ast.iter_child_nodes(tree):
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not for_types and (inside or not isinstance(node, Function)):
            yield node
            yield from executed(node, inside)


def docstring(node: ast.AST) -> range:
    """Its lines."""
    if not isinstance(node, Function | ast.ClassDef | ast.Module) or ast.get_docstring(node) is None:
        return range(0)
    return range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)


def uses(tree: ast.AST) -> Counter[str]:
    """How often each name is read, alone or after a dot."""
    nodes = (
        n for n in ast.walk(tree) if isinstance(n, ast.Name | ast.Attribute) and isinstance(n.ctx, ast.Load)
    )
    return Counter(node.id if isinstance(node, ast.Name) else node.attr for node in nodes)


def read(folder: Path) -> list[Module]:
    return [Module(path, folder) for path in sorted(folder.rglob("*.py"))]


def size(modules: Sequence[Module], label: str = "") -> Figures:
    lines = sum((module.lines for module in modules), Counter[str]())
    return {f"{label}files": len(modules), f"{label}lines": lines["lines"], f"{label}code": lines["code"]}


def shape(modules: Sequence[Module]) -> Figures:
    """What is seen without running anything."""
    lines = sum((module.lines for module in modules), Counter[str]())
    functions, private, names = [f for m in modules for f in m.functions], [], Counter[str]()
    for module in modules:
        names += (read_here := uses(module.tree))
        hidden = (f for f in module.functions if f.name[0] == "_" and f.name[:2] != "__")
        private += [read_here[f.name] - uses(f)[f.name] for f in hidden]

    def percent(part: float, whole: int) -> float:
        return round(100 * part / max(whole, 1), 1)

    figures: Figures = size(modules) | {
        "functions": len(functions),
        "private": len(private),
        "once-called": private.count(1),
        "once-called, % of functions": percent(private.count(1), len(functions)),
    }
    whole = [(f.end_lineno or 0) - f.lineno + 1 for f in functions]
    bare = [length - len(docstring(f)) for length, f in zip(whole, functions, strict=True)]
    for (name, spans), (rank, q) in itertools.product(
        {"function": sorted(whole), "without docstring": sorted(bare)}.items(),
        {"median": 0.5, "p90": 0.9, "max": 1.0}.items(),
    ):
        # Not interpolated: each figure is the length of a function that can be looked at.
        figures[f"{name}, {rank}"] = spans[round(q * (len(spans) - 1))] if spans else 0
    known = {module.name for module in modules}
    at_import, ever = (
        nx.DiGraph({m.name: m.imports(known, inside) for m in modules}) for inside in (False, True)
    )
    cycles = [group for group in nx.strongly_connected_components(ever) if len(group) > 1]
    return figures | {
        "comment lines, %": percent(lines["alone"], lines["filled"]),
        "and trailing comments, %": percent(lines["comments"], lines["filled"]),
        "Any per 1,000 lines": percent(10 * names["Any"], lines["lines"]),
        "import depth": nx.dag_longest_path_length(nx.condensation(at_import)) if modules else 0,
        "import cycles": len(cycles),
        "modules in cycles": sum(map(len, cycles)),
    }


def trace(folder: Path, command: str) -> tuple[Figures, list[str]]:
    """The smallest run of a command, on pictures of one colour, listened to until the loop asks the network."""
    entered: set[CodeType] = set()
    before: list[int] = []
    path: list[str] = []

    def ours(code: CodeType) -> bool:
        # The body of a class is code too, but no function.
        function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
        return bool(function) and code.co_filename.startswith(f"{folder}{os.sep}")

    def listen(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not ours(code):
            return
        if code.co_name in ("velocity", "forward") and Path(code.co_filename).stem == "transformer":
            before.append(len(entered))
            called = []
            for above, _ in traceback.walk_stack(frame):
                if ours(above.f_code) and not above.f_code.co_flags & inspect.CO_GENERATOR:
                    file = Path(above.f_code.co_filename).relative_to(folder).with_suffix("")
                    called.append((*file.parts, above.f_code.co_qualname.split(".<locals>")[0]))
            called = [parts for parts, _ in itertools.groupby(reversed(called))]
            # A network may also answer outside of the loop; listen until it is asked by it.
            if loops := [i for i, parts in enumerate(called) if LOOPS[command] in parts[:-1]]:
                path.extend(".".join(parts) for parts in called[: loops[0] + 1])
                sys.setprofile(None)
        entered.add(code)

    sys.path.insert(0, str(folder.parent))
    main = importlib.import_module(f"{folder.name}.cli").main
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        video = Path(scratch, "video")
        video.mkdir()
        frames = [video / f"{number}.png" for number in range(5)]
        for number, frame in enumerate(frames):
            Image.new("RGB", (32, 32), (50 * number, 90, 120)).save(frame)
        source, end = ([], 1) if command == "generate" else ([str(video)], 4)
        words = [
            command,
            *source,
            "--keyframes",
            f"{frames[0]}:0,{frames[4]}:{end}",
            "--size",
            "32*32",
            "--fps",
            "4",
        ]
        words += ["--num_inference_steps", "1", "--cfg_scale", "1", "--quiet", "--output", f"{scratch}/made"]
        sys.setprofile(listen)
        code = main(words)
        sys.setprofile(None)
    if code or not path:
        raise RuntimeError(f"{command}: exit code {code}, loop {LOOPS[command]!r} found: {bool(path)}")
    return {f"{command}: hops": len(path) - 2, f"{command}: functions before the network": before[0]}, path


def measure(folder: Path, others: Sequence[Path] = (), traced: bool = False) -> dict[str, dict]:
    """{"figures": name -> number, "paths": command -> functions from main to the loop}."""
    modules, paths, parts = read(folder), {}, defaultdict[str, list[Module]](list)
    for module in modules:
        parts[module.top].append(module)
    figures = shape(modules)
    for other in others:
        parts[f"{other.name}/"] = read(other)
    for name in sorted(parts):
        figures |= size(parts[name], f"{name} ")
    if others:
        shipped = [module for name, found in parts.items() if name != "tests/" for module in found]
        figures |= size(shipped, "all but tests/ ")
    for command in LOOPS if traced else ():
        # A fresh process for each: what one command has imported and cached, the next would not enter.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found, paths[command] = pool.apply(trace, (folder.resolve(), command))
        figures |= found
    return {"figures": figures, "paths": paths}


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
    if given.json:
        print(json.dumps(now, indent=1))
        return
    columns = [json.loads(given.compare.read_text(encoding="utf-8"))["figures"]] if given.compare else []
    columns.append(now["figures"])
    for name in dict.fromkeys(itertools.chain(now["figures"], *columns)):
        cells = (f"{column[name]:,}" if name in column else "-" for column in columns)
        print(f"{name:40}" + "".join(f"{cell:>10}" for cell in cells))
    for command, path in now["paths"].items():
        print(f"\n{command}:", *path, sep="\n  ")


if __name__ == "__main__":
    main()
