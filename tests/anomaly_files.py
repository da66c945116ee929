"""Good images and others, small enough for tests: the same face, and faces with a square that does not belong there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from .conftest import photograph

SIDE = 24
DEFECT = (slice(8, 14), slice(10, 16))  # rows, columns


def good_images(count: int, side: int = SIDE) -> Tensor:
    """(count, 1, side, side) uint8: one photograph in many lights."""
    generator = np.random.default_rng(0)
    face = np.asarray(photograph("astronaut", side, side).convert("L"), np.float64)
    images = [face * generator.uniform(0.7, 1.0) + generator.normal(0, 4, face.shape) for _ in range(count)]
    return torch.from_numpy(np.stack(images).clip(0, 255).astype(np.uint8))[:, None]


def textures(count: int, side: int, *, first: int = 0, square: bool = False) -> Tensor:
    """(count, 1, side, side) uint8: pieces of one wall of bricks, number `first` and on; with the bright square of bad_images."""
    wall = skimage.data.brick()
    pieces = []
    for number in range(first, first + count):
        top, left = np.random.default_rng(number).integers(0, 512 - side, 2)
        pieces.append(wall[top : top + side, left : left + side].copy())
        if square:
            pieces[-1][DEFECT] = 255
    return torch.from_numpy(np.stack(pieces))[:, None]


def bad_images(count: int, side: int = SIDE) -> Tensor:
    """As good_images, with a bright square."""
    images = good_images(count + 7, side)[7:].clone()
    images[:, 0, DEFECT[0], DEFECT[1]] = 255
    return images


def mask(side: int = SIDE) -> np.ndarray:
    found = np.zeros((side, side), bool)
    found[DEFECT] = True
    return found


def write_images(folder: Path, images: Tensor) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(folder / f"{number:03}.png")
    return folder


def write_test_set(root: Path) -> Path:
    """test/good and test/square, and masks of the second in masks/square."""
    write_images(root / "test" / "good", good_images(30)[22:])
    write_images(root / "test" / "square", bad_images(6))
    (root / "masks" / "square").mkdir(parents=True)
    for number in range(6):
        Image.fromarray(mask().astype(np.uint8) * 255).save(root / "masks" / "square" / f"{number:03}.png")
    return root / "test"
