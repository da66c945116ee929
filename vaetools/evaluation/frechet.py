"""How far the distribution of some images is from that of others, by the features of a classifier.

    d = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

the squared Fréchet (2-Wasserstein) distance of two normal distributions with the features' means and covariances: the formula
of the FID (Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017).
The FID's features are those of an Inception network trained on ImageNet; these are of a small classifier trained on the data
at hand, so values compare with each other for one classifier and one number of images, and with nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UsageError
from .classifier import SmallCNN, to_input

AT_ONCE = 1000


@dataclass(frozen=True)
class FeatureStatistics:
    """mean (F,) and covariance (F, F), float64, of the features of `count` images."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """features (N, F). Raises UsageError for fewer than two images."""
        if len(features) < 2:
            raise UsageError(f"a covariance needs at least two images, not {len(features)}")
        values = features.double().cpu().numpy()
        return cls(values.mean(0), np.atleast_2d(np.cov(values, rowvar=False)), len(values))


def classifier_features(network: SmallCNN, images: Tensor) -> Tensor:
    """(N, F) float32: what the last layer of the classifier sees of images (N, C, side, side) uint8."""
    body = nn.Sequential(*list(network)[:-2]).eval()  # without dropout and the linear layer
    with torch.no_grad():
        return torch.cat([body(to_input(part)) for part in images.split(AT_ONCE)])


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """0 or more; 0 for equal means and covariances. Raises UsageError if the features differ in number.

    It is biased upwards for few images: compare sets of one size.
    """
    if a.mean.shape != b.mean.shape:
        raise UsageError(f"{len(a.mean)} and {len(b.mean)} features: both must come from one classifier")
    # S1^(1/2) S2 S1^(1/2) is symmetric and has the eigenvalues of S1 S2: no root of a matrix that may have none.
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ b.covariance @ root).clip(0)).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap
    return max(0.0, float(distance))


def nearest_distances(images: Tensor, among: Tensor) -> Tensor:
    """(N,) of each image its root mean square difference to the nearest among others, both (., C, H, W) uint8, in levels of 255.

    A model that repeats its training images comes nearer to them than new real images do.
    """
    queries, others = images.flatten(1).float(), among.flatten(1).float()
    best = torch.full((len(queries),), torch.inf)
    norms = queries.square().sum(1)
    for part in others.split(4 * AT_ONCE):
        squares = norms[:, None] - 2 * queries @ part.T + part.square().sum(1)
        best = torch.minimum(best, squares.min(1).values)
    return (best.clamp_min(0) / queries.shape[1]).sqrt()
