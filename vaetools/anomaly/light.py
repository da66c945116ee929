"""Images of textures under one light, whatever light they were taken in."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

REACH = 24.0  # pixels, standard deviation: what changes more slowly is light
DARKEST, FLATTEST = 0.05, 0.02  # what is added to brightness and to contrast, so that noise in the dark is not blown up
CONTRAST = 0.12  # standard deviation of what comes out


def evened(images: Tensor) -> Tensor:
    """(B, C, H, W) in 0..1 as they were without slow changes of brightness, and with one contrast: around 0.5, cut to 0..1.

    Logarithm, less its Gaussian average, by the standard deviation of the whole image.
    """
    logarithms = np.log(images.numpy() + DARKEST)
    detail = logarithms - ndimage.gaussian_filter(logarithms, (0, 0, REACH, REACH))
    contrast = detail.std((1, 2, 3), keepdims=True) + FLATTEST
    return torch.from_numpy((0.5 + CONTRAST * detail / contrast).clip(0, 1).astype(np.float32))
