"""DICOM files of one gray image: to a picture, and back to a file.

Of the data set only what is listed here is kept: numbers and codes that say what pixels mean and where they lie. No text, no
date, no name, no private element. Study, series and instance get new identifiers, made from the old ones by SHA-256, so that
the slices of a series still belong together.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import ImageError
from ..images.picture import Metadata, Picture
from .library import library
from .scan import DICOM, MAX_TAGS, Scan, compressed, decompressed

# What is kept, by keyword. PS3.3: C.7.6.1 to C.7.6.3, C.7.6.16, C.8.2, C.8.3, C.11.1, C.11.2.
GEOMETRY = (
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelAspectRatio",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PatientPosition",
    "PatientOrientation",
)
MEANING = (
    "SOPClassUID",
    "Modality",
    "ImageType",
    "SeriesNumber",
    "InstanceNumber",
    "PhotometricInterpretation",
    "BitsStored",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
KEPT = frozenset((*GEOMETRY, *MEANING, *IDENTIFIERS))
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
CODES = {  # kinds of values without free text, and what they look like (PS3.5, 6.2); a broken file may hold a name in any
    "CS": re.compile(r"[A-Z0-9 _]{0,16}"),
    "DS": re.compile(NUMBER),
    "IS": re.compile(r"[+-]?\d+"),
    "US": re.compile(r"\d+"),
    "SS": re.compile(r"-?\d+"),
    "UI": re.compile(r"[0-9.]{1,64}"),
}
RESCALE_TYPES = frozenset(("HU", "OD", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"))  # C.11.1.1.2: LO, but these codes
# Which every file must have, with or without a value (type 2).
EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
LOOKUPS = {"ModalityLUTSequence": "Modality LUT", "VOILUTSequence": "VOI LUT"}
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
STRUCTURE = ("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
METHOD, TITLE = "VAETOOLS_VTC", "lossy compression by vaetools"
NO_GRAY = "only gray images are read: extract the image as PNG or TIFF first"


# From a file.


def size_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width). Raises ImageError for what `read` refuses by the header."""
    data = _opened(path, stop_before_pixels=True)
    _check(data)
    return int(data.Rows), int(data.Columns)


def read(path: str | os.PathLike[str], *, max_pixels: int, keep_tags: bool = False) -> Picture:
    """The one gray image of a DICOM file.

    Pixels are the stored values, with 2^(bits - 1) added where these are signed; uint8 up to 8 bits stored, else uint16.
    Overlays are not part of them. keep_tags: the whole data set without pixels goes into `metadata.tags`.
    Raises ImageError, without the file's name, for what is broken, and for colours, several frames, floats, more than 16
    bits, and compressions that pydicom has no decoder for.
    """
    data = _opened(path)
    _check(data)
    height, width = int(data.Rows), int(data.Columns)
    if height * width > max_pixels:
        raise ImageError(f"{width} x {height} pixels is above the limit of {max_pixels:,}")
    if "PixelData" not in data:
        raise ImageError("its pixels are missing: the file is truncated, or holds a reference only")
    bits, signed = int(data.BitsStored), bool(data.get("PixelRepresentation", 0))
    values = _decoded(data)
    if values.shape != (height, width) or values.dtype.kind not in "iu":
        raise ImageError(f"its pixels come as {values.dtype} of shape {values.shape}; {NO_GRAY}")
    origin = -(1 << (bits - 1)) if signed else 0
    levels = values.astype(np.int32) - origin
    if int(levels.min()) < 0 or int(levels.max()) >= 1 << bits:
        raise ImageError(f"it has values that {bits} bits do not hold: its header is wrong, or its pixels are damaged")
    notes = [f"its {name} is not kept" for keyword, name in LOOKUPS.items() if data.get(keyword)]
    kept = _kept(data, notes)
    centre, window = (_first(data.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    function = data.get("VOILUTFunction")
    if function == "LINEAR_EXACT":  # PS3.3, C.11.2.1.3.2, as the linear function would have it
        centre, window = centre + 0.5, window + 1
    elif function == "SIGMOID":
        notes.append("its window is a sigmoid, and shown as a straight line")
    slope, intercept = _first(data.get("RescaleSlope"), 1.0), _first(data.get("RescaleIntercept"), 0.0)
    scan = Scan(
        DICOM,
        bits,
        signed=signed,
        inverted=data.PhotometricInterpretation == "MONOCHROME1",
        origin=origin,
        slope=slope if math.isfinite(slope) and slope else 1.0,
        intercept=intercept if math.isfinite(intercept) else 0.0,
        centre=centre,
        width=window,
        attributes=_encoded(kept),
    )
    tags = compressed(_without_pixels(data)) if keep_tags else b""
    pixels = levels.astype(np.uint8 if bits <= 8 else np.uint16)[:, :, None]
    mode = "L" if bits <= 8 else "I;16"
    return Picture(pixels, DICOM, mode, Metadata(scan=scan.pack(), tags=tags), tuple(notes))


def _opened(path: str | os.PathLike[str], *, stop_before_pixels: bool = False) -> Any:
    pydicom = library("pydicom")
    try:
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
    except pydicom.errors.InvalidDicomError:
        raise ImageError("not a DICOM file: the mark DICM is missing") from None


def _check(data: Any) -> None:
    """Raises ImageError for what is no single gray image of whole numbers."""
    if "Rows" not in data or "Columns" not in data:
        raise ImageError("a DICOM file without an image in it")
    colours = str(data.get("PhotometricInterpretation", ""))
    if int(data.get("SamplesPerPixel", 1) or 1) != 1 or not colours.startswith("MONOCHROME"):
        raise ImageError(f"a DICOM image of kind {colours or 'unknown'}: {NO_GRAY}")
    frames = int(data.get("NumberOfFrames", 1) or 1)
    if frames != 1:
        raise ImageError(f"it has {frames} frames: split it into files of one frame, or convert it to a NIfTI volume, first")
    if any(keyword in data for keyword in PIXELS[1:]):
        raise ImageError("its pixels are floating-point numbers: convert it to a NIfTI volume first")
    allocated, stored = int(data.get("BitsAllocated", 0) or 0), int(data.get("BitsStored", 0) or 0)
    if allocated not in (8, 16) or not 2 <= stored <= allocated:
        raise ImageError(f"{stored} bits stored in {allocated} is not supported: 2 to 16 bits in 8 or 16 are")
    if int(data.get("HighBit", None) or stored - 1) != stored - 1:  # pydicom would take the lowest bits all the same
        raise ImageError(f"its {stored} bits end at bit {data.HighBit} of {allocated}: only bits from 0 on are supported")
    if not int(data.Rows or 0) or not int(data.Columns or 0):
        raise ImageError("its size is 0")


def _decoded(data: Any) -> np.ndarray:
    syntax = data.file_meta.get("TransferSyntaxUID") if hasattr(data, "file_meta") else None
    try:
        return np.asarray(data.pixel_array)
    except Exception as error:
        if syntax is not None and syntax.is_encapsulated and isinstance(error, RuntimeError | NotImplementedError):
            raise ImageError(
                f"its compression, {syntax.name}, has no decoder here: pip install 'pylibjpeg[all]' or python-gdcm, "
                "which pydicom then uses, or decompress it first (gdcmconv --raw)"
            ) from None
        raise


def _first(value: Any, default: float = math.nan) -> float:
    """The first number of an element that may hold several, or none."""
    try:
        if value is None or isinstance(value, str):
            return default if not value else float(value)
        return float(value[0]) if hasattr(value, "__getitem__") else float(value)
    except (ValueError, TypeError, IndexError):
        return default


def _kept(data: Any, notes: list[str]) -> Any:
    """A data set of what is listed above, and of the new identifiers. notes: what is left out, and should not be."""
    kept = library("pydicom").Dataset()
    for keyword in (*GEOMETRY, *MEANING):
        if keyword not in data:
            continue
        element = data[keyword]
        if element.is_empty:
            continue
        if keyword == "RescaleType":
            if element.value in RESCALE_TYPES:
                kept.add(element)
        elif element.VR in CODES and all(CODES[element.VR].fullmatch(_worded(value)) for value in _listed(element.value)):
            kept.add(element)
        else:
            notes.append(f"its {keyword} is not kept, for it is not of the form that DICOM asks for")
    for keyword in IDENTIFIERS:
        if data.get(keyword):
            setattr(kept, keyword, new_identifier(str(data.get(keyword))))
    return kept


def _worded(value: Any) -> str:
    """One value as the file has it."""
    return str(getattr(value, "original_string", value)).strip()


def new_identifier(*parts: str | bytes) -> str:
    """A UID, the same for the same parts (PS3.5, B.2: "2.25." and a number of 128 bits)."""
    found = hashlib.sha256(b"vaetools")
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return f"2.25.{int.from_bytes(found.digest()[:16], 'big')}"


def _encoded(data: Any) -> bytes:
    """Explicit VR, little endian."""
    filewriter, filebase = library("pydicom.filewriter"), library("pydicom.filebase")
    buffer = filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    filewriter.write_dataset(buffer, data)
    return bytes(buffer.getvalue())


def _without_pixels(data: Any) -> bytes:
    pydicom = library("pydicom")
    whole = pydicom.Dataset()
    for element in data:
        if element.keyword not in PIXELS:
            whole.add(element)
    found = _encoded(whole)
    if len(found) > MAX_TAGS:
        raise ImageError(
            f"its tags are {len(found):,} bytes, which is more than the {MAX_TAGS:,} that are kept: leave --keep-tags out"
        )
    return found


# To a file.


def write(path: Path, picture: Picture, scan: Scan, *, ratio: float | None = None, made: str = "") -> None:
    """A picture as a DICOM file without compression of its own, in Explicit VR Little Endian.

    ratio: bytes of the pixels over bytes of the compressed file, if pixels were lost; the file says so then (0028,2110).
    made: what else became of the pixels; the file is of another series then.
    Raises ImageError if what the picture says of its source is damaged.
    """
    pydicom = library("pydicom")
    if picture.channels != 1:
        raise ImageError(f"DICOM is written with one channel, and this picture has {picture.channels}")
    try:
        tags = picture.metadata.tags
        data = _decoded_set(pydicom, decompressed(tags, MAX_TAGS)) if tags else pydicom.Dataset()
        kept = _decoded_set(pydicom, scan.attributes)
        if "BitsStored" not in kept:
            raise ValueError("BitsStored is missing")
        unknown = [str(element.tag) for element in kept if element.keyword not in KEPT]
        if unknown:
            raise ValueError(f"{unknown[0]} is no element that is kept")
        identifiers = {keyword: str(kept.get(keyword, "")) for keyword in IDENTIFIERS}
        for element in kept:
            if element.keyword not in IDENTIFIERS or not tags:
                data.add(element)
        _put_pixels(data, picture, scan)
        _identify(data, identifiers)
        if ratio is not None:
            _mark_as_lossy(data, ratio)
        if made:
            data.SeriesInstanceUID = new_identifier(str(data.SeriesInstanceUID), made)
            _mark_as_derived(data, made)
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.save_as(path, enforce_file_format=True)
    except (ImageError, OSError, MemoryError):
        raise
    except Exception as error:  # pydicom raises whatever it pleases on elements that are none
        raise ImageError(f"what its file says of the DICOM file is damaged ({error}); --format png gives the pixels") from None


def _decoded_set(pydicom: Any, data: bytes) -> Any:
    return pydicom.filereader.read_dataset(io.BytesIO(data), is_implicit_VR=False, is_little_endian=True)


def _put_pixels(data: Any, picture: Picture, scan: Scan) -> None:
    for keyword in PIXELS:
        if keyword in data:
            del data[keyword]
    allocated = 8 if scan.bits <= 8 else 16
    if allocated != picture.bit_depth or scan.bits > 16:
        raise ImageError(f"{scan.bits} bits stored are not those of its pixels, which have {picture.bit_depth}")
    values = scan.values(picture.pixels[:, :, 0])
    least = -(1 << (scan.bits - 1)) if scan.signed else 0
    values = values.clip(least, least + (1 << scan.bits) - 1)
    numbers = (1, picture.height, picture.width, allocated, scan.bits, scan.bits - 1, int(scan.signed))
    for keyword, number in zip(STRUCTURE, numbers, strict=True):
        setattr(data, keyword, number)
    data.PhotometricInterpretation = "MONOCHROME1" if scan.inverted else "MONOCHROME2"
    raw = values.astype(f"<{'i' if scan.signed else 'u'}{allocated // 8}").tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data["PixelData"].VR = "OW" if allocated == 16 else "OB"
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "NumberOfFrames"):  # of the source's pixels
        if keyword in data:
            del data[keyword]


def _identify(data: Any, identifiers: dict[str, str]) -> None:
    """Whatever a reader needs to take it for a file of its kind. Other pixels are another instance, under another name."""
    for keyword in EMPTY:
        if keyword not in data:
            setattr(data, keyword, "")
    pixels = hashlib.sha256(data.PixelData).digest()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not data.get(keyword):
            setattr(data, keyword, new_identifier(pixels, keyword))
    data.SOPInstanceUID = new_identifier(identifiers["SOPInstanceUID"], pixels)
    if not data.get("SOPClassUID"):
        data.SOPClassUID = library("pydicom").uid.SecondaryCaptureImageStorage


def _mark_as_lossy(data: Any, ratio: float) -> None:
    """PS3.3, C.7.6.1.1.5: once lossy, always lossy; ratios and methods of all steps in their order."""
    before = [float(each) for each in _listed(data.get("LossyImageCompressionRatio"))]
    methods = [str(each) for each in _listed(data.get("LossyImageCompressionMethod"))]
    data.LossyImageCompression = "01"
    data.LossyImageCompressionRatio = [f"{each:.6g}" for each in (*before, ratio)]
    data.LossyImageCompressionMethod = [*methods, METHOD]
    _mark_as_derived(data, f"{TITLE} {__version__}, about {ratio:.3g} to 1")


def _mark_as_derived(data: Any, how: str) -> None:
    data.DerivationDescription = how
    kind = [str(each) for each in _listed(data.get("ImageType"))]
    data.ImageType = ["DERIVED", *(kind[1:] or ["PRIMARY"])]


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)
