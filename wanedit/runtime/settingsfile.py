"""Files of settings, YAML or JSON: read with the line of every key, so that a mistake is told where it stands."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from wanedit.errors import InputError
from wanedit.files import MAX_YAML, compose_yaml, read_text, reading
from wanedit.runtime.settings import ALIASES

# What YAML 1.1 takes for true or false.
_SWITCHES = ("yes", "no", "on", "off", "y", "n")


@dataclass(frozen=True)
class SettingsFile:
    """Where each key stands.

    lines: of keys and entries of lists, from 1, by dotted names such as "style.image" and "keyframes.0".
    words: plain scalars as they are written, by the same names.
    """

    path: Path
    lines: dict[str, int]
    words: dict[str, str]


def read_lines(path: Path) -> SettingsFile:
    """Read where the keys of a file stand.

    Raises:
        InputError: it cannot be read, is no UTF-8, no YAML, no mapping, or has a key twice; with file and line.
    """
    expected = "a file of settings, saved as UTF-8"
    text = read_text(path, expected, most=MAX_YAML)
    with reading(path, expected):
        try:
            loader, root = compose_yaml(text)
        except yaml.YAMLError as error:
            raise InputError(_syntax(path, text, error)) from None
        found = SettingsFile(path, {}, {})
        if root is None:
            raise InputError(f"{path}: holds no setting; expected lines such as prompt: a red ball")
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{path}:1: holds no mapping; expected lines such as prompt: a red ball")
        _walk(root, "", found)
        try:
            _construct(loader, root, path)
        except yaml.YAMLError as error:
            raise InputError(_syntax(path, text, error)) from None
    return found


def _construct(loader: yaml.SafeLoader, node: yaml.Node, path: Path) -> None:
    """Make each value of a file, for a tag that YAML does not know and a date that there is not."""
    if isinstance(node, yaml.ScalarNode):
        try:
            loader.construct_object(node)
        except (ValueError, LookupError, AttributeError) as error:  # what PyYAML's own constructors raise
            raise InputError(
                f"{path}:{node.start_mark.line + 1}: {node.value} is no value that YAML can read ({error}); "
                "a text stands in quotes"
            ) from None
    elif node.tag.startswith("tag:yaml.org,2002:") and node.tag.rpartition(":")[2] in ("map", "seq"):
        values = (
            [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        )
        for value in values:
            _construct(loader, value, path)
    else:
        loader.construct_object(node, deep=True)


def _syntax(path: Path, text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{path}: {error}; expected YAML"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: mark.column + 1]:
        ways = "YAML is indented by spaces, here stands a tab"
    elif "mapping values" in str(getattr(error, "problem", "")):
        ways = 'a text with ": " in it has to stand in quotes'
    else:
        ways = f"{getattr(error, 'problem', None) or 'it cannot be read'}; expected YAML"
    return f"{path}:{mark.line + 1}: {ways}: {line.strip()[:80]}"


def _walk(node: yaml.Node, name: str, found: SettingsFile) -> None:
    parts: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(
                    f"{found.path}:{key.start_mark.line + 1}: a {key.id} stands where a name should; expected lines "
                    "such as prompt: a red ball"
                )
        parts = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        parts = [(str(k), entry, entry) for k, entry in enumerate(node.value)]
    for part, at, value in parts:
        full, line = f"{name}.{part}" if name else part, at.start_mark.line + 1
        if full in found.lines:
            raise InputError(f"{found.path}:{line}: {full} is given twice, first in line {found.lines[full]}")
        found.lines[full] = line
        if isinstance(value, yaml.ScalarNode) and value.style is None:
            found.words[full] = str(value.value)
        _walk(value, full, found)


@contextmanager
def told_where(files: Collection[SettingsFile], elsewhere: Collection[str] = ()) -> Iterator[None]:
    """Name file and line in an error about a setting that one of the files gives; the last one wins.

    Our messages begin with the name of the setting that is wrong, or name it in quotes.

    Args:
        elsewhere: settings that come from flags, which win over files.
    """
    try:
        yield
    except InputError as error:
        for file in reversed(list(files)):
            message = str(error).removeprefix(f"{file.path}: ")
            name = _named(message, file)
            if name and name.split(".")[0] not in elsewhere and str(file.path) not in message:
                word, hint = file.words.get(name, ""), ""
                if word.lower() in _SWITCHES:
                    hint = f'; YAML takes {word} for true or false: write "{word}"'
                error.args = (f"{file.path}:{file.lines[name]}: {message}{hint}",)
                break
        raise


def _named(message: str, file: SettingsFile) -> str | None:
    """The key of the file that a message is about."""
    if entry := re.match(r"keyframe (\d+)\b", message):
        name = f"keyframes.{entry[1]}"
        return name if name in file.lines else "keyframes" if "keyframes" in file.lines else None
    words = [found[1] for found in re.finditer(r"(?:^|['\"])([\w.]+)(?=['\"]| |$)", message)]
    # A file may call a setting by its other name.
    names = {ALIASES.get(name, name): name for name in file.lines}
    return next((names[word] for word in words if word in names), None)
