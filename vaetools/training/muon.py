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


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values between 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.size(0) > matrix.size(1)
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).float()


class Muon(torch.optim.Optimizer):
    """For parameters of two or more dimensions; give the others to AdamW."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            momentum = group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight.grad)
                state["momentum"].lerp_(weight.grad, 1 - momentum)
                update = orthogonalise(weight.grad.lerp(state["momentum"], momentum).flatten(1))
                weight.add_(update.view_as(weight), alpha=-group["lr"] * 0.2 * math.sqrt(max(update.shape)))
