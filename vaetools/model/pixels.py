"""Images as callers have them, and as the model takes them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError
from .config import ModelConfig

LARGEST = {torch.uint8: 255, torch.uint16: 65535}
OPAQUE_CHANNELS = {1: 1, 2: 1, 3: 3, 4: 3}  # colours of an image of so many channels


def to_model(image: Tensor, config: ModelConfig) -> Tensor:
    """The colours of an image (C, H, W), uint8, uint16 or floats in 0..1, as float32 in 0..1 with the model's channels.

    A gray image is repeated for a model of colours; alpha is left out. Raises UsageError on anything else.
    """
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] not in OPAQUE_CHANNELS or not image.numel():
        got = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise UsageError(f"expected an image (C, H, W) with 1 to 4 channels, got {got}")
    colours = image[: OPAQUE_CHANNELS[image.shape[0]]]
    if image.is_floating_point():
        x = colours.float()
        low, high = (float(value) for value in torch.aminmax(x))
        if not (low >= 0 and high <= 1):  # also if they are no numbers
            raise UsageError(
                f"float images must be within 0..1, not from {low:.3g} to {high:.3g}: clip this one, or normalise it afterwards"
            )
    elif image.dtype in LARGEST:
        x = colours.to(torch.int32).float() / LARGEST[image.dtype]
    else:
        raise UsageError(f"expected an image of uint8, uint16 or floats in 0..1, got {image.dtype}")
    if x.shape[0] > config.image_channels:
        raise UsageError(f"the model {config.name} is for gray images, this one has colours: convert it, or use another model")
    return x.expand(config.image_channels, -1, -1)


def shown(image: Tensor, x: Tensor) -> Tensor:
    """`x`, (C, H, W) of the model around 0..1, as an image of the type, channels, device and alpha of `image`."""
    return _like(image, _in_channels_of(image, x).clamp(0, 1))


def moved(image: Tensor, delta: Tensor) -> Tensor:
    """`image` with `delta`, (C, H, W) of the model, in units of its range, added to its colours."""
    colours = image[: OPAQUE_CHANNELS[image.shape[0]]]
    delta = _in_channels_of(image, delta)
    if image.is_floating_point():
        return _with_alpha(image, (colours + delta.to(image.dtype)).clamp(0, 1))  # where delta is 0, exactly the same
    largest = LARGEST[image.dtype]
    whole = (colours.to(torch.int32).float() + largest * delta).round().clamp(0, largest)
    return _with_alpha(image, whole.to(torch.int32).to(image.dtype))


def _in_channels_of(image: Tensor, x: Tensor) -> Tensor:
    x = x.to(image.device)
    return x.mean(0, keepdim=True) if OPAQUE_CHANNELS[image.shape[0]] < x.shape[0] else x


def _like(image: Tensor, x: Tensor) -> Tensor:
    if image.is_floating_point():
        return _with_alpha(image, x.to(image.dtype))
    return _with_alpha(image, (x * LARGEST[image.dtype]).round().to(torch.int32).to(image.dtype))


def _with_alpha(image: Tensor, colours: Tensor) -> Tensor:
    """A plain tensor in memory of its own."""
    if image.shape[0] == colours.shape[0]:
        return colours.contiguous().clone()
    return torch.cat([colours, image[colours.shape[0] :]])
