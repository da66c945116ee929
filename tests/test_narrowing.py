"""Networks whose blocks are made narrower: what goes, what makes up for it, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from vaetools import Codec
from vaetools.cli import main
from vaetools.errors import ModelError
from vaetools.model.blocks import ResidualBlock
from vaetools.model.config import ModelConfig
from vaetools.model.distributions import Noise
from vaetools.model.vae import VAE
from vaetools.model.weights import load_weights
from vaetools.training.data import ImageCache
from vaetools.training.loop import train
from vaetools.training.narrowing import Layer, listen, narrow
from vaetools.training.objective import rate_distortion
from vaetools.training.settings import TrainingSettings

from .conftest import photo_batch, tiny

CONFIG = tiny(width=32, inner_width=32)
SOME = 0.1  # of the arithmetic


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def weights(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec that was trained for seconds."""
    settings = TrainingSettings(epochs=1, steps_per_epoch=100, batch=4, crops=((0.0, 32),))
    found = train(photo_folder, tmp_path_factory.mktemp("run"), CONFIG, settings, device="cpu")
    assert found is not None
    return found


@pytest.fixture
def given(weights: Path) -> VAE:
    return load_weights(weights).vae


@pytest.fixture(scope="module")
def cache(photo_folder: Path) -> ImageCache:
    return ImageCache.load(photo_folder, CONFIG, 1 << 30)


def blocks_of(vae: VAE) -> list[ResidualBlock]:
    return [module for module in vae.modules() if isinstance(module, ResidualBlock)]


def share_of(gated: int) -> float:
    """Of the arithmetic of blocks of 32 channels, what so many of those take that they gate."""
    return gated * (2 * 32 + 32) / (32 * (32 + 9 + 32) + 64 * (2 * 32 + 32)) + 1e-6


def restored(vae: VAE) -> Tensor:
    with torch.inference_mode():
        images, quality = photo_batch(64), torch.tensor([0.3, 0.9])
        return vae.decode(vae.encode(images, quality).y.mean, quality)


def loss(vae: VAE) -> float:
    images, quality = photo_batch(64, 8), torch.linspace(0, 1, 8)
    with torch.inference_mode():
        outcome = vae(images, quality, Noise(torch.Generator().manual_seed(0)))
    return float(rate_distortion(images, outcome, quality, vae.config.quality_lambdas).loss)


def test_arithmetic_goes_and_what_the_network_does_stays(given: VAE, cache: ImageCache) -> None:
    before = {name: parameter.clone() for name, parameter in given.named_parameters()}
    narrowed = narrow(given, SOME, cache, 0)
    assert sum(p.numel() for p in narrowed.parameters()) < sum(p.numel() for p in given.parameters())
    assert loss(narrowed) < 1.02 * loss(given)
    assert all(torch.equal(parameter, before[name]) for name, parameter in given.named_parameters())


def test_more_goes_for_a_larger_share(given: VAE, cache: ImageCache) -> None:
    sizes = [sum(p.numel() for p in narrow(given, share, cache, 0).parameters()) for share in (0.05, 0.2, 0.4)]
    assert sizes == sorted(sizes, reverse=True)
    assert len({*sizes}) == 3


def test_channels_that_say_nothing_go_first(given: VAE, cache: ImageCache) -> None:
    silent = torch.arange(64) % 4 == 1
    with torch.no_grad():
        for block in blocks_of(given):
            for layer in (block.gate_out, block.mix_out):
                layer.weight.add_(torch.randn_like(layer.weight) * 0.05)
            block.gate_out.weight[:, silent] = 0
    narrowed = narrow(given, share_of(16), cache, 0)
    for before, after in zip(blocks_of(given), blocks_of(narrowed), strict=True):
        assert torch.equal(after.gate_in.weight, before.gate_in.weight[torch.cat([~silent, ~silent])])
        assert torch.equal(after.mix_in.weight, before.mix_in.weight)
    assert torch.allclose(restored(narrowed), restored(given), atol=2e-3)


def test_those_that_stay_speak_for_those_that_go(given: VAE, cache: ImageCache) -> None:
    """Half of the channels say what the other half says, more quietly: nothing is lost with them."""
    block = blocks_of(given)[-1]
    with torch.no_grad():
        for part in (block.mix_in, block.mix_space):
            for parameter in part.parameters():
                parameter[16:] = parameter[:16]
        loud = torch.randn_like(block.mix_out.weight[:, :16])
        block.mix_out.weight.copy_(torch.cat([loud, loud / 5], 1))
    expected = restored(given)
    layer = Layer(block.mix_out, cost=1)
    listen([layer], given.requires_grad_(True), cache, 0)
    channels, weight, bias = layer.keep(16)
    assert sum(channel < 16 for channel in channels.tolist()) > 12
    with torch.no_grad():
        others = torch.ones(32).index_fill(0, channels, 0).bool()
        block.mix_out.weight[:, others] = 0
        unfitted = (restored(given) - expected).square().mean()
        block.mix_out.weight[:, channels] = weight
        block.mix_out.bias.copy_(bias)  # type: ignore[union-attr]
    assert (restored(given) - expected).square().mean() < 0.3 * unfitted


def test_train_makes_a_model_narrower(weights: Path, photo_folder: Path, tmp_path: Path) -> None:
    options = ("--narrow", 0.3, "--activation", "hardswish", "--epochs", 1, "--steps-per-epoch", 2, "--batch", 2)
    done = run("train", photo_folder, "--out", tmp_path, "--start-from", weights, *options)
    assert done.exit_code == 0, done.output
    codec = Codec.load(tmp_path, "cpu")
    config = codec.config
    assert isinstance(config, ModelConfig)
    assert config.activation == "hardswish"
    assert config.block_widths
    image = (photo_batch(64, 1)[0] * 255).byte()
    restored = codec.decompress(codec.compress([image], quality=100))[0]
    assert (restored.float() - image.float()).abs().mean() < 30
    more = run("train", photo_folder, "--out", tmp_path, "--resume", "--epochs", 2)
    assert more.exit_code == 0, more.output
    again = run("train", photo_folder, "--out", tmp_path / "more", "--start-from", tmp_path, "--latents", 12, *options)
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--narrow", 0.2), "--narrow is for --start-from", id="without-a-model"),
        pytest.param(("--narrow", 0.2, "--resume"), "fixed once a run has started", id="resumed"),
        pytest.param(("--activation", "silu", "--resume"), "fixed once a run has started", id="activation-resumed"),
        pytest.param(("--narrow", 0), "'--narrow'", id="nothing"),
        pytest.param(("--narrow", 1), "'--narrow'", id="everything"),
        pytest.param(("--activation", "relu"), "'--activation'", id="unknown-activation"),
    ],
)
def test_impossible_options_are_refused(photo_folder: Path, tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    done = run("train", photo_folder, "--out", tmp_path / "run", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_widths_survive_a_config_file() -> None:
    config = replace(CONFIG, activation="hardswish", block_widths=(("context", ((16, 48),)), ("decoder_outer", ((8, 1),))))
    assert ModelConfig.from_json(config.to_json()) == config
    assert config.widths("context") == ((16, 48),)
    assert config.widths("hyper_decoder") == ((32, 64), (32, 64))


@pytest.mark.parametrize(
    "widths",
    [
        pytest.param((("middle", ((16, 16),)),), id="unknown-stack"),
        pytest.param((("context", ((16, 16), (16, 16))),), id="too-many-blocks"),
        pytest.param((("context", ()),), id="too-few-blocks"),
        pytest.param((("context", ((33, 16),)),), id="wider-than-the-block"),
        pytest.param((("context", ((16, 65),)),), id="more-gated-than-twice"),
        pytest.param((("context", ((0, 16),)),), id="nothing-left"),
        pytest.param((("context", ((16.0, 16),)),), id="no-whole-number"),
        pytest.param((("context", ((16,),)),), id="no-pair"),
        pytest.param((3,), id="no-name"),
        pytest.param(None, id="none"),
    ],
)
def test_impossible_widths_are_refused(widths: Any) -> None:
    with pytest.raises(ModelError, match="config: block_widths"):
        replace(CONFIG, block_widths=widths)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ModelError, match="config: activation must be one of silu, hardswish, not 'relu'"):
        replace(CONFIG, activation="relu")
