"""Files as bytes: one exists only if it is complete, is read through one door, and is known by its SHA-256.

Whatever a file holds, only a `WaneditError` comes out of reading it: see `reading`.
"""

import errno
import hashlib
import json
import os
import re
import socket
import stat
import warnings
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from wanedit.errors import InputError, ResourceError, WaneditError

if TYPE_CHECKING:
    import yaml

# An object of a JSON or YAML file; whoever takes it checks its entries.
Json = dict[str, Any]
Item = TypeVar("Item")
PARTIAL_SUFFIX = ".partial"
# As `atomic_path` and a GIF's frames have it: the number of a process comes last.
_PARTIAL = re.compile(r"\..+\.\d+(\.frames)?\.partial")
# How lone surrogates are written, which JSON, YAML and names of files may hold and UTF-8 may not: as JSON spells them.
NO_UNICODE = "backslashreplace"
# Bytes of a text file, of which the largest real ones are the records of runs with thousands of segments.
MAX_TEXT = 1 << 26
# Bytes of a YAML file and values that it may spell out: PyYAML reads a megabyte of blanks in 0.7 s and 100,000 values
# in 2.5 s, a command does so twice, and aliases of aliases make billions of some hundred bytes. Ten thousand keyframes
# are 1 MB and 30,000 values.
MAX_YAML = 1 << 22
MAX_VALUES = 100_000

# What to do about what the system refuses, by errno; anything else is a disk or a network that fails.
_MAKE_ROOM = "make room and run again; what is finished stays"
_ALLOW = "allow it, or choose another output"
_ALLOW_MORE = "allow more at a time (ulimit -n) and run again; what is finished stays"
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _MAKE_ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ALLOW),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _ALLOW_MORE),
}
# Of a name that cannot be that of a file, whatever the disk.
WRONG_NAME = {errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}


class OnDisk(os.PathLike[str]):
    """Base of results that are used as the path of what they made: `open(result)`, `Path(result)`, `print(result)`.

    Made into a dataclass with `repr=False`, or pixels and hashes would fill the screen.
    """

    @abstractmethod
    def __fspath__(self) -> str:
        """What a person opens first."""

    def __str__(self) -> str:
        return os.fspath(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self)!r})"


def at_home(path: str | os.PathLike[str]) -> Path:
    """A path, in which `~` is the home folder; as it stands where there is no such user, or where it is no path."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):
        return Path(path)


@contextmanager
def system_errors(path: Path | None = None) -> Iterator[None]:
    """Tell what the system refuses inside the block as an error of ours: which file, why, and what to do.

    Every job is such a block, or is decorated with one; so are places that know the file better than its OSError.

    Args:
        path: the file that is written in the block, for errors that name none or its temporary one.

    Raises:
        InputError: a name that cannot be one there.
        ResourceError: anything else, from a full disk to one that fails.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read our output left, see cli.main
    except OSError as error:
        if error.errno is None:
            raise  # not from the system: a library's own
        named = None if error.filename is None else str(error.filename)
        if named is None or named.endswith(PARTIAL_SUFFIX):
            named = path or named or "a file"
        why = os.strerror(error.errno)
        if error.errno in WRONG_NAME:
            raise InputError(f"{named}: {why}; choose another path") from error
        advice = _ADVICE.get(error.errno, "see what is wrong there and run again; what is finished stays")
        raise ResourceError(f"{named}: {why}; {advice}") from error


def is_there(path: Path) -> bool:
    """Whether something has this name, be it a link to nowhere; what a disk fails to say is no absence.

    Raises:
        InputError, ResourceError: as `system_errors`.
    """
    with system_errors(path):
        try:
            os.lstat(path)
        except (
            FileNotFoundError,
            NotADirectoryError,
            ValueError,
        ):  # the last for a zero byte, which is in no name
            return False
    return True


def is_refused(error: Exception, path: str | Path) -> bool:
    """Whether a file could not be read for another reason than what it holds."""
    if not isinstance(error, OSError) or error.errno != errno.EIO or type(error) is OSError:
        return isinstance(error, OSError) and (error.errno in _ADVICE or error.errno == errno.EIO)
    # FFmpeg says EIO of damaged files, too. It is the disk's where Python meets it as well, in the first bytes, which
    # tell what a file is.
    try:
        with open(path, "rb") as file:
            file.read(1 << 20)
    except OSError as own:
        return own.errno == errno.EIO
    return False


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A file that is gone after the block, if it is there; that it cannot be removed hides no error of the block."""
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success sync it and rename it to `path`.

    On any exception before the rename the temporary file is removed and `path` is what it was before. A process that is
    killed leaves `.<name>.<number>.partial`, never a wrong `path`.

    Raises:
        InputError: the folder does not exist, or `path` is a folder.
        ResourceError: as `system_errors`.
    """
    target = Path(os.path.abspath(path))
    # A hidden name in the same folder: a rename within one file system is the only one that is atomic.
    # Machines that share a folder, and containers, each have a process of one number.
    number = f"{os.getpid()}{zlib.crc32(socket.gethostname().encode()):010}"
    partial = target.with_name(f".{target.name[:60]}.{number}{PARTIAL_SUFFIX}")
    with system_errors(target), temporary(partial):
        if not target.parent.is_dir():
            raise InputError(f"{target}: the folder {target.parent} does not exist")
        if target.is_dir():
            raise InputError(f"{target} is a folder, expected the name of a file to write")
        yield partial
        _sync(partial)
        os.replace(partial, target)
        if os.name != "nt":  # Windows cannot open a folder, and commits renames by itself
            _sync(target.parent)


def partials(folder: Path, *names: str) -> list[Path]:
    """What writers that were killed left half-written in a folder: what others call partial is theirs.

    Args:
        names: of files that only the caller writes; none where nobody else writes into the folder.
    """
    begun = tuple(f"{name[:60]}." for name in names) or ""
    found = (path for path in folder.glob(f".*{PARTIAL_SUFFIX}") if _PARTIAL.fullmatch(path.name))
    return sorted(path for path in found if path.name.lstrip(".").startswith(begun))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def reading(
    path: str | Path, expected: str, raises: type[WaneditError] = InputError, computes: bool = False
) -> Iterator[None]:
    """The door to bytes from anywhere: what a parser raises in the block is told as an error about its file.

    Warnings of the libraries, which would reach a terminal raw, are dropped. Not around a `yield`.

    Damaged files make libraries raise anything: TypeError, IndexError and RuntimeError as well as errors of their own.
    That is why every exception is taken here, and nowhere else. Put what parses into the block, and nothing that works
    with what was parsed: a mistake there is ours, and its traceback tells where. What can be nothing else
    passes, see `_is_mistake`.

    Args:
        path: names the file, or whatever else is read, in messages.
        expected: what it should hold.
        computes: whether the block works with what was parsed after all: then all that a line of wanedit's raises is
            a mistake there, but for want of memory and what the system refuses.

    Raises:
        raises: the file is damaged, of another kind, not there or may not be read.
        ResourceError: the system refuses it, see `system_errors`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except WaneditError:
        raise
    except Exception as error:
        if _is_mistake(error, computes):
            raise
        if is_refused(error, path):
            with system_errors(Path(path)):
                raise
        raise raises(f"{path}{_line(error)}: {_reason(error)}; expected {expected}") from error


def _is_mistake(error: Exception, computes: bool) -> bool:
    """Whether a line of wanedit raised what no content of a file makes it raise: a wrong name, import or assertion, and
    where it computes anything.

    Raised inside a library, the same says nothing: damaged files bring out the mistakes of parsers.
    """
    raised = error.__traceback__
    while raised is not None and raised.tb_next is not None:
        raised = raised.tb_next
    if raised is None or raised.tb_frame.f_globals.get("__name__", "").partition(".")[0] != __package__:
        return False
    if computes:
        return not isinstance(error, MemoryError | OSError)
    if isinstance(error, AttributeError):
        # Of what was parsed, as None or a list where a mapping should be, the file is to blame.
        return (
            isinstance(error.obj, ModuleType) or type(error.obj).__module__.partition(".")[0] == __package__
        )
    return isinstance(error, NameError | ImportError | AssertionError)


def read_each(
    items: Iterator[Item], path: str | Path, expected: str, raises: type[WaneditError] = InputError
) -> Iterator[Item]:
    """What an iterator parses, item by item; raises as `reading`.

    Such an iterator also computes, so what one of wanedit's own lines raises passes with its traceback: what a library
    raises alone tells of the file.
    """
    end = object()
    while True:
        with reading(path, expected, raises, computes=True):
            item = next(items, end)
        if item is end:
            return
        yield item  # pyright: ignore[reportReturnType]


def _line(error: Exception) -> str:
    """ ":12" of an error that says in which line it is, as JSON's, YAML's and those of texts do."""
    match error:
        case json.JSONDecodeError():
            return f":{error.lineno}"
        case UnicodeDecodeError():
            return f":{error.object.count(10, 0, error.start) + 1}"
        case _:
            mark = getattr(error, "problem_mark", None)
            return "" if mark is None else f":{mark.line + 1}"


def _reason(error: Exception) -> str:
    """Why a file cannot be read, in a line."""
    match error:
        case RecursionError():
            return "is nested too deeply"
        case MemoryError():
            return "asks for more memory than there is"
        case UnicodeDecodeError():
            return "is not UTF-8 text"
        case json.JSONDecodeError():
            return f"is not JSON ({error.msg}, column {error.colno})"
        case FileNotFoundError():
            return "does not exist"
        case OSError(errno=number, strerror=str(words)) if number in WRONG_NAME | {errno.ENXIO}:
            return words
        case _:
            said = next(iter(str(getattr(error, "problem", "") or error).splitlines()), "")[:200]
            return f"is truncated, damaged or of another kind ({type(error).__name__}{': ' if said else ''}{said})"


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_file(path: Path, expected: str, raises: type[WaneditError] = InputError) -> int:
    """The size of a regular file; else an error as of `reading`: a pipe waits for its writer, a device never ends."""
    with reading(path, expected, raises):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        raise raises(f"{path}: is {kind}; expected {expected}")
    return found.st_size


def read_text(
    path: Path, expected: str, raises: type[WaneditError] = InputError, most: int = MAX_TEXT
) -> str:
    """A text file, of so many bytes at most; raises as `reading`."""
    if (size := require_file(path, expected, raises)) > most:
        raise raises(f"{path}: has {size} bytes; expected {expected}, of {most} bytes at most")
    with reading(path, expected, raises):
        return path.read_text(encoding="utf-8-sig")


def read_json(path: Path, expected: str, raises: type[WaneditError] = InputError) -> Json:
    """The object of a JSON file; raises as `reading`, also for any other value."""
    text = read_text(path, expected, raises)
    with reading(path, expected, raises):
        values = json.loads(text)
    if not isinstance(values, dict):
        raise raises(f"{path}: holds a {type(values).__name__}; expected {expected}")
    return values


def read_yaml(path: Path, expected: str) -> object:
    """The value of a YAML file, of `MAX_YAML` bytes and `MAX_VALUES` values at most; raises as `reading`."""
    text = read_text(path, expected, most=MAX_YAML)
    with reading(path, expected):
        return parse_yaml(text)


def parse_yaml(text: str) -> object:
    """The value of a YAML text. Raises YAMLError as `compose_yaml`; besides, whatever PyYAML raises."""
    loader, node = compose_yaml(text)
    return None if node is None else loader.construct_document(node)


def compose_yaml(text: str) -> "tuple[yaml.SafeLoader, yaml.Node | None]":
    """The root of a YAML text, None of one that says nothing, and what makes values of it.

    Raises:
        YAMLError: it has over `MAX_VALUES` values, be it that its aliases are written out, or one that holds itself;
            besides, whatever PyYAML raises.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        composed = 0

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            self.composed += 1
            if self.composed > MAX_VALUES:
                raise yaml.YAMLError(f"it has more than {MAX_VALUES} values")
            return super().compose_node(parent, index)

    counts: dict[int, int | None] = {}

    def count(node: yaml.Node) -> int:
        if id(node) not in counts:
            counts[id(node)] = None  # until its parts are counted
            parts = node.value if isinstance(node.value, list) else []
            inside = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
            counts[id(node)] = 1 + sum(map(count, inside))
        found = counts[id(node)]
        if found is None:
            raise yaml.YAMLError("an alias in it holds itself")
        if found > MAX_VALUES:
            raise yaml.YAMLError(f"it spells out more than {MAX_VALUES} values")
        return found

    loader = Loader(text)
    root = loader.get_single_node()
    if root is not None:
        count(root)
    return loader, root


def write_text(path: Path, text: str) -> None:
    """Replace a text file; raises as `atomic_path`."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=NO_UNICODE)


def append_line(path: Path, line: str, synced: bool = False) -> None:
    """Add a line to a text file, in one write: those of several processes are not mixed.

    A line that a kill or a full disk left without its end is ended first, never continued.

    Args:
        synced: return once it is on disk.

    Raises:
        InputError, ResourceError: as `system_errors`.
    """
    with system_errors(path), path.open("ab+") as file:
        new = not file.tell()
        if not new:
            file.seek(-1, os.SEEK_END)
        ended = file.read(1) in (b"", b"\n")
        file.write((b"" if ended else b"\n") + line.encode(errors=NO_UNICODE) + b"\n")
        if synced:
            file.flush()
            os.fsync(file.fileno())
            if new and os.name != "nt":
                _sync(path.parent)


def texts(value: object) -> Iterator[str]:
    """All texts among plain values, however deep."""
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(values: Mapping[str, object]) -> str:
    """SHA-256 of a JSON object, whatever the order of its names.

    Raises:
        ValueError, TypeError: a number that is not finite, or a value that JSON does not have.
    """
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # A file's name that is no UTF-8 reaches Python as lone surrogates, which a strict encoder refuses.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
