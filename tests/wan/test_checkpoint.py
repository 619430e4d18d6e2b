"""Files into modules: every layout, every difference, nothing executed, nothing held twice."""

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks import load_memory
from wanedit.errors import MissingWeightsError
from wanedit.wan.checkpoint import fill, layout_hash, sha256
from wanedit.wan.formats import numbers
from wanedit.wan.formats.layouts import find_weights
from wanedit.wan.formats.numbers import Weights, stored

STEM = "part"
needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads /proc")


def net(device: str = "cpu") -> nn.Sequential:
    torch.manual_seed(0)
    with torch.device(device):
        return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))


def as_single(tensors: dict[str, Tensor], folder: Path) -> None:
    save_file(tensors, folder / f"{STEM}.safetensors")


def as_shards(tensors: dict[str, Tensor], folder: Path, count: int = 3) -> None:
    names = [f"{STEM}-{k + 1:05d}-of-{count:05d}.safetensors" for k in range(count)]
    weight_map = {name: names[k % count] for k, name in enumerate(tensors)}
    for file in names:
        save_file({n: tensors[n] for n, where in weight_map.items() if where == file}, folder / file)
    (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def as_pth(tensors: dict[str, Tensor], folder: Path) -> None:
    torch.save(tensors, folder / f"{STEM}.pth")


def as_wrapped_pth(tensors: dict[str, Tensor], folder: Path) -> None:
    torch.save({"state_dict": tensors}, folder / f"{STEM}.pth")


def as_legacy_pth(tensors: dict[str, Tensor], folder: Path) -> None:
    torch.save(tensors, folder / f"{STEM}.pth", _use_new_zipfile_serialization=False)


def weights(folder: Path) -> Weights:
    return Weights.of(find_weights(folder, STEM))


LAYOUTS = [as_single, as_shards, as_pth, as_wrapped_pth, as_legacy_pth]
nothing = lambda name, tensor: False  # noqa: E731
keep = lambda dtype: lambda name: torch.int64 if name.endswith("tracked") else dtype  # noqa: E731


@pytest.mark.parametrize("write", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_layout_fills_a_module(tmp_path: Path, write, dtype: torch.dtype) -> None:
    tensors = net().state_dict()
    write(tensors, tmp_path)
    module = fill(net("meta"), weights(tmp_path), keep(dtype))
    assert not module.training
    for name, value in module.state_dict().items():
        assert value.dtype == keep(dtype)(name)
        assert torch.equal(value, tensors[name].to(value.dtype)), name
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("write", LAYOUTS)
def test_tensors_come_once_and_whole_whatever_the_window(tmp_path: Path, write, monkeypatch) -> None:
    tensors = net().state_dict()
    write(tensors, tmp_path)
    for window, kept in (
        (0, ()),
        (64, ("0.weight",)),
        (1 << 20, ("0.weight", "1.bias")),
        (64, tuple(tensors)),
    ):
        monkeypatch.setattr(numbers, "_WINDOW", window)
        found = list(weights(tmp_path).read(lambda name, _: name in kept))  # noqa: B023
        assert sorted(name for name, _ in found) == sorted(tensors)
        assert all(torch.equal(value, tensors[name]) for name, value in found)


def test_what_nothing_is_computed_with_may_be_missing_and_is_nan(tmp_path: Path) -> None:
    tensors = net().state_dict()
    del tensors["0.bias"]
    as_single(tensors, tmp_path)
    module = fill(net("meta"), weights(tmp_path), keep(torch.float32), unread=("0.bias",))
    assert module.get_parameter("0.bias").isnan().all()
    assert torch.equal(module.get_parameter("0.weight"), tensors["0.weight"])


@pytest.mark.fault(25)
@pytest.mark.parametrize("write", LAYOUTS)
def test_differences_are_listed(tmp_path: Path, write) -> None:
    tensors = net().state_dict()
    del tensors["0.bias"], tensors["1.weight"]
    write(tensors | {"0.weight": torch.zeros(4, 5), "2.weight": torch.zeros(2)}, tmp_path)
    said = r"2 missing: 0.bias, 1.weight; 1 extra: 2.weight; 1 misshapen: 0.weight is \(4, 5\), expected \(4, 6\)"
    with pytest.raises(MissingWeightsError, match=f"{STEM}.*: {said}"):
        fill(net("meta"), weights(tmp_path), keep(torch.float32))


def test_a_long_difference_is_cut(tmp_path: Path) -> None:
    as_single({f"t{k}": torch.zeros(1) for k in range(300)} | net().state_dict(), tmp_path)
    with pytest.raises(MissingWeightsError, match=r"300 extra: t0, t1, t10, t100 … and 296 more"):
        fill(net("meta"), weights(tmp_path), keep(torch.float32))


@pytest.mark.fault(25)
@pytest.mark.parametrize("write", [as_single, as_shards, as_pth, as_legacy_pth])
@pytest.mark.parametrize("left", [0.0, 0.1, 0.6, 0.98])
def test_a_truncated_file_is_named(tmp_path: Path, write, left: float) -> None:
    write({f"t{k}": torch.randn(64, 64) for k in range(6)}, tmp_path)
    path = sorted(tmp_path.glob("*.safetensors" if "pth" not in write.__name__ else "*.pth"))[-1]
    os.truncate(path, int(path.stat().st_size * left))
    with pytest.raises(MissingWeightsError, match=f"{path.name}.*(is truncated, damaged|refused)"):
        list(weights(tmp_path).read(nothing))


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path, kind: str) -> None:
    {"safetensors": as_single, "pth": as_pth}[kind]({f"t{k}": torch.ones(40) for k in range(9)}, tmp_path)
    path = tmp_path / f"{STEM}.{kind}"
    good, generator, refused = path.read_bytes(), torch.Generator().manual_seed(0), 0
    for _ in range(60):
        bad = bytearray(good)
        for place in torch.randint(min(len(bad), 900), (4,), generator=generator).tolist():
            bad[place] ^= 0x55
        path.write_bytes(bad)
        try:
            list(Weights.of([path]).read(nothing))
        except MissingWeightsError:
            refused += 1
    assert refused > 30


class Bomb:
    """Unpickled, it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"{sys.executable} -c \"open(r'{self.target}', 'w')\"",)


@pytest.mark.fault(26)
@pytest.mark.parametrize("disguise", ["zip", "legacy", "raw"])
@pytest.mark.filterwarnings("ignore:.*pickle")
def test_a_pickle_bomb_is_refused_and_does_not_go_off(tmp_path: Path, disguise: str) -> None:
    target, path = tmp_path / "exploded", tmp_path / f"{STEM}.pth"
    tensors = {"a": torch.ones(3), "b": Bomb(target)}
    if disguise == "raw":
        path.write_bytes(pickle.dumps(tensors["b"]))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=disguise == "zip")
    with pytest.raises(MissingWeightsError, match="refused: it is no plain file of tensors") as caught:
        stored([path])
    assert not target.exists()
    assert "weights_only" not in str(caught.value)  # torch's own message advises to execute it
    assert disguise == "raw" or "it asks for" in str(caught.value)

    pickle.loads(pickle.dumps(tensors["b"]))  # it is live
    assert target.exists()


def test_a_pth_of_other_things_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / f"{STEM}.pth")
    with pytest.raises(MissingWeightsError, match="holds a list; expected named tensors"):
        stored(find_weights(tmp_path, STEM))


@pytest.mark.fault(28)
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"secret": torch.ones(1)}, tmp_path / "outside.safetensors")
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), ".."):
        (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": {"secret": name}}))
        with pytest.raises(MissingWeightsError, match="lacks 1 of 1 shards"):
            find_weights(folder, STEM)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=rf"has no {STEM}\*.safetensors and no {STEM}\*.pth"):
        find_weights(tmp_path, STEM)
    as_shards(net().state_dict(), tmp_path)
    (tmp_path / f"{STEM}-00002-of-00003.safetensors").unlink()
    with pytest.raises(MissingWeightsError, match=f"lacks 1 of 3 shards: {STEM}-00002-of-00003.safetensors"):
        find_weights(tmp_path, STEM)
    (tmp_path / f"{STEM}.safetensors.index.json").unlink()
    with pytest.raises(MissingWeightsError, match="and no index; expected one file"):
        find_weights(tmp_path, STEM)
    (tmp_path / f"{STEM}.safetensors.index.json").write_text("{}")
    with pytest.raises(MissingWeightsError, match="has no weight_map"):
        find_weights(tmp_path, STEM)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"twice": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(MissingWeightsError, match="repeats tensors of an earlier shard: twice"):
        stored(sorted(tmp_path.glob("*.safetensors")))


def test_layout_hash_is_diffsynths_own(tmp_path: Path) -> None:
    from diffsynth.core.loader.file import hash_model_file, hash_state_dict_keys

    tensors = net().state_dict()
    for write in (as_single, as_pth):
        write(tensors, tmp_path)
    shapes = Weights.of([tmp_path / f"{STEM}.safetensors"]).shapes
    assert layout_hash(shapes) == hash_state_dict_keys(tensors)
    assert layout_hash(shapes) == hash_model_file(str(tmp_path / f"{STEM}.pth"))
    assert layout_hash(shapes | {"0.weight": (6, 4)}) != layout_hash(shapes)


def test_sha256_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"abcd")
    assert sha256(path) == "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"


# Memory. 20 MB in 20 tensors; benchmarks/load_memory.py measures gigabytes.
MEGABYTE = 1 << 20


@pytest.fixture
def big(tmp_path: Path) -> Path:
    as_single({f"{k}.weight": torch.full((512, 512), float(k)) for k in range(20)}, tmp_path)
    return tmp_path / f"{STEM}.safetensors"


def wide(device: str = "meta") -> nn.Sequential:
    with torch.device(device):
        return nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(20)))


def mapped(path: Path) -> tuple[list[range], int]:
    """Address ranges at which this process maps a file, and how many of its bytes are resident."""
    ranges, resident, inside = [], 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            inside = bool(rest) and rest[-1] == str(path)
            if inside:
                ranges.append(range(*(int(end, 16) for end in first.split("-"))))
        elif inside and first == "Rss:":
            resident += 1024 * int(rest[0])
    return ranges, resident


@needs_proc
def test_a_tensor_of_the_right_dtype_stays_a_view_of_the_file(big: Path) -> None:
    module = fill(wide(), Weights.of([big]), lambda _: torch.float32)
    ranges, resident = mapped(big)
    assert all(any(p.data_ptr() in r for r in ranges) for p in module.parameters())
    assert resident < 2 * MEGABYTE  # nothing is read before it is used
    assert [float(p.mean()) for p in module.parameters()] == list(range(20))


@needs_proc
def test_conversion_keeps_no_second_copy(big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_WINDOW", MEGABYTE)
    peaks = []

    def dtype_of(name: str) -> torch.dtype:
        peaks.append(mapped(big)[1])
        return torch.float32 if name == "7.weight" else torch.bfloat16

    module = fill(wide(), Weights.of([big]), dtype_of)
    assert max(peaks) <= 4 * MEGABYTE
    # One view stays, with its mapping; the pages of those that were converted are gone.
    assert len(mapped(big)[0]) == 1
    assert [float(p.float().mean()) for p in module.parameters()] == list(range(20))
    assert mapped(big)[1] < 3 * MEGABYTE


@needs_proc
@pytest.mark.slow
def test_no_format_takes_more_memory_than_the_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parts of 1.1 GB, of which the largest weight is a greater share than of any published model."""
    worst = load_memory.report(dim=1024, layers=32, shards=1, root=str(tmp_path), formats=True)
    assert worst <= load_memory.BAR, capsys.readouterr().out
