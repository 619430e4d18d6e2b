"""What is passed on, a report or a tracked run: no path of the machine and no secret may stand in it."""

import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

HIDDEN = "(hidden)"
# No bare "key": keyframes are no secret.
_SECRET = re.compile(r"api_?key|access_?key|token|secret|password|credential", re.IGNORECASE)
# Folders in front of a name, "/a/b/" of "/a/b/c.png", but not those of an address such as https://host/a/b.
_FOLDERS = re.compile(
    r"(?<![\w.:/\\-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"<>|:,;]+[/\\])+|(?<![\w.:/-])/(?=[\w.-]+)"
)


class Discreet:
    """Takes folders out of texts.

    Args:
        folders: of the run and its inputs. They are taken out as they stand, for a name may hold a space, at which
            a pattern would stop.
    """

    def __init__(self, folders: Iterable[str | Path] = ()) -> None:
        names = {str(folder).rstrip("/\\") for folder in folders} - {"", ".", "/", "~"}
        self.known = sorted((name for name in names if len(name) > 2), key=len, reverse=True)

    def text(self, text: str) -> str:
        """A message, of paths the last name only."""
        for folder in self.known:
            text = text.replace(folder + "/", "").replace(folder + "\\", "")
            text = re.sub(rf"{re.escape(folder)}(?![\w.-])", lambda _, at=folder: Path(at).name, text)
        return _FOLDERS.sub("", text)

    def value(self, value: Any, name: str = "") -> Any:
        """A setting, with everything inside it."""
        if _SECRET.search(name) and value:
            return HIDDEN
        if isinstance(value, dict):
            return {str(key): self.value(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        if not isinstance(value, str):
            return value
        return last_name(value) if is_path(value) else self.text(value)


def is_path(text: str) -> bool:
    """Whether a setting is the path of a file from the root, and nothing else."""
    return (
        "\n" not in text and re.match(r"(~?/|[A-Za-z]:[\\/]|\\\\)\S", text) is not None and ", " not in text
    )


def last_name(text: str) -> str:
    """a.png of /x/y/a.png and of C:\\x\\a.png."""
    return PureWindowsPath(text).name or text
