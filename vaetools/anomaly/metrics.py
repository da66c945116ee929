"""How well scores tell anomalous images from good ones, and maps anomalous pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.integrate import trapezoid
from sklearn.metrics import roc_auc_score

PRO_LIMIT = 0.3  # false positive rate up to which the overlap is averaged
GOOD_PIXELS_KEPT = 20_000  # of each image, at random
BAD_PIXELS_KEPT = 20_000  # of each region, evenly spaced in their order


def auroc(good: np.ndarray, bad: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a bad one scores above a good one. nan if there are none of either."""
    if not len(good) or not len(bad):
        return float("nan")
    return float(roc_auc_score(np.r_[np.zeros(len(good)), np.ones(len(bad))], np.r_[good, bad]))


@dataclass
class PixelMetrics:
    """AUROC of pixels, and AUPRO, gathered image by image.

    Good pixels are drawn by `seed`, and of large regions the quantiles are kept; both are weighted by what they stand for.
    """

    seed: int = 0
    images: int = 0
    _regions: list[np.ndarray] = field(default_factory=list)
    _region_weights: list[float] = field(default_factory=list)
    _good: list[np.ndarray] = field(default_factory=list)
    _weights: list[float] = field(default_factory=list)

    def add(self, heat: np.ndarray, mask: np.ndarray) -> None:
        """heat (H, W), and mask (H, W), boolean, of what is anomalous. A region is what touches, corners too."""
        regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        for number, place in enumerate(ndimage.find_objects(regions), 1):
            region = np.sort(heat[place][regions[place] == number])
            kept = region[np.linspace(0, len(region) - 1, min(len(region), BAD_PIXELS_KEPT)).round().astype(np.int64)]
            self._regions.append(kept)
            self._region_weights.append(len(region) / len(kept))
        good = heat[~mask]
        if len(good):
            kept = np.random.default_rng((self.seed, self.images)).choice(good, min(len(good), GOOD_PIXELS_KEPT), replace=False)
            self._good.append(kept)
            self._weights.append(len(good) / len(kept))
        self.images += 1

    def auroc(self) -> float:
        """Over the pixels of all images; nan without anomalous or without good ones."""
        if not self._regions or not self._good:
            return float("nan")
        (good, weights), (bad, bad_weights) = _joined(self._good, self._weights), _joined(self._regions, self._region_weights)
        truth = np.r_[np.zeros(len(good)), np.ones(len(bad))]
        return float(roc_auc_score(truth, np.r_[good, bad], sample_weight=np.r_[weights, bad_weights]))

    def aupro(self) -> float:
        """Mean share of each region above a threshold, averaged over thresholds with up to 30 % of good pixels above them.

        Bergmann et al., "MVTec AD", CVPR 2019, section 4.2: small regions count as much as large ones. 0..1, nan as for `auroc`.
        """
        if not self._regions or not self._good:
            return float("nan")
        good, weights = _joined(self._good, self._weights)
        order = np.argsort(-good, kind="stable")
        rates = np.cumsum(weights[order]) / weights.sum()
        wanted = np.linspace(0, PRO_LIMIT, 301)
        places = np.searchsorted(rates, wanted, side="left").clip(0, len(good) - 1)
        thresholds = good[order][places]
        overlap = np.mean([1 - np.searchsorted(region, thresholds, side="right") / len(region) for region in self._regions], 0)
        return float(trapezoid(overlap, wanted) / PRO_LIMIT)


def _joined(parts: list[np.ndarray], weights: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """All values, and the weight of each."""
    return np.concatenate(parts), np.repeat(weights, [len(part) for part in parts])
