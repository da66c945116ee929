"""Pillow opens and saves .vtc files, and what builds on Pillow does too."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import ContainerIO, ExifTags, Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader
from torchvision.datasets import DatasetFolder, ImageFolder
from torchvision.transforms import PILToTensor

from vaetools import Codec, errors, pillow
from vaetools.codec.container import HEADER_ROOM, PIXELS, PREFIX, Header, pack, read_header, unpack
from vaetools.images.write import png_bytes
from vaetools.model.weights import find_by_name, load_weights, save_weights

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def photograph(mode: str = "RGB", width: int = 96, height: int = 64) -> Image.Image:
    image = Image.fromarray(skimage.data.astronaut()[60 : 60 + height, 180 : 180 + width])
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 200 + 100)
    if mode == "I":
        return Image.fromarray(np.asarray(image.convert("L"), np.int32) * 200)
    if mode in ("P", "PA"):
        return image.quantize(64, dither=Image.Dither.NONE).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


def saved(image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or photograph()).save(buffer, format="VTC", **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


def header_only(**fields: object) -> bytes:
    """A file that claims to be of some size, without a pixel in it."""
    return pack(replace(Header(bytes(8), 64, 64, 3, 8, 50.0, 0, 0), **fields), {}, [])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> bytes:
    return saved()


@pytest.fixture
def path(data: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photograph.vtc"
    path.write_bytes(data)
    return path


def run(program: str, **environment: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Opening.


def test_size_mode_and_format_are_told(data: bytes) -> None:
    image = opened(data)
    assert (image.size, image.mode, image.format) == ((96, 64), "RGB", "VTC")


def test_pixels_come_back_close(data: bytes) -> None:
    difference = np.asarray(opened(data), float) - np.asarray(photograph(), float)
    assert np.sqrt((difference**2).mean()) < 12


def test_pixels_are_those_of_the_codec(data: bytes) -> None:
    restored = Codec.load("photo", "cpu").decode([data])[0].picture
    np.testing.assert_array_equal(np.asarray(opened(data)), restored.pixels)


def test_info_tells_what_the_header_has(tmp_path: Path) -> None:
    photograph("P").save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        info = opened(saved(image, quality=33.5)).info
    assert info == {"quality": 33.5, "lossless": False, "bit_depth": 8, "source_format": "PNG", "source_mode": "P"}


def test_nothing_is_read_behind_the_boxes() -> None:
    class Recorder(io.BytesIO):
        furthest = 0

        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            part = super().read(size)
            self.furthest = max(self.furthest, self.tell())
            return part

    data = saved(photograph(width=256, height=256), quality=90, icc_profile=bytes(3000))
    file = Recorder(data)
    Image.open(file)
    assert HEADER_ROOM < file.furthest == read_header(data)[0].payload_start < len(data)


def test_neither_opening_nor_verifying_needs_torch(path: Path) -> None:
    program = f"""
import sys, vaetools
from PIL import Image
with Image.open({str(path)!r}) as image:
    image.size, image.info, image.getexif()
with Image.open({str(path)!r}) as image:
    image.verify()
print("torch" in sys.modules)
"""
    assert run(program) == "False"


def test_importing_vaetools_brings_no_more_than_pillow() -> None:
    program = "import sys, vaetools; print({'PIL.Image', 'numpy', 'cv2', 'torch', 'PIL.PngImagePlugin'} & set(sys.modules))"
    assert run(program) == "{'PIL.Image'}"


def test_other_formats_open_after_vaetools_came_first(path: Path, tmp_path: Path) -> None:
    photograph().save(tmp_path / "a.png")
    (tmp_path / "named wrongly.vtc").write_bytes((tmp_path / "a.png").read_bytes())
    program = f"""
import vaetools
from PIL import Image
for path in {[str(tmp_path / name) for name in ("photograph.vtc", "named wrongly.vtc", "a.png")]}:
    with Image.open(path) as image:
        print(image.format, end=" ")
"""
    assert run(program) == "VTC PNG PNG"


def test_extension_and_media_type_are_registered(data: bytes) -> None:
    assert Image.registered_extensions()[".vtc"] == "VTC"
    assert opened(data).get_format_mimetype() == "image/x-vaetools"  # type: ignore[attr-defined]


# Broken files.


@pytest.mark.parametrize("length", [8, 15, 40, 60], ids=str)
def test_a_file_that_ends_before_its_pixels_is_not_identified(data: bytes, length: int) -> None:
    with pytest.raises(UnidentifiedImageError):
        opened(data[:length])


def test_a_damaged_header_is_not_identified(data: bytes) -> None:
    damaged = bytearray(data)
    damaged[PREFIX.size + 9] ^= 1
    with pytest.raises(UnidentifiedImageError):
        opened(bytes(damaged))


def test_a_damaged_header_is_a_syntax_error_of_the_plug_in(data: bytes) -> None:
    with pytest.raises(SyntaxError, match="checksum of the header"):
        pillow.VtcImageFile(io.BytesIO(data[:20] + b"!" + data[21:]))


def test_a_damaged_box_is_not_identified() -> None:
    data = saved(icc_profile=SRGB)
    position = data.index(SRGB) + 200
    with pytest.raises(UnidentifiedImageError):
        opened(data[:position] + b"!!" + data[position + 2 :])


def test_a_box_that_claims_gigabytes_is_not_identified() -> None:
    data = saved()
    start = read_header(data)[0].length
    fields = bytearray(data[: start - 4])
    fields[-4:] = b"\xff\xff\xff\xff"
    with pytest.raises(UnidentifiedImageError):
        opened(bytes(fields) + zlib.crc32(fields).to_bytes(4, "little") + data[start:])


@pytest.mark.parametrize(
    ("offset", "value", "reason"), [(8, b"\7", "of format 7"), (4, b"\n\x1a\n", "text mode")], ids=["newer version", "text mode"]
)
def test_what_is_nearly_a_file_of_ours_is_explained(data: bytes, offset: int, value: bytes, reason: str) -> None:
    altered = data[:offset] + value + data[offset + len(value) :]
    with pytest.warns(UserWarning, match=reason), pytest.raises(UnidentifiedImageError):
        opened(altered)


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data[:-5] + b"!" + data[-4:]], ids=["cut", "changed"])
def test_damaged_pixels_are_an_os_error(data: bytes, damage: Callable[[bytes], bytes]) -> None:
    image = opened(damage(data))
    with pytest.raises(OSError, match="payload") as caught:
        image.load()
    assert isinstance(caught.value.__cause__, errors.FormatError)


def test_damaged_pixels_stay_an_error(data: bytes) -> None:
    image = opened(data[:-5])
    for _ in range(2):
        with pytest.raises(OSError, match="missing"):
            image.load()


def test_a_missing_model_is_an_os_error() -> None:
    image = opened(pack(Header(b"nosuch!!", 64, 64, 3, 8, 50.0, 64, 64), {}, [(b"payload", 0)]))
    with pytest.raises(OSError, match="not installed"):
        image.load()


# Verification.


def test_a_whole_file_is_verified(path: Path) -> None:
    with Image.open(path) as image:
        image.verify()


def test_a_changed_payload_is_found(data: bytes) -> None:
    with pytest.raises(OSError, match="checksum of the payload"):
        opened(data[:-1] + bytes([data[-1] ^ 1])).verify()


def test_a_verified_image_cannot_be_loaded(data: bytes) -> None:
    image = opened(data)
    image.verify()
    with pytest.raises(ValueError, match="closed image"):
        image.load()


def test_a_loaded_image_cannot_be_verified(data: bytes) -> None:
    image = opened(data)
    image.load()
    with pytest.raises(RuntimeError, match="directly after open"):
        image.verify()


# Sizes.


def test_decompression_bombs_are_refused_before_their_pixels() -> None:
    with pytest.raises(Image.DecompressionBombError):
        opened(header_only(width=60_000, height=60_000))


def test_large_images_are_warned_of_where_pillow_warns(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 64 - 1)
    with pytest.warns(Image.DecompressionBombWarning):
        opened(data)


@pytest.mark.parametrize("pixels", [None, 150_000_000], ids=["without a limit", "with a higher limit"])
def test_no_limit_but_that_of_pillow_counts_when_opening(monkeypatch: pytest.MonkeyPatch, pixels: int | None) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    assert opened(header_only(width=14_000, height=10_000)).size == (14_000, 10_000)


def test_no_limit_but_that_of_pillow_counts_when_loading() -> None:
    pixels = np.arange(70_000, dtype=np.uint8).reshape(1, -1)
    image = opened(pack(Header(bytes(8), 70_000, 1, 1, 8, 100.0, 0, 0), {PIXELS: png_bytes(pixels)}, []))
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_what_other_readers_would_refuse_is_not_saved() -> None:
    with pytest.raises(OSError, match="70000 x 1 pixels is above the limits"):
        saved(Image.new("L", (70_000, 1)))


# Ways to use an image.


def test_pixels_are_decoded_once(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    image = opened(data)
    image.load()
    monkeypatch.delattr(pillow, "_decode")
    image.load()
    assert np.asarray(image).std() > 10


@pytest.mark.parametrize(
    ("use", "size", "mode"),
    [
        (lambda image: image.copy(), (96, 64), "RGB"),
        (lambda image: image.convert("L"), (96, 64), "L"),
        (lambda image: image.crop((10, 10, 30, 20)), (20, 10), "RGB"),
        (lambda image: image.resize((32, 32)), (32, 32), "RGB"),
        (lambda image: (image.thumbnail((48, 48)), image)[1], (48, 32), "RGB"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_90), (64, 96), "RGB"),
        (lambda image: copy.copy(image), (96, 64), "RGB"),
    ],
    ids=["copy", "convert", "crop", "resize", "thumbnail", "transpose", "copy.copy"],
)
def test_images_that_are_not_loaded_can_be_worked_with(
    data: bytes, use: Callable[[Image.Image], Image.Image], size: tuple[int, int], mode: str
) -> None:
    result = use(opened(data))
    assert (result.size, result.mode) == (size, mode)
    assert np.asarray(result).std() > 10


def test_pixels_can_be_changed(data: bytes) -> None:
    image = opened(data)
    access = image.load()
    assert access is not None
    access[3, 4] = (1, 2, 3)
    assert image.getpixel((3, 4)) == (1, 2, 3)


@pytest.mark.parametrize("loaded", [False, True], ids=["not loaded", "loaded"])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda image: pickle.loads(pickle.dumps(image))], ids=["deepcopy", "pickle"])
def test_clones_are_equal(data: bytes, clone: Callable[[Image.Image], Image.Image], loaded: bool) -> None:
    image = opened(data)
    if loaded:
        image.load()
    assert clone(image) == image


def test_pixels_outlive_the_context(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    assert image.getpixel((0, 0)) == opened(path.read_bytes()).getpixel((0, 0))


def test_pixels_not_loaded_in_the_context_are_gone(path: Path) -> None:
    with Image.open(path) as image:
        pass
    with pytest.raises(ValueError, match="closed image"):
        image.load()


def test_a_path_is_closed_once_the_pixels_are_there(path: Path) -> None:
    image = Image.open(path)
    file = image.fp  # type: ignore[attr-defined]
    image.load()
    assert file.closed


def test_a_file_of_the_caller_stays_open(path: Path) -> None:
    with path.open("rb") as file:
        Image.open(file).load()
        assert not file.closed


def test_an_open_file_may_be_moved_before_the_pixels_are_decoded(path: Path, data: bytes) -> None:
    with path.open("rb") as file:
        image = Image.open(file)
        file.seek(3)
        assert np.array_equal(np.asarray(image), np.asarray(opened(data)))


def test_a_file_inside_another_is_opened(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"before" + data + b"behind")
    with (tmp_path / "archive").open("rb") as archive:
        image = Image.open(ContainerIO.ContainerIO(archive, 6, len(data)))
        assert np.array_equal(np.asarray(image), np.asarray(opened(data)))


def test_a_file_may_come_in_pieces(data: bytes) -> None:
    parser = ImageFile.Parser()
    for start in range(0, len(data), 50):
        parser.feed(data[start : start + 50])
    assert np.array_equal(np.asarray(parser.close()), np.asarray(opened(data)))


def test_the_plug_in_starts_where_its_file_stands(data: bytes) -> None:
    archive = io.BytesIO(b"before" + data + b"behind")
    archive.seek(6)
    assert np.array_equal(np.asarray(pillow.VtcImageFile(archive)), np.asarray(opened(data)))


def test_an_image_can_be_saved_over_itself(path: Path) -> None:
    with Image.open(path) as image:
        image.save(path, quality=5)
    with Image.open(path) as image:
        image.load()
        assert image.info["quality"] == 5


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
    stripes = np.tile(np.uint8([0, 255]), (128, 64))
    with pytest.warns(UserWarning, match="kept lossless"):
        data = saved(Image.fromarray(stripes))
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


# Models and devices.


@pytest.fixture
def another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The hash of a model named `other`, which is installed for this test."""
    photo = load_weights(find_by_name("photo"))
    photo.vae.config = replace(photo.vae.config, name="other")
    folder = tmp_path / "models"
    folder.mkdir()
    path = save_weights(photo.vae, photo.tables, folder)
    monkeypatch.setenv("VAETOOLS_MODELS", str(folder))
    return load_weights(path).hash


@pytest.fixture
def loaded_models(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is loaded from now on, as if nothing had been yet."""
    monkeypatch.setattr(pillow, "_codecs", pillow._Codecs())
    load: Callable[..., Codec] = Codec.load
    loaded: list[object] = []

    def counted(model: object, *arguments: object, **options: object) -> Codec:
        loaded.append(model)
        return load(model, *arguments, **options)

    monkeypatch.setattr(Codec, "load", counted)
    return loaded


def test_the_model_can_be_chosen(another_model: bytes) -> None:
    assert unpack(saved(model="other")).header.model_hash == another_model


def test_the_model_that_wrote_a_file_is_found(another_model: bytes) -> None:
    assert np.array_equal(np.asarray(opened(saved(model="other"))), np.asarray(opened(saved())))


def test_no_model_is_loaded_but_that_of_the_file(another_model: bytes, loaded_models: list[object]) -> None:
    opened(saved(model="other")).load()
    assert len(loaded_models) == 1


def test_an_unknown_model_is_an_os_error() -> None:
    with pytest.raises(OSError, match="unknown model 'nosuch'"):
        saved(model="nosuch")


def test_the_device_is_that_of_the_environment(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pillow.DEVICE_VARIABLE, "nosuch")
    with pytest.raises(OSError, match="device 'nosuch' cannot be used"):
        opened(data).load()


def test_threads_share_one_codec(data: bytes, loaded_models: list[object]) -> None:
    pixels: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: pixels.append(np.asarray(opened(data)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded_models) == 1
    assert len(pixels) == 4
    assert all(np.array_equal(one, pixels[0]) for one in pixels)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("lock_is_held", [False, True], ids=["at rest", "another thread loads"])
def test_a_forked_process_can_load_after_its_parent(path: Path, lock_is_held: bool) -> None:
    program = f"""
import os, signal, time, vaetools.pillow
from PIL import Image
def corner():
    with Image.open({str(path)!r}) as image:
        return image.getpixel((0, 0))
expected = corner()
if {lock_is_held}:
    vaetools.pillow._codecs._lock.acquire()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if corner() == expected else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(program, OMP_NUM_THREADS="2") == "0"


# What builds on Pillow.

LOADER = """
import vaetools
from PIL import Image

def load(path):
    with Image.open(path) as image:
        return image.convert("RGB")
"""


@pytest.fixture
def class_folder(data: bytes, tmp_path: Path) -> Path:
    """Two classes of two files each."""
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "images" / name / f"{number}.vtc").write_bytes(data)
    return tmp_path / "images"


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")], ids=["no workers", "fork", "spawn"])
def test_data_loader_reads_a_dataset_folder(
    class_folder: Path, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, start: str | None
) -> None:
    (tmp_path / "vtc_loader.py").write_text(LOADER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vtc_loader", raising=False)
    import vtc_loader  # type: ignore[import-not-found]

    pixels = PILToTensor()(opened(data))  # loads the codec in this process, before any other is forked
    folder = DatasetFolder(class_folder, vtc_loader.load, extensions=(".vtc",), transform=PILToTensor())
    batches = list(DataLoader(folder, batch_size=2, num_workers=workers, multiprocessing_context=start))
    assert [labels.tolist() for _, labels in batches] == [[0, 0], [1, 1]]
    assert all((image == pixels).all() for images, _ in batches for image in images)


def test_image_folder_takes_the_files(class_folder: Path) -> None:
    folder = ImageFolder(class_folder, is_valid_file=lambda path: path.endswith(".vtc"))
    image, label = folder[3]
    assert (image.size, label) == ((96, 64), 1)


def test_imageio_reads_through_pillow(path: Path, data: bytes) -> None:
    imageio = pytest.importorskip("imageio.v3")
    np.testing.assert_array_equal(imageio.imread(path, plugin="pillow"), np.asarray(opened(data)))
