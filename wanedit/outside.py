"""Code from outside the package that a name leads to: its files, its hash, its errors.

Of the user's is every module whose file lies neither in this package nor among the standard library or what is
installed; of an implementation that is installed itself, also its own package. Not seen are files that a module reads
while it runs, and modules that it imports by a name that it works out.
"""

import ast
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from wanedit.errors import InputError, WaneditError
from wanedit.files import digest

HERE = Path(__file__).parent
INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Source:
    """A module's file as it was when this process first saw it.

    Attributes:
        spec: what the module was loaded by: another one once it is loaded anew. None for one that is not loaded yet.
        imports: all that it may import, whether or not it is a module.
    """

    spec: ModuleSpec | None
    path: Path
    sha256: str
    imports: frozenset[str]


# What is loaded is what runs, so that is what is hashed, though its file may be another by now; see `renew`.
_seen: dict[str, Source] = {}


@contextmanager
def named_error(what: str, advice: str = "") -> Iterator[None]:
    """Run code from outside: whatever it raises becomes an InputError that names it, the cause and the line.

    What this package refuses by itself passes as it is, and so does an interrupt.
    """
    try:
        yield
    except WaneditError:
        raise
    except (Exception, SystemExit) as error:
        cause = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        own = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(Path(f.filename))]
        # A SyntaxError says itself where.
        place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        raise InputError(f"{what}: {cause}{place}{advice}") from error


def look_in(folders: Iterable[str]) -> None:
    """Have modules found in the current folder, where people keep theirs and the console script does not look, and in
    these, all after whatever is installed."""
    for folder in (str(Path.cwd()), *(str(Path(folder).expanduser().absolute()) for folder in folders)):
        if folder not in sys.path:
            sys.path.append(folder)


def code_of(module: str, *more: str) -> str:
    """SHA-256 of the files of a module and of all from outside that it imports, however far; "" for none.

    Args:
        module: of an installed one its own package counts.
        more: further modules, such as those of base classes.

    Raises:
        InputError: one has no file, as in a notebook: what it computes could not be told from what it did before.
    """
    found: dict[str, Source] = {}
    for name in (module, *more):
        if not (there := sources(name, module.partition(".")[0])) and not _is_known(name):
            raise InputError(f"module {name} has no file; expected one, whose hash tells its results apart")
        found |= there
    return digest({name: source.sha256 for name, source in found.items()}) if found else ""


def sources(module: str, home: str = "") -> dict[str, Source]:
    """A module from outside and all from outside that it imports, by name; with the packages that they lie in.

    Args:
        home: a package that counts though it is installed; the module's own unless given.
    """
    found: dict[str, Source] = {}
    home, left = home or module.partition(".")[0], [module]
    while left:
        name = left.pop()
        if name in found or (source := _source(name, home)) is None:
            continue
        found[name] = source
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
        left += [*parents, *source.imports]
    return found


def renew(module: str) -> None:
    """Forget a module and all that it imports from outside, if the file of one of them has changed since it was loaded:
    then they are loaded anew. Only before a run is planned; a run goes on with what it began with."""
    known = sources(module)
    known.pop("__main__", None)  # a script that runs is not loaded anew
    changed = [source.path for source in known.values() if _sha256(source.path) != source.sha256]
    for path in changed:
        # Python knows a compiled file by the size and the whole second of its source, which may both be the same.
        with suppress(OSError):
            Path(importlib.util.cache_from_source(str(path))).unlink()
    for name in known if changed else ():
        _seen.pop(name, None)
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def folders_of(names: Iterable[str]) -> list[str]:
    """The folders that modules of the user's were found in, of those among `names` that are `package.module:Name`."""
    found = set()
    for name in names:
        module, colon, attribute = name.partition(":")
        if colon and module in sys.modules and attribute.replace(".", "").isidentifier():
            path = next((source.path for source in sources(module).values()), None)
            if path is not None and not _is_installed(path) and module != "__main__":
                top = sys.modules[module.partition(".")[0]]
                inside = next(iter(getattr(top, "__path__", ())), top.__file__)
                found.add(str(Path(str(inside)).absolute().parent))
    return sorted(found)


def call_problem(thing: object, like: Callable[..., object]) -> str:
    """Why something cannot be called with the arguments that `like` takes by position; "" where it can."""
    kinds = {p.name: p.kind for p in inspect.signature(like).parameters.values()}
    expected = [name for name, kind in kinds.items() if kind == inspect.Parameter.POSITIONAL_OR_KEYWORD]
    options = inspect.Parameter.VAR_KEYWORD in kinds.values()  # which are the user's
    if not callable(thing):
        return f"is {thing!r}; expected something that is called"
    try:
        taken = inspect.signature(thing)
    except (TypeError, ValueError):  # of C, which does not always say
        return ""
    try:
        (taken.bind_partial if options else taken.bind)(*expected)
    except TypeError:
        return f"takes {taken}; expected to be called with ({', '.join(expected)})"
    return ""


def _source(name: str, home: str) -> Source | None:
    """What is known of a module's file; None for one that is not the user's, or that there is not."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or (top != home and not _is_users(_path(top))):
        return None
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None)
    path = _path(name)
    if path is None or path.is_relative_to(HERE):
        return None
    known = _seen.get(name)
    if known is None or known.spec is not spec or known.path != path:
        if not path.is_file():
            return None
        content = path.read_bytes()
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        text = content if path.suffix == ".py" else b""
        _seen[name] = Source(spec, path, sha256(content).hexdigest(), frozenset(_imports(text, package)))
    return _seen[name]


def _path(name: str) -> Path | None:
    """The file, or for a package without one the folder, of a module that is loaded or could be."""
    loaded = sys.modules.get(name)
    try:
        spec = getattr(loaded, "__spec__", None) or (None if loaded else importlib.util.find_spec(name))
    except (Exception, SystemExit):  # a package on the way to it that cannot be imported either
        return None
    inside = list(getattr(spec, "submodule_search_locations", None) or [])
    file = getattr(loaded, "__file__", None) or getattr(spec, "origin", None) or next(iter(inside), None)
    return None if file is None else Path(file)


def _imports(source: bytes, package: str) -> Iterator[str]:
    """What a source imports, at the top or inside a function; names of a module beside modules."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = "." * node.level + (node.module or "")
                try:
                    base = importlib.util.resolve_name(base, package)
                except ImportError:  # beyond the outermost package
                    continue
                yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
            case ast.Call(args=[ast.Constant(value=str(name)), *_]):
                called: Any = node.func
                if getattr(called, "attr", getattr(called, "id", "")) in ("import_module", "__import__"):
                    yield name


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _is_known(module: str) -> bool:
    """Whether a module is of this package, of the standard library or installed, and so has a version."""
    top = module.partition(".")[0]
    return top == HERE.name or top in sys.stdlib_module_names or _is_installed(_path(top) or HERE)


def _is_users(path: Path | None) -> bool:
    return (
        path is not None and path.is_absolute() and not path.is_relative_to(HERE) and not _is_installed(path)
    )


def _is_installed(path: Path) -> bool:
    standard = path.is_relative_to(sysconfig.get_path("stdlib"))
    return standard or any(part in INSTALLED for part in path.parts)
