"""Tensors as callers have them, (C, H, W), and pictures, (H, W, C)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .picture import Picture

BIT_DEPTHS = {torch.uint8: 8, torch.uint16: 16}


def to_picture(image: Tensor, float_depth: int = 8) -> Picture:
    """(C, H, W) with 1 to 4 channels: uint8, uint16, or floats in 0..1, which are rounded to `float_depth` bits.

    Raises UsageError on anything else.
    """
    if not isinstance(image, Tensor) or image.ndim != 3 or not 1 <= image.shape[0] <= 4 or not image.numel():
        got = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise UsageError(f"expected a tensor of shape (C, H, W) with 1 to 4 channels, got {got}")
    if image.is_floating_point():
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise UsageError("float values must be within 0..1")
        whole = (image.float() * (2**float_depth - 1)).round().to(torch.int32).cpu().numpy()
        pixels = whole.astype(np.uint8 if float_depth == 8 else np.uint16)
    elif image.dtype in BIT_DEPTHS:
        pixels = image.cpu().numpy()
    else:
        raise UsageError(f"expected uint8, uint16 or floats in 0..1, got {image.dtype}")
    return Picture(pixels.transpose(1, 2, 0))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W) or (H, W, C) -> (C, H, W), in memory of its own."""
    whole = torch.from_numpy(np.require(pixels, requirements=("C", "W")))
    return whole.reshape(*whole.shape[:2], -1).permute(2, 0, 1).clone(memory_format=torch.contiguous_format)
