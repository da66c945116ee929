"""Muon: momentum whose matrices are orthogonalised before the step.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. A convolution weight is seen as a matrix
(out, in * k * k). The step is scaled by 0.2 * sqrt(longest side), so that learning rates of AdamW carry over: Liu et
al., "Muon is Scalable for LLM Training", 2025, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic that drives all singular values to about 1 in five steps


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """(..., rows, columns): the nearest semi-orthogonal matrices, roughly: singular values between 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.reshape(-1, *matrices.shape[-2:])
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x.mT @ x if tall else x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, polynomial, beta=a) if tall else torch.baddbmm(x, polynomial, x, beta=a)
    return x.float().view_as(matrices)


class Muon(torch.optim.Optimizer):
    """For parameters of two or more dimensions; give the others to AdamW.

    Matrices of one shape are orthogonalised together: one by one, small ones take up to twice the time on a CPU.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault(weight.flatten(1).shape, []).append(weight)
            for shape, weights in alike.items():
                update = orthogonalise(torch.stack([self._direction(weight, group["momentum"]) for weight in weights]))
                for weight, matrix in zip(weights, update, strict=True):
                    weight.add_(matrix.view_as(weight), alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))

    def _direction(self, weight: Tensor, momentum: float) -> Tensor:
        """(rows, columns), by Nesterov's momentum."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight.grad)
        state["momentum"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(state["momentum"], momentum).flatten(1)
