"""Colour profile, EXIF and XMP of an image that Pillow opened, and what else its file says that is not kept."""

from __future__ import annotations

import re
from typing import BinaryIO

from PIL import ExifTags, Image

from . import exif as tags
from .picture import Metadata

EXIF_PREFIX = b"Exif\0\0"
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
ICC_TAG, XMP_TAG = 34675, 700

# Tags of a TIFF file that say how it is stored; whoever writes the pixels again decides on them anew.
STRUCTURAL = frozenset(
    (254, *range(255, 260), *range(262, 267), 269, 273, 274, *range(277, 282), *range(284, 294), 297, 317, *range(320, 326))
) | frozenset((332, 334, 336, *range(338, 342), 347, *range(512, 516), *range(517, 522), *range(529, 533), ICC_TAG, XMP_TAG))
PNG_COLOUR = {"gamma": "gamma", "chromaticity": "primaries"}  # Pillow's names of chunks that say what the colours are


def metadata_of(image: Image.Image, notes: list[str]) -> Metadata:
    """What an opened image says beside its pixels; for PNG once it is decoded, for TIFF before.

    The tags of a TIFF file that are EXIF's too are put together to EXIF data, without an orientation: Pillow turns the
    pixels of TIFF files, and only of them, upright. `notes` gets what is not kept.
    """
    if hasattr(image, "tag_v2"):
        file = getattr(image, "fp", None)
        if file is not None and not file.closed and image.tell() == 0:
            return metadata_of_tiff(file, notes)[0]
    icc = _bytes(image.info.get("icc_profile"))
    if "icc_profile" in image.info and not icc:
        notes.append("its colour profile is broken and is not kept")
    xmp = _bytes(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")) or _raw_profile(image, "xmp")
    if hasattr(image, "tag_v2"):
        exif = _exif_by_pillow(image)
    else:
        exif = _bytes(image.info.get("exif")) or _raw_profile(image, "exif") or _raw_profile(image, "APP1")
        while exif.startswith(EXIF_PREFIX):
            exif = exif[len(EXIF_PREFIX) :]
    _note_what_is_left(image, notes)
    return Metadata(icc, exif, xmp)


def metadata_of_tiff(file: BinaryIO, notes: list[str]) -> tuple[Metadata, int]:
    """The same from the tags of a TIFF file, and the orientation, 1 to 8, that is in none of it.

    The file is left where it stood. Raises ValueError if it is no TIFF file.
    """
    position = file.tell()
    directory = tags.read_directory(file)
    file.seek(position)
    known = STRUCTURAL | tags.DESCRIPTIVE
    others = sorted(tag for tag in {*directory.entries, *directory.below} if tag not in known)
    if others:
        notes.append(f"TIFF tags {', '.join(map(str, others))} are not kept")
    icc, xmp = (directory.entries.get(tag, (0, b""))[1] for tag in (ICC_TAG, XMP_TAG))
    orientation = directory.number(tags.ORIENTATION)
    if orientation is None:  # Pillow, too, looks for it there
        said = re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp)
        orientation = int(said[1]) if said else 1
    if orientation != 1:
        xmp = without_orientation(xmp)
    if directory.number(296) == 1:  # a resolution in no unit is a ratio of 1:1 in practice
        for tag in (282, 283, 296):
            directory.entries.pop(tag, None)
    directory.entries = {tag: entry for tag, entry in directory.entries.items() if tag in tags.DESCRIPTIVE}
    directory.below = {tag: below for tag, below in directory.below.items() if tag in tags.DESCRIPTIVE}
    return Metadata(icc, tags.as_exif(directory), xmp), orientation if orientation in range(1, 9) else 1


def without_orientation(xmp: bytes) -> bytes:
    """The packet without what it says about the orientation, for pixels that were turned upright."""
    return re.sub(rb'\s*tiff:Orientation="[0-9]"|<tiff:Orientation>[0-9]</tiff:Orientation>', b"", xmp)


def _bytes(value: object) -> bytes:
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b""


def _raw_profile(image: Image.Image, kind: str) -> bytes:
    """Data that ImageMagick and its kin wrote to PNG files as text: a name, a length and hexadecimal digits."""
    text = image.info.get(f"Raw profile type {kind}")
    if not isinstance(text, str):
        return b""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


def _exif_by_pillow(image: Image.Image) -> bytes:
    """EXIF data from the tags of a TIFF file that Pillow has read and closed."""
    found, kept = image.getexif(), Image.Exif()
    for tag in found:
        if tag in tags.DESCRIPTIVE and tag not in tags.DIRECTORIES:
            kept[tag] = found[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if found.get_ifd(directory):
            kept.get_ifd(directory).update(found.get_ifd(directory))
    return tags.as_exif(tags.read_directory(kept.tobytes()[len(EXIF_PREFIX) :]))


def _note_what_is_left(image: Image.Image, notes: list[str]) -> None:
    left = []
    if any(data.startswith(EXTENDED_XMP) for _, data in getattr(image, "applist", ())):
        left.append("extended XMP")
    if image.info.get("photoshop"):
        left.append("Photoshop or IPTC data")
    if image.info.get("comment"):
        left.append("a comment")
    if image.format == "PNG":
        text = getattr(image, "text", {})
        named = [name for name in text if not name.startswith(("XML:com.adobe.xmp", "Raw profile type"))]
        if named:
            left.append(f"text ({', '.join(sorted(named)[:5])})")
        if "icc_profile" not in image.info and "srgb" not in image.info:
            left += [name for key, name in PNG_COLOUR.items() if key in image.info]
    if left:
        notes.append(f"not kept: {', '.join(left)}")
