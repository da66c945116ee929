"""CompressAI's own modules, which do the arithmetic: imported where they are needed, as that takes seconds."""

from __future__ import annotations

import warnings
from typing import Any

from .config import FACTORIZED, MEAN_SCALE, SCALE, ForeignConfig

PARTS = ("g_a", "g_s", "h_a", "h_s")  # analysis and synthesis of the image, and of the hyperprior


def build(config: ForeignConfig) -> Any:
    """An untrained CompressionModel of that family and size, in eval mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what CompressAI imports warns about itself
        from compressai.models import FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior
    classes = {FACTORIZED: FactorizedPrior, SCALE: ScaleHyperprior, MEAN_SCALE: MeanScaleHyperprior}
    return classes[config.family](config.n, config.m).eval().requires_grad_(False)
