"""scripts/house.py: the figures of a made-up package of three files."""

import runpy
from pathlib import Path

FILES = {
    "__init__.py": '"""A package."""\n',
    "a.py": '''"""Words."""

from typing import TYPE_CHECKING, Any

from house.sub import b

if TYPE_CHECKING:
    import house

# Alone on its line.
X: Any = 1  # trailing


def shown(n: int) -> int:
    """Calls one helper once, and one twice."""
    return _once(n) + _twice(n) + _twice(b.y)


def _once(n: int) -> int:
    return n


def _twice(n: int) -> int:
    return n
''',
    "sub/b.py": """y = 2


class Thing:
    def _itself(self) -> int:
        from house import a

        return self._itself() + a.X
""",
}


def test_the_figures_of_a_small_package(tmp_path: Path, repository: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    house = runpy.run_path(str(repository / "scripts" / "house.py"))
    found = house["measure"](tmp_path / "house")
    assert found["paths"] == {}
    assert found["figures"] == {
        "files": 3,
        "lines": 33,
        "code": 16,
        "functions": 4,
        "private": 3,
        "once-called": 1,
        "once-called, % of functions": 25.0,
        "function, median": 3,
        "function, p90": 4,
        "function, max": 4,
        "without docstring, median": 2,
        "without docstring, p90": 4,
        "without docstring, max": 4,
        "comment lines, %": 5.0,
        "and trailing comments, %": 10.0,
        "Any per 1,000 lines": 30.3,
        "import depth": 1,
        "import cycles": 1,
        "modules in cycles": 2,
        "house/ files": 2,
        "house/ lines": 25,
        "house/ code": 11,
        "house/sub/ files": 1,
        "house/sub/ lines": 8,
        "house/sub/ code": 5,
    }
