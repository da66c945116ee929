"""Images cut into tiles: no seam, any region, what is left of a damaged file."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from vaetools import Codec, errors
from vaetools.codec.container import MAGIC, unpack

TILE = 128


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load("photo", "cpu", bfloat16=False)


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    """(3, 300, 450) uint8."""
    return torch.from_numpy(skimage.data.chelsea()[:300, :450].copy()).permute(2, 0, 1)


@pytest.fixture(scope="module")
def tiled(codec: Codec, photograph: Tensor) -> bytes:
    return codec.compress([photograph], 60, tile_size=TILE)[0]


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(255**2 / max(1e-9, float(((a.float() - b.float()) ** 2).mean())))


def test_tiles_cost_little_and_look_the_same(codec: Codec, photograph: Tensor, tiled: bytes) -> None:
    whole = codec.compress([photograph], 60)[0]
    assert (unpack(whole).header.tiles, unpack(tiled).header.tiles) == (1, 12)
    assert len(tiled) < 1.06 * len(whole)
    assert psnr(photograph, codec.decompress(tiled)) > psnr(photograph, codec.decompress(whole)) - 0.1


def seam_ratio(original: Tensor, restored: Tensor) -> float:
    """How much more the error jumps across the borders of tiles than across other borders of 16 x 16 latents."""
    error = restored.float() - original.float()
    jumps = (error[:, :, 1:] - error[:, :, :-1]).abs().mean((0, 1))
    columns = torch.arange(1, original.shape[2])
    seams = columns % TILE == 0
    return float(jumps[seams].mean() / jumps[(columns % 16 == 0) & ~seams].mean())


def test_no_seam_shows(codec: Codec, photograph: Tensor, tiled: bytes) -> None:
    assert seam_ratio(photograph, codec.decompress(tiled)) < 1.15
    apart = [codec.decompress(codec.compress([photograph[:, :, left : left + TILE]], 60)[0]) for left in range(0, 450, TILE)]
    assert seam_ratio(photograph, torch.cat(apart, 2)) > 1.25  # what it would be without the latents around a tile


def test_a_smooth_sky_has_no_seam(codec: Codec) -> None:
    rows, columns = torch.meshgrid(torch.linspace(90, 200, 256), torch.linspace(0, 30, 400), indexing="ij")
    sky = torch.stack([rows + columns, rows, rows / 2 + 100]).round().to(torch.uint8)
    restored = codec.decompress(codec.compress([sky], 40, tile_size=TILE)[0]).float()
    steps = (restored[:, :, 1:] - restored[:, :, :-1]).abs().mean((0, 1))
    assert float(steps[TILE - 1 :: TILE].max()) < 1.0  # levels


@pytest.mark.parametrize(
    "region",
    [(0, 0, 450, 300), (0, 0, 1, 1), (449, 299, 1, 1), (127, 127, 2, 2), (130, 10, 100, 90), (60, 200, 300, 99)],
    ids=str,
)
def test_a_region_is_what_the_whole_has_there(
    codec: Codec, photograph: Tensor, tiled: bytes, region: tuple[int, int, int, int]
) -> None:
    left, top, width, height = region
    for data in (tiled, codec.compress([photograph], 60)[0]):
        part = codec.decompress(data, region=region).int()
        whole = codec.decompress(data)[:, top : top + height, left : left + width].int()
        assert part.shape == (3, height, width)
        assert int((part - whole).abs().max()) <= 1


def test_a_region_needs_only_the_tiles_around_it(codec: Codec, tiled: bytes) -> None:
    damaged = bytearray(tiled)
    damaged[-10] ^= 1  # in the last tile
    restored = codec.decode([bytes(damaged)], region=(0, 0, 50, 50), allow_partial=True)[0]
    whole = codec.decompress(tiled, region=(0, 0, 50, 50))
    assert np.array_equal(restored.picture.pixels, whole.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("region", [(0, 0, 451, 10), (-1, 0, 5, 5), (0, 0, 0, 5), (400, 0, 51, 5), (0, 300, 5, 5)], ids=str)
def test_a_region_outside_is_refused(codec: Codec, tiled: bytes, region: tuple[int, int, int, int]) -> None:
    with pytest.raises(errors.UsageError, match="450 x 300"):
        codec.decompress(tiled, region=region)


def test_a_bad_tile_is_one_bad_tile(codec: Codec, tiled: bytes) -> None:
    contents = unpack(tiled)
    start = contents.header.payload_start + sum(entry.length for entry in contents.front.entries[:5])
    damaged = bytearray(tiled)
    damaged[start + 4] ^= 0x10
    with pytest.raises(errors.Corrupt, match=r"tile 5 \(of 12\)"):
        codec.decompress(bytes(damaged))
    restored = codec.decode([bytes(damaged)], allow_partial=True)[0]
    assert len(restored.lost) == 1
    assert "tile 5" in restored.lost[0]
    pixels, whole = torch.from_numpy(restored.picture.pixels).permute(2, 0, 1).int(), codec.decompress(tiled).int()
    tile = contents.header.grid[5]
    assert (pixels[(..., *tile.slices)] == 128).all()
    outside = torch.ones(300, 450, dtype=torch.bool)
    outside[tile.slices] = False
    near = outside.clone()
    far = tile.grown(64, contents.header.grid.bounds)
    near[far.slices] = False
    assert torch.equal(pixels[:, near], whole[:, near])
    assert psnr(pixels[:, outside], whole[:, outside]) > 35


def test_a_desynchronised_tile_is_not_painted(codec: Codec, tiled: bytes) -> None:
    """Its checksums hold, but it is the payload of another tile."""
    from vaetools.codec.container import pack

    contents = unpack(tiled)
    entries = contents.front.entries
    tiles = [(payload or b"", entry.symbols_crc) for payload, entry in zip(contents.payloads, entries, strict=True)]
    tiles[1] = (tiles[0][0], tiles[1][1])
    restored = codec.decode([pack(contents.header, {}, tiles)], allow_partial=True)[0]
    assert [lost[:6] for lost in restored.lost] == ["tile 1"]


def test_what_came_of_a_broken_download_is_shown(codec: Codec, tiled: bytes) -> None:
    half = tiled[: len(tiled) // 2]
    with pytest.raises(errors.Truncated):
        codec.decompress(half)
    restored = codec.decode([half], allow_partial=True)[0]
    assert 4 <= len(restored.lost) <= 8
    first = codec.decompress(tiled, region=(0, 0, 60, 60)).permute(1, 2, 0).numpy()
    assert np.array_equal(restored.picture.pixels[:60, :60], first)


def test_without_its_header_nothing_is_left(codec: Codec, tiled: bytes) -> None:
    for damaged in (MAGIC, tiled[:100], tiled[:20] + b"\x00\x00\x00\x01" + tiled[24:]):
        with pytest.raises(errors.FormatError):
            codec.decode([damaged], allow_partial=True)


@pytest.mark.parametrize("tile_size", [0, 100, 63, 2048, -64])
def test_wrong_tile_sizes_are_named(codec: Codec, photograph: Tensor, tile_size: int) -> None:
    with pytest.raises(errors.UsageError, match="multiple of 64 from 64 to 1024"):
        codec.compress([photograph], tile_size=tile_size)


@pytest.mark.slow
def test_a_hundred_megapixels_stay_below_two_gibibytes() -> None:
    done = subprocess.run([sys.executable, "scripts/bench-memory", "--megapixels", "100"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
