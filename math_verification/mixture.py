"""A video model of Gaussian-mixture data: not linear, two outcomes or more, and still exact.

Data: component m with probability w_m, then x_0 ~ N(mu_m, C_m) over all D = C S H W numbers of a clip. Given z on the
path, component m has the responsibility r_m ~ w_m N(z; (1 - sigma) mu_m, V_m), V_m = (1 - sigma)^2 C_m + sigma^2 I,
and within it x_0 is Gaussian. The laws of total expectation and total covariance give E and Cov of x_0 given z.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.flow.editing import View
from wanedit.flow.path import Step
from wanedit.flow.solvers import Velocity


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of x_0 given z.

    Attributes:
        shares: r_m.
        means, covariances: of x_0 within each component; a component's covariance does not depend on z.
    """

    shares: Float[Tensor, "b m"]
    means: Float[Tensor, "b m d"]
    covariances: Float[Tensor, "m d d"]

    @property
    def mean(self) -> Float[Tensor, "b d"]:
        """E[x_0 | z]."""
        return torch.einsum("bm,bmd->bd", self.shares, self.means)

    @property
    def covariance(self) -> Float[Tensor, "b d d"]:
        """Cov(x_0 | z): within the components, and between them."""
        within = torch.einsum("bm,mde->bde", self.shares, self.covariances)
        off = self.means - self.mean[:, None]
        return within + torch.einsum("bm,bmd,bme->bde", self.shares, off, off)


@dataclass
class MixtureVideo:
    """A `VideoModel` of mixture data; latents are pixels, prompts choose the weights.

    Attributes:
        weights: w_m, for prompts that are not in `prompts`.
        means, covariances: of the components, over clips flattened to D numbers.
        prompts: prompt -> weights.
        evaluations: velocities asked for so far.
    """

    weights: Float[Tensor, " m"]
    means: Float[Tensor, "m d"]
    covariances: Float[Tensor, "m d d"]
    prompts: dict[str, Float[Tensor, " m"]] = field(default_factory=dict)
    evaluations: int = 0

    def posterior(self, z: Float[Tensor, "b d"], sigma: float, prompt: str = "") -> Posterior:
        """x_0 given z at noise level sigma > 0."""
        keep = 1 - sigma
        identity = torch.eye(z.shape[1], dtype=z.dtype)
        total = keep**2 * self.covariances + sigma**2 * identity
        factor = torch.linalg.cholesky(total)
        off = z[:, None] - keep * self.means
        white = torch.cholesky_solve(off.movedim(0, -1), factor).movedim(-1, 0)
        logits = self._log_weights(prompt) - (off * white).sum(-1) / 2
        logits = logits - factor.diagonal(dim1=1, dim2=2).log().sum(-1)
        means = self.means + keep * torch.einsum("bmd,mde->bme", white, self.covariances)
        # C - (1 - sigma)^2 C V^-1 C = sigma^2 C V^-1, which loses no digits.
        within = sigma**2 * torch.cholesky_solve(self.covariances, factor)
        return Posterior(logits.softmax(-1), means, (within + within.mT) / 2)

    def _log_weights(self, prompt: str) -> Float[Tensor, " m"]:
        return self.prompts.get(prompt, self.weights).log()

    def velocity(self, view: View, slots: int) -> Velocity:
        """E[eps - x_0 | z] = (z - E[x_0 | z]) / sigma."""

        def velocity(z: Tensor, step: Step) -> Tensor:
            self.evaluations += 1
            if z.shape[2] != slots:
                raise ValueError(f"{z.shape[2]} slots; expected {slots}")
            mean = self.posterior(z.flatten(1), step.sigma, view.prompt).mean
            return (z - mean.view_as(z)) / step.sigma

        return velocity

    def jacobian(self, z: Float[Tensor, "b d"], sigma: float, prompt: str = "") -> Float[Tensor, "b d d"]:
        """dv/dz = (I - (1 - sigma) / sigma^2 Cov(x_0 | z)) / sigma."""
        covariance = self.posterior(z, sigma, prompt).covariance
        return (torch.eye(z.shape[1], dtype=z.dtype) - (1 - sigma) / sigma**2 * covariance) / sigma

    def membership(self, clips: Float[Tensor, "b c s h w"]) -> Float[Tensor, "b m"]:
        """The probability that a finished clip came from each component, both equally likely beforehand."""
        off = clips.flatten(1)[:, None] - self.means
        factor = torch.linalg.cholesky(self.covariances)
        white = torch.cholesky_solve(off.movedim(0, -1), factor).movedim(-1, 0)
        logits = -(off * white).sum(-1) / 2 - factor.diagonal(dim1=1, dim2=2).log().sum(-1)
        return logits.softmax(-1)

    def encode(self, video: Tensor) -> Tensor:
        """Latents are pixels."""
        return video

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels are latents."""
        return latents
