"""Files that nobody should trust: whatever stands in them, decoding gives an image or a FormatError."""

from __future__ import annotations

import collections
import gc
import importlib.machinery
import importlib.util
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vaetools import Codec, errors
from vaetools.codec import decoder, network
from vaetools.codec.container import ALPHA, NO_MODEL, PIXELS, RANGE, Header, pack, read_header, unpack
from vaetools.codec.symbols import TileReader
from vaetools.images.picture import Picture
from vaetools.images.png import png_bytes
from vaetools.model.vae import VAE

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz"
GOLDEN = Path(__file__).parent / "golden"
OUTCOMES = {"decoded", "decoded in part", "FormatError", *(kind.__name__ for kind in errors.FormatError.__subclasses__())}


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    """The script, without its huge files: they take seconds each."""
    loader = importlib.machinery.SourceFileLoader("fuzz_script", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fuzz_script", loader))  # type: ignore[arg-type]
    sys.modules["fuzz_script"] = module
    loader.exec_module(module)
    module.HUGE = 0  # type: ignore[attr-defined]
    yield module
    del sys.modules["fuzz_script"]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load(GOLDEN, "cpu", bfloat16=False)


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAETOOLS_MODELS", str(GOLDEN))


@pytest.fixture(scope="module")
def seeds(fuzz: ModuleType, codec: Codec) -> dict[str, bytes]:
    return {name: data for name, data in fuzz.seeds_of(codec).items() if not name.startswith("photo")}


@pytest.fixture(scope="module")
def mutator(fuzz: ModuleType, seeds: dict[str, bytes]):  # type: ignore[no-untyped-def]
    return fuzz.Mutator(list(seeds.values()))


@settings(max_examples=1200)
@given(number=st.integers(0, 2**31))
def test_mutated_files_decode_or_are_format_errors(fuzz: ModuleType, codec: Codec, mutator, number: int) -> None:  # type: ignore[no-untyped-def]
    assert fuzz.decode(codec, fuzz.case(mutator, 0, number)) in OUTCOMES


# The script itself.


def test_mutations_reach_behind_the_checksums(fuzz: ModuleType, codec: Codec, mutator) -> None:  # type: ignore[no-untyped-def]
    cases = [fuzz.case(mutator, 1, number) for number in range(400)]
    seen = {kind: collections.Counter(fuzz.decode(codec, one) for one in cases if one.sealed == kind) for kind in (False, True)}
    assert seen[True]["decoded"] > 40
    assert seen[True]["Desync"] > 0
    assert seen[False]["Desync"] == 0
    assert seen[False]["Corrupt"] + seen[False]["Truncated"] + seen[False]["NotThisFormat"] > 100


def test_without_mutations_every_seed_decodes(fuzz: ModuleType, codec: Codec, seeds: dict[str, bytes]) -> None:
    for name, data in seeds.items():
        assert fuzz.decode(codec, fuzz.Case(0, data, False, False, False, None)) == "decoded", name


def test_files_are_put_together_as_they_were(fuzz: ModuleType, seeds: dict[str, bytes]) -> None:
    for data in seeds.values():
        assert fuzz.Parts.of(data).joined() == fuzz.resealed(data) == data


def test_a_resealed_file_has_checksums_that_fit(fuzz: ModuleType, seeds: dict[str, bytes]) -> None:
    damaged = bytearray(seeds["tiles"])
    damaged[-1] ^= 1
    damaged[31] ^= 1  # of the quality
    with pytest.raises(errors.Corrupt, match="checksum of the header"):
        unpack(bytes(damaged))
    assert unpack(fuzz.resealed(bytes(damaged))).header.quality != unpack(seeds["tiles"]).header.quality


def test_the_same_number_makes_the_same_file(fuzz: ModuleType, mutator) -> None:  # type: ignore[no-untyped-def]
    assert fuzz.case(mutator, 3, 17) == fuzz.case(mutator, 3, 17) != fuzz.case(mutator, 3, 18)


def test_the_script_keeps_what_breaks_its_limits(tmp_path: Path) -> None:
    arguments = ["--count", "12", "--time-limit", "0", "--megapixel-time", "0", "--findings", "findings", "--json", "report.json"]
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert sum(report["outcomes"].values()) == len(report["violations"]) == 12
    assert all((tmp_path / found["file"]).exists() and "seconds" in found["what"] for found in report["violations"])


# Files that once took too much, or might.


def flat(codec: Codec, tiles: int, side: int, payload: bytes = bytes(4)) -> bytes:
    """A row of tiles that are all the same, with wrong symbols."""
    header = Header(codec.model.hash, side * tiles, side, 3, 8, 50.0, side, side)
    return pack(header, {}, [(payload, 0)] * tiles)


def test_a_file_of_which_no_tile_is_good_is_an_error(codec: Codec) -> None:
    for data in (flat(codec, 3, 64), flat(codec, 3, 64)[:-12], flat(codec, 1, 64)):
        with pytest.raises(errors.Corrupt, match="none of its tiles"):
            codec.decode([data], allow_partial=True)


def test_not_every_tile_of_a_hopeless_file_is_tried(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    start = TileReader.__init__
    monkeypatch.setattr(decoder, "GIVE_UP_PIXELS", 10 * 32 * 32)
    monkeypatch.setattr(TileReader, "__init__", lambda self, *rest: tried.append(self) or start(self, *rest))
    with pytest.raises(errors.Corrupt, match="none of its tiles"):
        codec.decode([flat(codec, 500, 32)], batch_size=4, allow_partial=True)
    assert len(tried) == 12


def test_tiles_that_are_lost_leave_no_memory_behind(codec: Codec, seeds: dict[str, bytes], fuzz: ModuleType) -> None:
    parts = fuzz.Parts.of(seeds["tiles"])
    parts.tiles[1:] = [(bytes(4), 0)] * (len(parts.tiles) - 1)
    gc.collect()
    gc.disable()
    try:
        (restored,) = codec.decode([parts.joined()], allow_partial=True)
        left = [thing for thing in gc.get_objects() if type(thing) is TileReader]
    finally:
        gc.enable()
    assert len(restored.lost) == len(parts.tiles) - 1
    assert left == []


def test_small_tiles_are_not_more_work_for_the_network(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is decoded from what lies around it too: one by one, that would be most of the work."""
    painted = []
    to_images = network.quantiser.to_images

    def counting(vae: VAE, latents: Tensor, quality: Tensor, *, bfloat16: bool) -> Tensor:
        painted.append(latents.shape[0] * latents.shape[2] * latents.shape[3] * codec.config.latent_stride**2)
        return to_images(vae, latents, quality, bfloat16=bfloat16)

    monkeypatch.setattr(network.quantiser, "to_images", counting)
    data = codec.encode([Picture(np.zeros((256, 320, 3), np.uint8))], tile_size=16)[0].to_bytes()
    painted.clear()
    assert read_header(data)[0].tiles == 320
    codec.decode([data])
    assert sum(painted) < 1.2 * 256 * 320


def lossless(pixels: np.ndarray, boxes: dict[bytes, bytes]) -> bytes:
    height, width, channels = pixels.shape
    header = Header(NO_MODEL, width, height, channels - (channels in (2, 4)), 8 * pixels.itemsize, 100.0, 0, 0)
    return pack(header, {PIXELS: png_bytes(pixels), **boxes}, [])


@pytest.mark.parametrize("channels", [3, 4])
def test_an_alpha_plane_beside_lossless_pixels_is_an_error(codec: Codec, channels: int) -> None:
    data = lossless(np.zeros((5, 7, channels), np.uint8), {ALPHA: png_bytes(np.zeros((5, 7), np.uint8))})
    for allow_partial in (False, True):
        with pytest.raises(errors.Corrupt, match="ALPH in a file without a model"):
            codec.decode([data], allow_partial=allow_partial)


def test_a_range_beside_lossless_pixels_is_an_error(codec: Codec) -> None:
    with pytest.raises(errors.Corrupt, match="RANG in a file without a model"):
        codec.decode([lossless(np.zeros((5, 7, 3), np.uint16), {RANGE: struct.pack("<HH", 0, 9)})])


def test_pixels_beside_latents_are_an_error(codec: Codec, fuzz: ModuleType, seeds: dict[str, bytes]) -> None:
    parts = fuzz.Parts.of(seeds["rgb"])
    parts.boxes.append((PIXELS, b""))
    with pytest.raises(errors.Corrupt, match="PIXL in a file with a model"):
        codec.decode([parts.joined()])


def test_a_file_with_neither_pixels_nor_latents_is_an_error(codec: Codec) -> None:
    header = replace(read_header(lossless(np.zeros((5, 7, 3), np.uint8), {}))[0], boxes_length=0)
    for allow_partial in (False, True):
        with pytest.raises(errors.Corrupt, match="neither latents nor pixels"):
            codec.decode([pack(header, {}, [])], allow_partial=allow_partial)


def test_interlaced_pixels_are_an_error(codec: Codec, fuzz: ModuleType) -> None:
    """They would take twice the memory."""
    image = bytearray(png_bytes(np.zeros((1, 1, 1), np.uint8)))
    image[28] = 1
    struct.pack_into(">I", image, 29, zlib.crc32(image[12:29]))
    header = Header(NO_MODEL, 1, 1, 1, 8, 100.0, 0, 0)
    with pytest.raises(errors.Corrupt, match="interlaced"):
        codec.decode([pack(header, {PIXELS: bytes(image)}, [])])


@pytest.mark.parametrize("surplus", [-1, 1, 100_000_000])
def test_pixels_of_another_number_than_the_header_says_are_an_error(codec: Codec, fuzz: ModuleType, surplus: int) -> None:
    header = Header(NO_MODEL, 20, 10, 3, 8, 100.0, 0, 0)
    with pytest.raises(errors.Corrupt, match="the pixels cannot be decoded"):
        codec.decode([pack(header, {PIXELS: fuzz.flat_png(20, 10, 3, 8, surplus)}, [])])


@pytest.mark.parametrize("size", [(10_000, 10_000), (65_535, 1525), (1, 65_535)], ids=str)
def test_a_huge_size_with_next_to_nothing_behind_it_is_an_error(codec: Codec, fuzz: ModuleType, size: tuple[int, int]) -> None:
    png = fuzz.flat_png(1, 1, 3, 8)
    header = Header(NO_MODEL, *size, 3, 8, 100.0, 0, 0)
    with pytest.raises(errors.Corrupt, match="the pixels cannot be decoded"):
        codec.decode([pack(header, {PIXELS: png}, [])])


def test_too_many_tiles_are_a_mistake_of_the_caller(codec: Codec) -> None:
    with pytest.raises(errors.UsageError, match="take larger ones"):
        codec.encode([Picture(np.zeros((16_400, 1040, 1), np.uint8))], tile_size=16)
