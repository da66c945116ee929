"""From pixels to a file."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from ..errors import ImageError, UsageError
from ..files import replace_file
from .exif import orientation_of, turned
from .metadata import EXIF_PREFIX
from .modes import bands
from .picture import Picture
from .png import LEVEL, XMP_KEYWORD, write_deep_png
from .png import pixels_from_png as pixels_from_png
from .png import png_bytes as png_bytes
from .tiff import write_tiff

QUALITY = 95  # of JPEG and AVIF


@dataclass(frozen=True)
class _Format:
    """What a format holds. largest: height and width at most; 0 for no limit worth a word."""

    extension: str
    alpha: bool
    deep: bool
    metadata: bool
    largest: int = 0


FORMATS = {
    "png": _Format(".png", alpha=True, deep=True, metadata=True),
    "jpeg": _Format(".jpg", alpha=False, deep=False, metadata=True, largest=65500),
    "webp": _Format(".webp", alpha=True, deep=False, metadata=True, largest=16383),
    "tiff": _Format(".tiff", alpha=True, deep=True, metadata=True),
    "avif": _Format(".avif", alpha=True, deep=False, metadata=True, largest=65536),
    "bmp": _Format(".bmp", alpha=False, deep=False, metadata=False),
    "ppm": _Format(".ppm", alpha=False, deep=True, metadata=False),
}
SCAN_FORMATS = {"dicom": "DICOM", "nifti": "NIfTI", "nifti.gz": "NIfTI"}
ORIGINALS = {"PNG", "JPEG", "WEBP", "TIFF", "AVIF", "BMP", "PPM"}  # Pillow's names of formats that are written again


def extension_of(format: str) -> str:
    """The suffix of files of that format, with its dot. Raises UsageError for a format that is not written."""
    return _format(format).extension


def restored_format(picture: Picture) -> str:
    """The format that a picture's file had, or png if that one is not written or does not hold the picture.

    GIF becomes png, a JPEG with several pictures inside (MPO) jpeg.
    """
    name = "jpeg" if picture.format == "MPO" else picture.format.lower() if picture.format in ORIGINALS else "png"
    return "png" if _refusal(picture, name) else name


def write_picture(path: Path, picture: Picture, format: str) -> tuple[str, ...]:
    """As save_picture, whole or not at all: until the new file is complete and on the disk, an old one stays."""
    notes: list[str] = []
    replace_file(path, lambda temporary: notes.extend(save_picture(temporary, picture, format)))
    return tuple(notes)


def save_picture(path: Path, picture: Picture, format: str, *, ratio: float | None = None, made: str = "") -> tuple[str, ...]:
    """`picture` as a file of that format, one of FORMATS or SCAN_FORMATS, whatever the path's suffix.

    png, webp, tiff, bmp and ppm hold the pixels without loss (webp has no gray: it comes back as RGB with equal channels);
    jpeg and avif are of quality 95 without subsampling of colours. Gray pictures whose mode is "1" are written with one bit
    per pixel as png and tiff: white from 128 on.

    Colour profile, EXIF and XMP go into the file byte for byte; in TIFF, EXIF tags become the file's own tags. bmp and ppm
    hold none of them: the pixels are turned as the EXIF orientation says, the rest is left out. Returns in words what was
    left out.

    dicom, nifti and nifti.gz take what such a file became: stored values, their type and their geometry come back. ratio: bytes
    of its pixels over bytes of the file between, if that lost something; made: what else became of it. A DICOM file says so.

    Raises UsageError for an unknown format; ImageError where the format does not hold the picture: alpha in jpeg,
    bmp and ppm, 16 bits in jpeg, webp, avif and bmp, sizes above the format's limit, metadata above 64 KiB in jpeg, pictures
    that were no scan in dicom and nifti; and OSError if the file cannot be written.
    """
    if format in SCAN_FORMATS:
        return _write_scan(path, picture, format, ratio, made)
    if refusal := _refusal(picture, format):
        raise ImageError(refusal)
    try:
        return _WRITERS[format](path, picture)
    except (ValueError, SyntaxError, RuntimeError, TypeError, struct.error) as error:
        raise ImageError(f"the picture cannot be written as {format} ({error}); png holds every picture") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise ImageError(f"the picture cannot be written as {format} ({error}); png holds every picture") from None


def _format(name: str) -> _Format:
    if name not in FORMATS:
        raise UsageError(f"no format {name!r}: images are written as {', '.join(FORMATS)}")
    return FORMATS[name]


def _refusal(picture: Picture, name: str) -> str:
    """Why the format does not hold the picture's pixels, and which do; "" if it does."""
    format = _format(name)
    if picture.has_alpha and not format.alpha:
        return f"{name} holds no alpha channel; choose {_others('alpha', picture)}"
    if picture.bit_depth == 16 and not format.deep:
        return f"{name} holds 8 bits per channel, the picture has 16; choose {_others('deep', picture)}"
    if format.largest and max(picture.height, picture.width) > format.largest:
        return (
            f"{name} holds at most {format.largest} pixels a side, the picture is {picture.width} x {picture.height}; choose png"
        )
    return ""


def _others(need: str, picture: Picture) -> str:
    names = [
        name for name, format in FORMATS.items() if getattr(format, need) and (format.metadata or not picture.metadata.kinds)
    ]
    fitting = [name for name in names if (FORMATS[name].deep or picture.bit_depth == 8) and not FORMATS[name].largest]
    fitting = [name for name in fitting if name not in ("bmp", "ppm")] or fitting
    return " or ".join(name for name in fitting if FORMATS[name].alpha or not picture.has_alpha)


def _write_scan(path: Path, picture: Picture, format: str, ratio: float | None, made: str) -> tuple[str, ...]:
    from ..medical import dicom, nifti
    from ..medical.windowing import scan_of

    scan, kind = scan_of(picture), SCAN_FORMATS[format]
    if scan is None or scan.kind != kind:
        was = f"a {scan.kind} file" if scan is not None and scan.kind else "no such file"
        raise ImageError(f"{kind} cannot be written: the picture was {was}; --format png gives its pixels")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom prints values that break its rules: names of patients, with tags
        if kind == "DICOM":
            dicom.write(path, picture, scan, ratio=ratio, made=made)
        else:
            nifti.write(path, picture, scan, gzipped=format == "nifti.gz")
    return ()


def _is_bilevel(picture: Picture) -> bool:
    return picture.mode == "1" and picture.channels == 1 and picture.bit_depth == 8


def _image(pixels: np.ndarray) -> Image.Image:
    """(H, W, C) uint8 or (H, W, 1) uint16 as Pillow holds it."""
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def _save_by_memory(path: Path, image: Image.Image, kind: str, **options: Any) -> None:
    """For formats of which Pillow, when it writes to a file itself, does not tell that the disk is full."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    path.write_bytes(file.getbuffer())


def _write_png(path: Path, picture: Picture) -> tuple[str, ...]:
    metadata = picture.metadata
    if picture.bit_depth == 16:
        with path.open("wb") as file:
            write_deep_png(file, picture.pixels, metadata)
        return ()
    image = Image.fromarray(picture.pixels[:, :, 0] >= 128) if _is_bilevel(picture) else _image(picture.pixels)
    chunks = PngImagePlugin.PngInfo()
    if metadata.xmp:
        chunks.add_itxt(XMP_KEYWORD.decode(), metadata.xmp)
    image.save(path, "PNG", compress_level=LEVEL, pnginfo=chunks, icc_profile=metadata.icc, exif=metadata.exif)
    return ()


def _write_jpeg(path: Path, picture: Picture) -> tuple[str, ...]:
    metadata = picture.metadata
    exif = EXIF_PREFIX + metadata.exif if metadata.exif else b""
    image = _image(picture.pixels)
    options = {"icc_profile": metadata.icc, "exif": exif, "xmp": metadata.xmp}
    _save_by_memory(path, image, "JPEG", quality=QUALITY, subsampling="4:4:4", **options)
    return ()


def _write_webp(path: Path, picture: Picture) -> tuple[str, ...]:
    metadata = picture.metadata
    image = _image(picture.pixels)
    image.save(path, "WEBP", lossless=True, exact=True, icc_profile=metadata.icc, exif=metadata.exif, xmp=metadata.xmp)
    return ()


class _Verbatim(Image.Exif):
    """EXIF data that Pillow's AVIF writer leaves as it is: it reads the orientation and would write the rest anew without."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data
        self.load(data)

    def __bool__(self) -> bool:
        return True

    def tobytes(self, offset: int = 8) -> bytes:
        return self.data


def _write_avif(path: Path, picture: Picture) -> tuple[str, ...]:
    metadata = picture.metadata
    exif = _Verbatim(metadata.exif) if metadata.exif else b""
    image = _image(picture.pixels)
    image.save(path, "AVIF", quality=QUALITY, subsampling="4:4:4", icc_profile=metadata.icc, exif=exif, xmp=metadata.xmp)
    return ()


def _write_tiff(path: Path, picture: Picture) -> tuple[str, ...]:
    return write_tiff(path, picture, bilevel=_is_bilevel(picture))


def _write_bmp(path: Path, picture: Picture) -> tuple[str, ...]:
    _save_by_memory(path, _image(_upright(picture)), "BMP")
    return _left_out(picture, "bmp")


def _write_ppm(path: Path, picture: Picture) -> tuple[str, ...]:
    pixels = _upright(picture)
    height, width, channels = pixels.shape
    with path.open("wb") as file:
        file.write(b"P%d\n%d %d\n%d\n" % (5 if channels == 1 else 6, width, height, 2**picture.bit_depth - 1))
        for top, bottom in bands(height, width):
            file.write(pixels[top:bottom].astype(pixels.dtype.newbyteorder(">")).tobytes())
    return _left_out(picture, "ppm")


def _upright(picture: Picture) -> np.ndarray:
    return turned(picture.pixels, orientation_of(picture.metadata.exif))


def _left_out(picture: Picture, name: str) -> tuple[str, ...]:
    kinds = picture.metadata.kinds
    return (f"{name} holds no {' and no '.join(kinds)}; png, tiff, jpeg, webp and avif do",) if kinds else ()


_WRITERS: dict[str, Callable[[Path, Picture], tuple[str, ...]]] = {
    "png": _write_png,
    "jpeg": _write_jpeg,
    "webp": _write_webp,
    "tiff": _write_tiff,
    "avif": _write_avif,
    "bmp": _write_bmp,
    "ppm": _write_ppm,
}
