"""Which random numbers an augmented image gets: a pure function of the run, the epoch, the image and the copy.

    image --digest--> item --seed_for(run, epoch, item, copy)--> seed --generator_of--> every draw for this image

An image is known by its pixels, so that the writer of a folder, a transform in any worker and a module after collate, none of
which know each other's indexes, draw the same for it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import UsageError

SEED_BITS = 63  # what a torch.Generator and a signed integer of 64 bits both take
PART = 1 << 18  # values that a digest takes at once
_MASK = (1 << SEED_BITS) - 1
_INTEGER_VIEWS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


def seed_for(run: int, epoch: int, item: int, copy: int) -> int:
    """63 bits, for whole numbers of up to 64 bits each: the seed of one augmented image.

    run: what the user calls the seed. item: the image, as `digest` tells it. copy: counts augmented images of one item in one
    epoch, from 0.
    """
    numbers = struct.pack("<4Q", *(number & (2**64 - 1) for number in (run, epoch, item, copy)))
    return int.from_bytes(hashlib.blake2b(numbers, digest_size=8).digest(), "little") & _MASK


def digest(images: Tensor | Sequence[Tensor]) -> list[int]:
    """63 bits that tell images of other pixels, sizes or types apart: one number each of (B, C, H, W), or a list of (C, H, W).

    Whole-number arithmetic on the device that they are on: the same number everywhere. Not made against forgery.
    """
    if isinstance(images, Tensor):
        if images.ndim != 4:
            raise UsageError(f"expected images (B, C, H, W), got shape {tuple(images.shape)}")
        return _digests(images)
    return [_digests(image[None])[0] for image in images]


def digest_one(image: Tensor) -> int:
    """`digest` of one image (C, H, W)."""
    return _digests(image[None])[0]


def _digests(images: Tensor) -> list[int]:
    shape = images.shape[1:]
    rows = images.detach().contiguous().flatten(1)
    if rows.dtype in _INTEGER_VIEWS:
        rows = rows.view(_INTEGER_VIEWS[rows.dtype])
    elif rows.dtype == torch.uint16:
        rows = rows.view(torch.int16)
    sums = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for number, part in enumerate(rows.split(PART, 1)):  # eight bytes are needed for each of one
        sums += ((part.to(torch.int64) + 1) * _multipliers(number * PART, part.shape[1], rows.device)).sum(1)  # modulo 2^64
    kind = str(images.dtype).encode()
    return [
        int.from_bytes(hashlib.blake2b(struct.pack("<q3Q", value, *shape) + kind, digest_size=8).digest(), "little") & _MASK
        for value in sums.tolist()
    ]


@lru_cache(maxsize=16)
def _multipliers(start: int, count: int, device: torch.device) -> Tensor:
    """Odd pseudo-random numbers: SplitMix64 (Steele et al., OOPSLA 2014) of start, start + 1..., in arithmetic modulo 2^64."""

    def shifted(x: Tensor, bits: int) -> Tensor:
        return (x >> bits) & ((1 << (64 - bits)) - 1)

    def signed(value: int) -> int:
        return value - (1 << 64) if value >> 63 else value

    x = torch.arange(start + 1, start + count + 1, dtype=torch.int64, device=device) * signed(0x9E3779B97F4A7C15)
    x = (x ^ shifted(x, 30)) * signed(0xBF58476D1CE4E5B9)
    x = (x ^ shifted(x, 27)) * signed(0x94D049BB133111EB)
    return (x ^ shifted(x, 31)) | 1


def generator_of(seed: int) -> torch.Generator:
    """On the CPU, whatever the device of the images: the same draws everywhere.

    torch's generator for CPUs looks at the lower 32 bits of its seed: among 65,000 images there may be two with the same draws.
    """
    return torch.Generator().manual_seed(seed & _MASK)
