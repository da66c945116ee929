"""Codecs that are measured side by side. Each turns (H, W, 3) uint8 pixels into the bytes of a whole file and back."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import PIL
import torch
from PIL import Image, features

from ..errors import ImageError, UsageError
from ..images.tensors import to_tensor

if TYPE_CHECKING:
    from ..codec.codec import Restored

QUALITIES = (0.0, 12.5, 25.0, 37.5, 50.0, 62.5, 75.0, 87.5, 100.0)


class Peer(Protocol):
    """What is needed of a codec to measure it.

    name: in tables and in --against. how: the library and the options it runs with, for the reader of a report.
    settings: its own quality numbers, from small files to good ones, about 0.1 to 2 bits per pixel on photographs.
    """

    @property
    def name(self) -> str: ...
    @property
    def how(self) -> str: ...
    @property
    def settings(self) -> tuple[float, ...]: ...

    def encode(self, rgb: np.ndarray, setting: float) -> bytes:
        """(H, W, 3) uint8 -> a whole file. Raises ImageError for an image that the codec cannot hold."""
        ...

    def decode(self, data: bytes) -> np.ndarray:
        """A whole file -> (H, W, 3) uint8."""
        ...


@dataclass(frozen=True)
class PillowPeer:
    """A format that Pillow writes and reads."""

    name: str
    format: str
    settings: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def how(self) -> str:
        options = ", ".join(key if value is True else f"{key} {value}" for key, value in self.options.items())
        return f"Pillow {PIL.__version__}, {options}"

    def encode(self, rgb: np.ndarray, setting: float) -> bytes:
        file = io.BytesIO()
        try:
            Image.fromarray(rgb).save(file, self.format, quality=int(setting), **self.options)
        except (OSError, ValueError) as error:
            raise ImageError(f"{self.name} cannot hold an image of {rgb.shape[1]} x {rgb.shape[0]} pixels ({error})") from None
        return file.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


class ImageCodec(Protocol):
    """What is used of vaetools.codec.codec.Codec."""

    @property
    def device(self) -> torch.device: ...

    def compress(self, images: Sequence[torch.Tensor], quality: float | None = ..., *, effort: int = ...) -> list[bytes]: ...
    def decode(self, files: Sequence[bytes]) -> list[Restored]: ...


@dataclass(frozen=True)
class VaetoolsPeer:
    """One image at a time, like the others: folder jobs, which batch, are faster.

    one_rate: the codec takes no quality; its one setting is then a name for that.
    """

    codec: ImageCodec
    settings: tuple[float, ...] = QUALITIES
    name: str = "vaetools"
    effort: int = 0
    one_rate: bool = False

    @property
    def how(self) -> str:
        return f"on {self.codec.device}, one image at a time" + f", effort {self.effort}" * bool(self.effort)

    def encode(self, rgb: np.ndarray, setting: float) -> bytes:
        try:
            quality = None if self.one_rate else setting
            return self.codec.compress([to_tensor(rgb)], quality=quality, effort=self.effort)[0]
        except UsageError as error:
            raise ImageError(str(error)) from None

    def decode(self, data: bytes) -> np.ndarray:
        return self.codec.decode([data])[0].picture.pixels


PEERS: dict[str, PillowPeer] = {
    "jpeg": PillowPeer("jpeg", "JPEG", (5, 10, 20, 30, 45, 60, 75, 85, 92), {"subsampling": "4:2:0", "optimize": True}),
    "webp": PillowPeer("webp", "WEBP", (1, 5, 10, 20, 35, 50, 65, 75, 85, 92), {"method": 4}),
    "avif": PillowPeer("avif", "AVIF", (15, 25, 35, 45, 55, 65, 75, 82, 90), {"subsampling": "4:4:4", "speed": 6}),
}


def find_peers(names: Iterable[str]) -> tuple[PillowPeer, ...]:
    """The peers of those names, each once, in that order.

    Raises UsageError on an unknown name, and for a format that this installation of Pillow was built without.
    """
    found = {}
    for name in names:
        if name not in PEERS:
            raise UsageError(f"unknown codec {name!r} to measure against: the known ones are {', '.join(PEERS)}")
        if name != "jpeg" and not features.check(name):
            raise UsageError(
                f"this Pillow ({PIL.__version__}) was built without {name}: leave it out, or install Pillow from its wheels"
            )
        found[name] = PEERS[name]
    return tuple(found.values())
