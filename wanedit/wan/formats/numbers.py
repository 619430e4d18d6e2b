"""Number formats: scaled 8-bit weights become plain tensors, W = q * scale, one at a time."""

import contextlib
import ctypes
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from wanedit.errors import MissingWeightsError
from wanedit.files import reading
from wanedit.wan.formats.tensors import Stored, mappable, metadata, read_file

if TYPE_CHECKING:
    from torch import Tensor

    from wanedit.wan.packed import Packed

# Bytes of one mapping of which pages are read only to be converted.
_WINDOW = 1 << 26

# Beside a layer's weight: its scale, and what only a matrix product in 8 bits would ask for. The first two are of
# ComfyUI's older files, the others of its newer ones and of LightX2V (one scale a row).
SCALES = (".scale_weight", ".weight_scale")
UNREAD = (".scale_input", ".input_scale", ".comfy_quant")
MARKERS = ("scaled_fp8",)
EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2", "int8")
# GGUF's block formats that can stay as they are, and the numbers of a block; `block_formats.UNPACK` has their layouts.
BLOCKS = {
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"), 32),
    **dict.fromkeys(("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"), 256),
}
# `format` of a layer in a `.comfy_quant` or in the file's metadata, as ComfyUI writes it.
LAYER_FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")


@dataclass(frozen=True)
class Entry:
    """How one tensor of a part comes out of its files.

    Attributes:
        names: of the tensors in the files that it is made of, the first deciding where it is read.
        shape: that it has then.
        kind: number format in the file; "float8_e4m3fn, scaled".
        num_bytes: in the files.
        make: makes it of them; None where it is the one tensor itself.
        packed: it can stay as it is in the file, see `wanedit.wan.packed`: of a block format its name, else "8 bits";
            "" where it cannot.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    kind: str
    num_bytes: int
    make: "Callable[..., Tensor] | None" = None
    packed: str = ""

    def made(self, *parts: "Tensor") -> "Tensor":
        """The tensor, of those that it is made of."""
        return self.make(*parts) if self.make else parts[0]

    def then(self, shape: tuple[int, ...], change: "Callable[[Tensor], Tensor]") -> "Entry":
        """The same, changed afterwards."""
        return replace(self, shape=shape, make=lambda *parts: change(self.made(*parts)), packed="")


def joined(entries: list[Entry]) -> Entry:
    """Entries one after another along their first axis, as one."""

    def make(*parts: "Tensor") -> "Tensor":
        import torch

        rest = iter(parts)
        return torch.cat([entry.made(*(next(rest) for _ in entry.names)) for entry in entries])

    first = entries[0]
    return Entry(
        tuple(name for entry in entries for name in entry.names),
        (sum(entry.shape[0] for entry in entries), *first.shape[1:]),
        first.kind,
        sum(entry.num_bytes for entry in entries),
        make,
    )


def stored(files: Iterable[Path]) -> dict[str, Stored]:
    """Every tensor of several files, from their headers.

    Raises:
        MissingWeightsError: a file cannot be read, or repeats a tensor of an earlier one.
    """
    found: dict[str, Stored] = {}
    for path in files:
        own = read_file(path)
        if repeated := sorted(set(own) & set(found)):
            raise MissingWeightsError(f"{path} repeats tensors of an earlier shard: {some(repeated)}")
        found |= own
    return found


def plain(found: Mapping[str, Stored], files: Iterable[Path]) -> dict[str, Entry]:
    """An entry for every tensor that is no scale or marker; scaled ones are dequantised as they are read.

    Raises:
        MissingWeightsError: a layer's format is none that can be dequantised here, or its scale does not fit.
    """
    _require_formats(found, files)
    entries = {}
    for name, tensor in found.items():
        if name.rpartition(".")[2] in MARKERS or name.endswith((*SCALES, *UNREAD)):
            continue
        layer = name.removesuffix(".weight")
        scale = next((layer + suffix for suffix in SCALES if name != layer and layer + suffix in found), None)
        entry = Entry((name,), tensor.shape, tensor.kind, tensor.num_bytes, packed=_packed(tensor))
        if scale is not None:
            entry = _scaled(name, tensor, scale, found[scale])
        elif tensor.kind == "int8" and tensor.shape and name != layer:
            raise MissingWeightsError(f"{name} is int8 and {layer}{SCALES[1]} is absent; expected its scale")
        entries[name] = entry
    return entries


def _packed(tensor: Stored) -> str:
    """As of an `Entry`."""
    if tensor.kind in ("float8_e4m3fn", "float8_e5m2"):
        return "8 bits"
    numbers = BLOCKS.get(tensor.kind)
    # A row of whole blocks, so that some rows can be made numbers without the others.
    return tensor.kind if numbers and tensor.shape and tensor.shape[-1] % numbers == 0 else ""


def _scaled(name: str, tensor: Stored, scale_name: str, scale: Stored) -> Entry:
    rows = tensor.shape[0] if tensor.shape else 1
    if tensor.kind not in EIGHT_BITS or math.prod(scale.shape) not in (1, rows):
        raise MissingWeightsError(
            f"{name} is {tensor.kind} {tensor.shape} with a scale of shape {scale.shape}; expected one of "
            f"{', '.join(EIGHT_BITS)} and one scale, or one for each of {rows} rows"
        )

    def make(quantised: "Tensor", factor: "Tensor") -> "Tensor":
        return quantised.float().mul_(factor.float().reshape(-1, *[1] * (quantised.dim() - 1)))

    return Entry(
        (name, scale_name),
        tensor.shape,
        f"{tensor.kind}, scaled",
        tensor.num_bytes + scale.num_bytes,
        make,
        "8 bits",
    )


def _require_formats(found: Mapping[str, Stored], files: Iterable[Path]) -> None:
    """Formats are said layer by layer: beside the layer, as JSON in bytes, or together in the file's metadata."""
    files = list(files)
    with reading(files[0], "the number formats of its layers", MissingWeightsError):
        said = {
            name.removesuffix(".comfy_quant"): bytes(tensor.read().tolist())
            for name, tensor in found.items()
            if name.endswith(".comfy_quant")
        }
        formats = {layer: json.loads(text).get("format") for layer, text in said.items()}
        for path in files:
            layers = json.loads(metadata(path).get("_quantization_metadata", "{}")).get("layers", {})
            formats |= {layer: about.get("format") for layer, about in layers.items()}
    strange = {layer: kind for layer, kind in formats.items() if kind not in LAYER_FORMATS}
    if strange:
        layer, kind = next(iter(strange.items()))
        raise MissingWeightsError(
            f"{layer} is stored as {kind!r}, as {len(strange)} layers are; expected {', '.join(LAYER_FORMATS)}, or no "
            "scaled format: take the file of another precision"
        )


@dataclass(frozen=True)
class Weights:
    """The tensors of one part: which files they are in, and how each comes out of them."""

    files: tuple[Path, ...]
    entries: Mapping[str, Entry]

    @classmethod
    def of(cls, files: Iterable[Path]) -> "Weights":
        """Those of some files, under the names that they have there; only headers are read.

        Raises:
            MissingWeightsError: as `stored` and `plain`.
        """
        files = tuple(files)
        return cls(files, plain(stored(files), files))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.entries.items()}

    @property
    def kinds(self) -> list[str]:
        """The number formats in it, the one that most bytes are in first."""
        sizes: dict[str, int] = {}
        for entry in self.entries.values():
            sizes[entry.kind] = sizes.get(entry.kind, 0) + entry.num_bytes
        return sorted(sizes, key=lambda kind: -sizes[kind])

    @overload
    def read(self, keeps: "Callable[[str, Tensor], bool]") -> "Iterator[tuple[str, Tensor]]": ...

    @overload
    def read(
        self, keeps: "Callable[[str, Tensor], bool]", packs: Callable[[str], bool]
    ) -> "Iterator[tuple[str, Tensor | Packed]]": ...

    def read(
        self, keeps: "Callable[[str, Tensor], bool]", packs: Callable[[str], bool] = lambda name: False
    ) -> "Iterator[tuple[str, Tensor | Packed]]":
        """Every tensor in turn; one that is made of nothing but itself is a view of its mapped file. One that can stay
        as it is there comes so, if the caller `packs` it.

        A page that was read stays in memory as long as its mapping. So tensors that the caller `keeps` as views come
        first, out of one mapping of their file; the others, which are converted and let go, come out of mappings
        that last for `_WINDOW` bytes each: of a part that is converted no more than that is resident twice.
        """
        opened = {path: read_file(path) for path in self.files}
        home = {name: path for path, tensors in opened.items() for name in tensors}
        for path in self.files:
            here = {name: entry for name, entry in self.entries.items() if home[entry.names[0]] == path}
            order = sorted(here, key=lambda name: opened[path][here[name].names[0]].place)
            small = {n for n in order if here[n].packed and packs(n)}
            kept = {
                n
                for n in order
                if not here[n].make and n not in small and keeps(n, opened[path][here[n].names[0]].read())
            }
            taken = math.inf
            for name in sorted(order, key=lambda name: name not in kept):
                entry = here[name]
                if name not in kept and taken > _WINDOW and mappable(path):
                    opened[path], taken = read_file(path), 0
                if name not in kept and entry.num_bytes > 1 << 20:  # of what the one before left
                    trim()
                taken += entry.num_bytes
                parts = [opened[home[part]][part] for part in entry.names]
                yield (
                    name,
                    _as_stored(entry, parts) if name in small else entry.made(*(p.read() for p in parts)),
                )
            if mappable(path):
                opened[path] = read_file(path)


def _as_stored(entry: Entry, parts: "Sequence[Stored]") -> "Packed":
    """Copies, which keep no mapping of a file alive."""
    from wanedit.wan.packed import Packed

    first, rows, columns = parts[0], entry.shape[0], entry.shape[1]
    codes = first.codes() if first.codes else first.read().clone()
    scale = parts[1].read().clone() if len(parts) > 1 else None
    return Packed(codes, scale, (rows, columns), first.kind if first.codes else "")


def trim() -> None:
    """Give freed memory back to the system: glibc keeps blocks of up to 32 MB for itself until it is told.

    Where tensors are converted, larger ones are freed between smaller ones that stay, and the holes would come to
    nearly as much as the part. Other C libraries have no such call.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def some(names: list[str], limit: int = 4) -> str:
    """The first of them, and how many more there are."""
    rest = f" … and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
