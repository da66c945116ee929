"""Images to .vtc bytes and back, batched.

compress:    images -> groups of one padded shape -> model.quantiser.to_symbols -> entropy coder -> container
decompress:  container -> entropy coder <-> model.quantiser.first_pass, second_pass -> to_images
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import Desync, FormatError, ImageError, ModelError, ModelMissing, UsageError, VaetoolsError
from ..model import quantiser
from ..model.precision import autocast, has_bfloat16, pick_device
from ..model.weights import LoadedModel, find_by_hash, find_by_name, load_weights
from .container import Header, Limits, pack, round_quality, unpack
from .entropy import CoderModels, SymbolDecoder, SymbolEncoder

BATCH_PIXELS = 8_000_000  # of the padded images that go through the network at once


@dataclass(frozen=True)
class _Item:
    """One image on its way: its place in the caller's list, its size before padding, its own channels and quality."""

    position: int
    height: int
    width: int
    channels: int
    quality: float


@dataclass(frozen=True)
class _Batch:
    """Images that went through the network together: z (B, Z, h/4, w/4), residuals and index (B, M, h, w), whole numbers."""

    items: list[_Item]
    z: np.ndarray
    residuals: np.ndarray
    index: np.ndarray


class Codec:
    """Compresses with one model; decompresses files of any installed model.

    >>> codec = Codec.load("photo")
    >>> files = codec.compress(batch, quality=60)
    >>> images = codec.decompress(files)
    """

    def __init__(
        self, model: LoadedModel, device: torch.device, *, bfloat16: bool | None = None, limits: Limits = Limits()
    ) -> None:
        config = model.vae.config
        if config.posterior != "uniform" or model.tables is None:
            raise ModelError(
                f"{model.path}: a model with a {config.posterior} posterior has no codec: train one with --posterior uniform"
            )
        self.bfloat16 = has_bfloat16(device) if bfloat16 is None else bfloat16
        self.model, self.device, self.limits = model, device, limits
        self.vae = quantiser.prepare_for_inference(model.vae, device, bfloat16=self.bfloat16)
        self.config = config
        self.coders = CoderModels(model.tables)
        self._others: dict[bytes, Codec] = {}

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "photo",
        device: str = "auto",
        *,
        bfloat16: bool | None = None,
        limits: Limits = Limits(),
    ) -> Codec:
        """`model`: an installed model's name, a weights file, or the folder of a training run.

        `bfloat16` is used where the chip has it unless said otherwise; files decode to the same symbols either way.
        Raises ModelError if the model cannot be used, UsageError on an unknown device.
        """
        return cls(load_weights(find_by_name(model)), pick_device(device), bfloat16=bfloat16, limits=limits)

    # Compression.

    def compress(
        self, images: Tensor | Sequence[Tensor], quality: float | Sequence[float] = 60.0, batch_size: int = 8
    ) -> list[bytes]:
        """One .vtc file per image.

        images: a batch (B, C, H, W) or a list of (C, H, W) of any sizes; integers of the model's bit depth (uint8, or
        uint16 for 16 bits) or floats in 0..1. Gray images (C = 1) go through a colour model and come back gray.
        quality: 0 (smallest) to 100 (best), one for all or one each, in steps of 0.01.
        Raises UsageError on a wrong type, shape or range, and ImageError for an image that the model cannot hold: one of
        which a part would come back worse than as one flat colour.
        """
        files: list[bytes] = [b""] * len(images)
        for batch in self._symbols(images, quality, batch_size):
            for row, item in enumerate(batch.items):
                z, residuals = batch.z[row], batch.residuals[row]
                payload = self._encode_symbols(item, z, residuals, batch.index[row])
                header = Header(
                    self.model.hash,
                    item.width,
                    item.height,
                    item.channels,
                    self.config.bit_depth,
                    item.quality,
                    payload_length=len(payload),
                    payload_crc=zlib.crc32(payload),
                    symbols_crc=_symbols_crc(z, residuals),
                )
                files[item.position] = pack(header, payload)
        return files

    def _symbols(self, images: Tensor | Sequence[Tensor], quality: float | Sequence[float], batch_size: int) -> Iterator[_Batch]:
        """Run the network over the images, a batch at a time."""
        _check_batch_size(batch_size)
        prepared = []
        for position, image in enumerate(images):
            with _naming(position, len(images)):
                prepared.append(self._to_unit_range(image))
        qualities = self._qualities(quality, len(prepared))
        items = [_Item(i, image.shape[1], image.shape[2], images[i].shape[0], qualities[i]) for i, image in enumerate(prepared)]
        for group in self._batches(items, batch_size):
            heights, widths = (torch.tensor([getattr(item, side) for item in group]) for side in ("height", "width"))
            q = (torch.tensor([item.quality for item in group]) / 100).to(self.device)
            padded = [quantiser.pad_to_stride(prepared[item.position][None], self.config.hyper_stride) for item in group]
            x = torch.cat(padded).to(self.device)
            x = x.contiguous(memory_format=torch.channels_last)
            symbols = quantiser.to_symbols(self.vae, x, q, heights, widths, bfloat16=self.bfloat16)
            for row, item in enumerate(group):
                if symbols.strained[row] and quantiser.is_lost(
                    self.vae, x, symbols, q, row, item.height, item.width, bfloat16=self.bfloat16
                ):
                    with _naming(item.position, len(images)):
                        raise ImageError(
                            "the model cannot hold this image: parts of it would be lost, as it happens to dithering and to "
                            "stripes one pixel wide; keep it in a lossless format such as PNG"
                        )
            yield _Batch(group, _to_int16(symbols.z), _to_int16(symbols.residuals), symbols.index.cpu().numpy())

    def _encode_symbols(self, item: _Item, z: np.ndarray, residuals: np.ndarray, index: np.ndarray) -> bytes:
        encoder = SymbolEncoder()
        encoder.put(z.ravel(), _channels_of(z.shape), self.coders.z)
        for places in self._places(item, residuals.shape):
            encoder.put(residuals[places], index[places], self.coders.y)
        return encoder.finish()

    def estimate(
        self, images: Tensor | Sequence[Tensor], quality: float | Sequence[float] = 60.0, batch_size: int = 8
    ) -> np.ndarray:
        """Bits that an ideal coder would write for each image under the model's tables, (B,), headers left out.

        `compress` comes within one percent of it on photographs. Arguments and errors are those of `compress`.
        """
        bits = np.zeros(len(images))
        for batch in self._symbols(images, quality, batch_size):
            for row, item in enumerate(batch.items):
                bits[item.position] = self.coders.z.code_length(batch.z[row].ravel(), _channels_of(batch.z[row].shape))
                for places in self._places(item, batch.residuals[row].shape):
                    bits[item.position] += self.coders.y.code_length(batch.residuals[row][places], batch.index[row][places])
        return bits

    # Decompression.

    def decompress(self, files: Sequence[bytes], batch_size: int = 8) -> list[Tensor]:
        """The images, (C, H, W) uint8 (uint16 for 16 bits), on the CPU.

        Raises FormatError, of the kind that errors.py tells, on the first file that cannot be decoded; its message
        starts with the file's place in the list if there are several.
        """
        _check_batch_size(batch_size)
        if isinstance(files, bytes | bytearray | memoryview):
            raise UsageError("expected a list of the bytes of files, got those of one: put it in a list")
        images: list[Tensor | None] = [None] * len(files)
        jobs: dict[bytes, dict[_Item, tuple[Header, bytes]]] = {}
        for position, data in enumerate(files):
            with _naming(position, len(files)):
                header, payload = unpack(data, self.limits)
                codec = self._codec_for(header)
                if (header.bit_depth, header.channels) not in codec._formats():
                    raise FormatError(
                        f"{header.channels} channels of {header.bit_depth} bits is not what the model {codec.config.name} codes"
                    )
            item = _Item(position, header.height, header.width, header.channels, header.quality)
            jobs.setdefault(header.model_hash, {})[item] = header, payload
        for job in jobs.values():
            codec = self._codec_for(next(iter(job.values()))[0])
            for group in codec._batches(list(job), batch_size):
                decoded = codec._decode_group(group, [job[item] for item in group], len(files))
                for item, image in zip(group, decoded, strict=True):
                    images[item.position] = image
        return [image for image in images if image is not None]

    def _decode_group(self, group: list[_Item], files: list[tuple[Header, bytes]], count: int) -> list[Tensor]:
        per_side = self.config.hyper_stride // self.config.latent_stride
        rows, columns = self.padded_shape(group[0].height, group[0].width)
        z_shape = (self.config.hyper_channels, rows, columns)
        y_shape = (self.config.latent_channels, rows * per_side, columns * per_side)
        decoders, z = [], np.zeros((len(group), *z_shape), np.int16)
        residuals = np.zeros((len(group), *y_shape), np.int16)
        for row, (item, (_, payload)) in enumerate(zip(group, files, strict=True)):
            with _naming(item.position, count):
                decoders.append(SymbolDecoder(payload))
                z[row] = decoders[row].get(_channels_of(z_shape), self.coders.z).reshape(z_shape)
        places = [self._places(item, y_shape) for item in group]

        def decode_pass(index: Tensor, number: int) -> None:
            tables = index.cpu().numpy()
            for row, item in enumerate(group):
                coded = places[row][number]
                with _naming(item.position, count):
                    residuals[row][coded] = decoders[row].get(tables[row][coded], self.coders.y)

        with torch.inference_mode(), autocast(self.device, bfloat16=self.bfloat16):
            first = quantiser.first_pass(self.vae, self._to_device(z))
            decode_pass(first.index, 0)
            second = quantiser.second_pass(self.vae, first, self._to_device(residuals))
            decode_pass(second.index, 1)
        for row, (item, (header, _)) in enumerate(zip(group, files, strict=True)):
            with _naming(item.position, count):
                decoders[row].finish()
                if _symbols_crc(z[row], residuals[row]) != header.symbols_crc:
                    raise Desync("the decoded symbols are not those that were encoded; please report this with the file")
        quality = (torch.tensor([item.quality for item in group]) / 100).to(self.device)
        x = quantiser.to_images(self.vae, second.mean + self._to_device(residuals), quality, bfloat16=self.bfloat16)
        return [self._to_pixels(x[row, :, : item.height, : item.width], item.channels) for row, item in enumerate(group)]

    def _codec_for(self, header: Header) -> Codec:
        if header.model_hash == self.model.hash:
            return self
        if header.model_hash not in self._others:
            path = find_by_hash(header.model_hash)
            if path is None:
                raise ModelMissing(
                    f"it was written with the model {header.model_hash.hex()}, which is not installed: "
                    "put its weights in a folder named by VAETOOLS_MODELS"
                )
            try:
                self._others[header.model_hash] = Codec(
                    load_weights(path), self.device, bfloat16=self.bfloat16, limits=self.limits
                )
            except ModelError as error:
                raise ModelMissing(f"the model that it was written with cannot be used: {error}") from None
        return self._others[header.model_hash]

    # Shapes and values.

    def _formats(self) -> set[tuple[int, int]]:
        """(bit depth, channels) that files of this model have."""
        return {(self.config.bit_depth, self.config.image_channels), (self.config.bit_depth, 1)}

    def _to_unit_range(self, image: Tensor) -> Tensor:
        """(model's channels, H, W) float32 in 0..1, on the image's device."""
        if (
            not isinstance(image, Tensor)
            or image.ndim != 3
            or image.shape[0] not in {c for _, c in self._formats()}
            or not image.numel()
        ):
            got = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            wanted = " or ".join(f"({c}, H, W)" for c in sorted({c for _, c in self._formats()}, reverse=True))
            raise UsageError(f"expected a tensor of shape {wanted}, got {got}")
        if not self.limits.allow(image.shape[2], image.shape[1]):
            raise UsageError(self.limits.refusal(image.shape[2], image.shape[1]))
        if image.is_floating_point():
            if not bool(((image >= 0) & (image <= 1)).all()):
                raise UsageError("float values must be within 0..1")
            x = image.float()
        elif image.dtype == self._dtype():
            x = image.to(torch.int32).float() / (2**self.config.bit_depth - 1)
        else:
            raise UsageError(f"expected uint{self.config.bit_depth} or floats in 0..1, got {image.dtype}")
        return x.expand(self.config.image_channels, -1, -1)

    def _to_pixels(self, x: Tensor, channels: int) -> Tensor:
        """(C, H, W) around 0..1 -> (channels, H, W) whole numbers of the model's depth, on the CPU."""
        if channels < x.shape[0]:
            x = x.mean(0, keepdim=True)
        whole = x.float().clamp(0, 1).mul(2**self.config.bit_depth - 1).round().to(torch.int32).cpu()
        return whole.to(self._dtype()).contiguous()

    def _dtype(self) -> torch.dtype:
        return torch.uint8 if self.config.bit_depth == 8 else torch.uint16

    def _to_device(self, symbols: np.ndarray) -> Tensor:
        return torch.from_numpy(symbols).to(self.device).float().contiguous(memory_format=torch.channels_last)

    def _places(self, item: _Item, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Boolean maps (M, h, w) of the latents that the first and the second pass code."""
        first, second = quantiser.coded_places(self.vae, shape, item.height, item.width)
        return first.numpy(), second.numpy()

    def padded_shape(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of hyper-latents: images of one such shape can share a batch."""
        return -(-height // self.config.hyper_stride), -(-width // self.config.hyper_stride)

    def batch_limit(self, shape: tuple[int, int], batch_size: int) -> int:
        """At most `batch_size` images of a padded shape, and BATCH_PIXELS pixels, but at least one image."""
        return max(1, min(batch_size, BATCH_PIXELS // (shape[0] * shape[1] * self.config.hyper_stride**2)))

    def _batches(self, items: list[_Item], batch_size: int) -> Iterator[list[_Item]]:
        """Groups of one padded shape."""
        shapes: dict[tuple[int, int], list[_Item]] = {}
        for item in items:
            shapes.setdefault(self.padded_shape(item.height, item.width), []).append(item)
        for shape, same in shapes.items():
            size = self.batch_limit(shape, batch_size)
            for start in range(0, len(same), size):
                yield same[start : start + size]

    def _qualities(self, quality: float | Sequence[float], count: int) -> list[float]:
        values = [float(quality)] * count if isinstance(quality, int | float) else [float(value) for value in quality]
        if len(values) != count:
            raise UsageError(f"{len(values)} qualities for {count} images: give one for all or one each")
        for value in values:
            self.check_quality(value)
        return [round_quality(value) for value in values]

    @staticmethod
    def check_quality(quality: float) -> None:
        """Raises UsageError outside 0..100."""
        if not 0 <= quality <= 100:
            raise UsageError(f"quality must be from 0 to 100, not {quality}")


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")


def _to_int16(symbols: Tensor) -> np.ndarray:
    return symbols.to(torch.int16).cpu().numpy()


def _channels_of(shape: Sequence[int]) -> np.ndarray:
    """The channel of each element of a (C, h, w) array, flattened."""
    return np.repeat(np.arange(shape[0]), shape[1] * shape[2])


def _symbols_crc(z: np.ndarray, residuals: np.ndarray) -> int:
    return zlib.crc32(residuals.astype("<i2").tobytes(), zlib.crc32(z.astype("<i2").tobytes()))


@contextmanager
def _naming(position: int, count: int) -> Iterator[None]:
    """Put the place in the list before the message of a vaetools error, if there are several images or files."""
    try:
        yield
    except VaetoolsError as error:
        if count > 1:
            error.args = (f"number {position}: {error}",)
        raise
