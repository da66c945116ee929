"""Colour profile, EXIF and XMP, byte for byte; orientations, which are neither lost nor applied twice; and inks."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from vaetools.errors import ImageError
from vaetools.images.picture import Metadata, Picture
from vaetools.images.read import picture_of, probe, read_for_training, read_picture
from vaetools.images.write import save_picture, write_picture

from .conftest import photograph

ORIENTATION, EXIF_DIRECTORY, GPS_DIRECTORY = 274, 34665, 34853
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>Zoë</dc:creator></x:xmpmeta>'.encode()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photograph("coffee", 60, 40)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def exif(orientation: int = 0, artist: str = "Zoe") -> bytes:
    """What a camera writes: tags of the picture, of the exposure, of the place, and a block that only its maker reads."""
    tags = Image.Exif()
    tags[271], tags[272], tags[315], tags[282] = "Maker", "Camera 1", artist, 300.0
    if orientation:
        tags[ORIENTATION] = orientation
    tags.get_ifd(EXIF_DIRECTORY).update({33434: (1, 160), 36867: "2024:05:06 07:08:09", 37500: b"maker's \0 own\xff note"})
    tags.get_ifd(GPS_DIRECTORY).update({1: "N", 2: (48.0, 8.0, 15.5)})
    return tags.tobytes()[6:]


def told(data: bytes) -> dict[object, object]:
    """Tags and their values; the pointers to further directories aside."""
    tags = Image.Exif()
    tags.load(data)
    found: dict[object, object] = {tag: tags[tag] for tag in tags if tag not in (EXIF_DIRECTORY, GPS_DIRECTORY)}
    for directory in (EXIF_DIRECTORY, GPS_DIRECTORY):
        found.update({(directory, tag): value for tag, value in tags.get_ifd(directory).items()})
    return found


def back(path: Path) -> Metadata:
    return read_picture(path).metadata


# Writing and reading again.


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "avif"])
@pytest.mark.parametrize("orientation", [0, 1, 6])
def test_metadata_are_kept_byte_for_byte(photo: Image.Image, tmp_path: Path, format: str, orientation: int) -> None:
    metadata = Metadata(ICC, exif(orientation), XMP)
    assert write_picture(tmp_path / "a", Picture(np.asarray(photo), metadata=metadata), format) == ()
    picture = read_picture(tmp_path / "a")
    assert picture.metadata == metadata
    assert (picture.height, picture.width) == (40, 60)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["icc", "exif", "xmp"])
def test_sixteen_bit_png_keeps_each_of_them(tmp_path: Path, channels: int, kind: str) -> None:
    metadata = Metadata(**{kind: {"icc": ICC, "exif": exif(8), "xmp": XMP}[kind]})
    save_picture(tmp_path / "a", Picture(np.full((4, 5, channels), 1234, np.uint16), metadata=metadata), "png")
    assert back(tmp_path / "a") == metadata


@pytest.mark.parametrize("pixels", [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 2), np.uint16)], ids=["rgb", "deep"])
def test_tiff_keeps_profile_and_xmp_byte_for_byte_and_exif_by_tag(tmp_path: Path, pixels: np.ndarray) -> None:
    metadata = Metadata(ICC, exif(), XMP)
    assert save_picture(tmp_path / "a", Picture(pixels, metadata=metadata), "tiff") == ()
    kept = back(tmp_path / "a")
    assert (kept.icc, kept.xmp) == (ICC, XMP)
    assert told(kept.exif) == told(metadata.exif)


def test_exif_of_a_tiff_does_not_change_any_more(photo: Image.Image, tmp_path: Path) -> None:
    save_picture(tmp_path / "a", Picture(np.asarray(photo), metadata=Metadata(exif=exif())), "tiff")
    once = back(tmp_path / "a")
    save_picture(tmp_path / "b", Picture(np.asarray(photo), metadata=once), "tiff")
    assert back(tmp_path / "b") == once


def test_letters_of_other_languages_survive_in_tiff(photo: Image.Image, tmp_path: Path) -> None:
    data = exif(artist="Zoe").replace(b"Zoe\0", "Zö\0".encode())
    save_picture(tmp_path / "a", Picture(np.asarray(photo), metadata=Metadata(exif=data)), "tiff")
    assert "Zö\0".encode() in back(tmp_path / "a").exif


def test_tiff_files_are_understood_by_others(photo: Image.Image, tmp_path: Path) -> None:
    save_picture(tmp_path / "a", Picture(np.asarray(photo), metadata=Metadata(ICC, exif(6), XMP)), "tiff")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a"), np.asarray(photo))
    with Image.open(tmp_path / "a") as image:
        assert image.info["icc_profile"] == ICC
        assert image.getexif().get_ifd(GPS_DIRECTORY)[2] == (48.0, 8.0, 15.5)
        np.testing.assert_array_equal(np.asarray(image), np.rot90(np.asarray(photo), -1))


@pytest.mark.parametrize("format", ["bmp", "ppm"])
def test_formats_without_metadata_say_so_and_turn_the_pixels(photo: Image.Image, tmp_path: Path, format: str) -> None:
    picture = Picture(np.asarray(photo), metadata=Metadata(ICC, exif(6), b""))
    assert "no ICC profile and no EXIF" in write_picture(tmp_path / "a", picture, format)[0]
    restored = read_picture(tmp_path / "a")
    np.testing.assert_array_equal(restored.pixels, np.rot90(np.asarray(photo), -1))
    assert restored.metadata == Metadata()


def test_more_metadata_than_jpeg_holds_is_refused(photo: Image.Image, tmp_path: Path) -> None:
    picture = Picture(np.asarray(photo), metadata=Metadata(xmp=XMP + bytes(70_000)))
    with pytest.raises(ImageError, match=r"cannot be written as jpeg \(XMP data is too long\); png holds"):
        write_picture(tmp_path / "a", picture, "jpeg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_broken_exif_is_kept_too(photo: Image.Image, tmp_path: Path, format: str) -> None:
    metadata = Metadata(exif=b"II*\0\xff\xff\xff\xff broken")
    save_picture(tmp_path / "a", Picture(np.asarray(photo), metadata=metadata), format)
    assert back(tmp_path / "a") == metadata


def test_broken_exif_is_left_out_of_a_tiff_with_a_word(photo: Image.Image, tmp_path: Path) -> None:
    picture = Picture(np.asarray(photo), metadata=Metadata(exif=b"MM\0*broken"))
    assert save_picture(tmp_path / "a", picture, "tiff") == ("its EXIF data is broken and is left out",)


def test_tags_that_contradict_the_file_are_left_out_of_a_tiff(photo: Image.Image, tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[256], tags[271] = 9999, "Maker"
    picture = Picture(np.asarray(photo), metadata=Metadata(exif=tags.tobytes()[6:]))
    assert save_picture(tmp_path / "a", picture, "tiff") == ("EXIF tags 256 are left out",)
    assert read_picture(tmp_path / "a").width == 60


# Where files keep them.


def test_exif_of_imagemagick_in_png_text_is_found(photo: Image.Image, tmp_path: Path) -> None:
    data = b"Exif\0\0" + exif(6)
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n", zip=True)
    photo.save(tmp_path / "a.png", pnginfo=text)
    assert back(tmp_path / "a.png").exif == exif(6)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_exif_behind_the_pixels_of_a_png_is_found(tmp_path: Path, bit_depth: int) -> None:
    save_picture(tmp_path / "a", Picture(np.zeros((2, 2, 3), np.uint16 if bit_depth == 16 else np.uint8)), "png")
    data, chunk = (tmp_path / "a").read_bytes(), b"eXIf" + exif()
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a").write_bytes(data[:-12] + whole + data[-12:])
    assert back(tmp_path / "a").exif == exif()


def test_metadata_of_an_image_in_memory(photo: Image.Image) -> None:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=b"Exif\0\0" + exif(3), icc_profile=ICC, xmp=XMP)
    with Image.open(buffer) as image:
        image.load()
        assert picture_of(image).metadata == Metadata(ICC, exif(3), XMP)


@pytest.mark.parametrize("loaded", [False, True])
def test_metadata_of_an_opened_tiff(photo: Image.Image, tmp_path: Path, loaded: bool) -> None:
    save_picture(tmp_path / "a", Picture(np.asarray(photo), metadata=Metadata(ICC, exif(), XMP)), "tiff")
    with Image.open(tmp_path / "a") as image:
        if loaded:
            image.load()
        metadata = picture_of(image).metadata
    assert (metadata.icc, metadata.xmp) == (ICC, XMP)
    assert told(metadata.exif) == told(exif())


def test_what_is_not_kept_is_noted(photo: Image.Image, tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "A cup")
    photo.save(tmp_path / "a.png", pnginfo=text)
    photo.save(tmp_path / "a.jpg", comment="by hand")
    tifffile.imwrite(tmp_path / "a.tif", np.asarray(photo), extratags=[(33550, "d", 3, (1.0, 1.0, 0.0), True)])
    assert read_picture(tmp_path / "a.png").notes == ("not kept: text (Title)",)
    assert read_picture(tmp_path / "a.jpg").notes == ("not kept: a comment",)
    assert read_picture(tmp_path / "a.tif").notes == ("TIFF tags 33550 are not kept",)


def test_profile_of_inks_goes_with_the_inks(photo: Image.Image, tmp_path: Path) -> None:
    photo.convert("CMYK").save(tmp_path / "a.jpg", icc_profile=ICC, exif=b"Exif\0\0" + exif(), xmp=XMP)
    assert back(tmp_path / "a.jpg") == Metadata(b"", exif(), XMP)


# Orientations.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "avif", "tiff", "bmp", "ppm"])
def test_image_is_seen_alike_after_every_format(photo: Image.Image, tmp_path: Path, format: str, orientation: int) -> None:
    photo.save(tmp_path / "a.png", exif=exif(orientation))
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, np.asarray(photo))
    save_picture(tmp_path / "b", picture, format)
    seen = read_for_training(tmp_path / "a.png").astype(int)
    assert np.abs(read_for_training(tmp_path / "b").astype(int) - seen).mean() < (3 if format in ("jpeg", "avif") else 1e-9)
    found = probe(tmp_path / "b")
    restored = read_picture(tmp_path / "b")
    assert (found.height, found.width) == restored.pixels.shape[:2]
    assert found.as_seen == seen.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["gray", "rgb", "deep-gray", "deep-rgb", "deep-gray-alpha"])
def test_tiff_is_upright_and_not_turned_again(photo: Image.Image, tmp_path: Path, orientation: int, kind: str) -> None:
    pixels = np.asarray(photo)[:, :, :1] if "gray" in kind else np.asarray(photo)
    pixels = pixels.astype(np.uint16) * 257 if "deep" in kind else pixels
    pixels = np.dstack([pixels, pixels]) if "alpha" in kind else pixels
    xmp = b'<x tiff:Orientation="%d" y="1"/>' % orientation
    save_picture(tmp_path / "a", Picture(pixels, metadata=Metadata(exif=exif(orientation), xmp=xmp)), "tiff")
    picture = read_picture(tmp_path / "a")
    assert (probe(tmp_path / "a").height, probe(tmp_path / "a").width) == picture.pixels.shape[:2]
    planes = [Image.fromarray(plane) for plane in np.moveaxis(pixels, 2, 0)]
    for plane in planes:
        plane.getexif()[ORIENTATION] = orientation
    upright = np.dstack([np.asarray(ImageOps.exif_transpose(plane)) for plane in planes])
    np.testing.assert_array_equal(picture.pixels, upright)
    assert ORIENTATION not in told(picture.metadata.exif)
    assert picture.metadata.xmp == (xmp if orientation == 1 else b'<x y="1"/>')


# Inks.


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk_without_a_profile_is_converted_by_a_formula(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    path = saved(photo.convert("CMYK"), tmp_path / f"a.{suffix}")
    picture = read_picture(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.mode == "CMYK"
    assert "by a formula: there is no colour profile" in picture.notes[0]


def test_cmyk_with_a_profile_for_other_colours_says_so(photo: Image.Image, tmp_path: Path) -> None:
    picture = read_picture(saved(photo.convert("CMYK"), tmp_path / "a.jpg", icc_profile=ICC))
    assert "its colour profile is none for inks" in picture.notes[0]
    assert picture.metadata.icc == b""


def profile_of_inks() -> bytes:
    """A colour profile of CMYK with a table of two points per ink: 0 and 100 percent (ICC.1:2001, sections 6.1 and 6.5.7)."""
    table = bytes(byte for code in range(16) for byte in lab_of_inks(*(code >> shift & 1 for shift in (3, 2, 1, 0))))
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 if index % 4 == 0 else 0 for index in range(9)))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + table + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(79)
    parts = {b"desc": name, b"cprt": b"text" + bytes(4) + b"free\0", b"wtpt": white, b"A2B0": lut}
    head, body = struct.pack(">I", len(parts)), b""
    for tag, data in parts.items():
        head += tag + struct.pack(">II", 132 + 12 * len(parts) + len(body), len(data))
        body += data.ljust(-(-len(data) // 4) * 4, b"\0")
    date = struct.pack(">6H", 2024, 1, 1, 0, 0, 0)
    start = bytes(8) + b"\2\x20\0\0prtrCMYKLab " + date + b"acsp" + bytes(28) + white[8:]
    whole = start.ljust(128, b"\0") + head + body
    return struct.pack(">I", len(whole)) + whole[4:]


def lab_of_inks(cyan: int, magenta: int, yellow: int, black: int) -> tuple[int, int, int]:
    """L, a and b as bytes: dull inks, so that full cyan is no pure colour of a screen."""
    lightness = 255 * (1 - black) * (1 - (cyan + magenta + yellow) / 4)
    a, b = (-30 * cyan + 50 * magenta) * (1 - black), (-40 * cyan + 60 * yellow) * (1 - black)
    return int(lightness), 128 + a, 128 + b


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk_with_a_profile_is_converted_through_it(tmp_path: Path, suffix: str) -> None:
    inks = np.zeros((16, 48, 4), np.uint8)
    inks[:, 16:32, 0], inks[:, 32:, 3] = 255, 255
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    path = saved(Image.fromarray(inks, "CMYK"), tmp_path / f"a.{suffix}", icc_profile=profile_of_inks(), **options)
    picture = read_picture(path)
    paper, cyan, black = (picture.pixels[8, column].astype(int) for column in (8, 24, 40))
    assert (paper > 250).all()
    assert (black < 5).all()
    assert cyan[2] > cyan[1] > 100  # blue above green, where the formula makes both 255
    assert cyan[1] < 230
    assert (picture.notes, picture.metadata.icc) == (("CMYK was converted to sRGB through its colour profile",), b"")
