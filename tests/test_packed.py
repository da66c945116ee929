"""Networks with their weights put in order for a CPU: the same answers as the layers that were trained."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from vaetools.model import packed, quantiser
from vaetools.model.blocks import ResidualBlock
from vaetools.model.config import ModelConfig
from vaetools.model.packed import PackedConv, can_pack, pack
from vaetools.model.scales import ACTIVATION_UNIT, IntegerConv
from vaetools.model.vae import VAE

CPU = torch.device("cpu")
CONFIG = ModelConfig(width=32, inner_width=48, latent_channels=32, hyper_channels=16, scale_width=16)
NARROW = replace(CONFIG, activation="hardswish", block_widths=(("context", ((16, 40),)), ("decoder_inner", ((24, 96), (48, 16)))))
pytestmark = pytest.mark.skipif(not can_pack(), reason="this build of PyTorch has no oneDNN")


@pytest.fixture(scope="module", params=[pytest.param(CONFIG, id="full"), pytest.param(NARROW, id="narrow-hardswish")])
def vae(request: pytest.FixtureRequest) -> VAE:
    """Whose every layer does something: fresh ones are the identity."""
    torch.manual_seed(0)
    net = VAE(request.param)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return net.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def plain(vae: VAE, monkeypatch: pytest.MonkeyPatch) -> VAE:
    """As it is used where the operators are missing."""
    monkeypatch.setattr(quantiser, "can_pack", lambda: False)
    return quantiser.prepare_for_inference(vae, CPU, bfloat16=False)


def symbols(net: VAE, images: torch.Tensor, *, bfloat16: bool = False) -> quantiser.Symbols:
    sides = torch.tensor([128, 128]), torch.tensor([192, 192])
    return quantiser.to_symbols(net, images, torch.tensor([0.2, 0.9]), *sides, bfloat16=bfloat16)


def test_the_layers_are_replaced(vae: VAE) -> None:
    net = quantiser.prepare_for_inference(vae, CPU, bfloat16=False)
    assert any(isinstance(module, PackedConv) for module in net.modules())
    assert all(isinstance(layer, PackedConv) for name, layer in net.scales.named_children() if name != "shuffle")
    assert not any(isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, ResidualBlock)) for module in net.modules())
    assert isinstance(vae.encoder_outer[1], nn.Conv2d)  # the original is as it was


def test_decoded_pixels_agree(vae: VAE, plain: VAE, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = symbols(plain, images).latents
    monkeypatch.undo()
    net = quantiser.prepare_for_inference(vae, CPU, bfloat16=False)
    quality = torch.tensor([0.2, 0.9])
    expected = quantiser.to_images(plain, latents, quality, bfloat16=False)
    error = (quantiser.to_images(net, latents, quality, bfloat16=False) - expected).abs()
    assert error.mean() < 1e-6
    assert error.max() < (1e-4 if net.config == CONFIG else 2e-3)  # hardswish has corners
    rough = quantiser.prepare_for_inference(vae, CPU, bfloat16=True)
    error = quantiser.to_images(rough, latents, quality, bfloat16=True) - expected
    assert error.std() < (0.02 if net.config == CONFIG else 0.04) * expected.std()


def test_encoded_latents_agree(vae: VAE, plain: VAE, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = symbols(plain, images)
    monkeypatch.undo()
    found = symbols(quantiser.prepare_for_inference(vae, CPU, bfloat16=False), images)
    assert (found.z != expected.z).float().mean() < 1e-3  # those that lie on the edge between two numbers
    assert (found.residuals != expected.residuals).float().mean() < 1e-3


def test_tables_are_the_same_to_the_last_one(vae: VAE, plain: VAE, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    z = torch.randint(-127, 128, (2, 16, 4, 6), generator=generator).float()
    residuals = torch.randint(-15, 16, (2, 32, 16, 24), generator=generator).float()
    monkeypatch.undo()
    for bfloat16 in (False, True):
        net = quantiser.prepare_for_inference(vae, CPU, bfloat16=bfloat16)
        with torch.inference_mode():
            one, other = quantiser.first_pass(net, z), quantiser.first_pass(plain, z)
            assert torch.equal(one.index, other.index)
            assert torch.equal(one.scale_output, other.scale_output)
            assert torch.equal(
                quantiser.second_pass(net, one, residuals).index, quantiser.second_pass(plain, other, residuals).index
            )


def test_inputs_are_left_alone() -> None:
    torch.manual_seed(3)
    block = ResidualBlock(16, 16, 32, activation="silu").requires_grad_(False)
    for parameter in block.parameters():
        parameter.normal_()
    net = nn.Sequential(block)
    pack(net)
    x = torch.randn(1, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    with torch.inference_mode():
        net(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copied", "pickled"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_copies_answer_alike(vae: VAE, images: torch.Tensor, again: Callable[[VAE], VAE], bfloat16: bool) -> None:
    net = quantiser.prepare_for_inference(vae, CPU, bfloat16=bfloat16)
    expected, found = (symbols(each, images, bfloat16=bfloat16) for each in (net, again(net)))
    assert torch.equal(found.latents, expected.latents)


def test_random_numbers_are_left_alone() -> None:
    before = torch.random.get_rng_state()
    packed.can_pack.__wrapped__()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_operators_that_compute_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed.PackedConv, "times", lambda self, x, factor: factor)
    assert not packed.can_pack.__wrapped__()


@pytest.mark.parametrize("side", [1, 15, 16, 40])
@pytest.mark.parametrize("depthwise", [False, True])
def test_whole_numbers_stay_exact(side: int, *, depthwise: bool) -> None:
    generator = torch.Generator().manual_seed(side)
    conv = IntegerConv(48, 48, depthwise=depthwise).requires_grad_(False)
    for parameter in conv.parameters():
        parameter.uniform_(-3, 3, generator=generator)
    conv.freeze()
    x = torch.randint(0, 256, (1, 48, side, side), generator=generator) / ACTIVATION_UNIT
    expected = nn.functional.conv2d(
        x.double(),
        conv.weight.double(),
        conv.bias.double(),
        padding=conv.padding,
        groups=conv.groups,  # type: ignore[union-attr]
    )
    with torch.inference_mode():
        assert torch.equal(PackedConv.of(conv)(x).double(), expected)


REPEATED = """
import torch
from vaetools import Codec
codec, image = Codec.load("photo", "cpu"), torch.zeros(3, 192, 320, dtype=torch.uint8)
for _ in range(2):
    print("round", flush=True)
    codec.decompress(codec.compress([image]))
"""


def test_weights_are_put_into_order_once() -> None:
    log = subprocess.run(
        [sys.executable, "-c", REPEATED], env={**os.environ, "ONEDNN_VERBOSE": "1"}, capture_output=True, text=True, check=True
    ).stdout
    _, first, second = log.split("round\n")
    layers = [line for line in second.splitlines() if ",exec,cpu,convolution," in line]
    assert len(layers) > 50
    assert ",exec,cpu,reorder," in first
    assert ",exec,cpu,reorder," not in second


def test_orders_of_few_sizes_are_kept() -> None:
    conv = PackedConv(torch.randn(32, 16, 1, 1), None)
    with torch.inference_mode():
        for side in (1, 2, 4, 8, 16, 32, 1, 32):
            x = torch.randn(1, 16, side, side)
            assert torch.allclose(conv(x), nn.functional.conv2d(x, conv.weight), atol=1e-4)
            assert len(conv._ordered) <= packed.KEPT
