"""Pillow's plug-in for .vtc files: `Image.open` and `Image.save` know them once vaetools is imported.

    open:  header, table of tiles, boxes -> size, mode, info       (no torch, no model)
    load:  + payloads -> Codec -> pixels
    save:  Image -> Picture -> Codec -> file

docs/pillow.md tells what users should know.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile

from .codec.container import (
    ALPHA,
    EXIF,
    HEADER_ROOM,
    ICC,
    MAGIC,
    NO_LIMITS,
    PIXELS,
    PREVIEW,
    XMP,
    Front,
    Limits,
    check_file,
    read_front,
    read_header,
)
from .codec.loaded import codecs as _codecs
from .errors import FormatError, ImageError, NotThisFormat, UnsupportedVersion, UsageError, VaetoolsError

if TYPE_CHECKING:
    import numpy as np

    from .codec.codec import Codec
    from .codec.rate import Rate
    from .images.picture import Metadata

MIME_TYPE = "image/x-vaetools"
DEVICE_VARIABLE = "VAETOOLS_PILLOW_DEVICE"
EXIF_PREFIX = b"Exif\0\0"  # Pillow's info has it: the JPEG plug-in writes what it gets, and the others take it off
BLOCK = 1 << 20  # bytes read at a time
RATES = {"quality": "quality", "target_bpp": "bpp", "target_size": "size", "target_psnr": "psnr"}
RAW_MODES = {"1": "1;8"}  # how pixels are handed to Pillow where that is not the mode itself


class VtcImageFile(ImageFile.ImageFile):
    """A .vtc file whose pixels are decoded when they are first asked for."""

    format = "VTC"
    format_description = "vaetools image"
    _front: Front | None = None  # until the pixels are there
    _head = b""  # all bytes before the payloads

    def _open(self) -> None:
        assert self.fp is not None
        start = self.fp.tell()
        try:
            head = _read(self.fp, HEADER_ROOM)
            length = read_header(head, NO_LIMITS)[0].payload_start
            self._head = (head + _read(self.fp, length - len(head)))[:length]
            self._front = read_front(self._head, NO_LIMITS)
        except FormatError as error:
            raise SyntaxError(str(error)) from error
        self._payload_start = start + length
        self._size = self._front.header.width, self._front.header.height
        self.info = _info_of(self._front)
        self._mode = _mode_of(self._front, self.info.get("source_mode", ""))

    def load(self) -> Image.core.PixelAccess | None:
        """Decode the pixels, the first time. Raises OSError for a file that cannot be decoded."""
        if self._front is not None:
            try:
                pixels = _pixels_of(_decode(self._file(), self._front.header.model_hash), self.mode)
            except VaetoolsError as error:
                raise OSError(str(error)) from error
            self.load_prepare()
            self.frombytes(pixels, "raw", RAW_MODES.get(self.mode, self.mode))
            self.readonly = 0
            self._let_go()
        return super().load()

    def verify(self) -> None:
        """Check every checksum, without a model; the image is of no use afterwards. Raises OSError for a damaged file."""
        if self.fp is None:
            raise RuntimeError("verify must be called directly after open")
        try:
            check_file(self._file(), NO_LIMITS)
        except FormatError as error:
            raise OSError(str(error)) from error
        finally:
            super().verify()

    def _file(self) -> bytes:
        """All of the file, and nothing of what may follow it."""
        if self.fp is None or self._front is None:
            raise ValueError("Operation on closed image")
        self.fp.seek(self._payload_start)
        return self._head + _read(self.fp, sum(entry.length for entry in self._front.entries))

    def _let_go(self) -> None:
        self._front, self._head = None, b""
        if self._exclusive_fp and self._close_exclusive_fp_after_loading and self.fp:
            self.fp.close()
        self.fp = None


def _accept(prefix: bytes) -> bool | str:
    """Whether a file is for this plug-in, by its first 16 bytes; in words where it nearly is."""
    if prefix[1:4] != MAGIC[1:4]:
        return False
    try:
        read_header(prefix)
    except (NotThisFormat, UnsupportedVersion) as error:
        return f"image file could not be identified: {error}"
    except FormatError:
        pass  # the rest of the header is not there yet
    return True


def _read(file: IO[bytes], length: int) -> bytes:
    """Less where the file ends. The length may be any that a file claims: memory is taken for what is there."""
    parts = []
    while length > 0 and (part := file.read(min(length, BLOCK))):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _info_of(front: Front) -> dict[str | tuple[int, int], Any]:
    from .images.sources import FORMATS_KNOWN, MODES_KNOWN

    header, boxes = front.header, front.boxes
    info: dict[str | tuple[int, int], Any] = {
        "quality": header.quality,
        "lossless": header.lossless,
        "bit_depth": header.bit_depth,
    }
    for key, known, code in (
        ("source_format", FORMATS_KNOWN, header.source_format),
        ("source_mode", MODES_KNOWN, header.source_mode),
    ):
        if 0 < code < len(known):
            info[key] = known[code]
    for key, kind, prefix in (
        ("icc_profile", ICC, b""),
        ("exif", EXIF, EXIF_PREFIX),
        ("xmp", XMP, b""),
        ("preview", PREVIEW, b""),
    ):
        if boxes.get(kind):
            info[key] = prefix + boxes[kind]
    return info


def _mode_of(front: Front, source_mode: str) -> str:
    header, boxes = front.header, front.boxes
    # The colour type of a PNG: gray or RGB, with alpha. That it fits the header is checked when it is decoded.
    alpha = ALPHA in boxes or boxes.get(PIXELS, b"")[25:26] in (b"\4", b"\6")
    if header.channels == 3:
        return "RGBA" if alpha else "RGB"
    if alpha:
        return "LA"
    if header.bit_depth == 16:
        return "I;16"
    return "1" if source_mode == "1" else "L"


# Loading.


def _decode(data: bytes, model_hash: bytes) -> np.ndarray:
    """(H, W, C). Raises FormatError and what `_codecs.get` raises."""
    from .model.weights import find_by_hash

    codec = _codec_of(find_by_hash(model_hash) or "photo")
    return codec.decode([data])[0].picture.pixels


def _codec_of(model: str | os.PathLike[str]) -> Codec:
    return _codecs.get(model, os.environ.get(DEVICE_VARIABLE, "cpu"), NO_LIMITS)


def _pixels_of(pixels: np.ndarray, mode: str) -> np.ndarray:
    """What Pillow unpacks to a mode, without gaps in memory."""
    import numpy as np

    from .images.modes import bands

    if mode == "I;16":
        return np.ascontiguousarray(pixels, "<u2")
    if mode == "1":
        return (pixels >= 128).view(np.uint8)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    out = np.empty(pixels.shape, np.uint8)
    for top, bottom in bands(*pixels.shape[:2]):
        out[top:bottom] = (pixels[top:bottom].astype(np.uint32) + 128) // 257  # to the nearest
    return out


# Saving.


def _save(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Options: quality, target_bpp, target_size or target_psnr; icc_profile, exif, xmp, preview, model.

    Raises ValueError for impossible options, and OSError for what cannot be written.
    """
    options = im.encoderinfo
    rate = _rate_of(options)
    if not Limits().allow(im.width, im.height):
        raise OSError(f"cannot write this image as VTC: {Limits().refusal(im.width, im.height)}")
    from .images.read import picture_of

    try:
        # A copy has but the frame that is shown.
        picture = picture_of(im.copy() if getattr(im, "n_frames", 1) > 1 else im)
        metadata = _metadata_of(options, picture.metadata.icc)
        picture = replace(picture, format=im.format or "", metadata=metadata)
        coded = _codec_of(options.get("model") or "photo").encode([picture], rate, preview=bool(options.get("preview")))[0]
        data = coded.to_bytes()
    except ImageError as error:
        raise OSError(f"cannot write mode {im.mode} as VTC: {error}") from error
    except VaetoolsError as error:
        raise OSError(str(error)) from error
    for note in coded.notes:
        warnings.warn(note, stacklevel=3)
    fp.write(data)


def _save_all(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    frames = sum(getattr(one, "n_frames", 1) for one in (im, *im.encoderinfo.get("append_images", ())))
    if frames > 1:
        raise OSError(f"cannot write {frames} frames as VTC: a file holds one image; save each frame under a name of its own")
    _save(im, fp, filename)


def _rate_of(options: Mapping[str, Any]) -> Rate:
    from .codec.rate import USUAL_RATE, Rate

    given = {name: options[name] for name in RATES if options.get(name) is not None}
    if len(given) > 1:
        raise ValueError(f"give one of {', '.join(RATES)}, not {' and '.join(given)}")
    if not given:
        return USUAL_RATE
    ((name, value),) = given.items()
    try:
        return Rate(RATES[name], float(value))
    except (UsageError, TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r}: {error}") from error


def _metadata_of(options: Mapping[str, Any], icc: bytes) -> Metadata:
    """As the plug-ins of PNG and AVIF choose: the profile of the image unless another is given, EXIF and XMP that are given."""
    from .images.picture import Metadata

    exif, xmp = options.get("exif") or b"", options.get("xmp") or b""
    if isinstance(exif, Image.Exif):
        exif = exif.tobytes()
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return Metadata(options.get("icc_profile", icc) or b"", exif.removeprefix(EXIF_PREFIX), xmp)


Image.register_open(VtcImageFile.format, VtcImageFile, _accept)
Image.register_save(VtcImageFile.format, _save)
Image.register_save_all(VtcImageFile.format, _save_all)
Image.register_extension(VtcImageFile.format, ".vtc")
Image.register_mime(VtcImageFile.format, MIME_TYPE)
