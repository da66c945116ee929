"""Pillow opens .vtc files: what it reads of them, broken ones, and ways to use an image."""

from __future__ import annotations

import copy
import io
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ContainerIO, Image, ImageFile, UnidentifiedImageError

from vaetools import Codec, errors, pillow
from vaetools.codec.container import HEADER_ROOM, PIXELS, PREFIX, Header, pack, read_header
from vaetools.images.write import png_bytes

from .pillow_files import SRGB, header_only, opened, photograph, run, saved


@pytest.fixture(scope="module")
def data() -> bytes:
    return saved()


@pytest.fixture
def path(data: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photograph.vtc"
    path.write_bytes(data)
    return path


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
