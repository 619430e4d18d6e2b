"""Results as JSON, whole enough to be judged and drawn again: `--json` writes them, the paper reads them.

A result is a dataclass of numbers, lists, tuples and dictionaries whose keys may be tuples. JSON has none of the last
three, so each is written with its kind: {"tuple": [...]}, {"pairs": [[key, value], ...]}, {"class": name, ...}.
Numbers come back as the same floats.
"""

import json
import math
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from math_verification.report import Row


@dataclass(frozen=True)
class Stored:
    """One claim as it was measured.

    Attributes:
        sentence: what is claimed.
        rows: how it was judged at the time.
        result: a `Result`, which can judge and draw itself.
    """

    sentence: str
    rows: list[Row]
    result: Any


def write(path: Path, results: dict[str, tuple[str, Any]]) -> None:
    """Claim -> (its sentence, result); no times and no dates, so that two runs write the same file."""
    claims = {
        name: {"sentence": sentence, "rows": [_row(row) for row in result.rows()], "result": _plain(result)}
        for name, (sentence, result) in results.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"claims": claims}, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _restored(row: dict[str, Any]) -> Row:
    values: dict[str, Any] = {name: math.nan if value is None else value for name, value in row.items()}
    return Row(**values)


def read(path: Path, modules: dict[str, ModuleType]) -> dict[str, Stored]:
    """What `write` wrote.

    Args:
        modules: claim -> the module that has its classes; claims that are not there are left out.
    """
    claims = json.loads(path.read_text(encoding="utf-8"))["claims"]
    return {
        name: Stored(
            claims[name]["sentence"],
            [_restored(row) for row in claims[name]["rows"]],
            _rebuilt(claims[name]["result"], vars(module)),
        )
        for name, module in modules.items()
        if name in claims
    }


def _row(row: Row) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(row).items()}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        inside = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"class": type(value).__name__, "fields": inside}
    if isinstance(value, dict):
        return {"pairs": [[_plain(k), _plain(v)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_plain(v) for v in value]}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a result holds a {type(value).__name__}; expected numbers, text and containers of them")


def _rebuilt(value: Any, classes: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_rebuilt(v, classes) for v in value]
    if not isinstance(value, dict):
        return value
    if "class" in value:
        inside = {k: _rebuilt(v, classes) for k, v in value["fields"].items()}
        return classes[value["class"]](**inside)
    if "tuple" in value:
        return tuple(_rebuilt(v, classes) for v in value["tuple"])
    return {_rebuilt(k, classes): _rebuilt(v, classes) for k, v in value["pairs"]}
