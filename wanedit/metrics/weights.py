"""Weights that metrics need: looked for where their libraries look, checked by hash, and never replaced by others.

A random file under the right name would load in silence and give plausible scores, so a file counts only if its
SHA-256 begins with the hexadecimal suffix of its name, as PyTorch's hub names its files. Hugging Face's hub keeps each
weight file under its whole SHA-256 and links to it; there the content must have the hash that the link leads to.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from wanedit.errors import InputError, MissingWeightsError
from wanedit.files import file_sha256

_WHOLE = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")


@dataclass(frozen=True)
class HubFile:
    """A file that the torch hub serves.

    Attributes:
        name: as it lies in the hub's folder; its suffix is the beginning of its SHA-256.
        address: where it is published.
        megabytes: its size.
    """

    name: str
    address: str
    megabytes: int

    @property
    def path(self) -> Path:
        """Where torchvision, lpips and torchmetrics look for it; $TORCH_HOME moves the folder."""
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints" / self.name


@dataclass(frozen=True)
class HubModel:
    """A model of Hugging Face's hub, as transformers loads it.

    Attributes:
        repo: its name, "owner/name".
        megabytes: the size of its weights.
        files: names that its weights may have; the first one there counts.
        beside: what has to lie beside them.
    """

    repo: str
    megabytes: int
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    beside: tuple[str, ...] = ("config.json",)

    @property
    def address(self) -> str:
        """Where it is published."""
        return f"https://huggingface.co/{self.repo}"

    @property
    def folder(self) -> Path:
        """Its place in the hub's cache; $HF_HOME and $HF_HUB_CACHE move that."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"models--{self.repo.replace('/', '--')}"


HUB = "https://download.pytorch.org/models"
ALEXNET = HubFile("alexnet-owt-7be5be79.pth", f"{HUB}/alexnet-owt-7be5be79.pth", 233)
VGG16 = HubFile("vgg16-397923af.pth", f"{HUB}/vgg16-397923af.pth", 528)
SQUEEZENET = HubFile("squeezenet1_1-b8a52dc0.pth", f"{HUB}/squeezenet1_1-b8a52dc0.pth", 5)
RAFT_LARGE = HubFile("raft_large_C_T_SKHT_V2-ff5fadd5.pth", f"{HUB}/raft_large_C_T_SKHT_V2-ff5fadd5.pth", 20)
CLIP = HubModel("openai/clip-vit-base-patch32", 605)
CLIP_L14 = HubModel("openai/clip-vit-large-patch14", 1711, beside=("config.json", "tokenizer.json"))
DINO_B16 = HubModel("facebook/dino-vitb16", 343)
DINO_B8 = HubModel("facebook/dino-vitb8", 343)


def require(file: HubFile) -> Path:
    """The path of a file that is there and is what its name says.

    Raises:
        MissingWeightsError: it is not there; says where it belongs, where it is published, and its size.
        InputError: its content has another hash, or its name has none.
    """
    path, suffix = file.path, _SUFFIX.search(file.name)
    if suffix is None:
        raise InputError(f"{file.name} carries no hash; expected a name such as alexnet-owt-7be5be79.pth")
    if not path.is_file():
        raise MissingWeightsError(f"no {path}; download {file.address} ({file.megabytes} MB) to that place")
    found = file_sha256(path)
    if not found.startswith(suffix[1]):
        raise InputError(
            f"{path} has the SHA-256 {found[:16]}…, its name says {suffix[1]}…: it is not the published file. Download "
            f"{file.address} again"
        )
    return path


def require_model(model: HubModel) -> Path:
    """The folder of a model that is in the hub's cache, with what has to lie beside its weights, and is what its links
    say.

    Raises:
        MissingWeightsError: it is not there; says where it belongs, where it is published, and its size.
        InputError: its weights have another hash than the cache says, or lie in no cache and have none.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = {name: try_to_load_from_cache(model.repo, name) for name in (*model.beside, *model.files)}
    found = {name: path for name, path in cached.items() if isinstance(path, str)}
    weights = next((found[name] for name in model.files if name in found), None)
    if not found.keys() >= set(model.beside) or weights is None:
        raise MissingWeightsError(
            f"no {model.repo} in {model.folder}; fetch it from {model.address} ({model.megabytes} MB): hf download "
            f"{model.repo} {' '.join(model.beside)} {model.files[0]}"
        )
    blob = Path(weights).resolve()
    if not _WHOLE.fullmatch(blob.name):
        raise InputError(f"{weights} is no link to a file named by its SHA-256; expected the hub's own cache")
    if (digest := file_sha256(blob)) != blob.name:
        raise InputError(
            f"{weights} has the SHA-256 {digest[:16]}…, the cache says {blob.name[:16]}…: it is not the published "
            f"file. Remove {model.folder} and fetch it again"
        )
    return Path(weights).parent
