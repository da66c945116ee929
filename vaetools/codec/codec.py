"""Images to .vtc bytes and back, batched.

encode:  pictures -> Encoder (network) -> Coded -> to_bytes (entropy coder, any thread) -> container
decode:  container -> Decoder (entropy coder and network in turns) -> Restored
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from ..errors import Desync, FormatError, ImageError, ModelError, ModelMissing, UsageError, VaetoolsError
from ..foreign.weights import ForeignModel, load_model
from ..images.picture import Picture
from ..images.tensors import to_picture, to_tensor
from ..model.precision import compute_exactly, has_bfloat16, pick_device
from ..model.threads import Lanes, one_thread
from ..model.weights import LoadedModel, find_by_hash, find_by_name
from .batches import batches_of, shape_limit
from .boxes import alpha_region, is_measured, levels_in, metadata_in, pixels_in, source_names
from .coded import Coded
from .comparison import compare
from .container import ERRORS, NO_LIMITS, SCAN, Contents, Limits, unpack, with_box
from .decoder import DAMAGED, Decoder, Decoding
from .encoder import Encoder, psnr
from .fidelity import Fidelity
from .network import Network, Shape, network_of
from .rate import USUAL_RATE, Rate, only_rate, rates_of
from .refinement import EFFORTS
from .symbols import TileCoder
from .tiles import MAX_TILE_PIXELS, MAX_TILES, Rect, grid_of, region_of

E = TypeVar("E", bound=VaetoolsError)
# Of the padded images that go through the network at once. On CPUs, more of them are slower: their tensors are no longer kept in
# the heap or the cache.
BATCH_PIXELS = {"cpu": MAX_TILE_PIXELS // 4}
BATCH_PIXELS_ELSEWHERE = 8 * MAX_TILE_PIXELS
BATCH_SIZE, TILE_SIZE = 64, 1024


@dataclass(frozen=True)
class Restored:
    """A picture from a file. `lost`: what of it could not be decoded, in words; it is gray, or opaque, in its place.

    lossless: whether the file holds the pixels as they were.
    """

    picture: Picture
    lost: tuple[str, ...] = ()
    lossless: bool = False


class Codec:
    """Compresses with one model; decompresses files of any installed model.

    >>> codec = Codec.load("photo")
    >>> files = codec.compress(batch, quality=60)
    >>> images = codec.decompress(files)
    """

    def __init__(
        self,
        model: LoadedModel | ForeignModel,
        device: torch.device,
        *,
        bfloat16: bool | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self.bfloat16 = has_bfloat16(device) if bfloat16 is None else bfloat16
        self.model, self.device, self.limits = model, device, limits
        self.network: Network = network_of(model, device, bfloat16=self.bfloat16)
        if not self.network.bfloat16:
            compute_exactly(device)
        self.coder = TileCoder(self.network.config, self.network.tables)
        self.config: Shape = self.network.config
        self.batch_pixels = BATCH_PIXELS.get(device.type, BATCH_PIXELS_ELSEWHERE)
        self._encoder = Encoder(self.network, self.coder, device, batch_pixels=self.batch_pixels)
        self._decoder = Decoder(self.network, self.coder, device, batch_pixels=self.batch_pixels)
        self.lanes = Lanes.of(device)
        self._others: dict[bytes, Codec] = {}

    @property
    def one_rate(self) -> bool:
        """Whether the model has but one rate, and takes no quality and no target."""
        return self.network.one_rate

    @cached_property
    def _exact(self) -> Codec:
        """The same in float32: bfloat16 has 256 levels between 1/2 and 1, and other images have 65536."""
        return Codec(self.model, self.device, bfloat16=False, limits=self.limits) if self.network.bfloat16 else self

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

        `bfloat16` is used where the chip has it unless said otherwise; files decode to the same symbols either way. A model
        imported from CompressAI computes in float32 whatever is said.
        Raises ModelError if the model cannot be used, UsageError on an unknown device.
        """
        return cls(load_model(find_by_name(model)), pick_device(device), bfloat16=bfloat16, limits=limits)

    # Compression.

    def compress(
        self,
        images: Tensor | Sequence[Tensor | Picture],
        quality: float | Sequence[float] | None = None,
        batch_size: int = BATCH_SIZE,
        *,
        rate: Rate | None = None,
        tile_size: int = TILE_SIZE,
        preview: bool = False,
        effort: int = 0,
    ) -> list[bytes]:
        """One .vtc file per image.

        images: a batch (B, C, H, W) or a list of (C, H, W) of any sizes; uint8, uint16, or floats in 0..1, which are rounded
            to the model's bit depth. C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; alpha is kept exactly. Or
            pictures, with their metadata.
        quality: 0 (smallest) to 100 (best), one for all or one each, in steps of 0.01; 60 unless given. A model of one rate,
            such as those imported from CompressAI, takes none, and no target.
        rate: instead of the quality, a target; see Rate. It is missed without a word where it cannot be reached: `encode`
            tells.
        tile_size: sides of the tiles of images above 2 * tile_size^2 pixels; a multiple of the model's stride (64 in `photo`).
        effort: 0 to 10; above 0, 20 steps of gradient descent each look for better latents of an image: some percent fewer bits,
            for some hundred times the time. Decoding takes as long as ever.
        Raises UsageError on a wrong type, shape or range, and ImageError for what the model does not take. An image of which
        the model would lose a part, and one that it would make larger, is kept as a PNG inside the file.
        """
        prepared = self._pictures(images)
        rates = [rate] * len(prepared) if rate else rates_of(quality, len(prepared))
        coded = self.encode(prepared, rates, batch_size, tile_size=tile_size, preview=preview, effort=effort)
        return [one.to_bytes() for one in coded]

    def encode(
        self,
        pictures: Sequence[Picture],
        rate: Rate | Sequence[Rate] = USUAL_RATE,
        batch_size: int = BATCH_SIZE,
        *,
        tile_size: int = TILE_SIZE,
        preview: bool = False,
        errors: bool = False,
        effort: int = 0,
    ) -> list[Coded]:
        """The network's part of `compress`: the rest, `Coded.to_bytes`, needs no device and may be done in any thread.

        errors: leave room in the files for what `with_errors` finds.
        """
        _check_batch_size(batch_size)
        self._check_tile_size(tile_size)
        if not isinstance(effort, Integral) or effort not in EFFORTS:
            raise UsageError(f"the effort must be a whole number from 0 to {EFFORTS[-1]}, not {effort!r}")
        if effort:
            _ = self.network.refiner  # refuses what has none
        options: dict[str, Any] = {"preview": preview, "errors": errors, "effort": effort}
        for position, picture in enumerate(pictures):
            with _naming(position, len(pictures)):
                self._check_picture(picture, tile_size)
        if self.one_rate:
            rate = only_rate([rate] if isinstance(rate, Rate) else rate, self.config.name)
        rates = [rate] * len(pictures) if isinstance(rate, Rate) else list(rate)
        if len(rates) != len(pictures):
            raise UsageError(f"{len(rates)} rates for {len(pictures)} images: give one for all or one each")
        host = self.network.host
        check = self._check_written if host else None
        coded: list[Coded | None] = [None] * len(pictures)
        keys = [(is_measured(picture), self.plan_key(picture.height, picture.width, tile_size)) for picture in pictures]
        for chosen in batches_of(range(len(keys)), keys.__getitem__, lambda key: self.batch_limit(key[1], batch_size)):
            encoder = self._exact._encoder if keys[chosen[0]][0] else self._encoder
            encodings = [encoder.prepare(pictures[i], rates[i], tile_size, **options) for i in chosen]
            encoder.encode(encodings, batch_size)
            for position, encoding in zip(chosen, encodings, strict=True):
                coded[position] = Coded(self.model.hash, self.coder, encoding, host=host, check=check)
        return [one for one in coded if one is not None]

    def estimate(
        self,
        images: Sequence[Tensor | Picture] | Tensor,
        quality: float | Sequence[float] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> np.ndarray:
        """Bits that an ideal coder would write for each image under the model's tables, (B,), headers left out.

        `compress` comes within one percent of it on photographs. Arguments and errors are those of `compress`.
        """
        pictures = self._pictures(images)
        rates = rates_of(quality, len(pictures))
        return np.array([coded.code_length() for coded in self.encode(pictures, rates, batch_size)])

    def _pictures(self, images: Tensor | Sequence[Tensor | Picture]) -> list[Picture]:
        pictures = []
        for position, image in enumerate(images):
            with _naming(position, len(images)):
                pictures.append(image if isinstance(image, Picture) else to_picture(image, self.config.bit_depth))
        return pictures

    def plan_key(self, height: int, width: int, tile_size: int = TILE_SIZE) -> tuple[int, ...]:
        """Images of equal keys go through the network together; an image of several tiles goes alone."""
        stride = self.config.hyper_stride
        if len(grid_of(width, height, tile_size, stride)) == 1:
            return -(-height // stride), -(-width // stride)
        return height, width, tile_size

    def batch_limit(self, key: tuple[int, ...], batch_size: int) -> int:
        """At most `batch_size` images of a key, and as many pixels as the device takes at once, but at least one image."""
        if len(key) > 2:
            return 1
        return shape_limit((key[0], key[1]), self.config.hyper_stride, batch_size, self.batch_pixels)

    # Decompression.

    @overload
    def decompress(
        self, files: bytes, batch_size: int = ..., *, region: tuple[int, int, int, int] | None = ..., allow_partial: bool = ...
    ) -> Tensor: ...
    @overload
    def decompress(
        self,
        files: Sequence[bytes],
        batch_size: int = ...,
        *,
        region: tuple[int, int, int, int] | None = ...,
        allow_partial: bool = ...,
    ) -> list[Tensor]: ...
    def decompress(
        self,
        files: bytes | Sequence[bytes],
        batch_size: int = BATCH_SIZE,
        *,
        region: tuple[int, int, int, int] | None = None,
        allow_partial: bool = False,
    ) -> Tensor | list[Tensor]:
        """The images, (C, H, W) uint8 (uint16 for 16 bits), on the CPU: a list, or one if `files` is the bytes of one.

        region: (left, top, width, height) in pixels as stored; only the tiles that it takes are decoded.
        allow_partial: what is damaged is gray (or opaque) instead of an error, if the file's header and a tile are good; `decode`
            tells what was lost.
        Raises FormatError, of the kind that errors.py tells, on the first file that cannot be decoded; its message
        starts with the file's place in the list if there are several. UsageError if the region is not in an image.
        """
        one = isinstance(files, bytes | bytearray | memoryview)
        restored = self.decode([bytes(files)] if one else files, batch_size, region=region, allow_partial=allow_partial)  # type: ignore[arg-type]
        images = [to_tensor(each.picture.pixels) for each in restored]
        return images[0] if one else images

    def decode(
        self,
        files: Sequence[bytes],
        batch_size: int = BATCH_SIZE,
        *,
        region: tuple[int, int, int, int] | None = None,
        allow_partial: bool = False,
    ) -> list[Restored]:
        """As `decompress`, with all that the files hold beside the pixels."""
        _check_batch_size(batch_size)
        places: dict[Decoding, int] = {}
        jobs: dict[tuple[bytes, bool, int], list[Decoding]] = {}
        pixels: list[np.ndarray | None] = [None] * len(files)
        contents: list[Contents] = []
        regions: list[Rect] = []
        lost: list[tuple[str, ...]] = [()] * len(files)
        for position, data in enumerate(files):
            with _naming(position, len(files)):
                one = unpack(data, self.limits, allow_partial=allow_partial)
                header, boxes = one.header, one.front.boxes
                contents.append(one)
                regions.append(region_of(region, header.width, header.height))
                levels = levels_in(one.front)
                if header.lossless:
                    rows, columns = regions[-1].slices
                    pixels[position] = pixels_in(one.front)[rows, columns]
                    continue
                codec = self._codec_for(header.model_hash)
                if header.channels > codec.config.image_channels:
                    raise FormatError(f"{header.channels} channels are not what the model {codec.config.name} codes")
                alpha, reason = alpha_region(one, regions[-1], allow_partial=allow_partial)
                job = codec._decoder.prepare(one, regions[-1], levels, alpha)
                lost[position] = reason
            places[job] = position
            # Levels of what is measured must not hang on what else is decoded, nor on how many threads do it.
            measured = header.bit_depth == 16 or SCAN in boxes
            jobs.setdefault((header.model_hash, measured, position * measured), []).append(job)

        def name(job: Decoding, error: FormatError) -> FormatError:
            return _named(places[job], len(files), error)

        for (model_hash, measured, _), same in jobs.items():
            codec = self._codec_for(model_hash)._exact if measured else self._codec_for(model_hash)
            with one_thread(self.device) if measured else nullcontext():
                codec._decoder.decode(same, batch_size, name, allow_partial=allow_partial)
        for job, position in places.items():
            pixels[position], job.pixels = job.pixels, None
            reasons = [f"tile {number}: {reason}" for number, reason in job.lost.items() if str(reason) != DAMAGED]
            lost[position] = (*reasons, *lost[position])
        return [_finish(one, array, reasons) for one, array, reasons in zip(contents, pixels, lost, strict=True)]

    def check(self, data: bytes, picture: Picture) -> float:
        """Decode a file again and compare it with the picture that it was made of; the PSNR of the colours, in dB.

        Symbols are compared by their checksum; size, depth, alpha and metadata must be equal. Raises FormatError if it cannot
        be decoded or is of another picture.
        """
        return psnr(self.examine(data, picture).mean_squared_error, picture.bit_depth)

    def with_errors(self, data: bytes, picture: Picture) -> tuple[bytes, Fidelity]:
        """The file that was encoded with `errors`, and what it now says of its errors. Raises as `check` does."""
        fidelity = self.examine(data, picture)
        return with_box(data, ERRORS, fidelity.pack()), fidelity

    def examine(self, data: bytes, picture: Picture) -> Fidelity:
        """How far its colours are from those of the picture; everything else as in `check`.

        True of what this machine decodes, whatever else it decodes with it and by however many threads, if the picture is
        one of `is_measured`; another machine's network may round a level otherwise.
        """
        restored = self.decode([data])[0]
        return compare(restored.picture, picture, lossless=restored.lossless)

    def _codec_for(self, model_hash: bytes) -> Codec:
        if model_hash == self.model.hash:
            return self
        if model_hash not in self._others:
            path = find_by_hash(model_hash)
            if path is None:
                raise ModelMissing(
                    f"it was written with the model {model_hash.hex()}, which is not installed: "
                    "put its weights in a folder named by VAETOOLS_MODELS"
                )
            try:
                self._others[model_hash] = Codec(load_model(path), self.device, bfloat16=self.bfloat16, limits=self.limits)
            except ModelError as error:
                raise ModelMissing(f"the model that it was written with cannot be used: {error}") from None
        return self._others[model_hash]

    def _check_written(self, data: bytes) -> None:
        """Raises Desync if its tiles do not decode, here and now, to the symbols that were encoded."""
        try:
            self._decoder.check(unpack(data, NO_LIMITS))
        except FormatError as error:
            raise Desync(f"the file that was made of it does not decode even here, and is not written ({error})") from None

    def _check_picture(self, picture: Picture, tile_size: int) -> None:
        if picture.colour.shape[2] > self.config.image_channels:
            raise ImageError(f"the model {self.config.name} takes gray images; this one has colours")
        if not self.limits.allow(picture.width, picture.height):
            raise UsageError(self.limits.refusal(picture.width, picture.height))
        tiles = len(grid_of(picture.width, picture.height, tile_size, self.config.hyper_stride))
        if tiles > MAX_TILES:
            raise UsageError(f"tiles of {tile_size} pixels a side would be {tiles:,} in this image: take larger ones")

    def _check_tile_size(self, tile_size: int) -> None:
        stride = self.config.hyper_stride
        if tile_size % stride or not stride <= tile_size <= TILE_SIZE:
            raise UsageError(f"the tile size must be a multiple of {stride} from {stride} to {TILE_SIZE}, not {tile_size}")


def _finish(contents: Contents, pixels: np.ndarray | None, lost: tuple[str, ...]) -> Restored:
    assert pixels is not None
    metadata = metadata_in(contents.front.boxes)
    picture = Picture(pixels, *source_names(contents.header), metadata)
    return Restored(picture, (*contents.front.damage, *lost), contents.header.lossless)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")


def _named(position: int, count: int, error: E) -> E:
    """Put the place in the list before the message of an error, if there are several images or files."""
    if count > 1:
        error.args = (f"number {position}: {error}",)
    return error


@contextmanager
def _naming(position: int, count: int) -> Iterator[None]:
    try:
        yield
    except VaetoolsError as error:
        raise _named(position, count, error) from error.__cause__
