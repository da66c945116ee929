"""The integer network gives the same table indexes whatever computes it; the oracle is int64 arithmetic in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaetools.model.config import MAX_HYPER_CHANNELS, MAX_LATENT_CHANNELS, MAX_SCALE_WIDTH
from vaetools.model.quantiser import first_pass, second_pass
from vaetools.model.scales import LEVELS, LOG_SCALE_RANGE, IntegerConv, IntegerScales, scale_of
from vaetools.model.vae import VAE

from .conftest import tiny

Z, WIDTH, LATENTS = 4, 12, 6


# The oracle: every quantity is an int64 count of its unit (1/1024 for sums, 1/16 for activations).


def whole_divide(x: np.ndarray, divisor: int) -> np.ndarray:
    """x / divisor, rounded to the nearest, ties to even."""
    quotient, remainder = np.divmod(x, divisor)
    tie_to_even = (2 * remainder == divisor) & (quotient % 2 == 1)
    return quotient + ((2 * remainder > divisor) | tie_to_even)


def whole_layer(layer: IntegerConv, x: np.ndarray, per_unit: int) -> np.ndarray:
    """Sums in 1/1024 of inputs (B, C, h, w) that are counts of 1/per_unit."""
    weight = np.rint(layer.weight.detach().double().numpy().clip(-127 / 64, 127 / 64) * 64).astype(np.int64)
    bias = np.rint(layer.bias.detach().double().numpy().clip(-8, 8) * 1024).astype(np.int64)
    if layer.groups == 1:
        total = np.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x)
    else:
        padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
        height, width = x.shape[-2:]
        shifts = [(i, j) for i in range(3) for j in range(3)]
        total = sum(padded[:, :, i : i + height, j : j + width] * weight[:, 0, i, j][None, :, None, None] for i, j in shifts)
    return total * (1024 // (64 * per_unit)) + bias[None, :, None, None]


def whole_activate(sums: np.ndarray) -> np.ndarray:
    return whole_divide(sums.clip(0), 64).clip(0, 255)


def whole_shuffle(x: np.ndarray) -> np.ndarray:
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels // 4, 2, 2, height, width)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(batch, channels // 4, 2 * height, 2 * width)


def whole_from_hyper_latents(net: IntegerScales, z: np.ndarray) -> np.ndarray:
    x = whole_activate(whole_layer(net.z_in, z.clip(-127, 127), 1))
    x = whole_activate(whole_layer(net.z_space, x, 16))
    x = whole_activate(whole_shuffle(whole_layer(net.z_up, x, 16)))
    x = whole_activate(whole_layer(net.up_space, x, 16))
    return whole_shuffle(whole_layer(net.up_out, x, 16))


def whole_from_residuals(net: IntegerScales, residuals: np.ndarray) -> np.ndarray:
    x = whole_activate(whole_layer(net.residual_in, np.abs(residuals).clip(0, 15), 1))
    return whole_layer(net.residual_out, whole_activate(whole_layer(net.residual_space, x, 16)), 16)


def whole_index(sums: np.ndarray) -> np.ndarray:
    return whole_divide(sums, 128).clip(0, LEVELS - 1)


# Inputs and networks.


def varied_net(seed: int) -> IntegerScales:
    """A network whose indexes take most of their values."""
    torch.manual_seed(seed)
    net = IntegerScales(Z, WIDTH, LATENTS)
    with torch.no_grad():
        for layer in (
            net.z_in,
            net.z_space,
            net.z_up,
            net.up_space,
            net.up_out,
            net.residual_in,
            net.residual_space,
            net.residual_out,
        ):
            layer.weight.normal_(std=0.5)
            layer.bias.normal_()
        net.up_out.bias.add_(3)
    return net


def varied_inputs(seed: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    z = np.rint(generator.laplace(scale=3, size=(batch, Z, 3, 5))).astype(np.int64)
    residuals = np.rint(generator.laplace(scale=1, size=(batch, LATENTS, 12, 20))).astype(np.int64)
    return z, residuals


def indexes(
    net: IntegerScales, z: np.ndarray, residuals: np.ndarray, dtype: torch.dtype = torch.float32
) -> tuple[np.ndarray, np.ndarray]:
    u = net.from_hyper_latents(torch.from_numpy(z).to(dtype))
    v = net.from_residuals(torch.from_numpy(residuals).to(dtype))
    return net.index(u).detach().numpy(), net.index(u + v).detach().numpy()


def assert_same(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@given(seed=st.integers(0, 10**6))
def test_indexes_are_those_of_integer_arithmetic(dtype: torch.dtype, seed: int) -> None:
    net = varied_net(seed)
    z, residuals = varied_inputs(seed, 2)
    u, v = whole_from_hyper_latents(net, z), whole_from_residuals(net, residuals)
    assert_same(indexes(net.to(dtype), z, residuals, dtype), (whole_index(u), whole_index(u + v)))


@torch.no_grad()
def test_the_comparison_covers_most_tables() -> None:
    first, second = indexes(varied_net(0), *varied_inputs(0, 8))
    assert len(np.unique(first)) > 40
    assert len(np.unique(second)) > 40


@torch.no_grad()
def test_indexes_do_not_depend_on_the_batch() -> None:
    net, (z, residuals) = varied_net(1), varied_inputs(1, 8)
    alone = [indexes(net, z[i : i + 1], residuals[i : i + 1]) for i in range(8)]
    together = (np.concatenate([a for a, _ in alone]), np.concatenate([b for _, b in alone]))
    assert_same(indexes(net, z, residuals), together)


@torch.no_grad()
def test_indexes_do_not_depend_on_the_threads(threads: Callable[[int], None]) -> None:
    net, (z, residuals) = varied_net(2), varied_inputs(2, 8)
    threads(1)
    one = indexes(net, z, residuals)
    threads(2)
    assert_same(indexes(net, z, residuals), one)


@torch.no_grad()
def test_indexes_do_not_depend_on_the_memory_format() -> None:
    net, (z, residuals) = varied_net(3), varied_inputs(3, 2)
    usual = indexes(net, z, residuals)
    u = net.from_hyper_latents(torch.from_numpy(z).float().contiguous(memory_format=torch.channels_last))
    np.testing.assert_array_equal(net.to(memory_format=torch.channels_last).index(u).numpy(), usual[0])


@torch.no_grad()
def test_autocast_leaves_the_indexes_alone() -> None:
    net, (z, residuals) = varied_net(4), varied_inputs(4, 2)
    exact = indexes(net, z, residuals)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(indexes(net, z, residuals), exact)


def test_training_and_inference_agree_exactly() -> None:
    net, (z, residuals) = varied_net(5), varied_inputs(5, 4)
    training = indexes(net, z, residuals)
    with torch.no_grad():
        assert_same(indexes(net, z, residuals), training)


def test_gradient_reaches_every_weight() -> None:
    net, (z, residuals) = varied_net(6), varied_inputs(6, 4)
    u = net.from_hyper_latents(torch.from_numpy(z).float())
    net.index(u + net.from_residuals(torch.from_numpy(residuals).float())).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in net.parameters())


@torch.no_grad()
@pytest.mark.parametrize("sign", [1, -1], ids=["all-positive", "all-negative"])
def test_largest_sums_of_the_largest_network_stay_exact(sign: int) -> None:
    """Saturated weights and inputs, odd in their last place, through every layer before its clipping."""
    net = IntegerScales(MAX_HYPER_CHANNELS, MAX_SCALE_WIDTH, MAX_LATENT_CHANNELS)
    for parameter in net.parameters():
        parameter.fill_(sign * (8 - 1 / 1024 if parameter.ndim == 1 else 3.0))  # weights are clipped to 127 / 64
    width = MAX_SCALE_WIDTH
    cases = [
        (net.z_in, 127, MAX_HYPER_CHANNELS, 1),
        (net.z_space, 255, 2 * width, 16),
        (net.z_up, 255, 2 * width, 16),
        (net.up_out, 255, width, 16),
        (net.residual_in, 15, MAX_LATENT_CHANNELS, 1),
        (net.residual_out, 255, width, 16),
    ]
    for layer, largest, channels, per_unit in cases:
        x = np.full((1, channels, 3, 3), largest, np.int64)
        sums = layer(torch.from_numpy(x).float() / per_unit).double().numpy() * 1024
        np.testing.assert_array_equal(sums, whole_layer(layer, x, per_unit))
        assert np.abs(sums).max() < 2**24


@torch.no_grad()
@pytest.mark.parametrize("z_value", [127, -127])
def test_extreme_inputs_to_the_largest_network_stay_exact(z_value: int) -> None:
    generator = np.random.default_rng(0)
    net = IntegerScales(MAX_HYPER_CHANNELS, MAX_SCALE_WIDTH, MAX_LATENT_CHANNELS)
    for parameter in net.parameters():
        signs = torch.from_numpy(generator.choice([-1.0, 1.0], parameter.shape)).float()
        parameter.copy_(signs * (8 - 1 / 1024 if parameter.ndim == 1 else 127 / 64))
    z = np.full((1, MAX_HYPER_CHANNELS, 1, 2), z_value, np.int64)
    residuals = np.full((1, MAX_LATENT_CHANNELS, 4, 8), 15, np.int64)
    u, v = whole_from_hyper_latents(net, z), whole_from_residuals(net, residuals)
    assert_same(indexes(net, z, residuals), (whole_index(u), whole_index(u + v)))


@torch.no_grad()
def test_values_beyond_the_range_count_as_its_ends() -> None:
    net, (z, residuals) = varied_net(7), varied_inputs(7, 1)
    far = indexes(net, np.sign(z) * 5000, np.sign(residuals) * 30000)
    assert_same(far, indexes(net, np.sign(z) * 127, np.sign(residuals) * 15))


def test_the_coders_passes_give_the_indexes_of_the_network() -> None:
    """first_pass and second_pass, under autocast as on a real machine, agree with the oracle in either pass' places."""
    vae = VAE(tiny()).eval()
    z = np.rint(np.random.default_rng(0).normal(scale=4, size=(2, 4, 2, 2))).astype(np.int64)
    residuals = np.rint(np.random.default_rng(1).laplace(size=(2, 8, 8, 8))).astype(np.int64)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        first = first_pass(vae, torch.from_numpy(z).float())
        second = second_pass(vae, first, torch.from_numpy(residuals).float())
    mask = np.broadcast_to(first.mask.numpy().astype(np.int64), residuals.shape)
    u = whole_from_hyper_latents(vae.scales, z)
    v = whole_from_residuals(vae.scales, residuals * mask)
    np.testing.assert_array_equal(first.index.numpy(), whole_index(u))
    np.testing.assert_array_equal(second.index.numpy(), np.where(mask > 0, whole_index(u), whole_index(u + v)))


def test_scales_are_log_spaced() -> None:
    scales = scale_of(torch.arange(LEVELS).double())
    torch.testing.assert_close(scales.log()[[0, -1]], torch.tensor(LOG_SCALE_RANGE).double())
    steps = scales.log().diff()
    torch.testing.assert_close(steps, steps[:1].expand(LEVELS - 1))


@torch.inference_mode()
@pytest.mark.parametrize("side", [1, 2])
def test_frozen_layers_stay_as_they_are(side: int) -> None:
    for layer in (IntegerConv(6, 5), IntegerConv(6, 6, depthwise=True)):
        layer.freeze()
        x = torch.full((1, 6, side, side), 3.0)
        assert torch.equal(layer(x), layer(x))
