"""The run-time check of shapes is on, and costs no other module its bytecode."""

import importlib.util
import sys

import jaxtyping
import pytest
import torch

from wanedit.wan.transformer import sinusoidal_embedding


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="timestep"):
        sinusoidal_embedding(torch.zeros(2, 3), 8)


@pytest.fixture
def importable(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Two modules, of which the first, checked like wanedit, imports the second."""
    (tmp_path / "wanedit_like.py").write_text("import unrelated\nfrom jaxtyping import Float\n")
    (tmp_path / "unrelated.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    yield tmp_path
    for name in ("wanedit_like", "unrelated"):
        sys.modules.pop(name, None)


def test_what_a_checked_module_imports_has_its_usual_bytecode(importable) -> None:
    with jaxtyping.install_import_hook("wanedit_like", "tests.typecheck.check"):
        import wanedit_like  # pyright: ignore[reportMissingImports]
    assert "jaxtyping" in next(importable.glob("__pycache__/wanedit_like.*.pyc")).name
    usual = importlib.util.cache_from_source(str(importable / "unrelated.py"))
    assert [str(path) for path in importable.glob("__pycache__/unrelated.*.pyc")] == [usual]
    assert wanedit_like.unrelated
