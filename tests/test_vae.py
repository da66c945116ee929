"""The network and its config."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from types import NoneType

import pytest
import torch
from torch import Tensor

from vaetools.errors import ModelError, UsageError
from vaetools.model import quantiser
from vaetools.model.blocks import QualityGain
from vaetools.model.config import PRESETS, ModelConfig, preset
from vaetools.model.distributions import Noise
from vaetools.model.precision import autocast, compute_exactly, has_bfloat16, pick_device
from vaetools.model.quantiser import first_pass, is_lost, prepare_for_inference, second_pass, to_images, to_symbols
from vaetools.model.vae import VAE, first_pass_mask, quality_lambda
from vaetools.training.data import ImageCache, patch_basis

from .conftest import photo_batch, tiny

posteriors = pytest.mark.parametrize("posterior", ["uniform", "gaussian"])


def noise(seed: int = 0) -> Noise:
    return Noise(torch.Generator().manual_seed(seed))


def psnr(images: Tensor, reconstruction: Tensor) -> float:
    return -10 * math.log10(((images - reconstruction.clamp(0, 1)) ** 2).mean().item())


@torch.inference_mode()
def coded(vae: VAE, images: Tensor, quality: float, *, bfloat16: bool = False) -> Tensor:
    """Through rounded latents and back, as a codec would."""
    q = torch.full((len(images),), quality)
    height, width = (torch.full((len(images),), side) for side in images.shape[-2:])
    symbols = to_symbols(vae, images, q, height, width, bfloat16=bfloat16)
    with autocast(images.device, bfloat16=bfloat16):
        second = second_pass(vae, first_pass(vae, symbols.z), symbols.residuals)
    return to_images(vae, second.mean + symbols.residuals, q, bfloat16=bfloat16)


def principal_components(folder: Path, config: ModelConfig) -> Tensor:
    return torch.from_numpy(patch_basis(ImageCache.load(folder, config, 1 << 30), config.latent_stride, seed=0, count=5000))


# The config.


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name: str) -> None:
    config = preset(name)
    assert ModelConfig.from_json(config.to_json()) == config
    assert hash(config) == hash(ModelConfig.from_json(config.to_json()))


def test_preset_takes_changes() -> None:
    assert preset("small", width=24).width == 24


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(ModelError, match="photo, small, gray16"):
        preset("foto")


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_channels": 7},
        {"latent_channels": 552},
        {"hyper_channels": 65},
        {"scale_width": 251},
        {"width": 0},
        {"width": -3},
        {"width": 2.5},
        {"width": "64"},
        {"width": True},
        {"width": 10**9},
        {"patch": None},
        {"image_channels": 0},
        {"bit_depth": 12},
        {"bit_depth": "8"},
        {"posterior": "laplace"},
        {"posterior": None},
        {"name": 5},
        {"name": "../escape"},
        {"name": ""},
        {"encoder_blocks": 3},
        {"encoder_blocks": [1]},
        {"encoder_blocks": [1, 2, 3]},
        {"encoder_blocks": ["a", "b"]},
        {"decoder_blocks": [-1, 1]},
        {"decoder_blocks": [10**9, 1]},
        {"quality_lambdas": [0.1, 0.001]},
        {"quality_lambdas": [0, 0.1]},
        {"quality_lambdas": [0.1]},
        {"quality_lambdas": ["a", "b"]},
        {"quality_lambdas": [0.1, float("inf")]},
        {"quality_lambdas": [float("nan"), 0.1]},
        {"quality_lambdas": None},
    ],
    ids=str,
)
def test_unusable_config_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(changes))):
        ModelConfig.from_json(json.dumps({**asdict(ModelConfig()), **changes}))


@pytest.mark.parametrize("text", ["", "[]", "3", '{"colour": 1}', "{"], ids=repr)
def test_text_that_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="config"):
        ModelConfig.from_json(text)


def test_unknown_key_says_that_the_model_is_newer() -> None:
    with pytest.raises(ModelError, match="unknown key depth"):
        ModelConfig.from_json('{"depth": 3}')


def test_config_is_frozen() -> None:
    assert ModelConfig.__dataclass_params__.frozen
    assert all(isinstance(getattr(ModelConfig(), field.name), (str, int, tuple, NoneType)) for field in fields(ModelConfig))


# The network.


@pytest.mark.parametrize("name", PRESETS)
def test_shapes_are_those_of_the_config(name: str) -> None:
    config = preset(name)
    vae = VAE(config).eval()
    height, width = config.hyper_stride, 2 * config.hyper_stride
    images, quality = torch.rand(1, config.image_channels, height, width), torch.tensor([0.5])
    with torch.no_grad():
        latents = vae.encode(images, quality)
        outcome = vae(images, quality, noise())
    assert latents.y.mean.shape == (1, config.latent_channels, height // config.latent_stride, width // config.latent_stride)
    assert latents.z.mean.shape == (1, config.hyper_channels, 1, 2)
    assert vae.decode(latents.y.mean, quality).shape == images.shape == outcome.reconstruction.shape
    assert outcome.kl_y.shape == outcome.kl_z.shape == outcome.kl.shape == (1,)


@posteriors
def test_divergences_are_positive_and_finite(posterior: str) -> None:
    outcome = VAE(tiny(posterior))(photo_batch(32), torch.tensor([0.0, 1.0]), noise())
    assert (outcome.kl_y > 0).all()
    assert (outcome.kl_z > 0).all()
    assert outcome.kl.isfinite().all()


@posteriors
def test_encode_gives_the_same_means_every_time(posterior: str) -> None:
    vae, images, quality = VAE(tiny(posterior)).eval(), photo_batch(32), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        first = vae.encode(images, quality)
        torch.manual_seed(99)
        second = vae.encode(images, quality)
    assert torch.equal(first.y.mean, second.y.mean)
    assert torch.equal(first.z.mean, second.z.mean)


def test_quality_is_per_sample() -> None:
    vae, images = VAE(tiny()).eval(), photo_batch(32)
    with torch.no_grad():
        both = vae.encode(images, torch.tensor([0.1, 0.8])).y.mean
        alone = vae.encode(images[1:], torch.tensor([0.8])).y.mean
    torch.testing.assert_close(both[1:], alone)


def test_higher_quality_takes_finer_steps() -> None:
    vae, images = VAE(tiny()).eval(), photo_batch(32, 1).expand(3, -1, -1, -1)
    with torch.no_grad():
        spread = vae.encode(images, torch.tensor([0.0, 0.5, 1.0])).y.mean.std((1, 2, 3))
    assert spread[0] < spread[1] < spread[2]


@posteriors
def test_samples_repeat_with_the_generator(posterior: str) -> None:
    vae, quality = VAE(tiny(posterior)).eval(), torch.full((2,), 0.5)
    first, again, other = (vae.sample(2, 32, 48, quality, noise(seed)) for seed in (3, 3, 4))
    assert first.shape == (2, 3, 32, 48)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@posteriors
def test_gradient_reaches_every_weight(posterior: str) -> None:
    vae = VAE(tiny(posterior))
    with torch.no_grad():
        for weight in vae.parameters():  # the branches that start at zero would hide what is before them
            weight.add_(torch.randn_like(weight), alpha=0.05)
        vae.gain_z.log_gain.add_(4)  # and hyper-latents that round to zero what is after them
    outcome = vae(photo_batch(32), torch.tensor([0.0, 0.6]), noise())
    (outcome.reconstruction.square().sum() + outcome.kl.sum()).backward()
    for name, weight in vae.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name


def test_fresh_residual_blocks_are_the_identity() -> None:
    block = VAE(tiny()).encoder_outer[2]
    x = torch.rand(1, 16, 4, 4)
    assert torch.equal(block(x), x)


def test_start_from_pca_reconstructs_a_photograph(photo_folder: Path) -> None:
    """Before any step: 22 dB from 16 of 48 components, against 12 dB from random weights."""
    images = photo_batch(64)
    vae = VAE(tiny(latent_channels=16, width=96, inner_width=64)).eval()
    random_start = psnr(images, coded(vae, images, 1.0))
    vae.start_from_pca(principal_components(photo_folder, vae.config))
    pca_start = psnr(images, coded(vae, images, 1.0))
    assert pca_start > 20
    assert pca_start > random_start + 8


@pytest.mark.parametrize(("height", "width"), [(33, 32), (32, 24), (8, 16), (0, 16)])
def test_sizes_that_are_no_multiple_are_refused(height: int, width: int) -> None:
    vae = VAE(tiny())
    with pytest.raises(UsageError, match=f"{height} x {width} pixels: pad both sides to multiples of 16"):
        vae.encode(torch.rand(1, 3, height, width), torch.tensor([0.5]))
    with pytest.raises(UsageError, match="multiples of 16"):
        vae.sample(1, height, width, torch.tensor([0.5]), noise())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 4)])
def test_first_pass_is_a_checkerboard_of_two_colours(height: int, width: int) -> None:
    mask = first_pass_mask(torch.zeros(2, 6, height, width))
    assert mask.shape == (1, 6, height, width)
    assert mask[0, 0, 0, 0] == 1
    assert torch.equal(mask[0, :3], 1 - mask[0, 3:])
    assert (mask[..., 1:] != mask[..., :-1]).all()


def test_the_second_pass_sees_nothing_but_the_first() -> None:
    vae = VAE(tiny()).eval()
    with torch.no_grad():
        vae.context[-1].weight.normal_()
        first = first_pass(vae, torch.ones(1, 4, 2, 2))
        residuals = torch.randint(-3, 4, (1, 8, 8, 8)).float()
        full, masked = second_pass(vae, first, residuals), second_pass(vae, first, residuals * first.mask)
    assert torch.equal(full.mean, masked.mean)
    assert torch.equal(full.index, masked.index)


def test_bfloat16_is_close_to_float32(photo_folder: Path) -> None:
    vae, images = VAE(tiny(latent_channels=16)).eval(), photo_batch(64)
    vae.start_from_pca(principal_components(photo_folder, vae.config))
    exact = coded(prepare_for_inference(copy.deepcopy(vae), torch.device("cpu"), bfloat16=False), images, 0.5)
    rounded = coded(prepare_for_inference(copy.deepcopy(vae), torch.device("cpu"), bfloat16=True), images, 0.5, bfloat16=True)
    assert rounded.dtype == torch.float32
    assert psnr(exact.clamp(0, 1), rounded) > 35


def test_auto_picks_a_device_that_works() -> None:
    device = pick_device("auto")
    assert torch.ones(1, device=device).item() == 1
    assert isinstance(has_bfloat16(device), bool)
    assert not has_bfloat16(torch.device("meta"))


@pytest.mark.usefixtures("gpus")
def test_a_gpu_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert [pick_device(name).index for name in ("auto", "cuda", "cuda:0")] == [1, 1, 0]


def test_a_gpu_that_cannot_compute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*sizes: int, device: object = None) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(UsageError, match=r"'auto' cannot be used: CUDA error: no kernel image .*; `cpu` can be used everywhere"):
        pick_device("auto")


def test_float32_on_a_gpu_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    compute_exactly(torch.device("cpu"))
    assert torch.backends.cudnn.allow_tf32
    compute_exactly(torch.device("cuda", 0))
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("spoilt", [(slice(0, 32), slice(0, 32)), (slice(40, 60), slice(40, 60)), (slice(0, 60), slice(56, 60))])
def test_a_part_that_would_be_lost_is_seen_up_to_the_last_pixel(
    monkeypatch: pytest.MonkeyPatch, spoilt: tuple[slice, slice]
) -> None:
    image = photo_batch(60, 1)
    restored = image.clone()
    restored[(..., *spoilt)] = 1 - restored[(..., *spoilt)].round()
    for back, lost in ((restored, True), (image, False)):
        monkeypatch.setattr(quantiser, "to_images", lambda *_, back=back, **__: back)
        assert is_lost(VAE(tiny()), image, torch.zeros(1, 1, 1, 1), torch.zeros(1)) is lost


def test_other_qualities_leave_what_the_network_does_at_a_multiplier() -> None:
    torch.manual_seed(0)
    net = VAE(tiny(quality_lambdas=(0.001, 0.1))).eval()
    with torch.no_grad():
        for gain in (module for module in net.modules() if isinstance(module, QualityGain)):
            gain.log_gain.copy_(torch.linspace(-1, 2, 8)[:, None] * torch.rand(gain.log_gain.shape[1]))  # straight
    changed = copy.deepcopy(net)
    changed.set_qualities((0.0001, 0.01))
    assert changed.config.quality_lambdas == (0.0001, 0.01)
    assert net.config.quality_lambdas == (0.001, 0.1)
    before, after = torch.tensor([0.0, 0.5]), torch.tensor([0.5, 1.0])
    assert torch.allclose(quality_lambda(before, (0.001, 0.1)), quality_lambda(after, (0.0001, 0.01)))
    images = photo_batch(32)
    with torch.no_grad():
        expected, found = net.encode(images, before), changed.encode(images, after)
        assert torch.allclose(found.y.mean, expected.y.mean, atol=1e-4)
        assert torch.allclose(changed.decode(expected.y.mean, after), net.decode(expected.y.mean, before), atol=1e-4)
