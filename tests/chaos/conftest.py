"""Jobs whose computing is done once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.bench import Bench
from tests.chaos.jobs import JOBS, Remembered
from wanedit.runtime.pool import pulled


@pytest.fixture(scope="package", autouse=True)
def computed() -> Iterator[list[str]]:
    """What was asked of a model so far, which is asked nothing twice."""
    remembered, patch = Remembered(), pytest.MonkeyPatch()
    for job in ("generate", "edit"):
        patch.setattr(f"wanedit.jobs.{job}.run.predict", remembered)

    def here(pool: Any, queue: Any, count: int, anew: bool, news: Callable[[], None]) -> None:
        for _ in pulled(pool, queue, None, anew):
            news()

    patch.setattr("wanedit.runtime.pool.in_children", here)
    # Ids of tracked runs are drawn, and are names of files that two runs are compared by.
    patch.setattr("wanedit.tracking.record.secrets", SimpleNamespace(choice=lambda letters: letters[0]))
    yield remembered.asked
    patch.undo()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Bench]:
    """Of a job's name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "place" / "cache"))
    return lambda name: Bench(tmp_path, JOBS[name])
