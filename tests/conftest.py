"""What every test has: checked shapes, its own caches, one thread, and a quick collector of garbage."""

from tests import typecheck

typecheck.install()  # before wanedit is imported

import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

# One thread per worker: two workers have two cores. Whoever sets another number means it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# No test may touch a network, and the caches of a test run are its own.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

REPOSITORY = Path(__file__).parent.parent
# Real runs that several folders of tests look at, each made once.
pytest_plugins = ["tests.runs"]
# What it asserts is told as what a test asserts.
pytest.register_assert_rewrite("tests.chaos.bench")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.hookimpl
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Take what imports left out of the collector's sight, whenever many modules came.

    A run collects garbage three times, to give weights back. Among the million objects of diffsynth and transformers
    that takes half a second each, without them a hundredth.
    """
    global _modules_seen
    if len(sys.modules) > _modules_seen + 100:
        _modules_seen = len(sys.modules)
        gc.collect()
        gc.freeze()


_modules_seen = 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """With $TEST_TIMES=FILE, add each test's processor seconds to it: other work on the machine does not change them.

    They include the fixtures that the test is the first to ask for, and the processes that it started and waited for.
    """
    before = os.times()
    done = yield
    if path := os.environ.get("TEST_TIMES"):
        spent = [now - then for now, then in zip(os.times()[:4], before[:4], strict=True)]
        row = {"test": item.nodeid, "own": round(sum(spent[:2]), 3), "children": round(sum(spent[2:]), 3)}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return done


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a pool are made here: starting a process for them costs more than they do."""
    from wanedit.runtime.pool import pulled

    def here(pool: Any, queue: Any, count: int, anew: bool, news: Callable[[], None]) -> None:
        for _ in pulled(pool, queue, None, anew):
            news()

    monkeypatch.setattr("wanedit.runtime.pool.in_children", here)
