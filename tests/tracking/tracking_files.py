"""Reading back what Weights & Biases wrote, for the tests: the package itself ships no reader in Python."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 1 << 15, 7


def records(path: Path) -> list[Any]:
    """Every Record of a run-ID.wandb file: LevelDB's log format behind seven bytes of W&B's own."""
    from wandb.proto import wandb_internal_pb2 as proto

    data = path.read_bytes()
    assert data[:4] == b":W&B", data[:7]
    found = []
    for payload in _payloads(data):
        record = proto.Record()  # pyright: ignore[reportAttributeAccessIssue]
        record.ParseFromString(payload)
        found.append(record)
    return found


def _payloads(data: bytes) -> Iterator[bytes]:
    """Whole records. Each chunk: CRC-32 of kind and bytes, length, kind (1 whole, 2 first, 3 middle, 4 last)."""
    at, parts = 7, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        chunk = data[at + HEADER : at + HEADER + length]
        assert zlib.crc32(bytes([kind]) + chunk) == checksum
        at += HEADER + length
        parts = chunk if kind in (1, 2) else parts + chunk
        if kind in (1, 4):
            yield parts


def history(found: list[Any]) -> list[dict[str, Any]]:
    """The rows that were logged."""
    return [_items(r.history.item) for r in found if r.HasField("history")]


def summary(found: list[Any]) -> dict[str, Any]:
    """The last values of the summary."""
    values: dict[str, Any] = {}
    for record in found:
        if record.HasField("summary"):
            values |= _items(record.summary.update)
    return values


def config(found: list[Any]) -> dict[str, Any]:
    """The configuration that the run began with."""
    return _items(next(r.run.config.update for r in found if r.HasField("run")))


def _items(items: Any) -> dict[str, Any]:
    # A nested key has its names one by one.
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
