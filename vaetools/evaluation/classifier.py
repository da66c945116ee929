"""Small classifiers, to measure what training images are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Draw = Callable[[torch.Generator, int], tuple[Tensor, Tensor]]


class SmallCNN(nn.Sequential):
    """Three convolutions, an average pool and a linear layer, for images of about 28 to 32 pixels."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for width, kernel, stride in ((32, 5, 2), (64, 3, 2), (64, 3, 1)):
            layers += [nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels, side = width, -(-side // stride)
        pooled = -(-side // 2)
        head = (nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels * pooled**2, classes))
        super().__init__(*layers, *head)
        self.to(memory_format=torch.channels_last)


class MLP(nn.Sequential):
    """Two hidden layers of 256."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = channels * side * side
        for _ in range(2):
            layers += [nn.Linear(inputs, 256), nn.ReLU(), nn.Dropout(0.3)]
            inputs = 256
        super().__init__(*layers, nn.Linear(inputs, classes))


NETWORKS: dict[str, type[SmallCNN] | type[MLP]] = {"cnn": SmallCNN, "mlp": MLP}


@dataclass(frozen=True)
class Recipe:
    """AdamW with a one-cycle learning rate, for a number of steps."""

    steps: int = 600
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05


@dataclass(frozen=True)
class Scores:
    """accuracy: share of the images that are classified right. balanced: mean over classes of each one's share."""

    accuracy: float
    balanced: float


def to_input(images: Tensor) -> Tensor:
    """uint8 -> float32 in -1/2..1/2."""
    return images.float() / 255 - 0.5


def train_classifier(
    name: str, draw: Draw, shape: tuple[int, int], classes: int, recipe: Recipe, seed: int, *, weights: Tensor | None = None
) -> nn.Module:
    """Train the network `name` on what `draw(generator, count)` gives: images (B, C, side, side) uint8, soft labels (B, classes).

    shape: (C, side). weights (classes,): of the classes in the loss.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    network = NETWORKS[name](*shape, classes).train()
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.steps)
    for _ in range(recipe.steps):
        images, labels = draw(generator, recipe.batch)
        loss = weighted_cross_entropy(network(to_input(images)), labels, weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Of soft labels (B, classes), weighted by class: divided by the sum of the weights, as torch does for class numbers."""
    if weights is None:
        return F.cross_entropy(logits, labels)
    return -(labels * weights * logits.log_softmax(1)).sum() / (labels @ weights).sum()


@torch.no_grad()
def score(network: nn.Module, images: Tensor, labels: Tensor, classes: int) -> Scores:
    """images (N, C, side, side) uint8, labels (N,)."""
    right = torch.cat([network(to_input(part)).argmax(1) for part in images.split(1000)]) == labels
    per_class = [right[labels == label].float().mean().item() for label in range(classes) if bool((labels == label).any())]
    return Scores(right.float().mean().item(), sum(per_class) / len(per_class))
