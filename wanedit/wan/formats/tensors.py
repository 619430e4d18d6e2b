"""Files that hold named tensors: safetensors, PyTorch's own, GGUF. Headers are read first, tensors late.

Of safetensors and GGUF headers are read without torch, whose import takes seconds: a wrong file is told at once.
"""

import functools
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wanedit.errors import MissingWeightsError
from wanedit.files import reading, require_file

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFReader
    from torch import Tensor

# What names have in them of a module that was wrapped when it was saved: by DistributedDataParallel, torch.compile,
# FSDP, or for checkpoints of activations.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Under which of these names trainers keep the tensors, some beside counters and an optimiser's state.
_ROOFS = (
    "state_dict", "model", "module", "model_state", "model_state_dict", "ema", "ema_model",
    "generator", "generator_ema",
)  # fmt: skip
# What a safetensors header calls torch's number formats, and bytes of one number.
_KINDS = {
    **{f"F{8 * size}": (f"float{8 * size}", size) for size in (2, 4, 8)},
    **{f"I{8 * size}": (f"int{8 * size}", size) for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": (f"uint{8 * size}", size) for size in (1, 2, 4, 8)},
    "BF16": ("bfloat16", 2),
    "BOOL": ("bool", 1),
    "C64": ("complex64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
}

# Numbers that are dequantised at once.
_PIECE = 1 << 20

MAX_TENSORS = 50_000  # the largest Wan has some 1,300, in fp8 with scales three times as many


@dataclass(frozen=True)
class Stored:
    """One tensor of a file.

    Attributes:
        shape: as a module has it.
        kind: its numbers' format: torch's name for it ("bfloat16", "float8_e4m3fn") or GGUF's ("Q4_K").
        num_bytes: in the file.
        place: read in this order, a disk is fastest.
        read: the tensor; a view of the mapped file, or float32 out of a GGUF block format.
        codes: of a GGUF block format what the file has, (blocks, bytes); None for any other.
    """

    shape: tuple[int, ...]
    kind: str
    num_bytes: int
    place: int
    read: "Callable[[], Tensor]"
    codes: "Callable[[], Tensor] | None" = None


def read_file(path: Path) -> dict[str, Stored]:
    """Every tensor of a file by its name there; no number is read yet.

    Raises:
        MissingWeightsError: the file is truncated, corrupt, or holds something else than named tensors.
    """
    if path.suffix == ".gguf":
        return _gguf(path)
    found = _safetensors(path) if path.suffix in (".safetensors", ".sft") else _pickled(path)
    bare = {_WRAPPERS.sub("", name): stored for name, stored in found.items()}
    return bare if len(bare) == len(found) else found


def mappable(path: Path) -> bool:
    """Whether its tensors are views of a mapping: not of a pickled file of before PyTorch 1.6, which is no zip archive,
    nor of a GGUF, which is read.
    """
    return path.suffix in (".safetensors", ".sft") or (path.suffix != ".gguf" and zipfile.is_zipfile(path))


def _safetensors(path: Path) -> dict[str, Stored]:
    from safetensors import safe_open

    @functools.cache
    def mapped():
        return safe_open(path, framework="pt", device="cpu")

    def read(name: str) -> "Tensor":
        with reading_tensors(path):
            return mapped().get_tensor(name)

    found = {}
    with reading_tensors(path), safe_open(path, framework="np") as file:
        names = file.offset_keys()
        _require_few(path, len(names))
        for place, name in enumerate(names):
            header = file.get_slice(name)
            shape = tuple(header.get_shape())
            kind, size = _KINDS[header.get_dtype()]
            found[name] = Stored(shape, kind, size * math.prod(shape), place, functools.partial(read, name))
    return found


def metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself beside its tensors, and a GGUF of its architecture; {} for any other."""
    if path.suffix == ".gguf":
        with reading_tensors(path):
            said = _gguf_reader(path).get_field("general.architecture")
            return {"general.architecture": str(said.contents())} if said else {}
    if path.suffix not in (".safetensors", ".sft"):
        return {}
    from safetensors import safe_open

    with reading_tensors(path), safe_open(path, framework="np") as file:
        return file.metadata() or {}


def _require_few(path: Path, count: int) -> None:
    """Raise MissingWeightsError for more tensors than any model has: each takes memory and time, however small."""
    if count > MAX_TENSORS:
        raise MissingWeightsError(
            f"{path} names {count} tensors; expected those of a model, {MAX_TENSORS} at most"
        )


def _pickled(path: Path) -> dict[str, Stored]:
    import torch
    from torch import Tensor

    with reading_tensors(path):
        # PyTorch writes archives without compression. A few MB of zeros unpack to the whole memory.
        packed = zipfile.ZipFile(path).infolist() if zipfile.is_zipfile(path) else []
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in packed):
            raise MissingWeightsError(f"{path} refused: it is compressed; expected what torch.save writes")
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mappable(path))
        except pickle.UnpicklingError as error:
            # torch's own message advises weights_only=False, which would execute what the file asks for.
            forbidden = re.search(r"GLOBAL (\S+)", str(error))
            reason = f"it asks for {forbidden[1]}" if forbidden else "its pickle cannot be read"
            raise MissingWeightsError(f"{path} refused: it is no plain file of tensors ({reason})") from None
    while isinstance(loaded, dict) and not all(isinstance(value, Tensor) for value in loaded.values()):
        inner = [name for name in _ROOFS if isinstance(loaded.get(name), dict)]
        if len(inner) > 1:
            raise MissingWeightsError(
                f"{path} holds the weights of {' and '.join(inner)}; expected those of one: save it as its own file"
            )
        inner = inner or list(loaded)
        if len(inner) != 1 or not isinstance(loaded[inner[0]], dict):
            break
        loaded = loaded[inner[0]]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        what = f" ({', '.join(map(str, list(loaded)[:4]))})" if isinstance(loaded, dict) else ""
        raise MissingWeightsError(
            f"{path} holds a {type(loaded).__name__}{what}; expected named tensors, or them under one of "
            f"{', '.join(_ROOFS)}"
        )
    return {
        name: Stored(
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.nbytes,
            tensor.data_ptr(),
            lambda tensor=tensor: tensor,
        )
        for name, tensor in loaded.items()
    }


def _gguf_reader(path: Path) -> "GGUFReader":
    from gguf import GGUFReader

    with path.open("rb") as file:
        _, _, count = struct.unpack("<4sIQ", file.read(16))
    _require_few(path, count)
    return GGUFReader(path)


def _gguf(path: Path) -> dict[str, Stored]:
    from gguf import GGMLQuantizationType

    with reading_tensors(path):  # the reader looks nothing up before it uses it
        reader = _gguf_reader(path)
        found = {}
        for tensor in reader.tensors:
            shape = tuple(int(size) for size in reversed(tensor.shape))
            # GGUF has four axes at most: who needs more writes the shape beside them.
            own = reader.get_field(f"comfy.gguf.orig_shape.{tensor.name}")
            if own is not None:
                shape = tuple(int(own.parts[k][0]) for k in own.data)
            if math.prod(shape) != int(tensor.n_elements):
                raise ValueError(f"{tensor.name} is {shape}, and holds {tensor.n_elements} numbers")
            if tensor.data_offset + tensor.n_bytes > path.stat().st_size:
                raise ValueError(f"{tensor.name} ends behind the file's end")
            kind = GGMLQuantizationType(tensor.tensor_type)
            plain = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(kind.name)
            numbers, codes = _block_readers(
                path, int(tensor.data_offset), tensor.data.shape, tensor.data.dtype, kind, shape
            )
            found[tensor.name] = Stored(
                shape,
                plain or kind.name,
                int(tensor.n_bytes),
                int(tensor.data_offset),
                numbers,
                None if plain else codes,
            )
        return found


def _block_readers(path: Path, offset: int, stored: Sequence[int], dtype, kind, shape: tuple[int, ...]):
    """Of numbers, and of codes. Reads instead of mapping: what is dequantised needs no second life in a mapping's
    pages."""

    def raw_numbers() -> "np.ndarray":
        import numpy as np

        with reading_tensors(path):
            return np.fromfile(path, dtype, math.prod(stored), offset=offset).reshape(stored)

    def codes() -> "Tensor":
        import torch
        from gguf.constants import GGML_QUANT_SIZES

        return torch.from_numpy(raw_numbers().reshape(-1, GGML_QUANT_SIZES[kind][1]))

    def read() -> "Tensor":
        import torch

        with reading_tensors(path):
            raw = raw_numbers()
            if kind.name == "BF16":
                return torch.from_numpy(raw).view(torch.bfloat16).reshape(shape)
            return (
                torch.from_numpy(raw) if kind.name in ("F32", "F16") else _dequantised(raw, kind)
            ).reshape(shape)

    return read, codes


def _dequantised(raw: "np.ndarray", kind: "GGMLQuantizationType") -> "Tensor":
    """In float32, by the package's own code: piece by piece, since of a whole tensor it keeps two copies for a moment,
    and on as many threads as torch has.
    """
    import torch
    from gguf.constants import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    numbers, size = GGML_QUANT_SIZES[kind]
    blocks = raw.reshape(-1, size)
    found = torch.empty(len(blocks), numbers)
    piece = _PIECE // numbers

    def fill(first: int) -> None:
        # As one row: of more than 16 it would make pieces of its own.
        row = blocks[first : first + piece].reshape(1, -1)
        found[first : first + piece] = torch.from_numpy(dequantize(row, kind)).view(-1, numbers)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        list(threads.map(fill, range(0, len(blocks), piece)))
    return found


def reading_tensors(path: Path) -> AbstractContextManager[None]:
    """`files.reading` of a file of tensors; raises MissingWeightsError."""
    size = require_file(path, "a file of tensors", MissingWeightsError)
    return reading(path, f"a whole file of named tensors ({size} bytes are there)", MissingWeightsError)
