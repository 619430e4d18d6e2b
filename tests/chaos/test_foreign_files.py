"""Nothing that wanedit did not write is ever written over, wherever it lies, in whatever job."""

from collections.abc import Callable

import pytest

from tests.chaos.bench import Bench, differing
from tests.chaos.jobs import JOBS

# What a person may have there, by the ending of its name; anything else is a note.
THEIRS = {".png": "k0.png", ".mp4": "film.mkv", ".mkv": "film.mkv", ".gif": "film.mkv"}
# A job gives its files there names that are free.
LEFT_ALONE = "/videos/"
QUICK = ("style", "report")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, job in JOBS.items()
        if not job.undo and "again" not in name
    ],
)
def test_a_file_of_theirs_under_every_name_that_a_job_writes(
    bench: Callable[[str], Bench], computed: list[str], name: str
) -> None:
    made, wrong = bench(name), []
    # A tracked run's folder bears an id that is drawn at random, and here always the same: nobody's file is there.
    written = [file for file in differing(made.started, made.wanted) if "/tracking/" not in file]
    assert written
    for file in written:
        made.begin()
        path = made.work / file
        path.parent.mkdir(parents=True, exist_ok=True)
        given = THEIRS.get(path.suffix)
        path.write_bytes(before := (made.place / "given" / given).read_bytes() if given else b"mine: 1\n")
        computed.clear()
        error, _ = made.attempt()
        if not path.is_file() or path.read_bytes() != before:
            wrong.append(f"{file} is lost: {error}")
        elif LEFT_ALONE in file:
            continue
        elif error is None or computed:
            wrong.append(f"{file} is not refused before a model is asked: {error}")
        elif path.name not in str(error) and str(path.parent) not in str(error):
            wrong.append(f"{file} is not named: {error}")
    assert not wrong, "\n".join(wrong)
