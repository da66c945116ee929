"""Posteriors and priors as small interchangeable classes: parameters -> samples -> divergence.

All divergences are in nats and have the shape of the latents; sum them for an image, divide by ln 2 for bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LIKELIHOOD_MIN = 1e-9
LOG_VARIANCE_RANGE = (-12.0, 6.0)


@dataclass
class Noise:
    """Random numbers for one rank of a job, cut from those of the whole job.

    Every rank draws the noise of the global batch and keeps its own rows, so that two ranks with half the batch see
    exactly what one rank with the whole batch sees.
    """

    generator: torch.Generator | None = None
    rank: int = 0
    world: int = 1

    def _rows(self, draw: object, like: Tensor) -> Tensor:
        rows = len(like)
        shape = (rows * self.world, *like.shape[1:])
        device = self.generator.device if self.generator is not None else like.device
        noise = draw(shape, generator=self.generator, device=device)  # type: ignore[operator]
        return noise[self.rank * rows : (self.rank + 1) * rows].to(like.device)

    def uniform(self, like: Tensor) -> Tensor:
        """U(-1/2, 1/2), float32, of the shape of `like`."""
        return self._rows(torch.rand, like) - 0.5

    def normal(self, like: Tensor) -> Tensor:
        """N(0, 1), float32, of the shape of `like`."""
        return self._rows(torch.randn, like)


@dataclass
class NormalPrior:
    """p = N(mean, scale^2), elementwise."""

    mean: Tensor
    scale: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats."""
        return -0.5 * ((x - self.mean) / self.scale) ** 2 - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def log_bin(self, x: Tensor) -> Tensor:
        """Log probability in nats of the unit interval around x: log of (p * U(-1/2, 1/2))(x)."""
        distance = (x - self.mean).abs()  # the upper tail keeps precision, the lower one would cancel
        root = -(2**-0.5) / self.scale
        upper, lower = torch.erfc(root * (0.5 - distance)), torch.erfc(root * (-0.5 - distance))
        return (0.5 * (upper - lower)).clamp_min(LIKELIHOOD_MIN).log()

    def sample(self, noise: Noise) -> Tensor:
        return self.mean + self.scale * noise.normal(self.mean)


@dataclass
class UniformPosterior:
    """q = U(mean - 1/2, mean + 1/2): what rounding does, seen from the decoder.

    Ballé et al., "Variational image compression with a scale hyperprior", ICLR 2018, section 2. Its divergence is the
    length of the code that an ideal entropy coder writes.
    """

    mean: Tensor
    parameter_count = 1

    @classmethod
    def from_parameters(cls, parameters: Tensor) -> UniformPosterior:
        return cls(parameters)

    def sample(self, noise: Noise) -> Tensor:
        return self.mean + noise.uniform(self.mean)

    def quantised(self, around: Tensor, sample: Tensor) -> Tensor:
        """What the decoder sees: the mean, rounded to whole steps from `around`; gradients pass straight through."""
        return self.mean + ((self.mean - around).round() + around - self.mean).detach()

    @staticmethod
    def decoded(residuals: Tensor) -> Tensor:
        """Drawn from a prior, what the decoder is used to: whole steps."""
        return residuals.round()

    def kl(self, prior: NormalPrior, sample: Tensor) -> Tensor:
        """One-sample estimate of KL(q || p * U): log q is 0 inside the unit interval."""
        return -prior.log_bin(sample)


@dataclass
class GaussianPosterior:
    """q = N(mean, exp(log_variance)), the posterior of Kingma and Welling, "Auto-Encoding Variational Bayes", 2014."""

    mean: Tensor
    log_variance: Tensor
    parameter_count = 2

    @classmethod
    def from_parameters(cls, parameters: Tensor) -> GaussianPosterior:
        mean, log_variance = parameters.chunk(2, 1)
        return cls(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    def sample(self, noise: Noise) -> Tensor:
        """Reparameterisation (section 2.4): mean + sigma * epsilon."""
        return self.mean + (0.5 * self.log_variance).exp() * noise.normal(self.mean)

    def quantised(self, around: Tensor, sample: Tensor) -> Tensor:
        """What the decoder sees: the sample itself, for nothing is rounded."""
        return sample

    @staticmethod
    def decoded(residuals: Tensor) -> Tensor:
        """Drawn from a prior, what the decoder is used to: any value."""
        return residuals

    def kl(self, prior: NormalPrior, sample: Tensor) -> Tensor:
        """Closed form; for p = N(0, 1) it is -1/2 (1 + log sigma^2 - mu^2 - sigma^2) (appendix B)."""
        variance = prior.scale**2
        spread = self.log_variance.exp() / variance
        return -0.5 * (1 + self.log_variance - variance.log() - (self.mean - prior.mean) ** 2 / variance - spread)


Posterior = UniformPosterior | GaussianPosterior
POSTERIOR_CLASSES: dict[str, type[UniformPosterior] | type[GaussianPosterior]] = {
    "uniform": UniformPosterior,
    "gaussian": GaussianPosterior,
}
