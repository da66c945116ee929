"""Latents that were worked on: smaller files for the same error, that are files like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner
from torch import Tensor

from vaetools import Codec
from vaetools.cli import main
from vaetools.codec.container import unpack
from vaetools.errors import UsageError
from vaetools.images.tensors import to_picture
from vaetools.images.write import save_picture
from vaetools.model.vae import quality_lambda


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load("photo", "cpu")


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    """(3, 90, 120) uint8: no multiple of the stride."""
    return torch.from_numpy(skimage.data.chelsea()[90:180, 100:220].copy()).permute(2, 0, 1)


@pytest.fixture(scope="module")
def plain(codec: Codec, photograph: Tensor) -> bytes:
    return codec.compress([photograph], 60)[0]


@pytest.fixture(scope="module")
def refined(codec: Codec, photograph: Tensor) -> bytes:
    return codec.compress([photograph], 60, effort=3)[0]


def cost(codec: Codec, image: Tensor, data: bytes, quality: float = 60) -> float:
    """Bits per pixel, and the error in bits per pixel."""
    error = float(((codec.decompress(data).float() - image.float()) ** 2).mean())
    weight = float(quality_lambda(torch.tensor(quality / 100), codec.model.vae.config.quality_lambdas))
    return 8 * len(data) / (image.shape[1] * image.shape[2]) + weight * error


def test_it_is_worth_it(codec: Codec, photograph: Tensor, plain: bytes, refined: bytes) -> None:
    assert cost(codec, photograph, refined) < 0.99 * cost(codec, photograph, plain)
    assert unpack(refined).header.quality == 60


def test_what_is_written_decodes(codec: Codec, photograph: Tensor, refined: bytes) -> None:
    assert codec.check(refined, to_picture(photograph, 8)) > 30


def test_without_effort_nothing_changes(codec: Codec, photograph: Tensor, plain: bytes) -> None:
    assert codec.compress([photograph], 60, effort=0)[0] == plain


def test_the_same_bytes_again(codec: Codec, photograph: Tensor) -> None:
    other = photograph.flip(2)
    alone = codec.compress([photograph], 30, effort=1)[0]
    assert codec.compress([photograph], 30, effort=1)[0] == alone
    assert len(codec.compress([other, photograph], 30, effort=1)[1]) == pytest.approx(len(alone), rel=0.01)


def test_tiles(codec: Codec) -> None:
    image = torch.from_numpy(skimage.data.chelsea()[90:154, 100:260].copy()).permute(2, 0, 1)
    plain, refined = (codec.compress([image], 60, tile_size=64, effort=effort)[0] for effort in (0, 1))
    assert unpack(refined).header.tiles > 1
    assert cost(codec, image, refined) < cost(codec, image, plain)


@pytest.mark.parametrize("image", [np.zeros((20, 30), np.uint8), np.full((1, 1, 3), 77, np.uint8)], ids=["black", "one pixel"])
def test_images_with_nothing_to_gain(codec: Codec, image: np.ndarray) -> None:
    x = torch.from_numpy(image if image.ndim == 3 else image[:, :, None]).permute(2, 0, 1)
    assert codec.decompress(codec.compress([x], 60, effort=1)[0]).shape == x.shape


def test_a_target_is_still_kept(codec: Codec, photograph: Tensor) -> None:
    from vaetools.codec.rate import Rate

    target = Rate("size", 1200)
    data = codec.compress([photograph], rate=target, effort=1)[0]
    assert 1176 <= len(data) <= 1200


def test_in_inference_mode(photograph: Tensor) -> None:
    fresh, image = Codec.load("photo", "cpu"), photograph[:, :32, :32]  # what works on the latents is made when it is asked for
    with torch.inference_mode():
        inside = fresh.compress([image], effort=1)
    assert inside == fresh.compress([image], effort=1)


@pytest.mark.parametrize("effort", [-1, 11, 1.5, 1.0])
def test_other_efforts_are_refused(codec: Codec, photograph: Tensor, effort: int) -> None:
    with pytest.raises(UsageError, match="effort must be a whole number from 0 to 10"):
        codec.compress([photograph], effort=effort)


def test_the_command(tmp_path: Path, codec: Codec, photograph: Tensor) -> None:
    source, target = tmp_path / "photographs", tmp_path / "compressed"
    source.mkdir()
    save_picture(source / "cat.png", to_picture(photograph, 8), "png")
    command = ["compress", str(source), "-o", str(target), "--quality", "60"]
    for options in (["--effort", "1"], ["--on-exists", "overwrite"], ["--on-exists", "overwrite", "--effort", "1"]):
        result = CliRunner().invoke(main, [*command, *options])
        assert result.exit_code == 0, result.output
        assert "1 images compressed" in result.output  # another effort is another file
    assert (target / "cat.png.vtc").stat().st_size < len(codec.compress([photograph], 60)[0])
