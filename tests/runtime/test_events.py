"""What is counted on lower floors, and the bars that it becomes."""

import io
import re
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from tests.runs import Heard
from wanedit.progress import counted, counting, listening
from wanedit.runtime import events
from wanedit.runtime.events import counting_together, progress_bars


def test_without_a_listener_what_is_counted_is_what_was_given() -> None:
    given = [1, 2]
    assert counted(given, "restoring", "frames") is given
    with counting("editing", "steps", 2) as advance:
        advance()


def test_every_unit_is_counted_once_it_is_done(heard: Heard) -> None:
    frames = iter(counted(["a", "b"], "restoring", "frames"))
    assert heard == []  # nothing has begun
    assert next(frames) == "a"
    assert heard == [["restoring", "frames", 2, 0]]
    assert list(frames) == ["b"]
    assert list(counted(iter("abc"), "reading", "letters")) == ["a", "b", "c"]
    assert heard == [["restoring", "frames", 2, 2], ["reading", "letters", None, 3]]


def test_other_threads_are_not_heard_and_the_first_listener_goes_on(heard: Heard) -> None:
    def work() -> None:
        list(counted("ab", "elsewhere", "letters"))

    other = threading.Thread(target=work)
    other.start()
    other.join()
    with progress_bars(True), listening(lambda *_: pytest.fail("a second listener")):
        list(counted("ab", "here", "letters"))
    assert [label for label, *_ in heard] == ["here"]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 characters gets."""
    written = io.StringIO()
    monkeypatch.setattr("rich._console", Console(file=written, force_terminal=True, width=80))
    return written


def test_parts_stand_under_their_whole_while_they_last(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BRIEF", 0.0)
    with progress_bars(True):
        for _ in counted("ab", "editing", "steps"):
            list(counted("abc", "encoding", "slots"))
        list(counted("ab", "writing", "frames"))
    shown = screen.getvalue()
    assert "  encoding" in shown
    drawn = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", line) for line in shown.splitlines()]
    # The last that is drawn of each whole.
    assert [line.split()[0] for line in drawn if "2/2" in line][-1] == "writing"
    assert not any("encoding" in line for line in drawn[-2:])


@pytest.mark.parametrize(("brief", "lines"), [(0.0, 1), (60.0, 0)])
def test_into_a_pipe_goes_one_line_of_what_took_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, brief: float, lines: int
) -> None:
    monkeypatch.setattr(events, "BRIEF", brief)
    with progress_bars(True):
        for _ in counted("ab", "editing", "steps"):
            list(counted("abc", "encoding", "slots"))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert all(line.startswith("editing") and "2/2 steps" in line for line in printed)


def test_quiet_draws_nothing_and_an_error_ends_the_display(
    screen: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bars(False):
        list(counted("ab", "editing", "steps"))
    assert screen.getvalue() == capsys.readouterr().out == ""

    def failing() -> Iterator[int]:
        yield 1
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), progress_bars(True):
        list(counted(failing(), "writing", "frames", 2))
    assert screen.getvalue().endswith("\x1b[2K")  # erased: it took no second
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is back


def test_one_bar_sums_what_this_process_and_others_count(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "POLL", 0.01)
    counts, looked = iter([1, 3, 3]), threading.Event()

    def others() -> int:
        count = next(counts, 6)
        if count == 6:
            looked.set()
        return count

    with counting_together("sampling", "steps", 10, others) as advance:
        for _ in range(4):
            advance()
        assert looked.wait(10)
    assert heard == [["sampling", "steps", 10, 10]]


def test_others_whose_files_cannot_be_read_just_now_end_nothing(heard: Heard) -> None:
    def others() -> int:
        raise OSError("gone")

    with counting_together("sampling", "steps", 2, others) as advance:
        advance()
    assert heard == [["sampling", "steps", 2, 1]]


def test_another_process_shows_what_this_one_counts(heard: Heard) -> None:
    with counting_together("sampling", "steps", 2) as advance:
        advance()
    assert heard == [["sampling", "steps", 2, 1]]
