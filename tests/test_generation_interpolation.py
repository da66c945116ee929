"""From one image to another, and pictures of many images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaetools.errors import UsageError
from vaetools.generation.grid import animation, tile
from vaetools.generation.interpolation import _Path, interpolate
from vaetools.model.space import Latents, LatentSpace
from vaetools.model.vae import VAE
from vaetools.model.weights import load_weights, save_weights

from .augment_models import photographs, tiny_weights
from .conftest import tiny


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> LatentSpace:
    return LatentSpace(load_weights(tiny_weights(tmp_path_factory.mktemp("weights"))), "cpu")


def of_kind(folder: Path, posterior: str, **changes: object) -> LatentSpace:
    return LatentSpace(load_weights(save_weights(VAE(tiny(posterior, **changes)), None, folder)), "cpu")


def test_with_detail_the_ends_are_the_images_themselves(space: LatentSpace) -> None:
    a, b = photographs(2)
    images = interpolate(space, a, b, 5, detail=True)
    assert len(images) == 5
    assert torch.equal(images[0], a)
    assert torch.equal(images[-1], b)


def test_without_detail_the_ends_are_reconstructions(space: LatentSpace) -> None:
    a, b = photographs(2)
    images = interpolate(space, a, b, 3, detail=False)
    expected = space.decode(space.encode(a[None].float() / 255).y, 16, 16)[0].clamp(0, 1) * 255
    assert (images[0].float() - expected).abs().max() <= 0.51
    assert not torch.equal(images[0], a)


def test_a_small_step_changes_little_and_images_follow_one_another(space: LatentSpace) -> None:
    a, b = (image.float() / 255 for image in photographs(2))
    images = torch.stack(interpolate(space, a, b, 9, detail=False)).float()
    to_first, to_last = ((images - end).square().mean((1, 2, 3)) for end in (images[0], images[-1]))
    assert bool((to_first[:3] < to_last[:3]).all())
    assert bool((to_first[6:] > to_last[6:]).all())
    steps = (images[1:] - images[:-1]).square().mean((1, 2, 3))
    assert steps.max() < 0.3 * to_first[-1]


def test_what_is_between_keeps_the_contrast_that_the_prior_wants(space: LatentSpace) -> None:
    x = torch.stack([image.float() / 255 for image in photographs(2)])
    path = _Path(space, x[:1], x[1:])
    middle = Latents(path.at(0.5), torch.lerp(path.ends[0].z, path.ends[1].z, 0.5))
    given = space.conditional(middle)
    found = (middle.y - given.mean) / given.scale
    assert torch.allclose(found, (path.noise[0] + path.noise[1]) / 2**0.5, atol=0.05)


def test_the_number_of_steps_does_not_change_the_middle(space: LatentSpace) -> None:
    a, b = photographs(2)
    assert torch.equal(interpolate(space, a, b, 3)[1], interpolate(space, a, b, 9)[4])


@pytest.mark.parametrize(("posterior", "kept"), [("uniform", True), ("gaussian", False)])
def test_detail_is_kept_by_default_with_models_for_photographs(posterior: str, kept: bool, tmp_path: Path) -> None:
    a, b = photographs(2)
    assert torch.equal(interpolate(of_kind(tmp_path, posterior), a, b, 2)[0], a) == kept


def test_images_of_16_bits(tmp_path: Path) -> None:
    deep = of_kind(tmp_path, "uniform", image_channels=1, bit_depth=16)
    a, b = (torch.randint(0, 65536, (1, 16, 16), dtype=torch.int32).to(torch.uint16) for _ in range(2))
    images = interpolate(deep, a, b, 3, detail=True)
    assert images[0].dtype == torch.uint16
    assert torch.equal(images[0].int(), a.int())


def test_two_sizes_need_one(space: LatentSpace) -> None:
    a, b = photographs(1)[0], photographs(1, side=24)[0]
    with pytest.raises(UsageError, match="16 x 16 and 24 x 24 pixels: bring both to one with --size 16x16"):
        interpolate(space, a, b, 3)
    assert interpolate(space, a, b, 3, size=(20, 12))[1].shape == (3, 20, 12)


def test_one_step_is_no_way(space: LatentSpace) -> None:
    a, b = photographs(2)
    with pytest.raises(UsageError, match="from 2, which are the ends"):
        interpolate(space, a, b, 1)


def test_a_grid_puts_images_row_by_row() -> None:
    images = [np.full((4, 6, 1), value, np.uint16) for value in (100, 200, 300)]
    grid = tile(images, columns=2)
    assert grid.shape == (10, 14, 1)
    assert (grid[0, 0, 0], grid[0, 8, 0], grid[6, 0, 0], grid[6, 8, 0], grid[4, 0, 0]) == (100, 200, 300, 65535, 65535)


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_animations_go_once_or_there_and_back(suffix: str) -> None:
    images = [np.full((8, 8, 3), value, np.uint8) for value in (0, 80, 160, 240)]
    for loop, frames in ((False, 4), (True, 6)):
        read = Image.open(io.BytesIO(animation(images, suffix, milliseconds=50, loop=loop)))
        assert read.n_frames == frames  # type: ignore[attr-defined]
        assert (read.info.get("loop", 1) == 0) == loop
        read.seek(2)
        assert read.convert("RGB").getpixel((3, 3)) == (160, 160, 160)
        assert read.info["duration"] == 50


def test_an_animation_of_16_bit_images_has_8() -> None:
    images = [np.full((8, 8, 1), value, np.uint16) for value in (0, 40000)]
    read = Image.open(io.BytesIO(animation(images, ".webp", milliseconds=50, loop=False)))
    read.seek(1)
    assert read.convert("L").getpixel((0, 0)) == pytest.approx(40000 / 257, abs=2)


def test_an_animation_too_wide_for_webp_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 16383 pixels"):
        animation([np.zeros((1, 16384, 1), np.uint8)] * 2, ".webp", milliseconds=50, loop=False)
