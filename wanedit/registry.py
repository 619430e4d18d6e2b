"""Names of implementations: the package's own, those of installed packages, and `package.module:Name`.

Methods, controllers, solvers, metrics, stylists and video models are all found this way, so that one from outside is as
good as one of the package, and no list elsewhere knows their names. A name is known without importing what it names:
help and checks are quick, whatever an implementation needs.
"""

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.abc import InspectLoader
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, cast

from wanedit.errors import InputError, nearest
from wanedit.outside import call_problem, code_of, look_in, named_error, renew, sources

T = TypeVar("T")
# What a decorator is given it gives back, whose own type a type checker then still knows.
Named = TypeVar("Named")


class Registry(Mapping[str, T]):
    """Implementations by name; the module that registers one of the package's own is imported when it is asked for.

    Args:
        kind: what they are, in messages: "method".
        homes: modules that register some; of a package, all its modules.
        base: `package.module:Class` that one from outside must be made from; of a protocol, be called as.

    The entry points of installed packages stand in the group `wanedit.<kind>s`.

    Examples:
        >>> METHODS: Registry[type[Method]] = Registry("method", "wanedit.flow.methods")
        >>> @METHODS.register("copy_source")
        ... class CopySource(Method): ...
        >>> METHODS["copy_source"], METHODS["my_package.my_module:MyMethod"]
    """

    def __init__(self, kind: str, *homes: str, base: str = "") -> None:
        self.kind = kind
        self.homes = homes
        self.base = base
        self._own: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Named], Named]:
        """A decorator that gives an implementation its name, a literal: names are read from the source.

        Raises:
            ValueError: the name is taken.
        """

        def named(implementation: Named) -> Named:
            if self._own.setdefault(name, cast(T, implementation)) is not implementation:
                raise ValueError(f"two {self.kind}s are called {name!r}")
            return implementation

        return named

    def __getitem__(self, name: str) -> T:
        """The implementation of this name.

        Raises:
            InputError: there is none; the message lists those that there are.
        """
        self.require(name)
        if ":" in name:
            return self._imported(name)
        if name not in self._own and name in self._places:
            importlib.import_module(self._places[name])
        return self._own[name] if name in self._own else self._imported(self._outside()[name].value)

    def require(self, name: str) -> None:
        """Refuse a name that there is not, importing nothing: package.module:Name is believed until it is asked for.

        Raises:
            InputError: the message lists those that there are.
        """
        if ":" in name or name in self:
            return
        known = list(self)
        near = nearest(name, known)
        raise InputError(
            f"{self.kind} is {name!r}; expected one of {', '.join(known)}, or package.module:Name"
            + (f". Did you mean {near!r}?" if near else "")
        )

    def __iter__(self) -> Iterator[str]:
        own = sorted({*self._own, *self._places})
        yield from own
        yield from (name for name in self._outside() if name not in own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        # Installed packages are asked last: to read what they offer takes longer than all else.
        return name in self._own or name in self._places or name in self._outside()

    def name_of(self, implementation: T) -> str:
        """The name that one is registered under; `package.module:Name` for one from outside."""
        known = {id(one): name for name, one in self._own.items()}
        own = f"{getattr(implementation, '__module__', '')}:{getattr(implementation, '__qualname__', '')}"
        return known.get(id(implementation), own)

    def _outside(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=f"wanedit.{self.kind}s")}

    @cached_property
    def _places(self) -> dict[str, str]:
        """The module of each of the package's own, by its name."""
        modules = list(self.homes)
        for home in self.homes:
            spec = importlib.util.find_spec(home)
            inside = (spec and spec.submodule_search_locations) or []
            modules += [f"{home}.{module.name}" for module in pkgutil.iter_modules(inside)]
        return {name: module for module in modules for name in _registered(module)}

    def options(self, name: str) -> list[str] | None:
        """The options of one of the package's own that is a dataclass, read from its source: it is not imported, which
        may take seconds. None where only the class itself can tell.

        A field that holds an object, whose default is another name or made by a call, is no option.
        """
        node = _registered(self._places[name])[name] if name in self._places else None
        base = self.base.partition(":")[2]
        if not isinstance(node, ast.ClassDef) or [getattr(one, "id", "") for one in node.bases] != [base]:
            return None
        lines = [one for one in node.body if isinstance(one, ast.AnnAssign)]
        settings = [one for one in lines if "ClassVar" not in ast.unparse(one.annotation)]
        if not all(isinstance(one.value, ast.Constant | ast.Name | ast.Call) for one in settings):
            return None
        plain = [one.target for one in settings if isinstance(one.value, ast.Constant)]
        return [target.id for target in plain if isinstance(target, ast.Name)]

    def check_options(self, name: str, options: Iterable[str]) -> None:
        """Refuse an option that one of the package's own does not have; others are asked when they are imported.

        Raises:
            InputError: naming the option, and those that there are.
        """
        if (known := self.options(name)) is not None:
            require_options(f"{self.kind} {name}", options, known)

    def code(self, name: str) -> str:
        """SHA-256 of all code from outside that one is made of, for the hash of whatever it makes; "" for one of the
        package's own. See `wanedit.outside` for what is not seen.

        Raises:
            InputError: as for the implementation itself; or it has no file.
        """
        if not (place := self._place(name)):
            return ""
        made: object = self[name]
        kinds = getattr(made, "__mro__", (made,))
        modules = (getattr(kind, "__module__", None) for kind in kinds)
        return code_of(place.partition(":")[0], *(name for name in modules if name))

    def guard(self, name: str) -> AbstractContextManager[None]:
        """Where one is asked: what one from outside raises is told as its error; the package's own raises as it is."""
        return named_error(f"{self.kind} {name}") if self._place(name) else nullcontext()

    def renew(self, name: str) -> None:
        """Have one from outside loaded anew where its files have changed, see `outside.renew`."""
        if place := self._place(name):
            look_in(())
            renew(place.partition(":")[0])

    def _place(self, name: str) -> str:
        """Where one from outside is, `package.module:Name`; "" for one of the package's own and for none."""
        if ":" in name or name in self._own or name in self._places:
            return name if ":" in name else ""
        found = self._outside().get(name)
        return "" if found is None else found.value

    def _imported(self, name: str) -> T:
        module, _, attribute = name.partition(":")
        look_in(())
        advice = "; expected package.module:Name of something that can be imported"
        with named_error(f"{self.kind} {name}", f"{advice}, from the current folder or module_folders"):
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        if problem := self._problem(found):
            raise InputError(f"{self.kind} {name} {problem}")
        sources(module)  # as it is now, before its file changes
        return found

    def _problem(self, found: object) -> str:
        """Why something cannot be an implementation; "" where it can."""
        module, _, name = self.base.partition(":")
        base: Any = getattr(importlib.import_module(module), name) if module else object
        if getattr(base, "_is_protocol", False):
            return call_problem(found, partial(base.__call__, None))
        if base is object:
            return ""
        if not (isinstance(found, type) and issubclass(found, base)):
            return f"is {found!r}; expected a class made from {module}.{name}"
        if lacking := sorted(getattr(found, "__abstractmethods__", ())):
            return f"lacks {', '.join(lacking)}; expected what {module}.{name} leaves to its classes"
        for method in getattr(base, "__abstractmethods__", ()):
            if problem := call_problem(getattr(found, method), getattr(base, method)):
                return f"has a {method} that {problem}"
        return ""


def require_options(what: str, options: Iterable[str], known: Sequence[str]) -> None:
    """Raise InputError for an option that is not known."""
    for name in options:
        if name not in known:
            near = nearest(name, known)
            expected = f"some of {', '.join(known)}" if known else "none"
            hint = f". Did you mean {near!r}?" if near else ""
            raise InputError(f"{what} has no option {name!r}; expected {expected}{hint}")


def _registered(module: str) -> dict[str, ast.stmt]:
    """What a module's source registers by `@….register("name")`, in its order."""
    spec = importlib.util.find_spec(module)
    loader = spec and spec.loader
    source = loader.get_source(module) if isinstance(loader, InspectLoader) else None
    names: dict[str, ast.stmt] = {}
    for node in ast.parse(source or "").body:
        for call in getattr(node, "decorator_list", []):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "register":
                names |= {str(word.value): node for word in call.args if isinstance(word, ast.Constant)}
    return names


@dataclass(frozen=True)
class Registered:
    """Beside a field's type: it holds a name out of the registry at `package.module:NAME`, whose module is light."""

    place: str

    @property
    def registry(self) -> Registry[object]:
        """Implementations by name."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)

    def words(self) -> str:
        """Its names, for help."""
        return f"one of {', '.join(self.registry)}, or package.module:Name"
