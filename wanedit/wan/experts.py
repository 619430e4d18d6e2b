"""The two experts of Wan 2.2, one for high and one for low noise, behind one velocity."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wanedit.wan.config import WanConfig
from wanedit.wan.transformer import Context, WanTransformer

# Wan2.2-I2V-A14B hands over at sigma 0.9 (Wan 2.2, `wan/configs/wan_i2v_A14B.py`, `boundary`).
BOUNDARY_TIMESTEP = 900.0


class ExpertPair(nn.Module):
    """Called like one transformer; the timestep decides which expert answers.

    After `swap_on(device)` only the expert that answers is on the device, the other in host memory: the two of
    Wan2.2-A14B do not fit one card together. A sample then moves them twice, once for its contexts and once at
    the boundary.
    """

    def __init__(self, high_noise: WanTransformer, low_noise: WanTransformer) -> None:
        super().__init__()
        self.high_noise = high_noise
        self.low_noise = low_noise
        self.swap_device: torch.device | None = None

    def swap_on(self, device: torch.device) -> None:
        """From now on keep only the answering expert on `device`."""
        self.swap_device = device

    def _answering(self, expert: WanTransformer) -> WanTransformer:
        if self.swap_device is not None:
            (self.low_noise if expert is self.high_noise else self.high_noise).to("cpu")
            expert.to(self.swap_device)
        return expert

    @property
    def config(self) -> WanConfig:
        return self.high_noise.config

    def prepare(self, *args: Any, **kwargs: Any) -> tuple[Context, Context]:
        """One context per expert; see `WanTransformer.prepare`."""
        low = self._answering(self.low_noise).prepare(*args, **kwargs)
        high = self._answering(self.high_noise).prepare(*args, **kwargs)
        return high, low

    def with_text(
        self, context: tuple[Context, Context], text: Float[Tensor, "b n text_dim"]
    ) -> tuple[Context, Context]:
        """As `WanTransformer.with_text`, for both experts."""
        low = self._answering(self.low_noise).with_text(context[1], text)
        high = self._answering(self.high_noise).with_text(context[0], text)
        return high, low

    def velocity(
        self,
        latents: Float[Tensor, "b 16 s h w"],
        timestep: Float[Tensor, " b"],
        context: tuple[Context, Context],
    ) -> Float[Tensor, "b 16 s h w"]:
        """The velocity of the expert for this noise level; all rows share the level."""
        if float(timestep[0]) >= BOUNDARY_TIMESTEP:
            return self._answering(self.high_noise).velocity(latents, timestep, context[0])
        return self._answering(self.low_noise).velocity(latents, timestep, context[1])

    def forward(
        self, latents: Float[Tensor, "b 16 s h w"], timestep: Float[Tensor, " b"], *args: Any, **kwargs: Any
    ) -> Float[Tensor, "b 16 s h w"]:
        """As `WanTransformer.forward`."""
        return self.velocity(latents, timestep, self.prepare(tuple(latents.shape[2:]), *args, **kwargs))
