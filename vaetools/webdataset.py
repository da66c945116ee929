"""Decoders of .vtc members for WebDataset's pipelines; the package webdataset itself is not needed here.

    webdataset.WebDataset("small/photos-{000..041}.tar").decode(vtc_decoder("rgb8")).to_tuple("jpg.vtc", "cls")

docs/webdataset.md tells what users should know.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .codec.container import read_header
from .codec.loaded import codecs
from .errors import UsageError

if TYPE_CHECKING:
    from .latents.samples import LatentSamples

# webdataset/autodecode.py: what its own image handlers give; (container, whether in floats of 0..1, colours).
FORMS: dict[str, tuple[str, bool, str]] = {
    "l8": ("numpy", False, "l"),
    "rgb8": ("numpy", False, "rgb"),
    "rgba8": ("numpy", False, "rgba"),
    "l": ("numpy", True, "l"),
    "rgb": ("numpy", True, "rgb"),
    "rgba": ("numpy", True, "rgba"),
    "torchl8": ("torch", False, "l"),
    "torchrgb8": ("torch", False, "rgb"),
    "torchrgba8": ("torch", False, "rgba"),
    "torchl": ("torch", True, "l"),
    "torchrgb": ("torch", True, "rgb"),
    "torch": ("torch", True, "rgb"),
    "torchrgba": ("torch", True, "rgba"),
    "pill": ("pil", False, "l"),
    "pil": ("pil", False, "rgb"),
    "pilrgb": ("pil", False, "rgb"),
    "pilrgba": ("pil", False, "rgba"),
}
LUMA = (19595, 38470, 7471)  # of 65536: ITU-R BT.601, as Pillow rounds it


@dataclass(frozen=True)
class VtcDecoder:
    """Called with the end of a member's name and its bytes; None for what is no .vtc member, so that others decode it.

    Can be pickled. A process loads the model when it decodes its first member, and has it until it ends.
    """

    form: str
    model: str | None = None
    device: str = "cpu"

    def __call__(self, key: str, data: bytes) -> Any:
        """Raises FormatError if the file cannot be decoded, ModelError if the model cannot be used."""
        if key.rpartition(".")[2].lower() != "vtc":
            return None
        from .model.weights import find_by_hash

        model = self.model or find_by_hash(read_header(data)[0].model_hash) or "photo"
        pixels = codecs.get(model, self.device).decode([data])[0].picture.pixels
        container, floats, colours = FORMS[self.form]
        result = in_colours(pixels, colours)
        if container == "pil":
            return Image.fromarray(_as_bytes(result))
        result = _as_floats(result) if floats else _as_bytes(result)
        if container == "numpy":
            return result
        import torch

        return torch.from_numpy(np.ascontiguousarray(result.transpose(2, 0, 1) if result.ndim == 3 else result))


def vtc_decoder(form: str, *, model: str | os.PathLike[str] | None = None, device: str = "cpu") -> Callable[[str, bytes], Any]:
    """What to give to `WebDataset(...).decode`, before the names of decoders of other members.

    form: as of webdataset's own image handlers: "rgb8" is (H, W, 3) uint8, "rgb" the same in float32 of 0..1, "torch"
        (3, H, W) float32 in 0..1, "torchrgb8" the same in uint8, "pil" a Pillow image; "l8", "rgba8" and so on other colours.
        Of 16 bits, floats have all, and the others the upper 8.
    model: what the files were written with, if it is not installed under the hash that they name. device: a loader's workers that
        were forked have no GPU.
    Images are as they are stored, as webdataset's own are: an EXIF orientation is not applied.
    Raises UsageError on another form.

    >>> dataset = webdataset.WebDataset("small-{000..041}.tar").decode(vtc_decoder("torch")).to_tuple("jpg.vtc", "cls")
    """
    if form not in FORMS:
        raise UsageError(f"{form!r} is no form of images; those of webdataset are {', '.join(FORMS)}")
    return VtcDecoder(form, None if model is None else os.fspath(model), device)


def latent_samples(model: str | os.PathLike[str] = "photo", **options: Any) -> LatentSamples:
    """What to give to `WebDataset(...).map`: a sample becomes a LatentItem, for `latent_collate` and `LatentAugment`.

    model: that all files were written with. Options: image, the member that is the image [default: the first that ends with
    .vtc]; label, that which is the label [cls], or None; target_transform, from its bytes to the label [int]; classes, how many
    there are, for operators that mix them; crop and seed as of LatentFolder.
    Raises UsageError and ModelError.

    >>> dataset = webdataset.WebDataset("small-{000..041}.tar").map(latent_samples("photo", crop=224))
    >>> loader = webdataset.WebLoader(dataset, batch_size=64, num_workers=2, collate_fn=latent_collate)
    >>> augment = LatentAugment("photo", "jitter", 0.5)
    >>> for batch in loader:
    ...     images, labels = augment(batch)
    """
    from .latents.samples import LatentSamples

    return LatentSamples(model, **options)


def in_colours(pixels: np.ndarray, colours: str) -> np.ndarray:
    """(H, W, C) of 1 to 4 channels, uint8 or uint16 -> (H, W) for "l", (H, W, 3) for "rgb", (H, W, 4) for "rgba"."""
    count = pixels.shape[2]
    colour, alpha = (pixels[..., :-1], pixels[..., -1:]) if count in (2, 4) else (pixels, None)
    if colours == "l":
        if colour.shape[2] == 1:
            return np.ascontiguousarray(colour[..., 0])
        luma = (colour.astype(np.int64) @ np.array(LUMA, np.int64) + 0x8000) >> 16
        return luma.astype(pixels.dtype)
    rgb = np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour
    if colours == "rgba":
        rgb = np.concatenate([rgb, np.full_like(rgb[..., :1], np.iinfo(pixels.dtype).max) if alpha is None else alpha], axis=2)
    return np.ascontiguousarray(rgb)


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _as_floats(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
