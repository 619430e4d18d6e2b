"""What a styling run keeps: answers by the hash of all that decides them, and the journal of what became of each."""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from wanedit.errors import InputError
from wanedit.files import append_line, digest, read_json, write_text
from wanedit.stylists.protocol import Record, Styled
from wanedit.video.arrays import AnyFrame, pixels_sha256
from wanedit.video.encode import write_png
from wanedit.video.images import load_image

Model = TypeVar("Model", bound=BaseModel)
VERSION = 1


def key_of(**parts: object) -> str:
    """SHA-256 of JSON values; the order of the names does not matter."""
    return digest({"version": VERSION, **parts})


def picture_hash(picture: AnyFrame | None) -> str:
    """SHA-256 of a picture's shape and pixels; "" for none."""
    return "" if picture is None else pixels_sha256(picture)


# Of an entry's files.
ENTRY_NAME = re.compile(r"[0-9a-f]{32}\.(json|png)")


class Cache:
    """Entries in one folder. What is unreadable, or is not what it was when written, counts as absent.

    Args:
        folder: must exist.
        renew: read nothing, only write.
    """

    def __init__(self, folder: Path, renew: bool = False) -> None:
        self.folder, self.renew = folder, renew

    def read_styled(self, key: str) -> Styled | None:
        """A picture and its provenance, or None."""
        record = self._json(key)
        if record is None:
            return None
        try:
            image = load_image(self._place(key, ".png")).pixels
        except InputError:
            return None
        provenance = record.get("provenance")
        if record.get("sha256") != picture_hash(image) or not isinstance(provenance, dict):
            return None
        return Styled(image, provenance)

    def write_styled(self, key: str, styled: Styled) -> None:
        """Keep a picture. The record is written last: without it there is no entry.

        Raises:
            ResourceError: the disk is full.
        """
        write_png(self._place(key, ".png"), styled.image)
        self._write(key, {"sha256": picture_hash(styled.image), "provenance": styled.provenance})

    def read_model(self, key: str, kind: type[Model]) -> Model | None:
        """A guide or a verdict, or None."""
        record = self._json(key)
        try:
            return None if record is None else kind.model_validate(record.get("value"))
        except ValidationError:
            return None

    def write_model(self, key: str, value: BaseModel) -> None:
        """Keep a guide or a verdict.

        Raises:
            ResourceError: the disk is full.
        """
        self._write(key, {"value": value.model_dump(mode="json")})

    def _json(self, key: str) -> Record | None:
        if self.renew:
            return None
        try:
            record = read_json(self._place(key, ".json"), "an answer kept")
        except InputError:
            return None  # what the disk refuses may have cost money: it is not made anew
        return record if record.get("key") == key else None

    def _write(self, key: str, record: Record) -> None:
        text = json.dumps({"key": key, **record}, ensure_ascii=False, indent=1)
        write_text(self._place(key, ".json"), text)

    def _place(self, key: str, suffix: str) -> Path:
        return self.folder / f"{key[:32]}{suffix}"


def is_journal(path: Path) -> bool:
    """Whether a file is the journal of a styling run: it begins, torn or not, as `Journal.append` writes."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        return file.read(8).startswith(b'{"time":')
    return False


def is_entry(path: Path) -> bool:
    """Whether a file is the record of an entry: it names its key, as its own name does."""
    with suppress(ValueError, RecursionError):
        record = json.loads(path.read_bytes())
        return isinstance(record, dict) and str(record.get("key")).startswith(path.stem)
    return False


class Journal:
    """Appends states to a file; a line that a killed run left half-written is closed, never continued.

    Args:
        path: the file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, state: BaseModel) -> None:
        """Write one state with the time; returns once it is on disk.

        Raises:
            ResourceError: the disk is full or refuses.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, **state.model_dump(mode="json")}, ensure_ascii=False)
        append_line(self.path, line, synced=True)
