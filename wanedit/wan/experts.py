"""The two experts of Wan 2.2, one for high and one for low noise, behind one velocity."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from wanedit.wan.config import WanConfig
from wanedit.wan.transformer import Context, WanTransformer

# Wan2.2-I2V-A14B hands over at sigma 0.9 (Wan 2.2, `wan/configs/wan_i2v_A14B.py`, `boundary`).
BOUNDARY_TIMESTEP = 900.0


class ExpertPair(nn.Module):
    """Called like one transformer; the timestep decides which expert answers."""

    def __init__(self, high_noise: WanTransformer, low_noise: WanTransformer) -> None:
        super().__init__()
        self.high_noise = high_noise
        self.low_noise = low_noise

    @property
    def config(self) -> WanConfig:
        return self.high_noise.config

    def prepare(self, *args: Any, **kwargs: Any) -> tuple[Context, Context]:
        """One context per expert; see `WanTransformer.prepare`."""
        return self.high_noise.prepare(*args, **kwargs), self.low_noise.prepare(*args, **kwargs)

    def velocity(
        self,
        latents: Float[Tensor, "b 16 s h w"],
        timestep: Float[Tensor, " b"],
        context: tuple[Context, Context],
    ) -> Float[Tensor, "b 16 s h w"]:
        """The velocity of the expert for this noise level; all rows share the level."""
        if float(timestep[0]) >= BOUNDARY_TIMESTEP:
            return self.high_noise.velocity(latents, timestep, context[0])
        return self.low_noise.velocity(latents, timestep, context[1])

    def forward(
        self, latents: Float[Tensor, "b 16 s h w"], timestep: Float[Tensor, " b"], *args: Any, **kwargs: Any
    ) -> Float[Tensor, "b 16 s h w"]:
        """As `WanTransformer.forward`."""
        return self.velocity(latents, timestep, self.prepare(tuple(latents.shape[2:]), *args, **kwargs))
