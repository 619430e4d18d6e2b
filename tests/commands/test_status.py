"""How long the rest of a run may take, from its folder alone."""

import json
from contextlib import ExitStack
from pathlib import Path

from wanedit.commands.status import status
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import append_event


def test_a_run_that_failed_at_once_foretells_nothing(tmp_path: Path) -> None:
    directory, names = RunDirectory(tmp_path, tmp_path / "runs.csv"), [f"{k:016x}" for k in range(4)]
    append_event(directory.metrics, {"event": "start", "stages": {"videos": names}})
    for name, said in zip(names, ({"seconds": 120.0}, {"error": "no"}, {"error": "no"}), strict=False):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        file = "failure.json" if "error" in said else "result.json"
        (folder / file).write_text(json.dumps({"run": name, **said}))
    with ExitStack() as stack:
        stack.enter_context(directory.queue.working())
        directory.queue.task = names[3]
        directory.queue.say("four")
        found = status(RunDirectory(tmp_path, tmp_path / "runs.csv"))
    assert found.words == "3 of 4 videos (2 failed); about 2.0 minutes of 1 worker left"
