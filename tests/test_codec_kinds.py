"""What a file keeps beside the colours: alpha, depth, metadata, where the image came from."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from vaetools import Codec, errors
from vaetools.codec.container import BOX, pack, unpack
from vaetools.images.picture import Metadata, Picture

from .test_container import flipped


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load("photo", "cpu")


def photograph(height: int = 90, width: int = 120) -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[20 : 20 + height, 150 : 150 + width])


def round_edge(height: int = 90, width: int = 120) -> np.ndarray:
    """(height, width) uint8: a soft disc."""
    rows, columns = np.mgrid[:height, :width]
    return (255 * np.clip(5 - np.hypot(rows - 45, columns - 60) / 8, 0, 1)).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray, peak: int = 255) -> float:
    return 10 * math.log10(peak**2 / max(1e-9, float(((a.astype(float) - b) ** 2).mean())))


@pytest.mark.parametrize("tile_size", [1024, 64])
@pytest.mark.parametrize("gray", [False, True], ids=["RGBA", "LA"])
def test_alpha_comes_back_exactly(codec: Codec, gray: bool, tile_size: int) -> None:
    colour = photograph()[:, :, :1] if gray else photograph()
    image = torch.from_numpy(np.dstack([colour, round_edge()])).permute(2, 0, 1)
    restored = codec.decompress(codec.compress([image], 70, tile_size=tile_size)[0])
    assert restored.shape == image.shape
    assert torch.equal(restored[-1], image[-1])
    assert psnr(restored[:-1].numpy(), image[:-1].numpy()) > 27


def test_a_region_has_its_alpha(codec: Codec) -> None:
    image = torch.from_numpy(np.dstack([photograph(), round_edge()])).permute(2, 0, 1)
    part = codec.decompress(codec.compress([image])[0], region=(30, 20, 50, 40))
    assert torch.equal(part[3], image[3, 20:60, 30:80])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_come_back_in_sixteen(codec: Codec, channels: int) -> None:
    colour = photograph()[:, :, : 1 if channels < 3 else 3].astype(np.uint16) * 257
    pixels = colour if channels % 2 else np.dstack([colour, round_edge().astype(np.uint16) * 200])
    restored = codec.decode(codec.compress([Picture(pixels)], 90))[0].picture
    assert restored.bit_depth == 16
    assert restored.pixels.shape == pixels.shape
    assert psnr(restored.colour, colour, 65535) > 28
    if restored.alpha is not None:
        np.testing.assert_array_equal(restored.alpha, pixels[:, :, -1])


def test_twelve_bits_in_sixteen_use_the_range_that_occurs(codec: Codec) -> None:
    """As cameras and scanners write them: over the whole range of 16 bits, they would be nearly black."""
    pixels = (photograph()[:, :, :1].astype(np.float64) * 16 + 100).astype(np.uint16)
    restored = codec.decode(codec.compress([Picture(pixels)], 90))[0].picture.pixels
    assert pixels.min() <= restored.min()
    assert restored.max() <= pixels.max()
    assert psnr(restored, pixels, 4095) > 27


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_one_value_of_sixteen_bits_comes_back(codec: Codec, value: int) -> None:
    pixels = np.full((40, 50, 1), value, np.uint16)
    restored = codec.decode(codec.compress([Picture(pixels)]))[0].picture.pixels
    assert np.abs(restored.astype(int) - value).max() <= 1


def test_metadata_and_source_come_back_byte_for_byte(codec: Codec) -> None:
    metadata = Metadata(icc=bytes(range(256)), exif=b"MM\0*\0\0\0\x08\0\0", xmp="<x:xmpmeta>ä</x:xmpmeta>".encode())
    picture = Picture(photograph(), "JPEG", "CMYK", metadata)
    restored = codec.decode(codec.compress([picture]))[0].picture
    assert (restored.metadata, restored.format, restored.mode) == (metadata, "JPEG", "CMYK")


def test_metadata_of_a_lossless_file_come_back_too(codec: Codec) -> None:
    fields = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, 2)
    picture = Picture(np.dstack([fields, np.full((128, 128), 9, np.uint8)]), "PNG", "RGBA", Metadata(exif=b"II*\0\x08\0\0\0\0\0"))
    data = codec.compress([picture])[0]
    assert unpack(data).header.lossless
    restored = codec.decode([data])[0].picture
    np.testing.assert_array_equal(restored.pixels, picture.pixels)
    assert restored.metadata == picture.metadata


def test_a_lossless_file_needs_no_model(codec: Codec) -> None:
    fields = (torch.arange(128)[:, None] + torch.arange(128)).remainder(2).mul(255).to(torch.uint8).expand(3, 128, 128)
    assert unpack(codec.compress([fields])[0]).header.model_hash == bytes(8)


def test_a_file_of_one_tile_has_at_most_64_bytes_beside_its_payload(codec: Codec) -> None:
    data = codec.compress([Picture(photograph(), "PNG", "RGB")])[0]
    assert len(data) - len(unpack(data).payloads[0] or b"") <= 64


def test_a_preview_is_a_small_image(codec: Codec) -> None:
    picture = Picture((photograph(300, 200).astype(np.uint16) * 16), "TIFF", "RGB;16")
    contents = unpack(codec.compress([picture], preview=True)[0])
    with Image.open(io.BytesIO(contents.front.boxes[b"prev"])) as preview:
        assert max(preview.size) <= 96
        small = np.asarray(Image.fromarray(photograph(300, 200)).resize(preview.size))
        assert psnr(np.asarray(preview.convert("RGB")), small) > 20


def test_a_gray_model_refuses_colours(codec: Codec, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from vaetools.model.vae import VAE
    from vaetools.model.weights import load_weights, save_weights

    from .conftest import tiny
    from .test_codec import flat_tables

    config = tiny(image_channels=1)
    gray = Codec(load_weights(save_weights(VAE(config), flat_tables(config.hyper_channels), tmp_path)), torch.device("cpu"))
    with pytest.raises(errors.ImageError, match="takes gray images"):
        gray.compress([Picture(photograph())])
    assert gray.decompress(gray.compress([Picture(photograph()[:, :, :1])])[0]).shape == (1, 90, 120)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x89PNG\r\n\x1a\n" + bytes(50)], ids=["empty", "rubbish", "half"])
def test_a_broken_alpha_plane_is_an_error_or_opaque(codec: Codec, content: bytes) -> None:
    image: Tensor = torch.from_numpy(np.dstack([photograph(), round_edge()])).permute(2, 0, 1)
    contents = unpack(codec.compress([image])[0])
    entry = (contents.payloads[0] or b"", contents.front.entries[0].symbols_crc)
    data = pack(contents.header, {b"ALPH": content}, [entry])
    with pytest.raises(errors.Corrupt, match="alpha"):
        codec.decompress(data)
    restored = codec.decode([data], allow_partial=True)[0]
    assert "alpha" in restored.lost[0]
    assert restored.picture.pixels.shape == (90, 120, 3)


def test_an_alpha_plane_of_another_size_is_an_error(codec: Codec) -> None:
    larger = torch.from_numpy(np.dstack([photograph(91), round_edge(91)])).permute(2, 0, 1)
    boxes = unpack(codec.compress([larger])[0]).front.boxes
    contents = unpack(codec.compress([larger[:, :90]])[0])
    data = pack(contents.header, boxes, [(contents.payloads[0] or b"", contents.front.entries[0].symbols_crc)])
    with pytest.raises(errors.Corrupt, match="alpha"):
        codec.decompress(data)


@pytest.mark.parametrize("levels", [b"\x05\0\x05\0", b"\x05\0\x04\0", b"\x05\0", b""], ids=["equal", "falling", "short", "empty"])
def test_an_impossible_range_is_an_error(codec: Codec, levels: bytes) -> None:
    contents = unpack(codec.compress([Picture(photograph().astype(np.uint16))])[0])
    data = pack(contents.header, {b"RANG": levels}, [(contents.payloads[0] or b"", contents.front.entries[0].symbols_crc)])
    with pytest.raises(errors.Corrupt, match="range"):
        codec.decompress(data)


def test_a_check_tells_the_psnr(codec: Codec) -> None:
    picture = Picture(np.dstack([photograph(), round_edge()]), "PNG", "RGBA", Metadata(xmp=b"<x/>"))
    data = codec.compress([picture], 80)[0]
    restored = codec.decode([data])[0].picture
    assert codec.check(data, picture) == pytest.approx(psnr(restored.colour, picture.colour))


def test_a_check_finds_what_differs(codec: Codec) -> None:
    picture = Picture(np.dstack([photograph(), round_edge()]), "PNG", "RGBA", Metadata(xmp=b"<x/>"))
    data = codec.compress([picture], 80)[0]
    other_alpha = picture.pixels.copy()
    other_alpha[3, 4, 3] ^= 1
    upside_down = np.ascontiguousarray(picture.pixels[::-1])
    upside_down[:, :, 3] = picture.pixels[:, :, 3]
    black = picture.pixels * np.array([0, 0, 0, 1], np.uint8)
    for different, words in (
        (replace(picture, pixels=other_alpha), "alpha"),
        (replace(picture, metadata=Metadata()), "metadata"),
        (replace(picture, pixels=picture.pixels[:-1]), "shape"),
        (replace(picture, pixels=black), "another image"),
    ):
        with pytest.raises(errors.Desync, match=words):
            codec.check(data, different)


def spoilt(data: bytes, box: bytes) -> bytes:
    """A file with a bit of a box changed."""
    return flipped(data, 8 * (data.index(box) + BOX.size))


def test_no_levels_are_made_up_where_their_range_is_lost(codec: Codec) -> None:
    data = spoilt(codec.compress([Picture(photograph().astype(np.uint16) * 16)])[0], b"RANG")
    with pytest.raises(errors.Corrupt, match=r"its range of values is lost .* box RANG"):
        codec.decode([data], allow_partial=True)


def test_a_damaged_png_is_told_as_such(codec: Codec) -> None:
    checks = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255).to(torch.uint8)[None]
    data = spoilt(codec.compress([checks])[0], b"PIXL")
    for allow_partial in (False, True):
        with pytest.raises(errors.Corrupt, match="the checksum of the box PIXL"):
            codec.decode([data], allow_partial=allow_partial)
