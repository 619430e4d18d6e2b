"""Names of implementations: the package's own, those of installed packages, and `package.module:Name`.

Methods, controllers, solvers, metrics, stylists and video models are all found this way, so that one from outside is as
good as one of the package, and no list elsewhere knows their names.
"""

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar, cast

from wanedit.errors import InputError

T = TypeVar("T")
# What a decorator is given it gives back, whose own type a type checker then still knows.
Named = TypeVar("Named")


class Registry(Mapping[str, T]):
    """Implementations by name; the modules that register the package's own are imported on first use.

    Args:
        kind: what they are, in messages: "method".
        homes: modules that register some; of a package, all its modules.

    The entry points of installed packages stand in the group `wanedit.<kind>s`.

    Example:
        >>> METHODS: Registry[type[Method]] = Registry("method", "wanedit.flow.methods")
        >>> @METHODS.register("copy_source")
        ... class CopySource(Method): ...
        >>> METHODS["copy_source"], METHODS["my_package.my_module:MyMethod"]
    """

    def __init__(self, kind: str, *homes: str) -> None:
        self.kind = kind
        self.homes = homes
        self._own: dict[str, T] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[Named], Named]:
        """A decorator that gives an implementation its name.

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
        if ":" in name:
            return self._imported(name)
        own = self._load()
        if name in own:
            return own[name]
        outside = {entry.name: entry for entry in entry_points(group=f"wanedit.{self.kind}s")}
        if name in outside:
            return self._imported(outside[name].value)
        near = difflib.get_close_matches(name, [*own, *outside], n=1)
        raise InputError(
            f"{self.kind} is {name!r}; expected one of {', '.join([*own, *outside])}, or package.module:Name"
            + (f". Did you mean {near[0]!r}?" if near else "")
        )

    def __iter__(self) -> Iterator[str]:
        yield from self._load()
        yield from (
            entry.name for entry in entry_points(group=f"wanedit.{self.kind}s") if entry.name not in self._own
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def name_of(self, implementation: T) -> str:
        """The name that one is registered under; `package.module:Name` for one from outside."""
        known = {id(one): name for name, one in self._load().items()}
        own = f"{getattr(implementation, '__module__', '')}:{getattr(implementation, '__qualname__', '')}"
        return known.get(id(implementation), own)

    def _load(self) -> dict[str, T]:
        if not self._complete:
            for home in self.homes:
                found = importlib.import_module(home)
                for module in pkgutil.iter_modules(getattr(found, "__path__", [])):
                    importlib.import_module(f"{home}.{module.name}")
            # By name, whatever was imported first.
            self._own = dict(sorted(self._own.items()))
            self._complete = True
        return self._own

    def _imported(self, name: str) -> T:
        module, _, attribute = name.partition(":")
        # The console script does not look for modules in the current folder, where people keep theirs.
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"{self.kind} {name}: {error}; expected package.module:Name of something that can be imported"
            ) from None
