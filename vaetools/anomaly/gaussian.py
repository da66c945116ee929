"""Normal distributions of latents, and how far from their middle a latent is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor


@dataclass(frozen=True)
class Gaussians:
    """P normal distributions over D dimensions: mean (P, D), precision (P, D, D), the inverse of the covariance."""

    mean: Tensor
    precision: Tensor

    @classmethod
    def fit(cls, samples: Tensor) -> Gaussians:
        """One for each of the P columns of samples (N, P, D), with the covariance shrunk as Ledoit and Wolf, "A well-conditioned
        estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis, 2004, tell."""
        means, precisions = [], []
        for column in samples.unbind(1):
            values = column.double().numpy()
            spread = values.std(0) + 1e-6  # one unit for all dimensions, as the shrinkage is towards equal variances
            fitted = LedoitWolf().fit(values / spread)
            means.append(fitted.location_ * spread)
            precisions.append(fitted.precision_ / np.outer(spread, spread))
        return cls(torch.from_numpy(np.stack(means)).float(), torch.from_numpy(np.stack(precisions)).float())

    def distances(self, x: Tensor) -> Tensor:
        """(B, P): squared Mahalanobis distance by the number of dimensions, of x (B, P, D): near 1 for what was fitted."""
        x = x - self.mean
        return torch.einsum("bpd,pde,bpe->bp", x, self.precision, x) / x.shape[2]

    def distances_to_one(self, x: Tensor) -> Tensor:
        """(B, P): as above where one distribution stands for all columns of x (B, P, D)."""
        x = x - self.mean[0]
        return ((x @ self.precision[0]) * x).sum(2) / x.shape[2]
