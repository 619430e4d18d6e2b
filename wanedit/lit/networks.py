"""What generation and editing modules share: one model's VAE and transformer, loaded late and let go early."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from wanedit.lit.encode import release
from wanedit.wan.load import WanFolder, default_dtype, load_transformer, load_vae
from wanedit.wan.transformer import ExpertPair, WanTransformer
from wanedit.wan.vae import WanVAE


class WanModule(LightningModule):
    """Holds the two networks that sampling needs.

    Args:
        folder: an opened model.
        offload_model: on an accelerator, the transformer is in host memory while the VAE works, and of two
            experts only the one that answers is on the device.
        tile: side of VAE tiles in pixels; None for whole frames.
    """

    def __init__(self, folder: WanFolder, offload_model: bool, tile: int | None) -> None:
        super().__init__()
        self.folder = folder
        self.offload_model = offload_model
        self.tile = tile
        self.transformer: WanTransformer | ExpertPair | None = None
        self.vae: WanVAE | None = None

    def load_networks(self, device: torch.device) -> None:
        """VAE to the device, transformer there too or to host memory."""
        self.vae = load_vae(self.folder, device)
        home = torch.device("cpu") if self._offloading(device) else device
        self.transformer = load_transformer(self.folder, home, default_dtype(device))

    def loaded(self) -> tuple[WanTransformer | ExpertPair, WanVAE]:
        """Transformer and VAE.

        Raises:
            RuntimeError: nothing is loaded.
        """
        if self.transformer is None or self.vae is None:
            raise RuntimeError("call load() first")
        return self.transformer, self.vae

    def encode(self, video: Tensor) -> Tensor:
        """Latents (B, 16, S, H/8, W/8) of pixels, on the VAE's device; an offloaded transformer leaves it meanwhile."""
        _, vae = self.loaded()
        self._send_away(vae.mean.device)
        return vae.encode(video.to(vae.mean.device), self.tile)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, T, H, W) in [-1, 1]; the transformer leaves the device meanwhile if offloading."""
        _, vae = self.loaded()
        self._send_away(latents.device)
        return vae.decode(latents, self.tile)

    def _offloading(self, device: torch.device) -> bool:
        return self.offload_model and device.type != "cpu"

    def bring(self, device: torch.device) -> None:
        """The transformer to the device, or only the expert that will answer."""
        if not self._offloading(device):
            return
        if isinstance(self.transformer, ExpertPair):
            self.transformer.swap_on(device)
        elif self.transformer is not None:
            self.transformer.to(device)

    def _send_away(self, device: torch.device) -> None:
        """Off the device, while the VAE works."""
        if self._offloading(device) and self.transformer is not None:
            self.transformer.to("cpu")
            release(device)

    def _rank(self) -> int:
        return self.global_rank if self._trainer is not None else 0

    def on_predict_end(self) -> None:
        """Let go of the weights here: Lightning would copy them to host memory to be tidy."""
        device = self.device
        self.transformer = self.vae = None
        release(torch.device(device))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave the task on the CPU: what is needed is moved when it is needed."""
        return batch
