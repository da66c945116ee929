"""A network with narrower blocks than the one that it is made of, for `vaetools train --start-from MODEL --narrow SHARE
--narrow-in STACK`.

Inside a residual block, a 1x1 convolution adds up what its input channels h have to say. Those go that matter least to the loss L
for what they cost, by its gradient; least squares gives what they said, as far as it can, to the others, S:

    importance of h_k: the sum over all positions of (h_k dL/dh_k)^2
    W h  ->  (W_S + W_R E[h_R h_S^T] E[h_S h_S^T]^-1) h_S       R being those that go, with a constant in h_S

Importance: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, section 3.1. Making up for what goes,
layer by layer: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section 3.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..model.blocks import ResidualBlock
from ..model.config import ModelConfig
from ..model.distributions import Noise
from ..model.vae import VAE
from .data import CropSampler, some_batches
from .objective import losses_of

MULTIPLE = 16  # channels: fewer are not computed faster
RIDGE = 1e-6


@dataclass(frozen=True)
class Narrowing:
    """What is asked for. share: so much of the arithmetic in blocks goes at most, in 0..1. stacks: as `ModelConfig.stacks` names
    those whose blocks these are; without any, all are."""

    share: float
    stacks: tuple[str, ...] = ()

    def check(self, config: ModelConfig) -> None:
        """Raises UsageError if a network of this shape has no blocks there."""
        known = [stack for stack, (_, depth) in config.stacks.items() if depth]
        for stack in self.stacks:
            if stack not in known:
                raise UsageError(f"the model has no blocks in {stack!r}: choose of {', '.join(known)}")


class Layer:
    """The last convolution of one half of a block, and what is known of its K input channels.

    cost: multiplications per position that one of them takes. moments: (K + 1, K + 1) float64, the sum over positions of h h^T
    with a constant as the last of h. importance: (K,) float64. positions: of all batches.
    """

    def __init__(self, conv: nn.Conv2d, cost: int) -> None:
        self.conv, self.cost, self.positions = conv, cost, 0
        device, size = conv.weight.device, conv.in_channels
        self.moments = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=device)
        self.importance = torch.zeros(size, dtype=torch.float64, device=device)

    @property
    def size(self) -> int:
        return self.conv.in_channels

    @property
    def work(self) -> int:
        """Multiplications of one channel at all positions."""
        return self.cost * self.positions

    def hear(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A hook, for before the convolution is called."""
        h = inputs[0].detach().double().permute(0, 2, 3, 1).flatten(0, 2)  # in float32, autocast would make the product bfloat16
        ends = torch.cat([h, torch.ones_like(h[:, :1])], 1)
        self.moments += ends.T @ ends
        self.positions += len(h)

        def hear_gradient(gradient: Tensor) -> None:
            self.importance += (gradient.permute(0, 2, 3, 1).flatten(0, 2) * h).square().sum(0)

        inputs[0].register_hook(hear_gradient)

    def keep(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The most important channels (S,), rising, and weights (out, S, 1, 1) and biases (out,) that make up for the others."""
        assert self.conv.bias is not None
        ordered = self.importance.argsort()
        gone, channels = ordered[: self.size - count], ordered[self.size - count :].sort().values
        inputs = torch.cat([channels, channels.new_tensor([self.size])])
        gram = self.moments[inputs][:, inputs]
        ridge = RIDGE * gram.diagonal().mean().expand(count + 1).diag()
        ridge[-1, -1] = 0
        said = self.conv.weight[:, gone, 0, 0].double() @ self.moments[gone][:, inputs]
        added = torch.linalg.solve(gram + ridge, said.T).T.float()
        return channels, self.conv.weight[:, channels] + added[:, :-1, None, None], self.conv.bias + added[:, -1]


def narrow(vae: VAE, narrowing: Narrowing, sampler: CropSampler) -> tuple[VAE, float]:
    """`vae` with blocks that take less arithmetic, and by how much, in 0..1 of what those that may be narrowed took.

    Raises UsageError as `Narrowing.check`, and if so small a share is less than the least that can go.
    """
    narrowing.check(vae.config)
    vae = copy.deepcopy(vae).requires_grad_(True)
    blocks = {
        name: module
        for name, module in vae.named_modules()
        if isinstance(module, ResidualBlock) and (not narrowing.stacks or name.partition(".")[0] in narrowing.stacks)
    }
    layers = {
        name: (
            Layer(block.mix_out, block.mix_in.in_channels + 9 + block.mix_out.out_channels),
            Layer(block.gate_out, 2 * block.gate_in.in_channels + block.gate_out.out_channels),
        )
        for name, block in blocks.items()
    }
    flat = [layer for pair in layers.values() for layer in pair]
    listen(flat, vae, sampler)
    counts = choose(flat, narrowing.share)
    gone = 1 - sum(layer.work * count for layer, count in counts.items()) / sum(layer.work * layer.size for layer in flat)
    if not gone:
        raise UsageError(
            f"{narrowing.share:.1%} of the arithmetic in the model's blocks is less than {MULTIPLE} channels take: choose more"
        )
    widths: dict[str, list[tuple[int, int]]] = {}
    with torch.no_grad():
        state = vae.state_dict()
        for name, block in blocks.items():
            mix, gate = layers[name]
            mixed, state[f"{name}.mix_out.weight"], state[f"{name}.mix_out.bias"] = mix.keep(counts[mix])
            gated, state[f"{name}.gate_out.weight"], state[f"{name}.gate_out.bias"] = gate.keep(counts[gate])
            both = torch.cat([gated, gated + block.gate_out.in_channels])
            for layer, rows in (("mix_in", mixed), ("mix_space", mixed), ("gate_in", both)):
                for kind in ("weight", "bias"):
                    state[f"{name}.{layer}.{kind}"] = state[f"{name}.{layer}.{kind}"][rows]
            widths.setdefault(name.partition(".")[0], []).append((len(mixed), len(gated)))
    all_widths = dict(vae.config.block_widths) | {stack: tuple(pairs) for stack, pairs in widths.items()}
    config = replace(vae.config, block_widths=tuple(all_widths.items()))
    narrowed = VAE(config).to(vae.z_raw_scale.device).eval()
    narrowed.load_state_dict(state)
    return narrowed, gone


def listen(layers: list[Layer], vae: VAE, sampler: CropSampler) -> None:
    """Pass a look at the images through the network and back."""
    handles = [layer.conv.register_forward_pre_hook(layer.hear) for layer in layers]
    device = vae.z_raw_scale.device
    noise = Noise(torch.Generator(device).manual_seed(sampler.seed))
    for images, quality in some_batches(sampler, vae.config, device):
        losses_of(vae, vae.config, images, quality, noise).loss.backward()
    for handle in handles:
        handle.remove()


def choose(layers: list[Layer], share: float) -> dict[Layer, int]:
    """How many channels each layer keeps. MULTIPLE of a layer go at once, the least important for their cost first."""
    groups = []
    for layer in layers:
        ordered = layer.importance.sort().values
        first = len(ordered) % MULTIPLE or MULTIPLE
        ends = range(first, len(ordered), MULTIPLE)
        for start, end in zip((0, *ends), ends, strict=False):
            work = (end - start) * layer.work
            groups.append((float(ordered[start:end].sum()) / work, work, layer, len(ordered) - end))
    left = share * sum(layer.work * layer.size for layer in layers)
    counts = {layer: layer.size for layer in layers}
    for _, work, layer, remaining in sorted(groups, key=lambda group: group[0]):
        if work <= left:  # else what comes after it in its layer takes no less
            left -= work
            counts[layer] = remaining
    return counts
