"""Tensors on disk into modules: every name and shape accounted for before the first number is read."""

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from wanedit.errors import MissingWeightsError, WaneditError
from wanedit.files import file_sha256, read_json, reading, write_text
from wanedit.wan.formats.layouts import Source, weights_of
from wanedit.wan.formats.lora import Lora
from wanedit.wan.formats.numbers import Entry, Weights, some
from wanedit.wan.packed import ROUNDED, Packed, PackedLinear, packable, packed_bytes, rounded

Shapes = dict[str, tuple[int, ...]]
DtypeOf = Callable[[str], torch.dtype]

# Of one part; the largest published one, of 14 B weights, has 1,500.
MAX_PARAMETERS = 10_000
# Formats as `Entry.kind` names them, into which a damaged header may turn weights.
WHOLE_NUMBERS = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"}


def layout_hash(shapes: Mapping[str, Sequence[int]]) -> str:
    """md5 of the sorted names, each once alone and once as "name:d0_d1_…", joined by commas.

    Source: diffsynth, `core/loader/file.py`, which keys its published models by it.
    """
    words = [f"{name}:{'_'.join(map(str, shape))}" for name, shape in shapes.items()]
    return hashlib.md5(",".join(sorted([*words, *shapes])).encode()).hexdigest()


def module_shapes(module: nn.Module) -> Shapes:
    """Names and shapes that a module expects."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def difference(expected: Shapes, found: Shapes, unread: Collection[str] = ()) -> str | None:
    """What is missing, extra or misshapen in `found`; None when nothing is. Names in `unread` may be missing."""
    missing, extra = sorted(set(expected) - set(found) - set(unread)), sorted(set(found) - set(expected))
    misshapen = [
        f"{name} is {found[name]}, expected {shape}"
        for name, shape in sorted(expected.items())
        if name in found and found[name] != shape
    ]
    parts = [
        f"{len(names)} {kind}: {some(names)}"
        for kind, names in (("missing", missing), ("extra", extra), ("misshapen", misshapen))
        if names
    ]
    return "; ".join(parts) or None


def fill(
    module: nn.Module,
    weights: Weights,
    dtype_of: DtypeOf,
    device: torch.device | str = "cpu",
    unread: Collection[str] = (),
    numbers: str = "full",
) -> nn.Module:
    """Give a module built on the meta device its weights, tensor by tensor.

    A tensor that already has the wanted dtype stays a view of the mapped file on the CPU; any other is converted on
    its own, so that no second copy of the part ever exists.

    Args:
        module: on the meta device.
        weights: under the module's own names.
        dtype_of: parameter name to the dtype it is kept in.
        unread: names that nothing is computed with: where they are missing they are NaN, so that a use would show.
        numbers: of the matrices that may stay small (`wanedit.wan.packed`): full, as `dtype_of` says; file, as they
            are in the file where they are small there; int8 or fp8, rounded.

    Raises:
        MissingWeightsError: the files are unreadable, or their names or shapes are not the module's.
    """
    # All names and shapes before the first tensor: a wrong file is told in a second, not after minutes.
    problem = difference(module_shapes(module), weights.shapes, unread)
    whole = {name for name, tensor in module.state_dict().items() if not tensor.is_floating_point()}
    odd = [n for n, entry in weights.entries.items() if entry.kind in WHOLE_NUMBERS and n not in whole]
    if odd and problem is None:
        problem = f"{len(odd)} of whole numbers, which are no weights: {some(odd)}"
    if problem:
        raise MissingWeightsError(f"{weights.files[0]}: {problem}")
    on_cpu = torch.device(device).type == "cpu"

    def is_rounded(name: str, shape: Sequence[int]) -> bool:
        return numbers in ROUNDED and packable(name, tuple(shape))

    for name, value in weights.read(
        lambda name, tensor: on_cpu and tensor.dtype == dtype_of(name) and not is_rounded(name, tensor.shape),
        lambda name: numbers == "file" and packable(name, weights.entries[name].shape),
    ):
        if isinstance(value, Tensor) and is_rounded(name, value.shape):
            value = rounded(value.to(device), numbers)
        if isinstance(value, Packed):
            _put_packed(module, name, value.to(device))
        else:
            _put(module, name, value.to(device=device, dtype=dtype_of(name)))
    for name in set(unread) - set(weights.entries):
        shape = module.get_parameter(name).shape
        _put(module, name, torch.full(shape, math.nan, device=device, dtype=dtype_of(name)))
    return module.eval().requires_grad_(False)


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value


def _put_packed(module: nn.Module, name: str, value: Packed) -> None:
    """In the place of the linear layer whose weight it is; the bias may have come or not."""
    path, _, own = name.removesuffix(".weight").rpartition(".")
    owner = module.get_submodule(path)
    setattr(owner, own, PackedLinear(value, getattr(owner, own).bias))


def held_bytes(weights: Weights, dtype_of: DtypeOf, numbers: str = "full") -> dict[str, int]:
    """Of each tensor as `fill` keeps it."""

    def size(name: str, entry: Entry) -> int:
        if packable(name, entry.shape) and numbers in ROUNDED:
            return packed_bytes(entry.shape)
        if packable(name, entry.shape) and numbers == "file" and entry.packed:
            return entry.num_bytes
        return math.prod(entry.shape) * dtype_of(name).itemsize

    return {name: size(name, entry) for name, entry in weights.entries.items()}


@dataclass(frozen=True)
class Part:
    """One module of a model on disk.

    Attributes:
        name: "transformer", "low-noise transformer", "VAE", "text encoder", "image encoder".
        source: where its files are.
        build: the module, uninitialised, on whatever device is current.
        unread: names of its weights that no Wan is computed with, and that not every publisher keeps.
        loras: that are merged into its weights as they are read.
    """

    name: str
    source: Source
    build: Callable[[], nn.Module]
    unread: tuple[str, ...] = ()
    loras: tuple[Lora, ...] = ()

    def files(self) -> list[Path]:
        """As `Source.files`."""
        return self.source.files(self.name)

    def weights(self) -> Weights:
        """Its tensors under official names, none read yet.

        Raises:
            MissingWeightsError: no such files, or they hold something else.
        """
        found = weights_of(self.source, self.name)
        entries = found.entries
        for lora in self.loras:
            entries = lora.onto(self.name, entries)
        return Weights(found.files, entries)

    def module(self) -> nn.Module:
        """The module without weights, on the meta device.

        Raises:
            MissingWeightsError, InputError: there is none of the sizes that its config says.
        """
        config = f"{self.source.config(self.name)[1]}: {self.name}"
        with (
            reading(config, "the sizes of a model", MissingWeightsError),
            torch.device("meta"),
            _few_parameters(config),
        ):
            return self.build()

    def num_weights(self) -> int:
        """How many numbers the files hold, from their headers."""
        return sum(math.prod(shape) for shape in self.weights().shapes.values())

    def load(self, dtype_of: DtypeOf, device: torch.device | str = "cpu", numbers: str = "full") -> nn.Module:
        """The module with its weights; see `fill` for dtypes, numbers and errors."""
        return fill(self.module(), self.weights(), dtype_of, device, self.unread, numbers)


@contextlib.contextmanager
def _few_parameters(config: str) -> Iterator[None]:
    """Stop building a module of more than `MAX_PARAMETERS`: a wrong number of layers would build for hours."""
    numbers = itertools.count(1)

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if next(numbers) > MAX_PARAMETERS:
            raise MissingWeightsError(
                f"{config} has over {MAX_PARAMETERS} tensors; expected the sizes of a model"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def sha256(path: Path) -> str:
    """SHA-256 of a file, remembered by (path, size, mtime) in the user's cache, since weights are large."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    cache_path = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wanedit" / "sha256.json"
    try:
        cache = read_json(cache_path, "hashes of weights")
    except WaneditError:
        cache = {}
    if re.fullmatch(r"[0-9a-f]{64}", str(cache.get(key))):
        return cache[key]
    cache[key] = file_sha256(path)
    # A cache that cannot be written (read-only home, full disk) costs time, not correctness.
    with contextlib.suppress(OSError, WaneditError):
        cache_path.parent.mkdir(parents=True, exist_ok=True)
        write_text(cache_path, json.dumps(cache))
    return cache[key]
