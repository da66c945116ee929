"""The scores by name. All rise with what is unusual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# name: what it measures
SCORES = {
    "recon": "squared error of the model's reconstruction",
    "elbo": "negative evidence lower bound, in nats per value",
    "bpp": "divergence of the latents, in bits per pixel",
    "bpp-png": "bpp less the bits per pixel of the image as a PNG file",
    "mahalanobis": "Mahalanobis distance of the latents y",
    "mahalanobis-z": "Mahalanobis distance of the hyper-latents z",
    "feature": "distance of the encoder's features from those of good images",
    "combined": "mean of the three above, each logarithm in its standard deviations among held-out good images",
    "texture": "distance of local statistics of brightness from those of good images; only where nothing is aligned",
    "pca": "baseline: squared error of 32 principal components",
    "1-nn": "baseline: distance to the nearest good image or patch, in pixels",
}
FOR_ALIGNED = tuple(name for name in SCORES if name != "texture")
COMBINED = ("mahalanobis", "mahalanobis-z", "feature")  # fixed before anything was measured on test images
BASELINES = ("pca", "1-nn")
DEFAULT_SCORE = "combined"


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of a score's logarithm among held-out good images."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, scores: np.ndarray) -> Standard:
        """Of scores (N,) that are above 0."""
        logarithms = _log(scores)
        return cls(float(logarithms.mean()), float(logarithms.std()))

    def of_scores(self, scores: np.ndarray) -> np.ndarray:
        """(N,): standard deviations above the mean."""
        return np.asarray((_log(scores) - self.mean) / max(self.deviation, 1e-6))


def _log(scores: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(scores, np.float64), 1e-12))
