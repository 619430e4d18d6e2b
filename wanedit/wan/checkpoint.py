"""Tensors on disk into modules: memory-mapped, one shard at a time, every name and shape accounted for.

A `Part` says which files, under which names, and which module; `read_shapes` and `read_tensors` are all that knows how
a file holds named tensors.
"""

import contextlib
import hashlib
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wanedit.errors import MissingWeightsError, WaneditError
from wanedit.files import file_sha256, write_text
from wanedit.wan.config import read_json

Shapes = dict[str, tuple[int, ...]]
DtypeOf = Callable[[str], torch.dtype]

_WINDOW = 1 << 26


def find_weights(folder: Path, stem: str) -> list[Path]:
    """Files of one part: `stem*.safetensors` (one, or the shards of an index), else `stem*.pth`.

    Raises:
        MissingWeightsError: nothing matches, several files without an index, or a shard is absent.
    """
    indices = sorted(folder.glob(f"{stem}*.safetensors.index.json"))
    if len(indices) > 1:
        names = ", ".join(index.name for index in indices)
        raise MissingWeightsError(f"{folder} holds {names}; expected one index")
    if indices:
        weight_map = read_json(indices[0]).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise MissingWeightsError(f"{indices[0]} has no weight_map")
        # Names come from a file: only the name itself counts, never a path out of the folder.
        names = sorted({Path(str(name)).name for name in weight_map.values()})
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise MissingWeightsError(
                f"{folder} lacks {len(missing)} of {len(names)} shards: {', '.join(missing)}"
            )
        return [folder / name for name in names]
    for suffix in (".safetensors", ".pth"):
        files = sorted(folder.glob(f"{stem}*{suffix}"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise MissingWeightsError(
                f"{folder} holds {names} and no index; expected one file, or an index.json"
            )
        if files:
            return files
    raise MissingWeightsError(f"{folder} has no {stem}*.safetensors and no {stem}*.pth")


def _pth(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_mappable(path))
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which would execute what the file asks for.
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {forbidden[1]}" if forbidden else "its pickle cannot be read"
        raise MissingWeightsError(f"{path} refused: it is no plain file of tensors ({reason})") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise MissingWeightsError(
            f"{path} ({path.stat().st_size} bytes) is truncated or corrupt: {reason}"
        ) from None
    # Some trainers wrap the tensors once.
    while isinstance(loaded, dict) and len(loaded) == 1 and isinstance(next(iter(loaded.values())), dict):
        loaded = next(iter(loaded.values()))
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise MissingWeightsError(f"{path} holds a {type(loaded).__name__}; expected named tensors")
    return loaded


def _mappable(path: Path) -> bool:
    """Whether torch can map the file: not a .pth of before PyTorch 1.6, which is no zip archive."""
    return path.suffix == ".safetensors" or zipfile.is_zipfile(path)


def _safetensors(path: Path):
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise MissingWeightsError(f"{path} ({size} bytes) is truncated or corrupt: {error}") from None


def read_shapes(files: Iterable[Path]) -> Shapes:
    """Names and shapes, from the headers alone."""
    shapes: Shapes = {}
    for path in files:
        if path.suffix == ".pth":
            found = {name: tuple(tensor.shape) for name, tensor in _pth(path).items()}
        else:
            with _safetensors(path) as file:
                found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        repeated = sorted(set(found) & set(shapes))
        if repeated:
            raise MissingWeightsError(f"{path} repeats tensors of an earlier shard: {_some(repeated)}")
        shapes |= found
    return shapes


def read_tensors(files: Iterable[Path], keeps: Callable[[str, Tensor], bool]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in turn, as a view of its mapped file.

    A page that was read stays in memory as long as its mapping. So tensors that the caller `keeps` as views come
    first, out of one mapping of their file; the others, which it converts and lets go, come out of mappings that
    last for `_WINDOW` bytes each: of a part that is converted no more than that is resident twice.
    """
    for path in files:
        tensors, taken = _views(path), math.inf
        # In the file's own order, which a disk reads fastest.
        names = sorted(tensors, key=lambda name: tensors[name].data_ptr())
        kept = {name for name in names if keeps(name, tensors[name])}
        for name in sorted(names, key=lambda name: name not in kept):
            if name not in kept and taken > _WINDOW and _mappable(path):
                tensors, taken = _views(path), 0
            taken += tensors[name].nbytes
            yield name, tensors[name]


def _views(path: Path) -> dict[str, Tensor]:
    """All tensors of a file. Mapping reads none of them: that happens when they are used."""
    if path.suffix == ".pth":
        return _pth(path)
    with _safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is no mapping


def layout_hash(shapes: Mapping[str, Sequence[int]]) -> str:
    """md5 of the sorted names, each once alone and once as "name:d0_d1_…", joined by commas.

    Source: diffsynth, `core/loader/file.py`, which keys its published models by it.
    """
    words = [f"{name}:{'_'.join(map(str, shape))}" for name, shape in shapes.items()]
    return hashlib.md5(",".join(sorted([*words, *shapes])).encode()).hexdigest()


def module_shapes(module: nn.Module, prefix: str = "") -> Shapes:
    """Names and shapes that a module expects from a file."""
    return {prefix + name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def difference(expected: Shapes, found: Shapes) -> str | None:
    """What is missing, extra or misshapen in `found`; None when nothing is."""
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    misshapen = [
        f"{name} is {found[name]}, expected {shape}"
        for name, shape in sorted(expected.items())
        if name in found and found[name] != shape
    ]
    parts = [
        f"{len(names)} {kind}: {_some(names)}"
        for kind, names in (("missing", missing), ("extra", extra), ("misshapen", misshapen))
        if names
    ]
    return "; ".join(parts) or None


def _some(names: Sequence[str], limit: int = 4) -> str:
    rest = f" … and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def fill(
    module: nn.Module,
    files: Sequence[Path],
    dtype_of: DtypeOf,
    device: torch.device | str = "cpu",
    prefix: str = "",
    ignore: tuple[str, ...] = (),
) -> nn.Module:
    """Give a module built on the meta device its weights, tensor by tensor.

    A tensor that already has the wanted dtype stays a view of the mapped file on the CPU; any other is
    converted on its own, so that no second copy of the part ever exists.

    Args:
        module: on the meta device.
        files: of one part.
        dtype_of: parameter name (without prefix) to the dtype it is kept in.
        prefix: of the names in the files, such as "visual.".
        ignore: prefixes of names in the files that this module leaves alone.

    Raises:
        MissingWeightsError: the files are unreadable, or their names or shapes are not the module's.
    """
    expected = module_shapes(module, prefix)
    found = {n: s for n, s in read_shapes(files).items() if n in expected or not n.startswith(ignore)}
    # All names and shapes before the first tensor: a wrong file is told in a second, not after minutes.
    problem = difference(expected, found)
    if problem:
        raise MissingWeightsError(f"{files[0].parent}/{files[0].name}: {problem}")

    def stays(name: str, tensor: Tensor) -> bool:
        return on_cpu and name in expected and tensor.dtype == dtype_of(name.removeprefix(prefix))

    on_cpu = torch.device(device).type == "cpu"
    for name, tensor in read_tensors(files, stays):
        if name in expected:
            path, _, leaf = name.removeprefix(prefix).rpartition(".")
            owner = module.get_submodule(path)
            value = tensor.to(device=device, dtype=dtype_of(name.removeprefix(prefix)))
            if leaf in owner._parameters:
                owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
            else:
                owner._buffers[leaf] = value
    return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class Part:
    """One module of a model on disk.

    Attributes:
        name: as a message calls it.
        folder, stem: where its weights are and how their file names begin.
        build: the module, uninitialised, on whatever device is current.
        prefix: of its names in the files, such as "visual.".
        unused: prefixes of names in the files that the module leaves alone.
    """

    name: str
    folder: Path
    stem: str
    build: Callable[[], nn.Module]
    prefix: str = ""
    unused: tuple[str, ...] = ()

    def files(self) -> list[Path]:
        """As `find_weights`."""
        return find_weights(self.folder, self.stem)

    def num_weights(self) -> int:
        """How many numbers the files hold, from their headers."""
        return sum(math.prod(shape) for shape in read_shapes(self.files()).values())

    def load(self, dtype_of: DtypeOf, device: torch.device | str = "cpu") -> nn.Module:
        """The module with its weights; see `fill` for dtypes and errors."""
        with torch.device("meta"):
            module = self.build()
        return fill(module, self.files(), dtype_of, device, self.prefix, self.unused)


def sha256(path: Path) -> str:
    """SHA-256 of a file, remembered by (path, size, mtime) in the user's cache, since weights are large."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    cache_path = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wanedit" / "sha256.json"
    try:
        cache = json.loads(cache_path.read_text())
    except (OSError, ValueError):
        cache = {}
    if key in cache:
        return cache[key]
    cache[key] = file_sha256(path)
    # A cache that cannot be written (read-only home, full disk) costs time, not correctness.
    with contextlib.suppress(OSError, WaneditError):
        cache_path.parent.mkdir(parents=True, exist_ok=True)
        write_text(cache_path, json.dumps(cache))
    return cache[key]
