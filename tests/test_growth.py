"""Networks that are given more latents: what stays, what is gained, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from vaetools import Codec
from vaetools.cli import main
from vaetools.errors import UsageError
from vaetools.model.quantiser import to_images, to_symbols
from vaetools.model.vae import VAE
from vaetools.model.weights import load_weights
from vaetools.training.data import ImageCache
from vaetools.training.growth import check_growth, grow, kept_and_added
from vaetools.training.loop import train
from vaetools.training.settings import TrainingSettings

from .conftest import photo_batch, tiny

BEFORE, AFTER = 8, 20


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def weights(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec that was trained for seconds."""
    settings = TrainingSettings(epochs=1, steps_per_epoch=150, batch=4, crops=((0.0, 32),))
    found = train(photo_folder, tmp_path_factory.mktemp("run"), tiny(), settings, device="cpu")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def given(weights: Path) -> VAE:
    return load_weights(weights).vae


@pytest.fixture(scope="module")
def grown(given: VAE, photo_folder: Path) -> VAE:
    return grow(given, AFTER, ImageCache.load(photo_folder, given.config, 1 << 30), 0)


def test_the_given_latents_stay_what_they_are(given: VAE, grown: VAE) -> None:
    images, quality, sides = photo_batch(64), torch.tensor([0.1, 0.9]), torch.tensor([64, 64])
    old = to_symbols(given, images, quality, sides, sides, bfloat16=False)
    new = to_symbols(grown, images, quality, sides, sides, bfloat16=False)
    kept, added = kept_and_added(BEFORE, AFTER)
    assert torch.equal(new.z, old.z)
    assert torch.equal(new.residuals[:, kept], old.residuals)
    assert torch.equal(new.index[:, kept], old.index)
    without = new.latents.clone()
    without[:, added] = 0
    expected = to_images(given, old.latents, quality, bfloat16=False)
    assert torch.allclose(to_images(grown, without, quality, bfloat16=False), expected, atol=1e-4)


def test_the_new_ones_say_what_was_left_out(given: VAE, grown: VAE) -> None:
    images, quality, sides = photo_batch(64, 4), torch.ones(4), torch.full((4,), 64)

    def error(vae: VAE) -> float:
        latents = to_symbols(vae, images, quality, sides, sides, bfloat16=False).latents
        return float(((to_images(vae, latents, quality, bfloat16=False) - images) ** 2).mean())

    assert error(grown) < 0.8 * error(given)


@pytest.mark.parametrize(("before", "after"), [(8, 10), (8, 12), (10, 14), (160, 256)])
def test_each_half_stays_a_half(before: int, after: int) -> None:
    kept, added = kept_and_added(before, after)
    assert sorted(torch.cat([kept, added]).tolist()) == list(range(after))
    assert int((kept < after // 2).sum()) == before // 2


def test_train_gives_a_model_more_latents(weights: Path, photo_folder: Path, tmp_path: Path) -> None:
    quick = ("--epochs", 1, "--steps-per-epoch", 2, "--batch", 2)
    done = run("train", photo_folder, "--out", tmp_path, "--start-from", weights, "--latents", AFTER, *quick)
    assert done.exit_code == 0, done.output
    codec = Codec.load(tmp_path, "cpu")
    assert codec.config.latent_channels == AFTER
    image = (photo_batch(64, 1)[0] * 255).byte()
    restored = codec.decompress(codec.compress([image], quality=100))[0]
    assert (restored.float() - image.float()).abs().mean() < 30
    more = run("train", photo_folder, "--out", tmp_path, "--resume", "--epochs", 2)
    assert more.exit_code == 0, more.output


def test_another_range_starts_with_what_the_model_does(given: VAE, weights: Path, photo_folder: Path, tmp_path: Path) -> None:
    low, high = given.config.quality_lambdas
    middle = (low * high) ** 0.5
    options = ("--epochs", 1, "--steps-per-epoch", 1, "--batch", 2, "--learning-rate", 1e-9, "--quality-range", low, middle)
    done = run("train", photo_folder, "--out", tmp_path, "--start-from", weights, *options)
    assert done.exit_code == 0, done.output
    tuned = load_weights(next(tmp_path.glob("*.safetensors"))).vae
    assert tuned.config.quality_lambdas == (low, middle)
    for before, after in ((0.0, 0.0), (0.5, 1.0)):
        expected, found = (vae.gain_y(torch.tensor([at])) for vae, at in ((given, before), (tuned, after)))
        assert torch.allclose(found, expected, rtol=0.02)


@pytest.mark.parametrize("count", [BEFORE, BEFORE - 2, BEFORE + 1, BEFORE + 50])
def test_impossible_numbers_are_refused(weights: Path, photo_folder: Path, tmp_path: Path, count: int) -> None:
    done = run("train", photo_folder, "--out", tmp_path / "run", "--start-from", weights, "--latents", count)
    assert done.exit_code == 2
    assert f"the model has {BEFORE} latents: it can get an even number above that, up to {BEFORE + 48}" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_gaussian_posterior_is_refused() -> None:
    with pytest.raises(UsageError, match="the model has a gaussian posterior"):
        check_growth(tiny("gaussian"), AFTER)


def test_a_denoiser_is_refused() -> None:
    with pytest.raises(UsageError, match="the model is a denoiser"):
        check_growth(tiny(noise=(75.0, 5.0)), AFTER)


def test_gray_models_get_no_more_than_their_patches_have(gray16_folder: Path) -> None:
    given = VAE(tiny(image_channels=1, bit_depth=16)).eval()
    most = BEFORE + 4 * 4
    cache = ImageCache.load(gray16_folder, given.config, 1 << 30)
    assert grow(given, most, cache, 0).config.latent_channels == most
    with pytest.raises(UsageError, match=f"up to {most}"):
        check_growth(given.config, most + 2)


def test_latents_need_a_model_to_start_from(photo_folder: Path, tmp_path: Path) -> None:
    done = run("train", photo_folder, "--out", tmp_path / "run", "--latents", AFTER)
    assert done.exit_code == 2
    assert "--latents is for --start-from" in done.stderr
