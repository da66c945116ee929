"""What every other score has to beat: a linear subspace of good images, and the nearest good image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from .neighbours import coreset, nearest_distances

COMPONENTS, KEPT = 32, 5000


@dataclass(frozen=True)
class PrincipalComponents:
    """mean (D,), basis (K, D) with orthonormal rows."""

    mean: Tensor
    basis: Tensor

    @classmethod
    def fit(cls, vectors: Tensor, seed: int) -> PrincipalComponents:
        """Of vectors (N, D), 32 components."""
        count = min(COMPONENTS, min(vectors.shape) - 1)
        fitted = PCA(count, svd_solver="randomized", random_state=seed).fit(vectors.numpy())
        return cls(*(torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (fitted.mean_, fitted.components_)))

    def errors(self, x: Tensor) -> Tensor:
        """(B, P, D): squared difference of x (B, P, D) to its projection on the subspace."""
        x = x - self.mean
        return (x - x @ self.basis.T @ self.basis).square()


@dataclass(frozen=True)
class NearestPixels:
    """bank (N, D): good images or patches, uint8 (a 255th of their range)."""

    bank: Tensor

    @classmethod
    def fit(cls, vectors: Tensor, seed: int, *, thinned: bool) -> NearestPixels:
        """At most 5,000 of vectors (N, D), at random or, if thinned, 2,000 that cover the rest."""
        if thinned:
            kept = coreset(vectors, 2000, seed)
        else:
            order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))
            kept = vectors[order[:KEPT]]
        return cls((kept * 255).round().to(torch.uint8))

    def distances(self, x: Tensor) -> Tensor:
        """(B, P): root mean square distance of x (B, P, D) to the nearest."""
        found = nearest_distances(x.flatten(0, 1), self.bank.float() / 255)
        return found.view(x.shape[:2]) / x.shape[2] ** 0.5
