"""Pillow saves .vtc files: modes, metadata, options."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from vaetools.codec.container import PIXELS, Header, pack
from vaetools.images.write import png_bytes

from .pillow_files import SRGB, XMP, opened, orientation, photograph, saved


@pytest.fixture(scope="module")
def data() -> bytes:
    return saved()


@pytest.fixture
def path(data: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photograph.vtc"
    path.write_bytes(data)
    return path


# Modes.


@pytest.mark.parametrize(
    ("mode", "comes_back_as"),
    [
        ("L", "L"),
        ("LA", "LA"),
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("I;16", "I;16"),
        ("I", "I;16"),
        ("P", "RGB"),
        ("PA", "RGBA"),
        ("CMYK", "RGB"),
        ("YCbCr", "RGB"),
    ],
)
def test_modes_come_back(mode: str, comes_back_as: str) -> None:
    image = photograph(mode)
    restored = opened(saved(image, quality=95))
    assert restored.mode == comes_back_as
    expected = image if mode.startswith("I") else image.convert(comes_back_as)
    difference = np.asarray(restored, float) - np.asarray(expected, float)
    assert np.sqrt((difference**2).mean()) < 0.04 * np.ptp(np.asarray(expected, float))


def test_alpha_comes_back_exactly() -> None:
    image = photograph("RGBA")
    np.testing.assert_array_equal(np.asarray(opened(saved(image)))[:, :, 3], np.asarray(image)[:, :, 3])


def test_bilevel_images_come_back_bilevel() -> None:
    image = photograph("1")
    with pytest.warns(UserWarning, match="kept lossless"):
        restored = opened(saved(image))
    assert restored.mode == "1"
    assert np.array_equal(np.asarray(restored), np.asarray(image))


def test_bilevel_pixels_are_white_from_128_on() -> None:
    gray = np.array([[0, 127, 128, 255]], np.uint8)
    restored = opened(pack(Header(bytes(8), 4, 1, 1, 8, 100.0, 0, 0, 1, 1), {PIXELS: png_bytes(gray)}, []))
    assert np.asarray(restored).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_are_rounded_to_8(channels: int) -> None:
    pixels = np.arange(65536, dtype=np.uint16)[: 65536 // channels * channels].reshape(1, -1, channels)
    colours = 1 if channels == 2 else 3
    data = pack(Header(bytes(8), pixels.shape[1], 1, colours, 16, 100.0, 0, 0), {PIXELS: png_bytes(pixels)}, [])
    image = opened(data)
    assert image.mode == {2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    assert image.info["bit_depth"] == 16
    np.testing.assert_array_equal(np.asarray(image), np.round(pixels / 257))


@pytest.mark.parametrize("mode", ["F", "LAB", "HSV"])
def test_other_modes_cannot_be_saved(mode: str) -> None:
    with pytest.raises(OSError, match=f"cannot write mode {mode} as VTC"):
        saved(Image.new(mode, (64, 64)))


# Metadata.


def test_the_colour_profile_of_the_image_is_kept() -> None:
    image = photograph()
    image.info["icc_profile"] = SRGB
    assert opened(saved(image)).info["icc_profile"] == SRGB


def test_a_colour_profile_can_be_left_out() -> None:
    image = photograph()
    image.info["icc_profile"] = SRGB
    assert "icc_profile" not in opened(saved(image, icc_profile=None)).info


def test_a_colour_profile_of_inks_is_not_kept() -> None:
    image = photograph("CMYK")
    image.info["icc_profile"] = SRGB
    assert "icc_profile" not in opened(saved(image)).info


def test_exif_and_xmp_of_the_image_are_not_kept_unasked() -> None:
    image = opened(saved(exif=orientation(6), xmp=XMP))
    assert {"exif", "xmp"} <= set(image.info)
    assert not {"exif", "xmp"} & set(opened(saved(image)).info)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"], ids=["TIFF structure", "with prefix"])
def test_exif_data_are_kept_byte_for_byte(prefix: bytes) -> None:
    exif = orientation(6).tobytes().removeprefix(b"Exif\0\0")
    assert opened(saved(exif=prefix + exif)).info["exif"] == b"Exif\0\0" + exif


def test_exif_can_be_read_before_the_pixels_are() -> None:
    image = opened(saved(exif=orientation(6))[:-5])
    assert image.getexif()[ExifTags.Base.Orientation] == 6


def test_images_are_turned_as_their_exif_says() -> None:
    image = opened(saved(exif=orientation(6)))
    turned = ImageOps.exif_transpose(image)
    assert turned.size == (64, 96)
    assert ExifTags.Base.Orientation not in turned.getexif()


def test_exif_goes_on_to_a_jpeg_as_it_is() -> None:
    image, buffer = opened(saved(exif=orientation(6))), io.BytesIO()
    image.save(buffer, "JPEG", exif=image.info["exif"])
    assert opened(buffer.getvalue()).getexif()[ExifTags.Base.Orientation] == 6


@pytest.mark.parametrize("xmp", [XMP, XMP.decode()], ids=["bytes", "text"])
def test_xmp_is_kept(xmp: bytes | str) -> None:
    assert opened(saved(xmp=xmp)).info["xmp"] == XMP


def test_a_preview_is_an_image() -> None:
    preview = Image.open(io.BytesIO(opened(saved(photograph(width=192, height=128), preview=True)).info["preview"]))
    assert preview.size == (96, 64)


def test_there_is_no_preview_unasked(data: bytes) -> None:
    assert "preview" not in opened(data).info


# Saving.


def test_quality_is_60_if_nothing_is_said(data: bytes) -> None:
    assert data == saved(quality=60)


@pytest.mark.parametrize(
    ("options", "low", "high"), [({"target_size": 900}, 860, 900), ({"target_bpp": 1.5}, 1116, 1152)], ids=["size", "bpp"]
)
def test_a_size_can_be_asked_for(options: dict[str, float], low: int, high: int) -> None:
    assert low <= len(saved(**options)) <= high


def test_a_psnr_can_be_asked_for() -> None:
    difference = np.asarray(opened(saved(target_psnr=30)), float) - np.asarray(photograph(), float)
    assert 10 * np.log10(255**2 / (difference**2).mean()) == pytest.approx(30.05, abs=0.1)


def test_a_target_out_of_reach_is_told() -> None:
    with pytest.warns(UserWarning, match="out of reach"):
        saved(target_size=90)


def test_an_image_kept_lossless_is_told() -> None:
    fields = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    with pytest.warns(UserWarning, match="kept lossless"):
        data = saved(Image.fromarray(fields))
    assert opened(data).info["lossless"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"quality": 101}, "from 0 to 100"),
        ({"quality": "web_high"}, "quality='web_high'"),
        ({"target_bpp": 0}, "above 0"),
        ({"quality": 50, "target_size": 900}, "not quality and target_size"),
    ],
    ids=str,
)
def test_impossible_options_are_value_errors(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        saved(**options)


def test_no_file_is_left_where_saving_fails(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mode F"):
        Image.new("F", (64, 64)).save(tmp_path / "a.vtc")
    assert list(tmp_path.iterdir()) == []


def animation() -> Image.Image:
    buffer = io.BytesIO()
    photograph().save(buffer, "GIF", save_all=True, append_images=[photograph("L").convert("RGB")])
    return opened(buffer.getvalue())


def test_several_frames_cannot_be_saved() -> None:
    with pytest.raises(OSError, match="cannot write 2 frames as VTC"):
        saved(animation(), save_all=True)


def test_images_cannot_be_appended() -> None:
    with pytest.raises(OSError, match="cannot write 2 frames as VTC"):
        saved(save_all=True, append_images=[photograph()])


def test_one_frame_is_all_frames(data: bytes) -> None:
    assert saved(save_all=True) == data


def test_the_frame_that_is_shown_is_saved() -> None:
    image = animation()
    image.seek(1)
    restored = opened(saved(image, quality=90))
    assert restored.info["source_format"] == "GIF"
    assert np.ptp(np.asarray(restored, int), axis=2).mean() < 6  # the second frame is gray
