"""Weights that metrics need: looked for where their libraries look, checked by hash, and never replaced by others.

A random file under the right name would load in silence and give plausible scores, so a file counts only if its
SHA-256 begins with the hexadecimal suffix of its name, as PyTorch's hub names its files.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from wanedit.errors import InputError, MissingWeightsError

_SUFFIX = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")
CHUNK = 1 << 24


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


HUB = "https://download.pytorch.org/models"
ALEXNET = HubFile("alexnet-owt-7be5be79.pth", f"{HUB}/alexnet-owt-7be5be79.pth", 233)
VGG16 = HubFile("vgg16-397923af.pth", f"{HUB}/vgg16-397923af.pth", 528)


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
    found = sha256(path)
    if not found.startswith(suffix[1]):
        raise InputError(
            f"{path} has the SHA-256 {found[:16]}…, its name says {suffix[1]}…: it is not the published file. Download "
            f"{file.address} again"
        )
    return path


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()
