"""Signals: Ctrl-C, `kill` and a closed terminal end what runs in order, with a word, at whatever moment they come."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

# The third is a closed terminal, which Windows does not tell.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
GOES_ON = "stopped. What was finished is kept; run the same command again"
_ALREADY = "ended at once. What was half-written goes with the next run"

_before: dict[int, Any] = {}  # the handlers that ours stand in for
_pending: list[int] = []
_owned = False


class Interrupted(SystemExit):
    """One of `SIGNALS`, by its name. As `SystemExit` no `except Exception` swallows it, and event loops pass it on.

    `exit_code` is the shell's convention: 128 plus the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)  # what a pickle is made anew from
        self.code = self.exit_code = 128 + number

    def __str__(self) -> str:
        return signal.Signals(self.exit_code - 128).name


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn `SIGNALS` into `Interrupted` inside the block; a no-op inside another, and outside the main thread."""
    if _before or threading.current_thread() is not threading.main_thread():
        yield
        return
    told = sys.unraisablehook
    _take()
    try:
        yield
    finally:
        for number, handler in _before.items():
            signal.signal(number, handler)
        sys.unraisablehook = told
        _before.clear()
        _pending.clear()


def run(main: Callable[[], int]) -> NoReturn:
    """End this process with what `main` returns: a program's last call, which may also be its first instruction."""
    watch()
    code = main()
    for number in _before:
        # It is done, and only the interpreter takes itself apart.
        signal.signal(number, lambda *_: os._exit(code))
    sys.exit(code)


@atexit.register  # before others are, and so called after them
def _ignore() -> None:
    """Python now gives up its handlers, and a signal would kill it without a word; what is ignored stays so."""
    for number in _before:
        signal.signal(number, signal.SIG_IGN)


def watch() -> None:
    """Take the signals of this process, before what takes seconds to import.

    One that comes during an import ends the process there and then: an exception would come out of a library that is
    half made, if that did not swallow it. Later ones raise `Interrupted`, and the same one again ends the process.
    """
    global _owned
    if not _owned:
        _owned = True
        _take()


def _take() -> None:
    for number in SIGNALS:
        # Whoever ignores one means it: nohup, and a shell that starts in the background.
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN:
            _before[number] = handler or signal.SIG_DFL
            signal.signal(number, _stop)
    sys.unraisablehook = _once_more


@contextmanager
def held_back() -> Iterator[None]:
    """Let Ctrl-C and a closed terminal wait until the block ends; processes that are started in it never see them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reclaim_signals() -> None:
    """Take the signals back from a library that put its own handlers over ours."""
    if threading.current_thread() is threading.main_thread():
        for number in _before:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    again = number in _pending
    if _owned and _pending and not again:
        return  # on its way out: torchrun sends SIGTERM to workers that Ctrl-C has reached
    _pending.append(number)
    if _owned and (again or _imports(frame)):
        _end(number, _ALREADY if again else GOES_ON)
    raise Interrupted(number)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end(number: int, words: str) -> NoReturn:
    with suppress(Exception):
        sys.stdout.flush()
    if speaks():
        with suppress(OSError):  # full, or closed
            # Not by `print`: the signal may have come in the middle of one.
            os.write(2, f"wanedit: {signal.Signals(number).name}: {words}\n".encode())
    os._exit(128 + number)


def speaks() -> bool:
    """Whether this process tells what all processes of a torchrun would tell."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


def _once_more(unraisable: "sys.UnraisableHookArgs") -> None:
    """Python discards what a handler raises while an object is being finalised: then the signal comes once more."""
    if not isinstance(reason := unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
        return
    _pending.clear()
    threading.Timer(0.01, os.kill, [os.getpid(), reason.exit_code - 128]).start()
