"""What is chosen by name and has options of its own, a method, a controller, a cache: its options checked, itself made,
and described for hashes and records."""

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar, get_origin

from wanedit.errors import InputError
from wanedit.files import Json, digest, file_sha256
from wanedit.outside import code_of, named_error
from wanedit.registry import require_options
from wanedit.runtime.settings import IsDataclass, check_values, field_hints, registered_at

T = TypeVar("T")


def fields_of(kind: object, what: str = "") -> dict[str, Field[object]]:
    """The settings of one, or of its class. Raises InputError for what is no dataclass."""
    if not isinstance(kind, IsDataclass):
        raise InputError(f"{what} is no dataclass; expected @dataclass(frozen=True) above its class")
    return {f.name: f for f in fields(kind) if f.init}


def construct(kind: type[T], given: dict[str, object], options: dict[str, object], what: str) -> T:
    """An instance of a dataclass; `options` are the user's words and win over what is `given`.

    Raises:
        InputError: an option that it does not have or cannot take, or one that it lacks.
    """
    with named_error(what):
        require_options(what, options, options_of(kind, what))
        values = given | check_values(kind, options, f"{what}: ", convert=True)
        for f in fields_of(kind, what).values():
            if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
                raise InputError(f"{what} lacks the option {f.name!r}")
        return kind(**values)


def options_of(kind: type[Any], what: str = "") -> list[str]:
    """The fields that a configuration can set: no functions and no controllers, which are objects."""
    hints = field_hints(kind)
    return [
        name
        for name in fields_of(kind, what)
        if get_origin(hints[name]) is not Callable and name != "controller"
    ]


def describe(method: object) -> Json:
    """The settings of a method as plain values, callables by their name; and of what is not the package's own, its
    code, that of what its settings name, and the files that they name, by one hash: `code`."""
    from pydantic_core import to_jsonable_python

    values: Json = {}
    outside = {"class": code_of(*(kind.__module__ for kind in type(method).__mro__))}
    for name in fields_of(method):
        value = getattr(method, name)
        if hasattr(value, "__dataclass_fields__"):
            value = {"kind": type(value).__name__, **describe(value)}
        elif callable(value):
            value = getattr(value, "__name__", type(value).__name__)
        elif registry := registered_at(type(method), name):
            outside[name] = registry.code(str(value))
        elif isinstance(value, Path) and value.is_file():
            outside[name] = file_sha256(value)
        values[name] = to_jsonable_python(value, fallback=repr)
    known = {name: code for name, code in outside.items() if code}
    return values | ({"code": digest(known)} if known else {})


def changed(made: object) -> Json:
    """Those of the settings of one that are no defaults, as `describe` has them: the options that make it again."""
    values, own = describe(made), fields_of(made).values()
    return {f.name: values[f.name] for f in own if getattr(made, f.name) != f.default}
