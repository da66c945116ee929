"""How close a decoded image is to the original."""

from __future__ import annotations

import math

import numpy as np
import torch
from pytorch_msssim import ms_ssim as _ms_ssim

from ..errors import UsageError

MS_SSIM_MINIMUM = 161  # the window of 11 pixels must fit into the fifth scale: 10 * 2**4 + 1


def psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    """PSNR-RGB in dB: one mean squared error over the pixels of all channels, peak 255.

    Both (H, W, 3) uint8. Equal images have math.inf. Raises UsageError if they differ in shape or are of another kind.
    """
    _check(original, decoded)
    difference = original.astype(np.int32) - decoded
    squares = np.square(difference).mean(dtype=np.float64)
    return 10 * math.log10(255**2 / squares) if squares else math.inf


def ms_ssim(original: np.ndarray, decoded: np.ndarray) -> float:
    """MS-SSIM in 0..1 (Wang, Simoncelli, Bovik 2003: five scales, Gaussian window of 11), the mean of R, G and B.

    Both (H, W, 3) uint8. An image whose shorter side is 160 pixels or less has no fifth scale: math.nan.
    Raises UsageError if they differ in shape or are of another kind.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < MS_SSIM_MINIMUM:
        return math.nan
    with torch.inference_mode():  # one channel after another takes a third of the memory
        pairs = ([_to_float(image[:, :, channel : channel + 1]) for image in (original, decoded)] for channel in range(3))
        return sum(float(_ms_ssim(first, second, data_range=255)) for first, second in pairs) / 3


def _to_float(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]


def _check(original: np.ndarray, decoded: np.ndarray) -> None:
    for image in (original, decoded):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UsageError(f"quality is measured on (H, W, 3) uint8 images, not on {image.shape} {image.dtype}")
    if original.shape != decoded.shape:
        raise UsageError(f"an original of {original.shape} cannot be compared to a decoded image of {decoded.shape}")
