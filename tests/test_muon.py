"""The optimiser of the convolution weights."""

from __future__ import annotations

import pytest
import torch

from vaetools.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (16, 8 * 9), (1, 40)], ids=str)
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    singular = torch.linalg.svdvals(orthogonalise(torch.randn(shape) * 100))
    assert singular.min() > 0.6
    assert singular.max() < 1.3


def test_direction_is_kept() -> None:
    matrix = torch.linalg.qr(torch.randn(30, 20))[0] * 7
    update = orthogonalise(matrix)
    assert torch.nn.functional.cosine_similarity(update.flatten(), matrix.flatten(), 0) > 0.99


def test_zero_gradient_gives_no_step() -> None:
    assert torch.equal(orthogonalise(torch.zeros(4, 6)), torch.zeros(4, 6))


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (8, 6, 1, 1), (6, 20)], ids=str)
def test_steps_decrease_a_loss(shape: tuple[int, ...]) -> None:
    weight, target = torch.zeros(shape, requires_grad=True), torch.randn(shape)
    optimiser = Muon([weight], lr=0.5)
    losses = []
    for _ in range(40):
        loss = ((weight - target) ** 2).sum()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[1] < losses[0]
    assert losses[-1] < 0.3 * losses[0]


def test_step_has_the_size_that_the_learning_rate_says() -> None:
    weight = torch.zeros(10, 40, 1, 1, requires_grad=True)
    weight.grad = torch.randn_like(weight)
    Muon([weight], lr=0.01).step()
    root_mean_square = weight.detach().square().mean().sqrt().item()
    assert root_mean_square == pytest.approx(0.01 * 0.2, rel=0.2)


def test_weights_without_a_gradient_stay() -> None:
    weight = torch.ones(3, 3, requires_grad=True)
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight.detach(), torch.ones(3, 3))


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)], ids=str)
def test_matrices_of_one_shape_do_not_touch_each_other(shape: tuple[int, int]) -> None:
    start, gradients = torch.randn(3, *shape), torch.randn(3, *shape)
    together = [matrix.clone().requires_grad_() for matrix in start]
    alone = [matrix.clone().requires_grad_() for matrix in start]
    for weight, same, gradient in zip(together, alone, gradients, strict=True):
        weight.grad, same.grad = gradient, gradient.clone()
    Muon(together, lr=0.1).step()
    for weight, same, before in zip(together, alone, start, strict=True):
        Muon([same], lr=0.1).step()
        assert torch.allclose(weight, same, atol=1e-3)
        assert not torch.allclose(weight, before, atol=1e-2)
