"""The codec with the shipped model, on real photographs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from vaetools import Codec, errors
from vaetools.codec.container import Limits, pack, unpack
from vaetools.codec.entropy import SymbolEncoder
from vaetools.codec.rate import Rate
from vaetools.images.tensors import to_picture
from vaetools.model.tables import ProbabilityTables
from vaetools.model.vae import VAE
from vaetools.model.weights import find_by_name, load_weights, save_weights

from .conftest import tiny


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load("photo", "cpu")


def crop(name: str, height: int, width: int, top: int = 40, left: int = 60) -> Tensor:
    """(3, height, width) uint8 of a photograph, at its own resolution."""
    pixels = getattr(skimage.data, name)()[top : top + height, left : left + width]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@pytest.fixture(scope="module")
def photographs() -> list[Tensor]:
    return [crop("astronaut", 256, 256), crop("coffee", 256, 256), crop("chelsea", 200, 333), crop("rocket", 129, 256)]


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(255**2 / max(1e-9, float(((a.float() - b.float()) ** 2).mean())))


def test_photographs_come_back_close(codec: Codec, photographs: list[Tensor]) -> None:
    files = codec.compress(photographs, quality=75)
    for image, data, restored in zip(photographs, files, codec.decompress(files), strict=True):
        assert restored.shape == image.shape
        assert restored.dtype == torch.uint8
        assert psnr(image, restored) > 29
        assert 8 * len(data) / (image.shape[1] * image.shape[2]) < 2


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (15, 17), (64, 64), (65, 63), (100, 260)], ids=str)
def test_any_size_comes_back(codec: Codec, size: tuple[int, int]) -> None:
    image = crop("astronaut", *size)
    files = codec.compress([image], quality=90)
    (restored,) = codec.decompress(files)
    assert restored.shape == image.shape
    assert psnr(image, restored) > 22


def stripes(contrast: int) -> Tensor:
    """(3, 128, 128) uint8, one pixel dark, one pixel light."""
    columns = 128 + contrast * (2 * (torch.arange(128) % 2) - 1)
    return columns.clamp(0, 255).to(torch.uint8).expand(3, 128, 128)


def checks(contrast: int) -> Tensor:
    """(3, 128, 128) uint8, a board of dark and light fields of one pixel."""
    fields = 2 * ((torch.arange(128)[:, None] + torch.arange(128)) % 2) - 1
    return (128 + contrast * fields).clamp(0, 255).to(torch.uint8).expand(3, 128, 128)


@pytest.mark.parametrize("quality", [0, 60, 100])
def test_patterns_that_the_model_cannot_hold_are_kept_lossless(codec: Codec, quality: float) -> None:
    dithered = torch.from_numpy(np.array(Image.fromarray(skimage.data.astronaut()).convert("1"), np.uint8) * 255)
    for image in (checks(127), checks(80), checks(40), dithered[None]):
        (coded,) = codec.encode([to_picture(image)], Rate("quality", quality))
        assert "kept lossless" in coded.notes[0]
        assert torch.equal(codec.decompress(coded.to_bytes()), image)


def test_an_image_that_a_png_holds_in_fewer_bytes_is_kept_lossless(codec: Codec) -> None:
    checks = ((torch.arange(64)[:, None] // 2 + torch.arange(64) // 2) % 2 * 60 + 100).to(torch.uint8)[None]
    data = codec.compress([checks], 100)[0]
    assert unpack(data).header.lossless
    assert torch.equal(codec.decompress(data), checks)


def test_gentle_stripes_and_hard_edges_come_back(codec: Codec) -> None:
    edges = torch.zeros(3, 128, 128, dtype=torch.uint8)
    edges[:, :, 40:80] = 255
    for image, least in ((stripes(20), 20), (edges, 30)):
        (restored,) = codec.decompress(codec.compress([image], 90))
        assert psnr(image, restored) > least


def test_padding_is_not_coded(codec: Codec) -> None:
    one = codec.compress([crop("astronaut", 1, 1)])[0]
    assert len(one) < 140  # 16 positions of 160 latents would stand in the padded square


def test_quality_is_monotone_in_bytes_and_psnr(codec: Codec, photographs: list[Tensor]) -> None:
    sizes, closeness = [], []
    for quality in (0, 20, 40, 60, 80, 100):
        files = codec.compress(photographs[:2], quality=quality)
        sizes.append(sum(map(len, files)))
        closeness.append(sum(psnr(a, b) for a, b in zip(photographs, codec.decompress(files), strict=False)))
    assert sizes == sorted(set(sizes))
    assert closeness == sorted(set(closeness))


def test_each_image_may_have_its_own_quality(codec: Codec, photographs: list[Tensor]) -> None:
    image = photographs[0]
    low, high = codec.compress([image, image], quality=[10, 90])
    assert (low, high) == (codec.compress([image], 10)[0], codec.compress([image], 90)[0])
    assert unpack(high).header.quality == 90


def test_estimated_bits_are_real_bytes_within_one_percent(codec: Codec, photographs: list[Tensor]) -> None:
    for quality in (10, 50, 90):
        bits = codec.estimate(photographs, quality)
        real = [8 * len(unpack(data).payloads[0] or b"") for data in codec.compress(photographs, quality)]
        assert np.sum(real) == pytest.approx(bits.sum(), rel=0.01)


@pytest.mark.parametrize("bfloat16", [False, True], ids=["fp32", "bf16"])
def test_files_decode_under_any_batch_thread_count_and_precision(photographs: list[Tensor], threads, bfloat16: bool) -> None:  # type: ignore[no-untyped-def]
    """A decoder that chose one table otherwise would fail on the checksum of the symbols."""
    writer, reader = Codec.load("photo", "cpu", bfloat16=bfloat16), Codec.load("photo", "cpu", bfloat16=not bfloat16)
    images = [image[:, :128, :128] for image in (*photographs[:2], photographs[0].flip(1), photographs[1].flip(2))]
    for count, batch in ((1, 4), (2, 1)):
        threads(count)
        files = writer.compress(images, quality=55, batch_size=batch)
        for other_count, other_batch in ((2, 1), (1, 4)):
            threads(other_count)
            for restored, image in zip(reader.decompress(files, batch_size=other_batch), images, strict=True):
                assert psnr(restored, image) > 24


def test_gray_comes_back_gray(codec: Codec) -> None:
    image = torch.from_numpy(skimage.data.camera()[100:300, 100:300].copy())[None]
    files = codec.compress([image], quality=80)
    (restored,) = codec.decompress(files)
    assert restored.shape == image.shape
    assert psnr(image, restored) > 28


def test_batches_and_floats_are_taken(codec: Codec, photographs: list[Tensor]) -> None:
    batch = torch.stack(photographs[:2])
    assert codec.compress(batch, 30) == codec.compress(photographs[:2], 30) == codec.compress(batch.float() / 255, 30)


def test_no_images_make_no_files(codec: Codec) -> None:
    assert codec.compress([]) == []
    assert codec.decompress([]) == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.int64), "expected uint8"),
        (torch.zeros(5, 8, 8, dtype=torch.uint8), r"\(C, H, W\) with 1 to 4 channels"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"\(8, 8\)"),
        (torch.zeros(3, 0, 8, dtype=torch.uint8), "shape"),
        (torch.full((3, 8, 8), 1.5), r"within 0\.\.1"),
        (torch.full((3, 8, 8), math.nan), r"within 0\.\.1"),
        (np.zeros((3, 8, 8), np.uint8), "ndarray"),
    ],
    ids=["int64", "five channels", "two dimensions", "empty", "above 1", "nan", "numpy"],
)
def test_wrong_images_are_named(codec: Codec, image: object, words: str) -> None:
    with pytest.raises(errors.UsageError, match=rf"number 1: .*{words}"):
        codec.compress([torch.zeros(3, 8, 8, dtype=torch.uint8), image])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("quality", "words"), [(-1, "0 to 100"), (101, "0 to 100"), (math.nan, "0 to 100"), ([50, 60], "2 qualities for 1")]
)
def test_wrong_qualities_are_named(codec: Codec, quality: float, words: str) -> None:
    with pytest.raises(errors.UsageError, match=words):
        codec.compress([crop("chelsea", 8, 8)], quality=quality)


def test_images_above_the_limits_are_refused(codec: Codec) -> None:
    small = Codec(codec.model, codec.device, limits=Limits(max_pixels=1000))
    with pytest.raises(errors.UsageError, match="above the limits"):
        small.compress([crop("chelsea", 40, 40)])
    with pytest.raises(errors.LimitExceeded):
        small.decompress(codec.compress([crop("chelsea", 40, 40)]))


def test_a_bad_file_among_good_ones_is_named(codec: Codec) -> None:
    good = codec.compress([crop("chelsea", 40, 40)])[0]
    with pytest.raises(errors.Truncated, match="number 1: "):
        codec.decompress([good, good[:-3], good])


def resealed(data: bytes, payload: bytes | None = None, **fields: object) -> bytes:
    """With another payload or other header fields, and checksums made to match, as a careless tool would."""
    contents = unpack(data)
    payload = contents.payloads[0] if payload is None else payload
    assert payload is not None
    return pack(replace(contents.header, **fields), contents.front.boxes, [(payload, contents.front.entries[0].symbols_crc)])


def test_a_payload_of_another_image_is_no_image(codec: Codec) -> None:
    """Only the checksum of the symbols is left to tell."""
    first, second = codec.compress([crop("chelsea", 64, 64), crop("coffee", 64, 64)])
    with pytest.raises((errors.Desync, errors.Corrupt)):
        codec.decompress([resealed(first, unpack(second).payloads[0])])


@pytest.mark.parametrize("payload", [b"", bytes(64), b"\xff" * 4096], ids=["empty", "zeros", "ones"])
def test_a_sealed_payload_of_rubbish_is_an_error(codec: Codec, payload: bytes) -> None:
    with pytest.raises((errors.Desync, errors.Corrupt)):
        codec.decompress([resealed(codec.compress([crop("chelsea", 64, 64)])[0], payload)])


def test_symbols_out_of_range_are_an_error(codec: Codec) -> None:
    encoder = SymbolEncoder()
    encoder.put(np.full(codec.config.hyper_channels, -32768), np.arange(codec.config.hyper_channels), codec.coder.models.z)
    with pytest.raises((errors.Desync, errors.Corrupt)):
        codec.decompress([resealed(codec.compress([crop("chelsea", 1, 20)])[0], encoder.finish())])


def test_a_file_of_an_unknown_model_says_which(codec: Codec) -> None:
    data = codec.compress([crop("chelsea", 40, 40)])[0]
    with pytest.raises(errors.ModelMissing, match=r"00112233445566aa.*VAETOOLS_MODELS"):
        codec.decompress([resealed(data, model_hash=bytes.fromhex("00112233445566aa"))])


def test_files_of_another_model_decode_once_it_can_be_found(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Codec(load_weights(save_weights(VAE(tiny()), flat_tables(tiny().hyper_channels), tmp_path)), torch.device("cpu"))
    image = crop("chelsea", 40, 50)
    files = [other.compress([image])[0], codec.compress([image])[0]]
    monkeypatch.setenv("VAETOOLS_MODELS", str(tmp_path))
    restored = codec.decompress(files)
    assert [image.shape for image in restored] == [image.shape] * 2
    assert torch.equal(restored[0], other.decompress(files[:1])[0])


def flat_tables(hyper_channels: int) -> ProbabilityTables:
    return ProbabilityTables.fit(np.zeros((64, 512)), np.zeros((hyper_channels, 256)), np.ones(hyper_channels))


def test_sixteen_bit_gray_comes_back_in_sixteen_bits(tmp_path: Path) -> None:
    config = tiny(image_channels=1, bit_depth=16)
    codec = Codec(load_weights(save_weights(VAE(config), flat_tables(config.hyper_channels), tmp_path)), torch.device("cpu"))
    image = (torch.arange(40 * 50).reshape(1, 40, 50) * 30).to(torch.uint16)
    (restored,) = codec.decompress(codec.compress([image], quality=100))
    assert restored.dtype == torch.uint16
    assert restored.shape == image.shape


def test_a_gaussian_posterior_has_no_codec(tmp_path: Path) -> None:
    weights = save_weights(VAE(tiny("gaussian")), None, tmp_path)
    with pytest.raises(errors.ModelError, match="--posterior uniform"):
        Codec.load(weights)


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(errors.UsageError, match="'abacus'"):
        Codec.load("photo", "abacus")


def test_shipped_weights_fit_in_sixteen_megabytes() -> None:
    assert find_by_name("photo").stat().st_size <= 16_000_000


@pytest.mark.gpu
def test_files_cross_between_cpu_and_gpu(codec: Codec, photographs: list[Tensor]) -> None:
    gpu = Codec.load("photo", "cuda")
    for quality in (0, 25, 50, 75, 100):
        for writer, reader in ((codec, gpu), (gpu, codec)):
            for restored, image in zip(reader.decompress(writer.compress(photographs, quality)), photographs, strict=True):
                assert psnr(restored, image) > 20
