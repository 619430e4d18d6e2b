"""Failures that a user can act on, each with the exit code that the command line returns.

Every message says what was got and what was expected, and is raised before any model is loaded where
the input alone decides it.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile


class WaneditError(Exception):
    """A failure with no better class. Exit code 1.

    told: another process of the run says it to the user.
    """

    exit_code = 1
    told = False

    def __str__(self) -> str:
        return "\n".join(map(_cut, super().__str__().split("\n")))


class InputError(WaneditError):
    """Wrong usage, wrong configuration, or an input file that cannot be used. Exit code 2."""

    exit_code = 2


class MissingWeightsError(WaneditError):
    """A checkpoint is absent, truncated, or holds other tensors than its config says. Exit code 3."""

    exit_code = 3


class ResourceError(WaneditError):
    """Disk, memory or device is exhausted, or a directory is in use by a living run. Exit code 4."""

    exit_code = 4


class ServiceError(WaneditError):
    """An outside service failed after its bounded retries. Exit code 5."""

    exit_code = 5


class NumericalError(WaneditError):
    """A latent is NaN or infinite; raised at the step where it appears. Exit code 1."""


@contextmanager
def all_there() -> Iterator[None]:
    """For what needs every rank. Raises WaneditError where one was lost, of which torch.distributed has no class."""
    try:
        yield
    except RuntimeError as error:
        lost = WaneditError(f"another process of this run was lost ({str(error).splitlines()[0]})")
        lost.told = True  # by torchrun, which saw it end
        raise lost from None


# Letters of a line. What was got may be a file in the place of a name; how it begins and what was expected is the news.
BEGINNING, END = 1200, 400


def _cut(line: str) -> str:
    gone = len(line) - BEGINNING - END
    return line if gone <= 0 else f"{line[:BEGINNING]} […{gone} more letters…] {line[-END:]}"


# A word as like another as `stepz` is to `steps`, or `controler` to `controller`.
ALIKE = 0.75
# Letters that two names of one stem begin with.
STEM = 5


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The one of `names` that was probably meant by `word`, for a message; None where none is near.

    Near is a slip of the keys, or a name that has the word for a part: `steps` for `num_inference_steps`.
    """
    wanted, best = _parts(word), {}
    for name in names:
        parts = _parts(name)
        if wanted == parts:
            return name
        likeness = _likeness(word, name)
        part = len(word) > 2 and any(parts[i : i + len(wanted)] == wanted for i in range(len(parts)))
        # `tracker` for `tracking`: one stem, another ending.
        letters = takewhile(lambda pair: pair[0] == pair[1], zip(word.lower(), name.lower(), strict=False))
        stem = sum(1 for _ in letters) if "." not in word else 0
        if stem >= STEM and 2 * stem >= max(len(word), len(name)):
            likeness = max(likeness, ALIKE)
        # Of names that hold the word, those that end on it, and the shortest: less was left out.
        last = part and parts[-len(wanted) :] == wanted
        best[name] = ALIKE + (likeness + last) / 8 if part else likeness
    found = max(best, key=lambda name: (best[name], _ratio(word, name)), default=None)
    return found if found is not None and best[found] >= ALIKE else None


def _likeness(word: str, name: str) -> float:
    """From 0 to 1; of a word with a dot, of what stands behind it, and 0 for a name that has no part like the word's.

    As a whole, `style.strengt` would be like `style.stylist`, with which it shares the part and nothing else.
    """
    *within, own = word.lower().split(".")
    *parts, last = name.lower().split(".")
    if not within:
        return _ratio(word, name)
    if any(max((_ratio(one, part) for part in parts), default=0) < ALIKE for one in within):
        return 0
    return _ratio(own, last)


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, "_".join(_parts(a)), "_".join(_parts(b))).ratio()


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[\W_]+", name.lower()) if part]


class HandedOver(Exception):  # noqa: N818  no error
    """Another process asks for the task that this one is at, and would be done with it sooner."""
