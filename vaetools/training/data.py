"""Random crops of a folder of images, a pure function of the seed and the step."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ImageError, TrainingError
from ..images.folder import SUFFIXES, walk
from ..images.read import read_for_training
from ..model.config import ModelConfig
from ..storage.blob import Readable
from ..storage.place import Place

LOOKS, LOOK_SIDE, LOOK_STEPS = 8, 4, 24  # crops of so many hyper-latents a side, to see what a network makes of them
NATIVE = 0.25  # of the crops are of images as they are, where others are of images made smaller


@dataclass
class ImageCache:
    """Decoded images of one folder, or of tars. Those beyond the memory limit are decoded again at each use."""

    paths: list[Readable]
    sizes: list[tuple[int, int]]
    decoded: dict[int, np.ndarray]
    config: ModelConfig
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str] | Place,
        config: ModelConfig,
        limit_bytes: int,
        *,
        only: Sequence[Readable] | None = None,
        leave_out: Path | None = None,
    ) -> ImageCache:
        """Decode every image below `folder` once, but for those in the folder `leave_out`, or those of them in `only`.

        Raises TrainingError if none can be read.
        """
        cache = cls([], [], {}, config)
        used = 0

        def read(path: Readable) -> np.ndarray | str:
            try:
                return read_for_training(path, config.image_channels, config.bit_depth)
            except ImageError as error:
                return str(error)

        paths: list[Readable] = []
        if only is not None:
            paths += only
        elif isinstance(folder, Place):
            contents = folder.list(SUFFIXES)
            paths += (file for _, file in contents.files)
            cache.unreadable += (f"{name}: {reason}" for name, reason in contents.refused)
        else:
            paths += walk(folder, leave_out=leave_out).images
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(paths), 64):  # a bounded look-ahead keeps the memory limit true
                chunk = paths[start : start + 64]
                for path, image in zip(chunk, pool.map(read, chunk), strict=True):
                    if isinstance(image, str):
                        cache.unreadable.append(image)
                        continue
                    if used + image.nbytes <= limit_bytes:
                        cache.decoded[len(cache.paths)] = image
                        used += image.nbytes
                    cache.paths.append(path)
                    cache.sizes.append((image.shape[0], image.shape[1]))
        if not cache.paths:
            raise TrainingError(f"{folder}: none of the {len(paths)} images can be read; the first: {cache.unreadable[0]}")
        return cache

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> np.ndarray:
        """(H, W, C) uint8 or uint16. Raises TrainingError if an uncached file has become unreadable."""
        if index in self.decoded:
            return self.decoded[index]
        try:
            return read_for_training(self.paths[index], self.config.image_channels, self.config.bit_depth)
        except ImageError as error:
            raise TrainingError(f"an image changed while training ran: {error}") from None

    def smaller_than(self, crop: int) -> int:
        return sum(min(size) < crop for size in self.sizes)


@dataclass(frozen=True)
class Batch:
    """images (B, C, crop, crop) uint8 or uint16; quality (B,) float32 in 0..1."""

    images: np.ndarray
    quality: np.ndarray


class CropSampler:
    """Crops at random places; large images are drawn more often. If `mirrored`, flipped and transposed at random too.

    With a `smallest_scale` below 1, all crops but NATIVE of them are of an image made smaller, at a scale between this and 1:
    what JPEG left in a photograph goes, and the fine detail of sharper ones comes instead.
    Qualities are stratified over the whole batch: one draw from each of its equal parts of 0..1.
    """

    def __init__(
        self, cache: ImageCache, seed: int, rank: int = 0, world: int = 1, *, mirrored: bool = True, smallest_scale: float = 1.0
    ) -> None:
        self.cache, self.seed, self.rank, self.world = cache, seed, rank, world
        self.mirrored, self.smallest_scale = mirrored, smallest_scale
        weights = np.sqrt([height * width for height, width in cache.sizes])
        self.cumulative = np.cumsum(weights / weights.sum())

    def batch(self, step: int, crop: int, size: int) -> Batch:
        """This rank's `size` samples of global step `step`."""
        total = size * self.world
        rows = range(self.rank * size, (self.rank + 1) * size)
        generators = [np.random.default_rng((self.seed, step, row)) for row in rows]
        quality = [(row + generator.random()) / total for row, generator in zip(rows, generators, strict=True)]
        return Batch(np.stack([self._crop(generator, crop) for generator in generators]), np.asarray(quality, np.float32))

    def _crop(self, generator: np.random.Generator, crop: int) -> np.ndarray:
        index = min(int(np.searchsorted(self.cumulative, generator.random())), len(self.cache) - 1)
        image = self.cache.image(index)
        height, width = image.shape[:2]
        seen = self._seen(generator, crop, min(height, width))
        top, left = (int(generator.integers(max(side - seen, 0) + 1)) for side in (height, width))
        piece = image[top : top + seen, left : left + seen]
        if seen > crop:
            piece = made_smaller(piece, crop)
        missing = [(0, crop - piece.shape[0]), (0, crop - piece.shape[1]), (0, 0)]
        if any(after for _, after in missing):
            piece = np.pad(piece, missing, mode="edge")  # as the codec pads
        if self.mirrored and generator.random() < 0.5:
            piece = piece[:, ::-1]
        if self.mirrored and generator.random() < 0.5:
            piece = piece.transpose(1, 0, 2)
        return piece.transpose(2, 0, 1)

    def _seen(self, generator: np.random.Generator, crop: int, shortest: int) -> int:
        """Pixels a side of an image, whose shorter side has `shortest`, that become a crop."""
        if self.smallest_scale == 1 or generator.random() < NATIVE:
            return crop
        scale = generator.uniform(self.smallest_scale, 1)
        return max(crop, min(round(crop / scale), shortest))


def made_smaller(piece: np.ndarray, side: int) -> np.ndarray:
    """(N, N, C) uint8 or uint16 -> (side, side, C) of the same type."""
    if piece.dtype == np.uint8 and piece.shape[2] == 3:
        return np.asarray(Image.fromarray(piece).resize((side, side), Image.Resampling.BICUBIC))
    highest = np.iinfo(piece.dtype).max
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in piece.transpose(2, 0, 1)]
    values = np.stack([np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC)) for plane in planes], 2)
    return values.round().clip(0, highest).astype(piece.dtype)


def to_unit_range(images: np.ndarray, config: ModelConfig, device: torch.device) -> Tensor:
    """(B, C, H, W) integers of the config's bit depth -> float32 in 0..1 on the device."""
    values = images.astype(np.int32) if images.dtype == np.uint16 else images
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)
    return tensor.float().div_(2**config.bit_depth - 1).contiguous(memory_format=torch.channels_last)


def some_batches(sampler: CropSampler, config: ModelConfig, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """LOOK_STEPS times (LOOKS, C, crop, crop) in 0..1, and qualities (LOOKS,)."""
    for step in range(LOOK_STEPS):
        batch = sampler.batch(step, LOOK_SIDE * config.hyper_stride, LOOKS)
        yield to_unit_range(batch.images, config, device), torch.from_numpy(batch.quality).to(device)


class Prefetcher:
    """A thread that makes batches in the order they are asked for, while the steps before them run."""

    def __init__(self, sampler: CropSampler) -> None:
        self._requests: queue.SimpleQueue[tuple[int, int, int] | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
        self._sampler = sampler
        self._thread = threading.Thread(target=self._work, daemon=True, name="crops")
        self._thread.start()

    def request(self, step: int, crop: int, size: int) -> None:
        self._requests.put((step, crop, size))

    def next(self) -> Batch:
        """The batch asked for longest ago. Raises what went wrong while it was made."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self._requests.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                self._ready.put(self._sampler.batch(*request))
            except BaseException as error:  # for the thread that waits for the batch
                self._ready.put(error)


def patch_basis(cache: ImageCache, size: int, seed: int, count: int = 60_000) -> np.ndarray:
    """Principal components (K, C * size * size) of image patches of `size` pixels, the largest first, values in 0..1."""
    generator = np.random.default_rng((seed, 1))
    channels = cache.config.image_channels
    scale = 2**cache.config.bit_depth - 1
    chosen = generator.choice(len(cache), min(len(cache), 300), replace=False)
    patches = np.empty((count, channels * size * size), np.float32)
    for number, index in enumerate(chosen):  # one image in memory at a time
        image = cache.image(int(index))
        missing = [(0, max(0, size - image.shape[0])), (0, max(0, size - image.shape[1])), (0, 0)]
        if any(after for _, after in missing):
            image = np.pad(image, missing, mode="edge")
        for row in range(number * count // len(chosen), (number + 1) * count // len(chosen)):
            top, left = (generator.integers(side - size + 1) for side in image.shape[:2])
            patches[row] = image[top : top + size, left : left + size].transpose(2, 0, 1).ravel()
    patches = patches / scale - 0.5
    _, vectors = np.linalg.eigh(patches.T @ patches / count)
    return np.ascontiguousarray(vectors[:, ::-1].T)
