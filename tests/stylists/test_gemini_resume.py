"""A styling run over Gemini that is killed goes on where it was, and pays for nothing twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stylists.fake_gemini import CANARY, FakeGemini, Reply, error, rate_limited, well_behaved
from tests.stylists.gemini_bench import Bench, bench, scene
from wanedit.errors import ServiceError
from wanedit.stylists.cache import Cache, Journal
from wanedit.stylists.protocol import StyleReference
from wanedit.stylists.workflow import Outcome, Rules, Workflow

pytestmark = pytest.mark.network
__all__ = ["bench"]

KEYFRAMES = 5
CHILD = """
import asyncio, sys
from pathlib import Path
from tests.stylists.test_gemini_resume import workflow
from wanedit.stylists.gemini.stylist import GeminiStylist
from wanedit.stylists.gemini.settings import GeminiSettings
stylist = GeminiStylist(GeminiSettings(base_url=sys.argv[1]))
asyncio.run(workflow(stylist, Path(sys.argv[2])).run())
"""


def workflow(stylist, folder: Path) -> Workflow:
    keyframes = tuple(scene(160, 90) + n for n in range(KEYFRAMES))
    return Workflow(
        stylist,
        keyframes,
        list(range(0, 8 * KEYFRAMES, 8)),
        StyleReference(None, "gouache"),
        Rules(concurrency=1),
        Cache(folder),
        Journal(folder / "journal.jsonl"),
    )


def finish(bench: Bench, folder: Path) -> Outcome:
    return bench.run(lambda one: workflow(one, folder).run())


def slowly(call) -> Reply:
    return Reply(well_behaved(call).body, delay=0.1)


def counts(fake: FakeGemini) -> tuple[int, int, int]:
    return fake.count("analyse"), fake.count("restyle"), fake.count("verify")


def no_key_in(folder: Path) -> bool:
    return all(CANARY.encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_killed_and_run_again_it_repeats_only_what_was_under_way(
    bench: Bench, tmp_path: Path, repository: Path
) -> None:
    bench.fake.default = slowly
    environment = {**os.environ, "PYTHONPATH": str(repository), "GEMINI_API_KEY": CANARY}
    command = [sys.executable, "-c", CHILD, bench.fake.url, str(tmp_path)]
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while bench.fake.count("restyle") < 3 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    _, said = child.communicate()
    assert child.returncode == -signal.SIGKILL, said
    before = bench.fake.count("restyle")
    outcome = finish(bench, tmp_path)
    analysed, restyled, _ = counts(bench.fake)
    assert analysed == 1
    assert before == 3
    assert KEYFRAMES <= restyled <= KEYFRAMES + 1
    assert all(track.accepted for track in outcome.tracks)
    assert no_key_in(tmp_path)


def test_stopped_by_a_rate_limit_it_goes_on_and_a_third_run_asks_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    bench.settings["attempts"] = 2
    bench.fake.then(*[well_behaved] * 5, *[rate_limited("1s")] * 2, *[error(500, f"for {CANARY}")] * 99)
    with pytest.raises(ServiceError, match="again"):
        finish(bench, tmp_path)
    bench.fake.script.clear()
    bench.fake.calls.clear()
    finish(bench, tmp_path)
    assert counts(bench.fake)[0] == 0
    assert counts(bench.fake)[1] < KEYFRAMES
    bench.fake.calls.clear()
    finish(bench, tmp_path)
    assert bench.fake.calls == []
    assert no_key_in(tmp_path)


def test_the_workflow_takes_it_for_a_stylist(bench: Bench, tmp_path: Path) -> None:
    outcome = finish(bench, tmp_path)
    assert counts(bench.fake) == (1, KEYFRAMES, KEYFRAMES)
    styled = outcome.tracks[-1].best.styled
    assert styled.provenance["model_version"]
    assert styled.image.shape == (90, 160, 3)
