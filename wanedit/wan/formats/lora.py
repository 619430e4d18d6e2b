"""LoRA: low-rank and whole differences, added to a transformer's weights as they are read.

W + strength * (alpha / rank) * B A, in float32 (arXiv 2106.09685). A file says which weights it means in the words of
whoever trained it; here they are resolved against the official names of the model that it is put on.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from wanedit.errors import InputError, MissingWeightsError
from wanedit.files import Json, reading
from wanedit.wan.config import TRANSFORMER, TRANSFORMER_LOW, ChosenLora, read_model_json
from wanedit.wan.formats.names import officially_named, what_it_is
from wanedit.wan.formats.numbers import Entry, some
from wanedit.wan.formats.tensors import Stored, metadata, read_file

# What stands before the names: peft's own, and ComfyUI's, diffusers' or kohya's.
_PREFIX = re.compile(
    r"^(?:base_model\.model\.)?"
    r"(?:model\.diffusion_model\.|diffusion_model\.|(transformer|transformer_2)\.|lora_unet__?|lora_transformer_)?"
)
# A factor of B A: `.lora_down.weight`, `.lora_A.default.weight`, `_lora.down.weight`, `.lora_linear_layer.down.weight`.
_FACTOR = re.compile(
    r"(.+?)[._]lora(?:_linear_layer)?[._](A|B|down|up)(?:\.(?!weight$|bias$)\w+)?(?:\.(weight|bias))?"
)
_WHOLE = re.compile(r"(.+)\.(alpha|diff|diff_b|diff_m|set_weight)")
_ROLES = {"A": "down", "down": "down", "B": "up", "up": "up"}
# Diffusers keeps what peft was told in the file itself, peft in a file beside it.
_TOLD_WITHIN, _TOLD_BESIDE, _OF_PEFT = "lora_adapter_metadata", "adapter_config.json", "adapter_model"


@dataclass(frozen=True)
class Difference:
    """What is added to one tensor: `scale` times B A, a whole difference, or what leads to a whole new value.

    Attributes:
        role: "up" for B A, "diff" or "set_weight".
        keys: of the tensors in the file; of B A first B.
    """

    role: str
    keys: tuple[str, ...]
    scale: float = 1.0

    def of(self, base: Tensor, found: Mapping[str, Stored]) -> Tensor:
        """In float32, in the shape of the tensor that it belongs to; whoever asks may change it."""
        read = [found[key].read().float() for key in self.keys]
        if self.role == "up":
            # Of a convolution both factors have its axes; a row of either is what counts.
            return (read[0].flatten(1) @ read[1].flatten(1)).mul_(self.scale).reshape(base.shape)
        return read[0] - base if self.role == "set_weight" else self.scale * read[0]


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA's file holds, whatever model it is for; of its numbers only the alphas are read.

    Attributes:
        files: the tensors' first, and what says alpha beside it.
        layers: (the prefix that names an expert, or "", and the layer as the file calls it) -> role -> key.
        unknown: keys that are none of a LoRA's, or none that can be merged.
    """

    files: tuple[Path, ...]
    tensors: Mapping[str, Stored]
    layers: Mapping[tuple[str, str], Mapping[str, str]]
    unknown: tuple[str, ...]
    told: Json

    @classmethod
    def read(cls, place: Path) -> "LoraFile":
        """A file, or a folder as peft saves it.

        Raises:
            MissingWeightsError: it is not there, cannot be read, or is something else.
        """
        path = next(iter(sorted(place.glob(f"{_OF_PEFT}.*"))), place) if place.is_dir() else place
        if not path.is_file():
            raise MissingWeightsError(f"LoRA {place}: there is no such file")
        tensors = read_file(path)
        layers: dict[tuple[str, str], dict[str, str]] = {}
        unknown = []
        for key, tensor in tensors.items():
            prefix = _PREFIX.match(key)
            assert prefix is not None  # it may be empty
            layer, role = _role(key[prefix.end() :]) or (key, "")
            factor = len(tensor.shape) > 1 and 0 not in tensor.shape
            again = role in layers.get((prefix[1] or "", layer), {})
            if not role or again or (role in ("up", "down") and not factor):
                unknown.append(key)
            else:
                layers.setdefault((prefix[1] or "", layer), {})[role] = key
        if not any(
            role in roles for roles in layers.values() for role in ("up", "diff", "set_weight", "bias")
        ):
            raise MissingWeightsError(
                f"{path} is {what_it_is(tensors)}; expected a LoRA, with tensors such as "
                "blocks.0.self_attn.q.lora_A.weight"
            )
        beside = path.with_name(_TOLD_BESIDE)
        if path.stem == _OF_PEFT and beside.is_file():
            return cls((path, beside), tensors, layers, tuple(unknown), read_model_json(beside))
        with reading(path, f"JSON in its {_TOLD_WITHIN}", MissingWeightsError):
            return cls((path,), tensors, layers, tuple(unknown), _told_within(path))

    @property
    def ranks(self) -> list[int]:
        """Every rank in it."""
        return sorted({self.tensors[r["down"]].shape[0] for r in self.layers.values() if "down" in r})

    @property
    def sizes(self) -> tuple[int, int] | None:
        """(dim, number of blocks) of the model that it was trained on, where a self-attention says so."""
        dims, blocks = set(), set()
        for (_, layer), roles in self.layers.items():
            name = re.fullmatch(r"blocks[._](\d+)[._](?:self_attn[._]q|attn1[._]to_q)", layer)
            if name and "down" in roles:
                dims.add(self.tensors[roles["down"]].shape[1])
                blocks.add(int(name[1]))
        return (dims.pop(), max(blocks) + 1) if len(dims) == 1 else None

    def scale(self, expert: str, layer: str) -> float:
        """alpha / rank of one layer: as its own `.alpha` says, or what peft was told; 1 where nothing is said.

        Source: peft, `LoraLayer.update_layer`; with `use_rslora` alpha / sqrt(rank).
        """
        roles = self.layers[expert, layer]
        rank = self.tensors[roles["down"]].shape[0]
        with reading(self.files[-1], f"a finite alpha for {layer}", MissingWeightsError):
            if "alpha" in roles:
                scale = float(self.tensors[roles["alpha"]].read()) / rank
            else:
                own = {name.removeprefix(f"{expert}."): value for name, value in self.told.items()}
                patterns = own.get("alpha_pattern") or {}
                named = (p for p in patterns if re.fullmatch(rf"(.*\.)?({p})", layer))
                alpha = patterns.get(next(named, None), own.get("lora_alpha", rank))
                scale = alpha / (math.sqrt(rank) if own.get("use_rslora") else rank)
            if not math.isfinite(scale):
                raise ValueError(f"alpha over rank is {scale}")
        return scale

    def differences(
        self, shapes: Mapping[str, tuple[int, ...]], prefixes: Collection[str]
    ) -> tuple[dict[str, list[Difference]], list[str]]:
        """What belongs to the weights of one transformer, by their official names; and what has no place there.

        Args:
            prefixes: that name this transformer, "" among them.
        """
        places = {}
        for name in shapes:
            layer = re.sub(r"\.(weight|bias)$", "", name)
            places[layer.replace(".", "_")] = layer
        made: dict[str, list[Difference]] = {}
        homeless = list(self.unknown)
        for (expert, layer), roles in self.layers.items():
            if expert not in prefixes:
                continue
            weight = officially_named(f"{layer}.weight", TRANSFORMER).removesuffix(".weight")
            names = (layer, weight, officially_named(layer, TRANSFORMER))
            own = next((places[key] for n in names if (key := n.replace(".", "_")) in places), None)
            used: set[str] = set()
            for target, difference in self._of_layer(expert, layer, own or "", shapes):
                if target in shapes and self._fits(difference, shapes[target]):
                    made.setdefault(target, []).append(difference)
                    used |= {*difference.keys, *([roles["alpha"]] if "alpha" in roles else [])}
            homeless += [key for key in roles.values() if key not in used]
        return made, homeless

    def _of_layer(
        self, expert: str, layer: str, own: str, shapes: Collection[str]
    ) -> Iterator[tuple[str, Difference]]:
        """What one layer adds to the model's layer `own`, each with the tensor that it belongs to."""
        roles = self.layers[expert, layer]
        # A parameter that belongs to no layer, such as a modulation, is called by its own name.
        weight, bias = f"{own}.weight" if f"{own}.weight" in shapes else own, f"{own}.bias"
        scale = self.scale(expert, layer) if "down" in roles else 1.0
        if "up" in roles and "down" in roles:
            yield weight, Difference("up", (roles["up"], roles["down"]), scale)
        if "bias" in roles:
            yield bias, Difference("diff", (roles["bias"],), scale)
        for role, target in (("diff", weight), ("set_weight", weight), ("diff_b", bias)):
            if role in roles:
                yield target, Difference("diff" if role == "diff_b" else role, (roles[role],))

    def _fits(self, difference: Difference, shape: tuple[int, ...]) -> bool:
        found = [self.tensors[key].shape for key in difference.keys]
        if difference.role != "up":
            return found == [shape]
        up, down = found
        rows, inner, columns = up[:1], math.prod(up[1:]), math.prod(down[1:])
        return (rows, (inner,), columns) == (shape[:1], down[:1], math.prod(shape[1:]))


def _role(name: str) -> tuple[str, str] | None:
    """The layer and what a tensor is to it, from its name without prefix."""
    name = name.replace(".processor.", ".")  # which stood between an attention and its layers in diffusers
    if found := _FACTOR.fullmatch(name):
        role = "bias" if found[3] == "bias" else _ROLES[found[2]]
        return found[1], role
    if found := _WHOLE.fullmatch(name):
        layer, role = found[1], found[2]
        if role == "diff_m":
            return (layer if layer.endswith("modulation") else f"{layer}.modulation"), "diff"
        return layer, role
    return None


def _told_within(path: Path) -> Json:
    told = json.loads(metadata(path).get(_TOLD_WITHIN, "{}"))
    # Under "transformer.", also where the tensors' names say no transformer.
    return {name.removeprefix("transformer."): value for name, value in told.items()} | told


@dataclass(frozen=True)
class Lora:
    """A LoRA that was found to fit a model: plain data, from headers and alphas alone.

    Attributes:
        chosen: file, strength and expert as they were given.
        files: that decide what it does.
        changes: part -> official name -> what is added there.
        notes: what whoever uses it must know.
    """

    chosen: ChosenLora
    files: tuple[Path, ...]
    ranks: tuple[int, ...]
    changes: Mapping[str, Mapping[str, tuple[Difference, ...]]]
    notes: tuple[str, ...]

    @classmethod
    def fitted(
        cls,
        chosen: ChosenLora,
        place: Path,
        shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
        partial: bool = False,
    ) -> "Lora":
        """Resolve a file against the transformers of a model.

        Args:
            place: where the file was found.
            shapes: of each transformer, by part, under official names.
            partial: leave out, with a note, what has no place in the model.

        Raises:
            MissingWeightsError: it is no LoRA, one for a model of another size, or holds what has no place here.
            InputError: "high" or "low" for a model of one transformer.
        """
        file = LoraFile.read(place)
        path = file.files[0]
        experts = {"high": (TRANSFORMER,), "low": (TRANSFORMER_LOW,)}.get(chosen.expert, tuple(shapes))
        if len(shapes) == 1 and chosen.expert:
            raise InputError(
                f"lora {chosen}: the model has one transformer; expected no {chosen.expert}, which is an expert of a "
                "Wan 2.2 A14B"
            )
        changes, homeless, notes = {}, [], []
        prefixes = {expert for expert, _ in file.layers}
        # Of a file that has both experts each gets its own; any other is meant for whichever it is given to.
        both = {"transformer", "transformer_2"} <= prefixes
        for part in experts:
            own = prefixes - (
                {"transformer" if part == TRANSFORMER_LOW else "transformer_2"} if both else set()
            )
            found, lost = file.differences(shapes[part], own)
            changes[part] = {name: tuple(differences) for name, differences in found.items()}
            homeless += [key for key in lost if key not in homeless]
        if both and len(shapes) == 1:
            homeless += [
                k for (one, _), r in file.layers.items() if one == "transformer_2" for k in r.values()
            ]
        dim, layers = _size_of(shapes[experts[0]])
        if file.sizes and file.sizes[0] != dim:
            raise MissingWeightsError(
                f"{path} is a LoRA for a Wan of {file.sizes[1]} blocks of {file.sizes[0]}; this model has {layers} of "
                f"{dim}"
            )
        if not any(changes.values()):
            raise MissingWeightsError(
                f"{path} is a LoRA for another model: none of its {len(file.tensors)} tensors has a place in this one "
                f"({some(sorted(homeless))})"
            )
        if homeless:
            left = (
                f"{len(homeless)} of {len(file.tensors)} tensors have no place in this model: "
                f"{some(sorted(homeless))}"
            )
            if not partial:
                raise MissingWeightsError(
                    f"{path}: {left}; --lora_partial merges the others, if that is meant"
                )
            notes.append(f"{path.name}: {left}; they are left out (lora_partial)")
        said = re.search(r"(?i)(?<![a-z])(high|low)(?![a-z])", path.stem)
        if said and len(experts) > 1 and not both:
            only = str(replace(chosen, expert=said[1].lower()))
            notes.append(
                f"{path.name} goes onto both experts, and its name says {said[1]}: {only} is for one"
            )
        return cls(chosen, file.files, tuple(file.ranks), changes, tuple(notes))

    def __str__(self) -> str:
        """As a plan shows it."""
        tensors = ", ".join(f"{len(names)} tensors of the {part}" for part, names in self.changes.items())
        ranks = f"rank {', '.join(map(str, self.ranks))}, " if self.ranks else ""
        below = f" below noise level {self.chosen.below:g}" if self.chosen.below < 1 else ""
        return f"{self.files[0].name} x {self.chosen.strength:g}{below}: {ranks}{tensors}"

    def onto(self, part: str, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """The entries of one transformer with what this adds to them; none is touched at strength 0."""
        changes = self.changes.get(part, {})
        if not changes or not self.chosen.strength:
            return dict(entries)
        found = read_file(self.files[0])
        merged = {
            name: entries[name].then(entries[name].shape, self._adding(c, found))
            for name, c in changes.items()
        }
        return {**entries, **merged}

    def _adding(
        self, differences: tuple[Difference, ...], found: Mapping[str, Stored]
    ) -> Callable[[Tensor], Tensor]:
        def change(base: Tensor) -> Tensor:
            base = base.float()
            added = differences[0].of(base, found)
            for one in differences[1:]:
                added += one.of(base, found)
            # In place: every copy would be as large as the largest weight in float32.
            return added.mul_(self.chosen.strength).add_(base)

        return change


def _size_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    blocks = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    return shapes["head.modulation"][-1], len(blocks)
