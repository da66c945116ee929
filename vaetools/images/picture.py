"""An image in memory: its pixels as they were stored, and everything its file says beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import UsageError


@dataclass(frozen=True)
class Metadata:
    """What a file says beside its pixels, byte for byte; empty where it says nothing.

    icc: a colour profile. exif: the TIFF structure, without the "Exif\\0\\0" that some formats put before it.
    xmp: the packet, an XML document. scan: what the pixels of a DICOM or NIfTI file stand for (medical/scan.py). tags: the
    rest of what such a file says, names and dates too, where that was asked for.
    """

    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    scan: bytes = b""
    tags: bytes = b""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of what there is: some of "ICC profile", "EXIF", "XMP"."""
        named = (("ICC profile", self.icc), ("EXIF", self.exif), ("XMP", self.xmp))
        return tuple(name for name, data in named if data)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as it was stored: an orientation in its EXIF is not applied to the pixels.

    pixels: (H, W, C) uint8 or uint16 over the full range of the type; C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and
        alpha. Alpha comes last and is straight: colours are not multiplied by it.
    format: Pillow's name of the source's format, such as "PNG"; "DICOM", "NIfTI"; "" if it never was a file.
    mode: the source's mode, Pillow's name or one of "LA;16", "RGB;16", "RGBA;16", "CMYK;16"; "" if unknown. It is what
        the source was, not what the pixels are: "P" with pixels of 3 channels was a palette.
    notes: what reading converted or left behind, in words.
    exact: the values are labels, which bear no loss.

    Raises UsageError for pixels of another shape or type.
    """

    pixels: np.ndarray
    format: str = ""
    mode: str = ""
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    exact: bool = False

    def __post_init__(self) -> None:
        shape, kind = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or not 1 <= shape[2] <= 4 or 0 in shape:
            raise UsageError(f"pixels of shape {shape}: (height, width, 1 to 4 channels) is what a picture holds")
        if kind not in (np.uint8, np.uint16):
            raise UsageError(f"pixels of type {kind}: a picture holds uint8 or uint16")

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[2])

    @property
    def bit_depth(self) -> int:
        """8 or 16."""
        return self.pixels.dtype.itemsize * 8

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4)

    @property
    def colour(self) -> np.ndarray:
        """(H, W, 1) gray or (H, W, 3) RGB: the pixels without their alpha. A view, not a copy."""
        return self.pixels[:, :, : self.channels - self.has_alpha]

    @property
    def alpha(self) -> np.ndarray | None:
        """(H, W): 0 is transparent, 255 or 65535 opaque. A view, not a copy; None if there is none."""
        return self.pixels[:, :, -1] if self.has_alpha else None
