"""A flow whose exact solution is known: data x_0 ~ N(MU, S^2), noise eps ~ N(0, 1), independent.

x_sigma = (1 - sigma) x_0 + sigma eps is Gaussian with mean m = (1 - sigma) MU and variance
V = (1 - sigma)^2 S^2 + sigma^2. Regression of each on x gives

    E[x_0 | x] = MU + (1 - sigma) S^2 / V (x - m),    E[eps | x] = sigma / V (x - m),

and v = E[eps - x_0 | x] is their difference. Since dm/dsigma = -MU and dV/dsigma = 2 sigma - 2 (1 - sigma) S^2,
this is v = dm/dsigma + V' / (2 V) (x - m): the curve (x - m) / sqrt(V) = constant solves dx/dsigma = v.
"""

import math

from torch import Tensor

from wanedit.flow.path import Step

MU, S = 0.7, 0.4


def mean(sigma: float) -> float:
    return (1 - sigma) * MU


def variance(sigma: float) -> float:
    return (1 - sigma) ** 2 * S**2 + sigma**2


def velocity(x: Tensor, step: Step) -> Tensor:
    sigma = step.sigma
    centred = (x - mean(sigma)) / variance(sigma)
    return sigma * centred - (MU + (1 - sigma) * S**2 * centred)


def solution(x: Tensor, sigma: float, sigma_end: float) -> Tensor:
    """Where the flow takes x from noise level `sigma` to `sigma_end`."""
    ratio = math.sqrt(variance(sigma_end) / variance(sigma))
    return mean(sigma_end) + ratio * (x - mean(sigma))
