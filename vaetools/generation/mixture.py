"""A density of latents that can be drawn from: a Gaussian mixture on their principal components.

    y = mean + c @ basis          basis: the first R principal components
    c = means[k] + (roots[k] @ e1, scales[k] * e2)    e ~ N(0, 1)

The first d coefficients of each component have a full covariance, the other R - d independent deviations; what is beyond R
stays at its mean. Fitting a density to the latents of a trained autoencoder: Ghosh et al., "From variational to deterministic
autoencoders", ICLR 2020.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError

DIMENSIONS, KEPT = 256, 512  # d and R, at most
MEMBERS = 50  # points for each component, at least; no fewer than d either
EXACT = 4096  # values of a latent, up to which their covariance is written down
ITERATIONS, TOLERANCE = 8, 1e-2  # of expectation maximisation


@dataclass(frozen=True)
class Mixture:
    """K components over D values, float32 on the CPU but for `labels`.

    mean (D,), basis (R, D), labels (K,) int64: the class of each component, weights (K,) of sum 1, means (K, R), roots
    (K, d, d): lower triangular, scales (K, R - d).
    """

    mean: Tensor
    basis: Tensor
    labels: Tensor
    weights: Tensor
    means: Tensor
    roots: Tensor
    scales: Tensor

    def draw(self, generator: torch.Generator, *, label: int | None = None, temperature: float = 1.0) -> tuple[Tensor, int]:
        """A point (D,) and its class: of the given one, or each as often as it was seen.

        temperature: 0 or more, multiplies the deviations around a component's mean. Raises UsageError if no component has
        the class `label`.
        """
        weights = self.weights if label is None else self.weights * (self.labels == label)
        heights = weights.double().cumsum(0)
        if not float(heights[-1]) > 0:
            raise UsageError(f"the prior has no class {label}: it has {int(self.labels.max()) + 1}, counted from 0")
        place = float(heights[-1]) * float(torch.rand((), dtype=torch.float64, generator=generator))
        component = min(int(torch.searchsorted(heights, place, right=True)), int(weights.nonzero()[-1]))
        noise = torch.randn(self.basis.shape[0], generator=generator)
        size = self.roots.shape[1]
        spread = torch.cat([self.roots[component] @ noise[:size], self.scales[component] * noise[size:]])
        return self.mean + (self.means[component] + temperature * spread) @ self.basis, int(self.labels[component])

    @classmethod
    def fit(
        cls,
        points: Tensor,
        labels: Tensor,
        *,
        components: int,
        dimensions: int = DIMENSIONS,
        kept: int = KEPT,
        seed: int = 0,
    ) -> Mixture:
        """Fit to points (N, D), float32, with classes (N,) of 0 and up.

        components: in each class, at most; fewer where one would have less points than dimensions. Raises UsageError if a
        class has a single point.
        """
        counts = torch.bincount(labels)
        if bool((counts == 1).any()):
            raise UsageError("a class has a single image, and a density needs two: add to it, leave it out, or fit all as one")
        mean, basis, variances = principal_components(points, min(kept, len(points) - 1, points.shape[1]), seed)
        basis = basis.half().float()  # as they are stored: a prior from a file draws the same
        places = (points - mean) @ basis.T
        least = max(float(variances[-1]), 1e-6 * float(variances[0]), 1e-8)
        size = min(dimensions, len(basis))
        parts: dict[str, list[Tensor]] = {name: [] for name in ("labels", "weights", "means", "roots", "scales")}
        for label in counts.nonzero().flatten().tolist():
            own = places[labels == label]
            count = max(1, min(components, len(own) // max(MEMBERS, size)))
            weights, means, roots, scales = _fit_class(own.double().numpy(), count, size, least, seed)
            parts["labels"].append(torch.full((count,), label))
            parts["weights"].append(torch.from_numpy(weights * len(own) / len(points)).float())
            parts["means"].append(torch.from_numpy(means).float())
            parts["roots"].append(torch.from_numpy(roots).half().float())
            parts["scales"].append(torch.from_numpy(scales).float())
        return cls(mean, basis, **{name: torch.cat(tensors) for name, tensors in parts.items()})


def principal_components(points: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Of points (N, D): their mean (D,), the `count` directions (count, D) of most variance, and the variances (count,)."""
    mean = points.mean(0)
    if points.shape[1] <= EXACT:
        covariance = torch.zeros(points.shape[1], points.shape[1], dtype=torch.float64)
        for part in points.split(4096):
            centred = part - mean
            covariance += (centred.T @ centred).double()
        variances, directions = torch.linalg.eigh(covariance / (len(points) - 1))
        return mean, directions.T.flip(0)[:count].float().contiguous(), variances.flip(0)[:count].clamp_min(0).float()
    from sklearn.decomposition import PCA

    found = PCA(count, svd_solver="randomized", random_state=seed).fit(points.numpy())
    return mean, torch.from_numpy(found.components_).float(), torch.from_numpy(found.explained_variance_).float()


def _fit_class(
    points: np.ndarray, count: int, size: int, least: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """weights (count,), means (count, R), roots (count, size, size) and scales (count, R - size) of one class's points (N, R)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(count, reg_covar=least, random_state=seed, max_iter=ITERATIONS, tol=TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # more iterations change the samples no more
        shares = mixture.fit(points[:, :size]).predict_proba(points[:, :size])
    rest = points[:, size:]
    total = shares.sum(0)[:, None] + 1e-9
    means = shares.T @ rest / total
    squares = shares.T @ rest**2 / total
    return (
        mixture.weights_,
        np.concatenate([mixture.means_, means], 1),
        np.linalg.cholesky(mixture.covariances_),
        np.sqrt((squares - means**2).clip(0)),
    )
