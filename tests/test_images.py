"""Which files of a folder are images, what is read of them upright, and PNG files that nobody vouches for."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaetools.errors import ImageError, UsageError
from vaetools.images.folder import list_images
from vaetools.images.read import probe, read_exact, read_for_training, read_picture
from vaetools.images.write import pixels_from_png, png_bytes

from .conftest import photograph

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photograph("chelsea", 60, 40)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def with_orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, compressed: bytes, *, kind: tuple[int, ...] = (8, 0, 0, 0, 0), more: bytes = b"") -> bytes:
    """A PNG file of any content. kind: depth, colour type, compression, filtering, interlacing; more: chunks in the middle."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *kind))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def png(path: Path, pixels: np.ndarray, colour_type: int) -> Path:
    """A 16-bit PNG of (H, W, C) uint16, which Pillow cannot write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(png_of(width, height, zlib.compress(rows), kind=(16, colour_type, 0, 0, 0)))
    return path


# The folder.


def test_images_are_listed_recursively_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.png", "a.JPG", "c.webp", "b/deep/x.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a.JPG", "b/10.png", "b/2.png", "b/deep/x.tiff", "c.webp"]


def test_hidden_files_and_other_kinds_are_left_out(tmp_path: Path) -> None:
    for name in (".hidden.png", ".cache/a.png", "notes.txt", "png", "kept.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == [tmp_path / "kept.png"]


def test_suffixes_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "a.png.vtc").touch()
    assert list_images(tmp_path, frozenset([".vtc"])) == [tmp_path / "a.png.vtc"]


def test_folder_without_images_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"no image in it or below it .*png"):
        list_images(tmp_path)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        list_images(tmp_path / "none")


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match="not a folder"):
        list_images(tmp_path / "a.png")


# Reading exactly.


def test_rgb_is_read_as_it_is(photo: Image.Image, tmp_path: Path) -> None:
    pixels = read_exact(saved(photo, tmp_path / "a.png"))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(photo))


def test_gray_keeps_two_dimensions(photo: Image.Image, tmp_path: Path) -> None:
    gray = photo.convert("L")
    np.testing.assert_array_equal(read_exact(saved(gray, tmp_path / "a.png")), np.asarray(gray))


def test_palette_becomes_its_colours(photo: Image.Image, tmp_path: Path) -> None:
    palette = photo.quantize(16)
    np.testing.assert_array_equal(read_exact(saved(palette, tmp_path / "a.png")), np.asarray(palette.convert("RGB")))


def test_bilevel_becomes_black_and_white(photo: Image.Image, tmp_path: Path) -> None:
    pixels = read_exact(saved(photo.convert("1"), tmp_path / "a.png"))
    assert pixels.dtype == np.uint8
    assert set(np.unique(pixels)) == {0, 255}


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_formats_are_read_alike(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    path = saved(photo, tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(read_exact(path), np.asarray(photo))


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, lambda p: p), (2, np.fliplr), (3, lambda p: np.rot90(p, 2)), (6, lambda p: np.rot90(p, -1)), (8, np.rot90)],
    ids=["upright", "mirrored", "upside-down", "turned-right", "turned-left"],
)
def test_pixels_are_upright(photo: Image.Image, tmp_path: Path, orientation: int, turn: object) -> None:
    path = saved(photo, tmp_path / "a.png", exif=with_orientation(orientation))
    upright = turn(np.asarray(photo))  # type: ignore[operator]
    np.testing.assert_array_equal(read_exact(path), upright)
    np.testing.assert_array_equal(read_for_training(path), upright)
    assert probe(path).as_seen == upright.shape[:2]


def test_photograph_with_a_second_picture_inside_is_one_image(photo: Image.Image, tmp_path: Path) -> None:
    """Phones store a depth or brightness map so (MPO)."""
    path = saved(photo, tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[photo.convert("L").convert("RGB")])
    assert read_exact(path).shape == (40, 60, 3)


# Refusals.


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_transparency_is_refused(photo: Image.Image, tmp_path: Path, kind: str) -> None:
    transparent = photo.convert("RGBA")
    transparent.putalpha(photo.convert("L"))
    with pytest.raises(ImageError, match="of mode RGBA, its alpha channel"):
        read_exact(saved(transparent, tmp_path / f"a.{kind}"))


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_a_transparent_colour_is_refused(photo: Image.Image, tmp_path: Path, mode: str) -> None:
    image = photo.quantize(16) if mode == "P" else photo.convert(mode)
    path = saved(image, tmp_path / "a.png", transparency=(1, 2, 3) if mode == "RGB" else 3)
    with pytest.raises(ImageError, match=f"of mode {mode}, .*transparent colour"):
        read_exact(path)


def test_cmyk_is_refused(photo: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="CMYK"):
        read_exact(saved(photo.convert("CMYK"), tmp_path / "a.jpg"))


def test_sixteen_bit_gray_is_refused(gray16_folder: Path) -> None:
    with pytest.raises(ImageError, match="I;16"):
        read_exact(gray16_folder / "camera.png")


def test_sixteen_bit_colours_are_refused_and_not_cut_to_eight(tmp_path: Path) -> None:
    path = png(tmp_path / "deep.png", np.full((4, 5, 3), 0x1234, np.uint16), colour_type=2)
    with pytest.raises(ImageError, match="16 bits per channel"):
        read_exact(path)


def test_sixteen_bit_ppm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.ppm").write_bytes(b"P6 2 2 65535\n" + bytes(24))
    with pytest.raises(ImageError, match="16 bits per channel"):
        read_exact(tmp_path / "deep.ppm")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_several_frames_are_refused(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    other = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    path = saved(photo, tmp_path / f"a.{suffix}", save_all=True, append_images=[other, photo])
    with pytest.raises(ImageError, match="3 frames or pages"):
        read_exact(path)


def test_still_gif_is_read(photo: Image.Image, tmp_path: Path) -> None:
    palette = photo.quantize(16)
    np.testing.assert_array_equal(read_exact(saved(palette, tmp_path / "a.gif")), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("reader", [read_exact, read_for_training], ids=["exact", "training"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "gif", "bmp"])
def test_truncated_file_is_refused(photo: Image.Image, tmp_path: Path, suffix: str, reader: object) -> None:
    path = saved(photo, tmp_path / f"a.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"a\.{suffix}: cannot be read"):
        reader(path)  # type: ignore[operator]


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file\n"], ids=["empty", "text"])
def test_other_content_under_an_images_name_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_exact, read_for_training, probe):
        with pytest.raises(ImageError, match="not an image Pillow can read"):
            read(tmp_path / "a.png")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_exact(tmp_path / "none.png")


def test_enormous_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = png(tmp_path / "bomb.png", np.zeros((1, 1, 1), np.uint16), colour_type=0)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(ImageError, match="pixels"):
        read_exact(path)


# Reading for a model of 16 bits, and for training.


def test_sixteen_bit_gray_is_read_for_a_model_of_that_depth(gray16_folder: Path) -> None:
    pixels = read_exact(gray16_folder / "camera.png", 16)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(gray16_folder / "camera.png")))


def test_eight_bit_image_is_refused_for_a_model_of_sixteen(photo: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="16-bit model takes 16-bit gray"):
        read_exact(saved(photo, tmp_path / "a.png"), 16)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize(("channels", "bit_depth"), [(3, 8), (1, 8), (1, 16)], ids=["rgb", "gray", "gray16"])
def test_training_takes_every_mode(photo: Image.Image, tmp_path: Path, mode: str, channels: int, bit_depth: int) -> None:
    image = photo.convert("L") if mode == "I;16" else photo
    image = photo.quantize(16) if mode == "P" else image.convert(mode)
    path = saved(image, tmp_path / ("a.tiff" if mode in ("CMYK", "F") else "a.png"))
    pixels = read_for_training(path, channels, bit_depth)
    assert pixels.shape == (40, 60, channels)
    assert pixels.dtype == (np.uint16 if bit_depth == 16 else np.uint8)


def test_training_reads_palettes_with_transparency_without_a_warning(photo: Image.Image, tmp_path: Path) -> None:
    path = saved(photo.quantize(16), tmp_path / "a.png", transparency=bytes(range(16)))
    np.testing.assert_array_equal(read_for_training(path), np.asarray(photo.quantize(16).convert("RGB")))


def test_sixteen_bits_are_halved_or_stretched(photo: Image.Image, tmp_path: Path) -> None:
    deep = Image.fromarray(np.array([[0, 0x1234, 0xFFFF]], np.uint16))
    np.testing.assert_array_equal(read_for_training(saved(deep, tmp_path / "deep.png"), 1, 8)[0, :, 0], [0, 0x12, 0xFF])
    flat = Image.fromarray(np.array([[0, 1, 255]], np.uint8))
    np.testing.assert_array_equal(read_for_training(saved(flat, tmp_path / "flat.png"), 1, 16)[0, :, 0], [0, 257, 65535])


# PNG files in memory.

ROWS = b"\0\1\2\3" * 2  # two rows of three gray pixels


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (61, 40), (700, 300)])
def test_png_bytes_hold_every_kind_of_pixel(bit_depth: int, channels: int, width: int, height: int) -> None:
    noise = np.random.default_rng(0).integers(0, 2**bit_depth, (height, width, channels))
    pixels = (noise if width < 100 else np.cumsum(noise % 7, axis=1)).astype(np.uint16 if bit_depth == 16 else np.uint8)
    back = pixels_from_png(png_bytes(pixels), width, height, channels, bit_depth)
    assert back.dtype == pixels.dtype
    np.testing.assert_array_equal(back, pixels[:, :, 0] if channels == 1 else pixels)


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_is_decoded_in_bands(bit_depth: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 5, (40, 33, channels))
    pixels = np.cumsum(noise, axis=0).astype(np.uint16 if bit_depth == 16 else np.uint8) * (1 + 50 * (bit_depth == 16))
    data = png_bytes(pixels)
    for band in (1, 1000, 2500):
        monkeypatch.setattr("vaetools.images.png.BAND", band)
        np.testing.assert_array_equal(pixels_from_png(data, 33, 40, channels, bit_depth), pixels.squeeze())


def test_png_of_one_large_chunk_is_decoded_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3000, 3001), np.uint8)
    rows[:, 0] = 0
    data = png_of(3000, 3000, zlib.compress(rows.tobytes(), 0))
    np.testing.assert_array_equal(pixels_from_png(data, 3000, 3000, 1, 8), rows[:, 1:])
    assert capfd.readouterr().err == ""


def test_png_bytes_of_a_plane(gray16_folder: Path) -> None:
    plane = np.asarray(Image.open(gray16_folder / "moon.png"))
    data = png_bytes(plane)
    np.testing.assert_array_equal(pixels_from_png(data, 128, 96, 1, 16), plane)
    assert len(data) < plane.nbytes  # the filters help


def test_interlaced_png_is_read() -> None:
    interlaced = (8, 0, 0, 0, 1)
    data = png_of(3, 1, zlib.compress(b"\0\1" + b"\0\2" + b"\0\3"), kind=interlaced)  # the passes with pixels 0, 2 and 1
    assert pixels_from_png(data, 3, 1, 1, 8).tolist() == [[1, 3, 2]]
    with pytest.raises(ValueError, match="rows of pixels are missing"):
        pixels_from_png(png_of(3, 1, zlib.compress(b"\0\1\2\3"), kind=interlaced), 3, 1, 1, 8)


@pytest.mark.parametrize("wrong", [{"width": 4}, {"height": 3}, {"channels": 3}, {"bit_depth": 16}, {"channels": 5}])
def test_png_of_another_kind_than_expected_is_refused(wrong: dict[str, int]) -> None:
    expected = {"width": 3, "height": 2, "channels": 1, "bit_depth": 8}
    data = png_of(3, 2, zlib.compress(ROWS))
    assert pixels_from_png(data, **expected).tolist() == [[1, 2, 3]] * 2
    with pytest.raises(ValueError, match=r"where .* are expected|no PNG has"):
        pixels_from_png(data, **{**expected, **wrong})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a PNG"),
        (b"GIF89a" + bytes(50), "not a PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "not a PNG"),
        (png_of(3, 2, zlib.compress(ROWS))[:-12], "too early"),
        (png_of(3, 2, zlib.compress(ROWS))[:45], "too early"),
        (png_of(3, 2, zlib.compress(ROWS[:5])), "rows of pixels are missing"),
        (png_of(3, 2, zlib.compress(ROWS)[:-4]), "do not end as they should"),
        (png_of(3, 2, zlib.compress(ROWS)[:-1] + b"\0"), "incorrect data check"),
        (png_of(3, 2, b"no zlib data"), "can be decoded"),
        (png_of(3, 2, b""), "rows of pixels are missing"),
        (png_of(3, 2, zlib.compress(ROWS + b"\0")), "more data"),
        (png_of(3, 2, zlib.compress(ROWS) + b"more"), "more data"),
        (png_of(3, 2, zlib.compress(ROWS + bytes(100_000_000))), "more data"),
        (png_of(3, 2, zlib.compress(b"\5" + ROWS[1:])), "unknown filter"),
        (png_of(3, 2, zlib.compress(ROWS), kind=(8, 0, 1, 0, 0)), "unknown kind"),
        (png_of(3, 2, zlib.compress(ROWS), kind=(8, 3, 0, 0, 0)), "are expected"),
        (png_of(3, 2, zlib.compress(ROWS), more=chunk(b"IHDR", bytes(13))), "unexpected chunk b'IHDR'"),
        (png_of(3, 2, zlib.compress(ROWS), more=chunk(b"EVIL", b"")), "unexpected chunk b'EVIL'"),
        (png_of(0, 2, zlib.compress(ROWS)), "unknown kind"),
        (png_of(2**31, 2**31, zlib.compress(ROWS)), "are expected"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_hostile_png_is_a_value_error(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        pixels_from_png(data, 3, 2, 1, 8)


def test_claimed_size_takes_no_memory_before_the_rows_are_there() -> None:
    with pytest.raises(ValueError, match="rows of pixels are missing"):
        pixels_from_png(png_of(1_000_000, 1_000_000, zlib.compress(ROWS)), 1_000_000, 1_000_000, 1, 8)


def test_text_in_a_png_is_not_unpacked() -> None:
    bomb = chunk(b"zTXt", b"name\0\0" + zlib.compress(bytes(200_000_000)))
    assert pixels_from_png(png_of(3, 2, zlib.compress(ROWS), more=bomb), 3, 2, 1, 8).shape == (2, 3)


def test_damaged_bytes_of_a_png_never_raise_anything_else(photo: Image.Image) -> None:
    whole = png_bytes(np.asarray(photo))
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            pixels = pixels_from_png(bytes(data), 60, 40, 3, 8)
        except ValueError:
            continue
        np.testing.assert_array_equal(pixels, np.asarray(photo))


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_missing_rows_of_a_png_are_not_taken_for_black(tmp_path: Path, bit_depth: int) -> None:
    kind = (bit_depth, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(png_of(3, 2, zlib.compress(bytes(1 + 3 * 3 * bit_depth // 8)), kind=kind))
    with pytest.raises(ImageError, match=r"a\.png: cannot be read \(rows of pixels are missing\)"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_of_32_bits_are_stretched_for_training(tmp_path: Path, kind: type) -> None:
    ramp = np.linspace(0, 1 if kind is np.float32 else 1 << 20, 64, dtype=kind)[None].repeat(8, 0)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    deep = read_for_training(tmp_path / "a.tif", 1, 16)[0, :, 0]
    assert (deep[0], deep[-1]) == (0, 65535)
    np.testing.assert_allclose(deep, np.linspace(0, 65535, 64), atol=1)
    np.testing.assert_allclose(read_for_training(tmp_path / "a.tif", 3)[0, :, 2], np.linspace(0, 255, 64), atol=1)
    if kind is np.float32:
        ramp[0, 3] = np.nan
        Image.fromarray(ramp).save(tmp_path / "a.tif")
        assert read_for_training(tmp_path / "a.tif", 1, 16)[0, [3, 63], 0].tolist() == [0, 65535]


def test_a_folder_that_cannot_be_listed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(root: Path, onerror: Callable[[OSError], None]) -> Iterator[object]:
        onerror(PermissionError(13, "Permission denied", str(root)))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(UsageError, match="Permission denied"):
        list_images(tmp_path)
