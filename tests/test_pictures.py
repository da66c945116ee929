"""Every kind of image that people have: what it becomes when it is read, and that writing loses nothing of it."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from vaetools.errors import ImageError, UsageError
from vaetools.images.picture import Picture
from vaetools.images.read import picture_of, probe, read_picture
from vaetools.images.sources import FORMATS_KNOWN, MODES_KNOWN
from vaetools.images.write import FORMATS, extension_of, restored_format, save_picture, write_picture

from .conftest import photograph


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photograph("chelsea", 60, 40)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def deep(photo: Image.Image, channels: int) -> np.ndarray:
    """(40, 60, channels) uint16 whose low bytes matter."""
    planes = np.asarray(photo.convert("RGBA"), np.uint16).copy()
    planes[:, :, 3] = np.asarray(photo.convert("L"))
    chosen = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    return planes[:, :, chosen] * 256 + np.arange(60, dtype=np.uint16)[:, None]


def of_mode(photo: Image.Image, mode: str) -> Image.Image:
    image = photo.quantize(16) if mode in ("P", "PA") else photo.convert(mode if mode in ("1", "L", "CMYK") else "RGB")
    if mode in ("LA", "La", "RGBA", "RGBa"):
        image = photo.convert("RGBA")
        image.putalpha(photo.convert("L").point(lambda value: 255 - value))
        image = image.convert("LA").convert(mode) if mode.startswith("L") else image.convert(mode)
    return image.convert(mode)


# Modes of 8 bits.


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_pixels_are_kept(photo: Image.Image, tmp_path: Path, mode: str, channels: int) -> None:
    image = of_mode(photo, mode)
    picture = read_picture(saved(image, tmp_path / "a.png"))
    assert (picture.height, picture.width, picture.channels, picture.bit_depth) == (40, 60, channels, 8)
    assert (picture.format, picture.mode, picture.notes) == ("PNG", mode, ())
    np.testing.assert_array_equal(picture.pixels.squeeze(), np.asarray(image))


def test_colour_and_alpha_are_parts_of_the_pixels(photo: Image.Image) -> None:
    picture = picture_of(of_mode(photo, "RGBA"))
    assert picture.has_alpha
    np.testing.assert_array_equal(np.dstack([picture.colour, picture.alpha]), picture.pixels)
    assert picture_of(photo).alpha is None


def test_bilevel_is_black_and_white_and_remembered(photo: Image.Image, tmp_path: Path) -> None:
    image = of_mode(photo, "1")
    picture = read_picture(saved(image, tmp_path / "a.png"))
    assert picture.mode == "1"
    np.testing.assert_array_equal(picture.pixels[:, :, 0], np.asarray(image) * 255)


def test_palette_becomes_rgb(photo: Image.Image, tmp_path: Path) -> None:
    image = of_mode(photo, "P")
    picture = read_picture(saved(image, tmp_path / "a.png"))
    assert picture.mode == "P"
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))], ids=["one-colour", "degrees"])
def test_palette_with_transparency_becomes_rgba(photo: Image.Image, tmp_path: Path, transparency: object) -> None:
    image = of_mode(photo, "P")
    picture = read_picture(saved(image, tmp_path / "a.png", transparency=transparency))
    alphas = np.full(16, 255, np.uint8) if transparency == 3 else np.frombuffer(bytes(range(0, 160, 10)), np.uint8)
    if transparency == 3:
        alphas[3] = 0
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, alphas[np.asarray(image)])
    np.testing.assert_array_equal(picture.colour, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_transparent_colour_becomes_alpha_and_stays_a_colour(photo: Image.Image, tmp_path: Path, mode: str) -> None:
    image = photo.convert(mode)
    pixels = np.asarray(image)
    key = tuple(map(int, np.atleast_1d(pixels[7, 9])))
    picture = read_picture(saved(image, tmp_path / "a.png", transparency=key if mode == "RGB" else key[0]))
    is_key = (pixels.reshape(40, 60, -1) == key).all(axis=2)
    np.testing.assert_array_equal(picture.alpha, np.where(is_key, 0, 255))  # type: ignore[arg-type]
    np.testing.assert_array_equal(picture.colour.squeeze(), pixels)


def test_transparent_gray_of_few_bits_is_scaled_like_the_gray(tmp_path: Path) -> None:
    gray = Image.fromarray(np.arange(0, 256, 17, dtype=np.uint8)[None])
    path = saved(gray, tmp_path / "a.png", bits=4, transparency=5)
    picture = read_picture(path)
    assert picture.alpha is not None
    assert picture.pixels[0, picture.alpha[0] == 0, 0].tolist() == [85]


@pytest.mark.parametrize(("mode", "target"), [("La", "LA"), ("RGBa", "RGBA"), ("PA", "RGBA"), ("RGBX", "RGB"), ("YCbCr", "RGB")])
def test_other_modes_are_converted(photo: Image.Image, mode: str, target: str) -> None:
    image = of_mode(photo, mode)
    picture = picture_of(image)
    assert picture.mode == mode
    assert bool(picture.notes) == (mode != "PA")
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert(target)))


def test_large_images_are_converted_piece_by_piece_without_a_seam() -> None:
    image = photograph("coffee", 1500, 1600).convert("CMYK")
    np.testing.assert_array_equal(picture_of(image).pixels, np.asarray(image.convert("RGB")))


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    for format in FORMATS:
        save_picture(tmp_path / "a", Picture(np.full((1, 1, 3), 200, np.uint8)), format)
        assert read_picture(tmp_path / "a").pixels.shape == (1, 1, 3)


# 16 bits.


@pytest.mark.parametrize(("channels", "mode"), [(1, "I;16"), (2, "LA;16"), (3, "RGB;16"), (4, "RGBA;16")])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_sixteen_bits_are_kept(photo: Image.Image, tmp_path: Path, channels: int, mode: str, format: str) -> None:
    pixels = deep(photo, channels)
    save_picture(tmp_path / "a", Picture(pixels), format)
    picture = read_picture(tmp_path / "a")
    assert (picture.mode, picture.bit_depth, picture.notes) == (mode, 16, ())
    np.testing.assert_array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_of_opencv_are_read(photo: Image.Image, tmp_path: Path, channels: int, suffix: str) -> None:
    """OpenCV compresses TIFF by LZW."""
    pixels = deep(photo, channels)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    assert cv2.imwrite(str(tmp_path / f"a.{suffix}"), pixels[:, :, order])
    np.testing.assert_array_equal(read_picture(tmp_path / f"a.{suffix}").pixels, pixels)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bit_tiff_kinds(photo: Image.Image, tmp_path: Path, byteorder: str, planes: str, compression: str | None) -> None:
    pixels = deep(photo, 3)
    stored = pixels if planes == "contig" else pixels.transpose(2, 0, 1)
    options = {"photometric": "rgb", "planarconfig": planes, "compression": compression, "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "a.tif", stored, tile=(16, 16), **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, pixels)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_sixteen_bit_gray_whose_white_is_zero_is_inverted(photo: Image.Image, tmp_path: Path, byteorder: str) -> None:
    pixels = deep(photo, 1)
    tifffile.imwrite(tmp_path / "a.tif", 65535 - pixels[:, :, 0], photometric="miniswhite", byteorder=byteorder)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, pixels)


def test_sixteen_bit_colours_multiplied_by_alpha_are_divided_by_it(tmp_path: Path) -> None:
    pixels = np.array([[[30000, 20000, 10000, 32768], [0, 0, 0, 0]]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    picture = read_picture(tmp_path / "a.tif")
    assert picture.pixels.tolist() == [[[59999, 39999, 20000, 32768], [0, 0, 0, 0]]]
    assert "multiplied by its alpha" in picture.notes[0]


@pytest.mark.parametrize("largest", [1023, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_ppm_is_scaled_to_the_full_range(photo: Image.Image, tmp_path: Path, largest: int, channels: int) -> None:
    pixels = np.minimum(deep(photo, channels), largest)
    head = b"P%d 60 40 %d\n" % (5 if channels == 1 else 6, largest)
    (tmp_path / "a.ppm").write_bytes(head + pixels.astype(">u2").tobytes())
    picture = read_picture(tmp_path / "a.ppm")
    assert picture.mode == ("I;16" if channels == 1 else "RGB;16")
    np.testing.assert_array_equal(picture.pixels, np.round(pixels * (65535 / largest)))


def test_transparent_colour_of_sixteen_bits(photo: Image.Image, tmp_path: Path) -> None:
    pixels = deep(photo, 1)[:, :, 0]
    path = saved(Image.fromarray(pixels), tmp_path / "a.png", transparency=int(pixels[3, 4]))
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.alpha, np.where(pixels == pixels[3, 4], 0, 65535))  # type: ignore[arg-type]


def test_32_bit_gray_that_fits_sixteen_bits_is_read(photo: Image.Image, tmp_path: Path) -> None:
    pixels = deep(photo, 1)[:, :, 0]
    picture = read_picture(saved(Image.fromarray(pixels.astype(np.int32)), tmp_path / "a.tiff"))
    assert picture.mode == "I"
    np.testing.assert_array_equal(picture.pixels[:, :, 0], pixels)


# Refusals.


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [(np.full((2, 2), 70000, np.int32), "values outside 0 to 65535"), (np.zeros((2, 2), np.float32), "floating-point values")],
    ids=["large", "float"],
)
def test_more_than_sixteen_bits_is_refused(tmp_path: Path, pixels: np.ndarray, reason: str) -> None:
    with pytest.raises(ImageError, match=rf"a\.tiff: of mode . ?.*{reason}"):
        read_picture(saved(Image.fromarray(pixels), tmp_path / "a.tiff"))


def test_lab_is_refused(photo: Image.Image) -> None:
    lab = ImageCms.applyTransform(
        photo, ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    )
    assert lab is not None
    with pytest.raises(ImageError, match=r"of mode LAB, .* convert it to RGB first"):
        picture_of(lab)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff", "avif"])
def test_several_frames_are_refused(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    other = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    path = saved(photo, tmp_path / f"a.{suffix}", save_all=True, append_images=[other, photo])
    with pytest.raises(ImageError, match=rf"a\.{suffix}: it has 3 frames or pages"):
        read_picture(path)
    with Image.open(path) as image, pytest.raises(ImageError, match="it has 3 frames or pages"):
        picture_of(image)


def test_several_pages_of_sixteen_bit_colours_are_refused(photo: Image.Image, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([deep(photo, 3)] * 2), photometric="rgb")
    with pytest.raises(ImageError, match="it has 2 frames or pages"):
        read_picture(tmp_path / "a.tif")


def test_second_picture_of_a_phone_is_noted(photo: Image.Image, tmp_path: Path) -> None:
    path = saved(photo, tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[photo])
    picture = read_picture(path)
    assert (picture.format, restored_format(picture)) == ("MPO", "jpeg")
    assert "further pictures" in picture.notes[0]


@pytest.mark.parametrize("format", ["png", "tiff", "ppm"])
@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("part", [0.5, 0.97], ids=["half", "almost-all"])
def test_truncated_files_are_refused(photo: Image.Image, tmp_path: Path, format: str, bit_depth: int, part: float) -> None:
    pixels = deep(photo, 3) if bit_depth == 16 else np.asarray(photo)
    save_picture(tmp_path / "a", Picture(pixels), format)
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageError, match=r"a: cannot be read|a: not an image"):
        read_picture(tmp_path / "a")


def test_more_pixels_than_allowed_are_refused(photo: Image.Image, tmp_path: Path) -> None:
    path = saved(photo, tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"60 x 40 pixels is above the limit of 2,399"):
        read_picture(path, max_pixels=2399)
    assert read_picture(path, max_pixels=2400).width == 60


def test_images_above_pillows_own_limit_are_read(photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(photo, tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_picture(path).width == 60
    assert probe(path).width == 60
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_avif_of_ten_bits_is_refused_and_not_cut(photo: Image.Image, tmp_path: Path) -> None:
    data = bytearray(saved(photo, tmp_path / "a.avif").read_bytes())
    data[data.index(b"av1C") + 6] |= 0x40
    depths = data.index(b"pixi") + 9
    data[depths : depths + 3] = bytes((10, 10, 10))
    (tmp_path / "a.avif").write_bytes(data)
    with pytest.raises(ImageError, match=r"AVIF image of 10 or 12 bits, .* convert it to 16-bit PNG first"):
        read_picture(tmp_path / "a.avif")


def test_opened_image_of_sixteen_bit_colours_is_refused_and_not_cut(photo: Image.Image, tmp_path: Path) -> None:
    save_picture(tmp_path / "a", Picture(deep(photo, 3)), "png")
    with Image.open(tmp_path / "a") as image, pytest.raises(ImageError, match="give the file itself"):
        picture_of(image)


# Sources.


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("format", ["png", "tiff", "ppm"])
def test_binary_files_are_read_like_paths(photo: Image.Image, tmp_path: Path, format: str, bit_depth: int) -> None:
    pixels = deep(photo, 3) if bit_depth == 16 else np.asarray(photo)
    save_picture(tmp_path / "a", Picture(pixels), format)
    file = io.BytesIO((tmp_path / "a").read_bytes())
    assert (probe(file).height, probe(file).width) == (40, 60)
    for _ in range(2):
        np.testing.assert_array_equal(read_picture(file).pixels, pixels)


def test_errors_of_a_nameless_file_are_of_the_image() -> None:
    with pytest.raises(ImageError, match=r"the image: not an image|the image: cannot be read"):
        read_picture(io.BytesIO(b"nothing"))


# Writing.


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("format", ["png", "tiff", "webp", "bmp", "ppm"])
def test_lossless_formats_give_the_same_pixels(photo: Image.Image, tmp_path: Path, mode: str, format: str) -> None:
    picture = picture_of(of_mode(photo, mode))
    if picture.has_alpha and format in ("bmp", "ppm"):
        with pytest.raises(ImageError, match=f"{format} holds no alpha channel; choose png or tiff"):
            save_picture(tmp_path / "a", picture, format)
        return
    save_picture(tmp_path / "a", picture, format)
    back = read_picture(tmp_path / "a")
    colour = back.colour[:, :, : picture.colour.shape[2]]
    np.testing.assert_array_equal(colour, picture.colour)
    np.testing.assert_array_equal(back.alpha, picture.alpha)  # type: ignore[arg-type]
    assert back.mode == (mode if format != "webp" else "RGBA" if picture.has_alpha else "RGB") or (mode, back.mode) == ("1", "L")
    assert (back.mode == "1") == (mode == "1" and format in ("png", "tiff"))


@pytest.mark.parametrize("format", ["jpeg", "avif"])
def test_lossy_formats_come_close(photo: Image.Image, tmp_path: Path, format: str) -> None:
    save_picture(tmp_path / "a", picture_of(photo), format)
    assert np.abs(read_picture(tmp_path / "a").pixels.astype(int) - np.asarray(photo)).mean() < 3


@pytest.mark.parametrize(
    ("pixels", "format", "reason"),
    [
        (np.zeros((2, 2, 4), np.uint8), "jpeg", "jpeg holds no alpha channel; choose png or tiff"),
        (np.zeros((2, 2, 3), np.uint16), "webp", "webp holds 8 bits per channel, the picture has 16; choose png or tiff"),
        (np.zeros((2, 20000, 1), np.uint8), "webp", "webp holds at most 16383 pixels a side, the picture is 20000 x 2"),
    ],
    ids=["alpha", "depth", "size"],
)
def test_formats_that_do_not_hold_the_picture_are_refused(tmp_path: Path, pixels: np.ndarray, format: str, reason: str) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ImageError, match=reason):
        write_picture(tmp_path / "a", Picture(pixels), format)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'gif': images are written as png, jpeg"):
        write_picture(tmp_path / "a", Picture(np.zeros((1, 1, 1), np.uint8)), "gif")
    assert [extension_of(format) for format in FORMATS] == [".png", ".jpg", ".webp", ".tiff", ".avif", ".bmp", ".ppm"]


@pytest.mark.parametrize(
    ("format", "channels", "restored"),
    [("PNG", 3, "png"), ("JPEG", 3, "jpeg"), ("GIF", 4, "png"), ("BMP", 4, "png"), ("TIFF", 4, "tiff"), ("", 1, "png")],
)
def test_restored_format_is_the_original_one_if_it_holds_the_picture(format: str, channels: int, restored: str) -> None:
    assert restored_format(Picture(np.zeros((1, 1, channels), np.uint8), format)) == restored


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 5), np.uint8), np.zeros((0, 2, 1), np.uint8), np.zeros((2, 2, 3))]
)
def test_pixels_of_another_shape_or_type_are_no_picture(pixels: np.ndarray) -> None:
    with pytest.raises(UsageError, match="pixels of"):
        Picture(pixels)


def test_codes_of_formats_and_modes_never_change() -> None:
    assert FORMATS_KNOWN[:10] == ("", "PNG", "JPEG", "WEBP", "TIFF", "AVIF", "BMP", "PPM", "GIF", "MPO")
    assert MODES_KNOWN[:11] == ("", "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX")
    assert MODES_KNOWN[11:] == ("CMYK", "YCbCr", "I", "I;16", "LA;16", "RGB;16", "RGBA;16", "CMYK;16")
    assert FORMATS_KNOWN[10:] == ("JPEG2000", "HEIF", "TGA", "ICO", "DIB", "PCX", "JXL", "DICOM", "NIfTI")
