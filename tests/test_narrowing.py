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
from vaetools.errors import ModelError, UsageError
from vaetools.model import blocks, packed
from vaetools.model.blocks import ResidualBlock
from vaetools.model.config import ACTIVATIONS, ModelConfig, preset
from vaetools.model.distributions import Noise
from vaetools.model.vae import VAE
from vaetools.model.weights import load_weights
from vaetools.training.data import CropSampler, ImageCache
from vaetools.training.loop import train
from vaetools.training.narrowing import Layer, Narrowing, listen, narrow
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
def sampler(photo_folder: Path) -> CropSampler:
    return CropSampler(ImageCache.load(photo_folder, CONFIG, 1 << 30), 0)


def blocks_of(vae: VAE) -> list[ResidualBlock]:
    return [module for module in vae.modules() if isinstance(module, ResidualBlock)]


def share_of(mixed: int, gated: int) -> float:
    """Of the arithmetic of blocks of 32 channels, what so many of theirs take."""
    return (mixed * (32 + 9 + 32) + gated * (2 * 32 + 32)) / (32 * (32 + 9 + 32) + 64 * (2 * 32 + 32)) + 1e-6


def restored(vae: VAE) -> Tensor:
    with torch.inference_mode():
        images, quality = photo_batch(64), torch.tensor([0.3, 0.9])
        return vae.decode(vae.encode(images, quality).y.mean, quality)


def loss(vae: VAE) -> float:
    images, quality = photo_batch(64, 8), torch.linspace(0, 1, 8)
    with torch.inference_mode():
        outcome = vae(images, quality, Noise(torch.Generator().manual_seed(0)))
    return float(rate_distortion(images, outcome, quality, vae.config.quality_lambdas).loss)


def arithmetic(vae: VAE) -> int:
    """Of the blocks, for an image of 64 x 64 pixels."""
    total = 0

    def count(layer: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, torch.nn.Conv2d)
        total += output[0].numel() * layer.weight[0].numel()

    for block in blocks_of(vae):
        for layer in block.children():
            layer.register_forward_hook(count)
    with torch.inference_mode():
        vae(photo_batch(64, 1), torch.tensor([0.5]), Noise(torch.Generator().manual_seed(0)))
    return total


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_so_much_arithmetic_goes_and_the_network_still_does_what_it_did(given: VAE, sampler: CropSampler, share: float) -> None:
    before = {name: parameter.clone() for name, parameter in given.named_parameters()}
    narrowed, gone = narrow(given, Narrowing(share), sampler)
    assert 0.8 * share < gone <= share
    assert loss(narrowed) < (1 + share / 2) * loss(given)
    assert arithmetic(narrowed) == pytest.approx((1 - gone) * arithmetic(given))
    assert all(torch.equal(parameter, before[name]) for name, parameter in given.named_parameters())
    for new, old in zip(blocks_of(narrowed), blocks_of(given), strict=True):
        for name in ("mix_out", "gate_out"):
            one, other = new.get_submodule(name), old.get_submodule(name)
            if one.weight.shape == other.weight.shape:  # type: ignore[union-attr]
                assert torch.equal(one.weight, other.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("half", ["mix_out", "gate_out"])
def test_channels_that_say_nothing_go_first(given: VAE, sampler: CropSampler, half: str) -> None:
    size = 32 if half == "mix_out" else 64
    silent = torch.arange(size) % (size // 16) == 1
    with torch.no_grad():
        for block in blocks_of(given):
            for layer in (block.gate_out, block.mix_out):
                layer.weight.add_(torch.randn_like(layer.weight) * 0.05)
            block.get_submodule(half).weight[:, silent] = 0  # type: ignore[operator, index]
    narrowed, _ = narrow(given, Narrowing(share_of(16 * (half == "mix_out"), 16 * (half == "gate_out"))), sampler)
    for before, after in zip(blocks_of(given), blocks_of(narrowed), strict=True):
        if half == "gate_out":
            assert torch.equal(after.gate_in.weight, before.gate_in.weight[torch.cat([~silent, ~silent])])
            assert torch.equal(after.mix_in.weight, before.mix_in.weight)
        else:
            assert torch.equal(after.mix_in.weight, before.mix_in.weight[~silent])
            assert torch.equal(after.mix_space.weight, before.mix_space.weight[~silent])
    assert torch.allclose(restored(narrowed), restored(given), atol=2e-3)


def test_those_that_stay_speak_for_those_that_go(given: VAE, sampler: CropSampler) -> None:
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
    listen([layer], given.requires_grad_(True), sampler)
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
    stacks = ("--narrow-in", "decoder_outer", "--narrow-in", "encoder_outer")
    done = run("train", photo_folder, "--out", tmp_path, "--start-from", weights, *options, *stacks)
    assert done.exit_code == 0, done.output
    codec = Codec.load(tmp_path, "cpu")
    config = codec.config
    assert isinstance(config, ModelConfig)
    assert config.activation == "hardswish"
    assert min(widths for _, pairs in config.block_widths for widths in pairs) < (32, 64)
    assert {stack for stack, _ in config.block_widths} <= {"decoder_outer", "encoder_outer"}
    assert "of their arithmetic goes" in done.stderr
    image = (photo_batch(64, 1)[0] * 255).byte()
    restored = codec.decompress(codec.compress([image], quality=100))[0]
    assert (restored.float() - image.float()).abs().mean() < 30
    more = run("train", photo_folder, "--out", tmp_path, "--resume", "--epochs", 2)
    assert more.exit_code == 0, more.output
    again = run("train", photo_folder, "--out", tmp_path / "more", "--start-from", tmp_path, "--latents", 12, *options)
    assert again.exit_code == 0, again.output
    grown = load_weights(next((tmp_path / "more").glob("*.safetensors"))).vae
    assert grown.config.latent_channels == 12
    assert min(widths for _, pairs in grown.config.block_widths for widths in pairs) < (32, 64)


def test_one_stack_is_made_narrower(given: VAE, sampler: CropSampler) -> None:
    one, gone = narrow(given, Narrowing(0.3, ("decoder_outer",)), sampler)
    assert [stack for stack, _ in one.config.block_widths] == ["decoder_outer"]
    assert 0.1 < gone <= 0.3
    assert 1 - arithmetic(one) / arithmetic(given) < gone, "of its own arithmetic, and not of all"
    two, _ = narrow(one, Narrowing(0.3, ("context",)), sampler)
    assert [stack for stack, _ in two.config.block_widths] == ["context", "decoder_outer"]
    assert two.config.widths("decoder_outer") == one.config.widths("decoder_outer")


def test_a_stack_that_is_not_there_is_named_before_anything_is_read(weights: Path, tmp_path: Path) -> None:
    narrower = ("--start-from", weights, "--narrow", 0.3, "--narrow-in", "decoder_outr")
    done = run("train", tmp_path / "no such folder", "--out", tmp_path, *narrower)
    assert done.exit_code == 2
    assert "the model has no blocks in 'decoder_outr': choose of encoder_outer, " in done.stderr


def test_a_denoiser_is_narrowed_for_what_it_will_do(weights: Path, photo_folder: Path, tmp_path: Path) -> None:
    options = ("--denoise", "--narrow", 0.3, "--epochs", 1, "--steps-per-epoch", 2, "--batch", 2)
    done = run("train", photo_folder, "--out", tmp_path, "--start-from", weights, *options)
    assert done.exit_code == 0, done.output
    config = load_weights(next(tmp_path.glob("*.safetensors"))).vae.config
    assert config.noise == (75.0, 5.0)
    assert config.block_widths


def test_too_small_a_share_is_refused(weights: Path, photo_folder: Path, tmp_path: Path) -> None:
    done = run("train", photo_folder, "--out", tmp_path, "--start-from", weights, "--narrow", 0.0001, "--epochs", 1)
    assert done.exit_code == 2
    assert "0.0% of the arithmetic in the model's blocks is less than 16 channels take: choose more" in done.stderr
    assert not list(tmp_path.glob("*.safetensors"))


def test_only_a_start_can_be_narrowed(photo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="when a training starts from a model"):
        train(photo_folder, tmp_path, CONFIG, TrainingSettings(epochs=1), narrowing=Narrowing(0.2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--narrow", 0.2), "--narrow is for --start-from", id="without-a-model"),
        pytest.param(("--narrow-in", "context"), "--narrow-in is for --narrow", id="stack-without-a-share"),
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
        pytest.param((("middle", ()),), id="unknown-stack-of-nothing"),
        pytest.param(((3, ()), ("context", ((16, 16),))), id="number-for-a-name"),
        pytest.param((("context", ((16, 16),)), ("context", ((8, 8),))), id="twice"),
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


def test_full_widths_are_no_widths() -> None:
    assert replace(CONFIG, block_widths=(("context", ((32, 64),)),)) == CONFIG


@pytest.mark.parametrize("change", [{"width": 320}, {"inner_width": 64}, {"encoder_blocks": (1, 1)}, {"decoder_blocks": (5, 3)}])
def test_a_preset_of_another_shape_has_full_blocks(change: dict[str, Any]) -> None:
    assert preset("photo").block_widths
    assert not preset("photo", **change).block_widths
    widths = (("context", ((8, 8),)),)
    assert preset("photo", block_widths=widths, **change).block_widths == widths


def test_each_activation_has_a_function_and_a_name() -> None:
    assert {*ACTIVATIONS} == {*blocks.ACTIVATIONS} == {*packed.NAMES}


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ModelError, match="config: activation must be one of silu, hardswish, not 'relu'"):
        replace(CONFIG, activation="relu")
