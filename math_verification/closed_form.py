"""Video models whose velocity is known exactly: Gaussian data over the latent slots.

Data x_0 ~ N(m, C) over S slots, independent over channels and pixels; noise eps ~ N(0, I). On the path
z = (1 - sigma) x_0 + sigma eps, V = (1 - sigma)^2 C + sigma^2 I is the covariance of z, and

    E[x_0 | z] = m + (1 - sigma) C V^-1 (z - (1 - sigma) m),    E[eps | z] = sigma V^-1 (z - (1 - sigma) m).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.flow.editing import View
from wanedit.flow.path import Step
from wanedit.flow.solvers import Velocity


@dataclass
class GaussianVideo:
    """A `VideoModel` of Gaussian data; latents are pixels, prompts move the mean.

    Attributes:
        covariance: (S, S), of every pixel over the slots.
        means: prompt -> (S,); a prompt that is not there has mean zero.
        evaluations: velocities asked for so far.
    """

    covariance: Float[Tensor, "s s"]
    means: dict[str, Float[Tensor, " s"]] = field(default_factory=dict)
    evaluations: int = 0

    def mean(self, prompt: str) -> Float[Tensor, " s"]:
        """m under this prompt."""
        return self.means.get(prompt, self.covariance.new_zeros(len(self.covariance)))

    def velocity(self, view: View, slots: int) -> Velocity:
        """E[eps - x_0 | z] under the prompt of `view`."""
        if slots != len(self.covariance):
            raise ValueError(f"{slots} slots; expected {len(self.covariance)}")
        mean = self.mean(view.prompt)
        identity = torch.eye(slots, dtype=self.covariance.dtype)

        def velocity(z: Tensor, step: Step) -> Tensor:
            self.evaluations += 1
            sigma = step.sigma
            total = (1 - sigma) ** 2 * self.covariance + sigma**2 * identity
            # v = (sigma I - (1 - sigma) C) V^-1 (z - (1 - sigma) m) - m; both factors are symmetric and commute.
            slope = torch.linalg.solve(total, sigma * identity - (1 - sigma) * self.covariance)
            centred = z.movedim(2, -1) - (1 - sigma) * mean
            return (centred @ slope - mean).movedim(-1, 2)

        return velocity

    def encode(self, video: Tensor) -> Tensor:
        """Latents are pixels."""
        return video

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels are latents."""
        return latents


@dataclass
class KernelVideo:
    """A `VideoModel` of Gaussian data whose slots know only their time: sequences of any slots, even joint ones.

    It cannot tell two slots with one id apart, as a transformer cannot, and it is not shown appended latents.

    Attributes:
        kernel: the covariance of two slots as a function of their distance in time.
        levels: prompt -> mean as a function of time; zero for a prompt that is not there.
        evaluations: velocities asked for so far.
    """

    kernel: Callable[[Tensor], Tensor]
    levels: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    evaluations: int = 0

    def velocity(self, view: View, slots: int) -> Velocity:
        """E[eps - x_0 | z] at the times `view.frame_ids`."""
        ids = torch.tensor(view.frame_ids or tuple(map(float, range(slots))), dtype=torch.float64)
        level = self.levels.get(view.prompt, torch.zeros_like)
        gaussian = GaussianVideo(self.kernel(ids[:, None] - ids[None, :]), {view.prompt: level(ids)})
        inner = gaussian.velocity(view, slots)

        def velocity(z: Tensor, step: Step) -> Tensor:
            self.evaluations += 1
            return inner(z, step)

        return velocity

    def encode(self, video: Tensor) -> Tensor:
        """Latents are pixels."""
        return video

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels are latents."""
        return latents


def smooth_kernel(length: float, floor: float = 0.0) -> Callable[[Tensor], Tensor]:
    """exp(-(t / length)^2 / 2), of a share 1 - floor; the rest is common to all slots."""
    return lambda t: floor + (1 - floor) * torch.exp(-((t / length) ** 2) / 2)


def smooth_covariance(slots: int, length: float, nugget: float = 0.05) -> Float[Tensor, "s s"]:
    """A video-like covariance: neighbours alike, and a little of every slot its own, which keeps it invertible."""
    time = torch.arange(slots, dtype=torch.float64)
    kernel = smooth_kernel(length)(time[:, None] - time[None, :])
    return (1 - nugget) * kernel + nugget * torch.eye(slots, dtype=torch.float64)


def conditional(
    mean: Float[Tensor, " s"],
    covariance: Float[Tensor, "s s"],
    slots: tuple[int, ...],
    value: Float[Tensor, " k"],
) -> tuple[Float[Tensor, " s"], Float[Tensor, "s s"]]:
    """Mean and covariance of N(mean, covariance) given x[slots] = value (Bishop 2006, equations 2.81 and 2.82)."""
    keys = list(slots)
    gain = torch.linalg.solve(covariance[keys][:, keys], covariance[keys]).T
    return mean + gain @ (value - mean[keys]), covariance - gain @ covariance[keys]


def draw(
    mean: Float[Tensor, " s"], covariance: Float[Tensor, "s s"], count: int, seed: int
) -> Float[Tensor, "b 1 s 1 1"]:
    """`count` clips of one pixel from N(mean, covariance)."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(count, len(mean), dtype=torch.float64, generator=generator)
    clips = mean + white @ torch.linalg.cholesky(covariance).T
    return clips[:, None, :, None, None]


def normal(count: int, slots: int, seed: int) -> Float[Tensor, "b 1 s 1 1"]:
    """Noise for `count` clips of one pixel."""
    identity = torch.eye(slots, dtype=torch.float64)
    return draw(identity.new_zeros(slots), identity, count, seed)
