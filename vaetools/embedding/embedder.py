"""One vector for each image, from the means of its posteriors.

    image --to the size--> pixels --encode--> means of y, z --without padding--> pooling --> vector (D,)

The means are what the encoder says in eval mode: no noise is drawn, and the same image gives the same vector.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from ..codec.batches import shape_limit
from ..errors import UsageError
from ..model.pixels import to_model
from ..model.space import Latents, LatentSpace
from ..model.threads import MOST_LANES
from ..model.weights import find_by_name, load_weights
from .pooling import covered, parse_poolings

DEFAULT_FEATURES, DEFAULT_POOLING = "z", "grid:2"
DEFAULT_QUALITY = 50.0
AUTO, ORIGINAL = "auto", "original"
AUTO_POSITIONS = 2  # of z a side, where the size is AUTO
LARGEST_SIDE = 8192
REMEDY = "without pooling, images must be of one size; give a size, or another pooling"
BATCH, BATCH_PIXELS = 64, 8 << 20  # images and their pixels that go through the network at once, where they do

Size = tuple[int, int]


class Embedder:
    """Vectors of one model's latents, at one quality.

    features: levels of latents, "z", "y" or both, in this order in the vector. pooling: see `Pooling`; one for all levels, or
    one for each with commas between. size: (height, width) in pixels that images are brought to first, whatever their shape;
    "auto" is two hyper strides a side (128 x 128 for patches of 8), which makes 2 x 2 positions of z; "original": as they are.

    A vector does not depend on the images beside it. To the last bit that needs `exact`: images go through the network one by
    one, each by one thread. It is what happens on CPUs; elsewhere, and with exact=False, images of one size go through together.

    >>> embedder = Embedder.load("photo")
    >>> embedder.embed([image]).shape
    torch.Size([1, 256])
    """

    def __init__(
        self,
        space: LatentSpace,
        *,
        features: str = DEFAULT_FEATURES,
        pooling: str = DEFAULT_POOLING,
        size: Size | str = AUTO,
        exact: bool | None = None,
    ) -> None:
        """Raises UsageError on features, poolings or a size that cannot be."""
        self.space, self.features, self.pooling = space, features, pooling
        self.poolings = parse_poolings(features, pooling)
        self.size = self._size_of(size)
        self.exact = space.device.type == "cpu" if exact is None else exact

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "photo",
        *,
        features: str = DEFAULT_FEATURES,
        pooling: str = DEFAULT_POOLING,
        size: Size | str = AUTO,
        quality: float = DEFAULT_QUALITY,
        device: str = "auto",
        bfloat16: bool | None = None,
        exact: bool | None = None,
    ) -> Embedder:
        """The embedder of a model by its name. features, pooling, size, exact: as of the class.

        model: an installed model's name, a weights file, or the folder of a training run. quality: 0..100, how fine the latents'
        steps are. device: "auto" is a GPU where there is one. bfloat16: where the chip has it, unless said otherwise.

        Raises ModelError if the model cannot be used, UsageError on anything else.
        """
        parse_poolings(features, pooling)  # what is wrong with them is told before the model is read
        space = LatentSpace(load_weights(find_by_name(model)), device, quality=quality, bfloat16=bfloat16)
        return cls(space, features=features, pooling=pooling, size=size, exact=exact)

    def _size_of(self, size: Size | str) -> Size | None:
        if size == ORIGINAL:
            return None
        if size == AUTO:
            side = AUTO_POSITIONS * self.space.config.hyper_stride
            return side, side
        if isinstance(size, str) or len(size) != 2 or not all(1 <= side <= LARGEST_SIDE for side in size):
            raise UsageError(
                f"the size must be {AUTO!r}, {ORIGINAL!r}, or height and width from 1 to {LARGEST_SIDE} pixels, not {size!r}"
            )
        return int(size[0]), int(size[1])

    @property
    def model(self) -> str:
        """Name and hash of the model, as its weights file is called: `photo-cb9780aac1cfc1ed`."""
        return f"{self.space.config.name}-{self.space.model_hash}"

    def embed(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        """(N, D) float32 on the CPU, of N images (C, H, W) of uint8, uint16 or floats in 0..1, of any sizes, 1 to 4 channels.

        Alpha is left out; 16 bits are taken over their whole range. Raises UsageError on anything else, without images, and
        where vectors would differ in length (pooling "none", size "original").
        """
        vectors = list(self.each(images))
        if not vectors:
            raise UsageError("there is no image to embed")
        if lengths := sorted({len(vector) for vector in vectors} - {len(vectors[0])}):
            raise UsageError(f"the vectors differ in length ({len(vectors[0])} and {lengths[0]}): {REMEDY}")
        return torch.stack(vectors)

    def each(self, images: Iterable[Tensor]) -> Iterator[Tensor]:
        """(D,) of each image, in order; some images are taken ahead. As `embed`, but lengths may differ."""
        return self._one_by_one(images) if self.exact else self._in_batches(images)

    def _one_by_one(self, images: Iterable[Tensor]) -> Iterator[Tensor]:
        threads = torch.get_num_threads()
        lanes = min(threads, MOST_LANES)
        if lanes == 1:
            for image in images:
                yield self._alone(image)
            return
        waiting: deque[Future[Tensor]] = deque()
        # The number of threads changes what rounding does: a thread of its own, where it is 1, leaves the caller's alone.
        pool = ThreadPoolExecutor(lanes, "embed", lambda: torch.set_num_threads(1))
        try:
            for image in images:
                waiting.append(pool.submit(self._alone, image))
                if len(waiting) > lanes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # which also is what threads to come start with

    def _in_batches(self, images: Iterable[Tensor]) -> Iterator[Tensor]:
        waiting: list[Tensor] = []
        for image in images:
            x = self.prepare(image)
            limit = shape_limit((x.shape[1], x.shape[2]), 1, BATCH, BATCH_PIXELS)
            if waiting and (len(waiting) == limit or waiting[0].shape != x.shape):
                yield from self._vectors(torch.stack(waiting))
                waiting = []
            waiting.append(x)
        if waiting:
            yield from self._vectors(torch.stack(waiting))

    def _alone(self, image: Tensor) -> Tensor:
        return self._vectors(self.prepare(image)[None])[0]

    def prepare(self, image: Tensor) -> Tensor:
        """(C, H, W) in 0..1, of the size and the model's channels. Raises UsageError as `embed` does."""
        x = to_model(image, self.space.config)
        if self.size is not None and x.shape[1:] != self.size:  # where the image is: GPUs refuse to make it very much smaller
            x = F.interpolate(x[None], self.size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)
        return x.to(self.space.device)

    @torch.inference_mode()
    def pool(self, latents: Latents, height: int, width: int) -> Tensor:
        """(B, D), of latents of the model. height, width: of the images that were encoded, in pixels, without padding."""
        config = self.space.config
        levels = {"y": (latents.y, config.latent_stride), "z": (latents.z, config.hyper_stride)}
        return torch.cat([pool(covered(*levels[level], height, width)) for level, pool in self.poolings.items()], 1)

    def _vectors(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D) on the CPU."""
        return self.pool(self.space.encode(x), x.shape[2], x.shape[3]).cpu()
