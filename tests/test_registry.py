"""Implementations by name: the package's own, those of entry points, and package.module:Name."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from wanedit import registry
from wanedit.errors import InputError
from wanedit.registry import Registry


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry whose home is a package of one module, which is not imported before it is asked for."""
    home = tmp_path / "shapes_of_test"
    home.mkdir()
    (home / "__init__.py").write_text(
        "from wanedit.registry import Registry\nSHAPES = Registry('shape', __name__)\n"
    )
    (home / "round.py").write_text(
        "from shapes_of_test import SHAPES\n\n@SHAPES.register('disc')\nclass Disc: ...\n"
    )
    (tmp_path / "outside.py").write_text("class Star: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import shapes_of_test  # pyright: ignore[reportMissingImports]

    return shapes_of_test.SHAPES


def test_a_module_of_the_home_registers_its_own(shapes: Registry) -> None:
    assert list(shapes) == ["disc"]
    assert shapes["disc"].__name__ == "Disc"
    assert shapes.name_of(shapes["disc"]) == "disc"


def test_one_from_outside_by_module_and_name(shapes: Registry) -> None:
    star = shapes["outside:Star"]
    assert star.__name__ == "Star"
    assert shapes.name_of(star) == "outside:Star"
    assert list(shapes) == ["disc"]


def test_one_of_an_installed_package(shapes: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("star", "outside:Star", "wanedit.shapes")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == "wanedit.shapes" else [])
    assert shapes["star"].__name__ == "Star"
    assert list(shapes) == ["disc", "star"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("disk", "shape is 'disk'; expected one of disc, or package.module:Name. Did you mean 'disc'?"),
        ("nowhere:Star", "shape nowhere:Star: No module named 'nowhere'"),
        ("outside:Moon", "has no attribute 'Moon'"),
        (":Moon", "expected package.module:Name"),
    ],
)
def test_an_unknown_name_lists_those_that_there_are(shapes: Registry, name: str, says: str) -> None:
    with pytest.raises(InputError) as refusal:
        shapes[name]
    assert says in str(refusal.value)
    assert name not in shapes


def test_a_name_is_given_once() -> None:
    shapes: Registry[object] = Registry("shape")
    shapes.register("disc")(object())
    with pytest.raises(ValueError, match="two shapes are called 'disc'"):
        shapes.register("disc")(object())
