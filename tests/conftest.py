"""Shape annotations are checked at run time in every test; the hook must stand before wanedit is imported."""

import jaxtyping

import tests.typecheck  # noqa: F401  (the hook reaches it as an attribute of `tests`)

jaxtyping.install_import_hook("wanedit", "tests.typecheck.check")

import os  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

# No test may touch a network, and the caches of a test run are its own.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

REPOSITORY = Path(__file__).parent.parent
# Real runs that several folders of tests look at, each made once.
pytest_plugins = ["tests.runs"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def repository() -> Path:
    """The checkout."""
    return REPOSITORY
