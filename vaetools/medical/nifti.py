"""NIfTI volumes: to a picture that holds all slices side by side, and back to a file."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError
from ..images.picture import Metadata, Picture
from .library import library
from .mosaic import Mosaic
from .scan import LARGEST, MAX_TAGS, NIFTI, Scan, compressed, decompressed

TEXTS = ("descrip", "aux_file", "intent_name", "db_name", "data_type", "unused_str")  # fields of a header that hold text
LEVELS = 65535
NO_EXTENSION = bytes(4)  # between the header and the values
HEADERS = {348: "Nifti1Header", 540: "Nifti2Header"}  # by their length
LABEL_INTENT = 1002
FEW_VALUES = 32  # a volume of no more values is taken for one of labels
GZIP_LEVEL = 6


# From a file.


def size_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of the picture that `read` gives. Raises ImageError for what it refuses by the header."""
    image = _opened(path)
    shape = _shape(image.header)
    return Mosaic.of(shape, _axis(image.header, shape)).shape


def read(path: str | os.PathLike[str], *, max_pixels: int, keep_tags: bool = False) -> Picture:
    """A volume as one gray image, a mosaic of its slices: those across the axis with the coarsest spacing.

    Whole numbers are kept as they are stored: uint8 as 8 bits, int8 and int16 with 128 and 32768 added, wider ones if all
    values lie within 65536 of each other. Floating-point values are rounded to 65536 steps from the lowest to the highest,
    which `notes` tells. keep_tags: text fields and extensions of the header go into `metadata.tags`.
    Raises ImageError, without the file's name, for what is broken, and for values that are no real numbers.
    """
    image = _opened(path)
    header = image.header
    shape = _shape(header)
    axis = _axis(header, shape)
    mosaic = Mosaic.of(shape, axis)
    if math.prod(mosaic.shape) > max_pixels:
        height, width = mosaic.shape
        raise ImageError(f"{width} x {height} pixels, its slices side by side, is above the limit of {max_pixels:,}")
    values = np.asarray(image.dataobj.get_unscaled()).reshape(shape)
    notes: list[str] = []
    origin, step = _scale(values, notes)
    kind = np.uint8 if values.dtype.itemsize == 1 else np.uint16
    pixels = np.empty(mosaic.shape, kind)
    source = mosaic.image(values, axis)
    for row in range(0, len(source), max(1, mosaic.height)):
        part = source[row : row + mosaic.height]
        whole = part.astype(np.float64) - origin if values.dtype.kind == "f" else part.astype(np.int64) - round(origin)
        pixels[row : row + mosaic.height] = np.rint(whole / step).clip(0, LEVELS) if step != 1 else whole
    slope, intercept = (float(number) for number in (image.dataobj.slope, image.dataobj.inter))
    head = _head(path, image)
    stored = _header(library("nibabel"), head[: header.sizeof_hdr])  # nibabel takes the scaling out of image.header
    lowest, highest = float(stored["cal_min"]), float(stored["cal_max"])
    windowed = math.isfinite(lowest) and math.isfinite(highest) and lowest < highest
    scan = Scan(
        NIFTI,
        8 * values.dtype.itemsize,
        signed=values.dtype.kind == "i",
        floating=values.dtype.kind == "f",
        axis=axis,
        unused=mosaic.unused,
        origin=origin,
        step=step,
        slope=slope if math.isfinite(slope) and slope else 1.0,
        intercept=intercept if math.isfinite(intercept) else 0.0,
        centre=(lowest + highest) / 2 if windowed else math.nan,
        width=highest - lowest if windowed else math.nan,
        attributes=_without_texts(stored),
    )
    if keep_tags and len(head) > MAX_TAGS:
        raise ImageError(f"{len(head):,} bytes of header and extensions is more than is kept: leave --keep-tags out")
    tags = compressed(head) if keep_tags else b""
    labels = int(stored["intent_code"]) == LABEL_INTENT or _has_few_values(pixels)
    metadata = Metadata(scan=scan.pack(), tags=tags)
    return Picture(pixels[:, :, None], NIFTI, "L" if kind is np.uint8 else "I;16", metadata, tuple(notes), exact=labels)


def _opened(path: str | os.PathLike[str]) -> Any:
    nibabel = library("nibabel")
    try:
        image = nibabel.load(path)
    except nibabel.filebasedimages.ImageFileError as error:
        raise ImageError(f"not a NIfTI file that nibabel reads ({str(error).removeprefix(f'{path} ')})") from None
    if type(image) not in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        raise ImageError(f"a {type(image).__name__}, and no volume: CIFTI and surfaces are not supported")
    kind = image.get_data_dtype()
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise ImageError(f"a NIfTI volume of {kind}: only real numbers of one channel are supported")
    return image


def _shape(header: Any) -> tuple[int, ...]:
    shape = tuple(int(side) for side in header.get_data_shape())
    if not shape or min(shape) < 1:
        raise ImageError(f"a NIfTI volume of shape {shape}")
    return shape + (1,) * (3 - len(shape))


def _axis(header: Any, shape: tuple[int, ...]) -> int:
    """The axis that slices lie across: one without extent, or that of the coarsest spacing; the last of several."""
    spacing = [float(number) for number in header["pixdim"][1:4]]
    spacing = [number if math.isfinite(number) else 0.0 for number in spacing]
    return max(range(3), key=lambda axis: (shape[axis] == 1, spacing[axis], axis))


def _scale(values: np.ndarray, notes: list[str]) -> tuple[float, float]:
    """(origin, step): value = origin + step * pixel. Raises ImageError for values that no such line holds."""
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        return _scale_of_floats(values, float(low), float(high), notes)
    if values.dtype.itemsize <= 2:
        return float(np.iinfo(values.dtype).min), 1.0
    if int(high) - int(low) > LEVELS or max(abs(int(low)), abs(int(high))) >= 1 << 53:
        raise ImageError(f"whole numbers from {low} to {high}: more than 16 bits hold; convert it to float32 or int16 first")
    return float(low), 1.0


def _scale_of_floats(values: np.ndarray, low: float, high: float, notes: list[str]) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("it has values that are not finite (NaN or infinite): replace them first")
    if max(abs(low), abs(high)) > LARGEST:
        raise ImageError(f"values from {low:g} to {high:g} are too large: scale them first")
    if low == high:
        return low, 1.0
    if high - low <= LEVELS and low == round(low) and abs(low) < 1 << 24 and bool((values == np.rint(values)).all()):
        return low, 1.0
    step = (high - low) / LEVELS
    if not step > np.finfo(np.float64).tiny * LEVELS:
        raise ImageError(f"values from {low:g} to {high:g} are too near each other for 16 bits: scale them first")
    notes.append(f"its floating-point values are rounded to 65,536 levels: {step:.4g} between two, {step / 2:.4g} at most lost")
    return low, step


def _has_few_values(pixels: np.ndarray) -> bool:
    counts = np.bincount(pixels[:: max(1, len(pixels) // 64)].ravel(), minlength=1)  # a look at some rows rules most out
    return np.count_nonzero(counts) <= FEW_VALUES and np.count_nonzero(np.bincount(pixels.ravel())) <= FEW_VALUES


def _without_texts(header: Any) -> bytes:
    """The header as one file, without text."""
    kept = header.copy()
    for field in TEXTS:
        if field in kept.keys():  # noqa: SIM118 (a header is no mapping)
            kept[field] = b""
    return bytes(kept.binaryblock)


def _head(path: str | os.PathLike[str], image: Any) -> bytes:
    """All bytes before the values: the header, and its extensions."""
    length = int(image.dataobj.offset)
    opener = gzip.open if os.fspath(path).lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        return bytes(file.read(length))


# To a file.


def write(path: Path, picture: Picture, scan: Scan, *, gzipped: bool) -> None:
    """A picture as a NIfTI file: shape, type, byte order, affines, spacing, units and scaling are those of the source.

    Raises ImageError if what the picture says of its source is damaged, or its text cannot be put back.
    """
    nibabel = library("nibabel")
    try:
        header = _header(nibabel, scan.attributes)
        tags = picture.metadata.tags
        head = decompressed(tags, MAX_TAGS) if tags else scan.attributes + NO_EXTENSION
        if tags:
            kept = _header(nibabel, head[: len(scan.attributes)])
            if (kept.get_data_shape(), kept.get_data_dtype()) != (header.get_data_shape(), header.get_data_dtype()):
                raise ImageError("its text is that of another volume")
        shape, kind = _shape(header), header.get_data_dtype()
        if kind.kind not in "iuf":
            raise ImageError(f"values of type {kind}")
        mosaic = Mosaic.of(shape, scan.axis) if scan.axis < 3 else None
        if mosaic is None or mosaic.shape != (picture.height, picture.width) or picture.channels != 1:
            raise ImageError(f"a volume of shape {shape} is not what {picture.width} x {picture.height} pixels hold")
        values = scan.values(mosaic.volume(picture.pixels[:, :, 0], shape, scan.axis))
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            values = (np.rint(values) if values.dtype.kind == "f" else values).clip(limits.min, limits.max)
        data = _with_offset(nibabel, head, scan) + values.astype(kind).tobytes(order="F")
    except (ImageError, MemoryError) as error:
        if isinstance(error, ImageError):
            raise ImageError(f"what its file says of the volume is damaged ({error}); --format png gives the slices") from None
        raise
    except Exception as error:  # nibabel raises whatever it pleases on headers that are none
        raise ImageError(f"what its file says of the volume is damaged ({error}); --format png gives the slices") from None
    path.write_bytes(gzip.compress(data, GZIP_LEVEL, mtime=0) if gzipped else data)


def _header(nibabel: Any, data: bytes) -> Any:
    if len(data) not in HEADERS:
        raise ImageError(f"a header of {len(data)} bytes")
    return getattr(nibabel.nifti1 if len(data) == 348 else nibabel.nifti2, HEADERS[len(data)])(data, check=True)


def _with_offset(nibabel: Any, head: bytes, scan: Scan) -> bytes:
    """`head`, which says that the values come right after it, filled up to a multiple of 16 bytes."""
    length = len(scan.attributes)
    head += bytes(-len(head) % 16)
    header = _header(nibabel, head[:length])
    header["magic"] = b"n+1" if length == 348 else b"n+2"
    header["vox_offset"] = len(head)
    return bytes(header.binaryblock) + head[length:]
