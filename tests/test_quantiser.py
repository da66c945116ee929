"""Patterns that the network may not see."""

from __future__ import annotations

import numpy as np
import torch

from vaetools.model.quantiser import is_chequered

from .conftest import PHOTOGRAPHS, photograph


def test_no_photograph_is_chequered() -> None:
    for name in PHOTOGRAPHS:
        pixels = torch.from_numpy(np.array(photograph(name, 96, 64))).permute(2, 0, 1)[None]
        assert not is_chequered(pixels / 255).any()


def test_one_chequered_part_is_enough_and_only_its_image_is() -> None:
    images = torch.full((2, 3, 128, 128), 0.5)
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 0.4
    images[1, :, 40:72, 70:102] += board
    assert is_chequered(images).tolist() == [False, True]


def test_stripes_are_not_chequered() -> None:
    images = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    assert not is_chequered(images).any()
    assert not is_chequered(images.transpose(2, 3)).any()
