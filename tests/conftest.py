"""Shared by all tests: real photographs from scikit-image, and networks small enough to train in seconds."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny tensors only lose by more threads

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import settings
from PIL import Image

from vaetools.model.config import ModelConfig, preset

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell, where Ctrl-C is not for the job
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("vaetools", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("vaetools")

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def photograph(name: str, width: int, height: int) -> Image.Image:
    """A photograph of scikit-image, (height, width) RGB or gray."""
    return Image.fromarray(getattr(skimage.data, name)()).resize((width, height), Image.Resampling.LANCZOS)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of torch's threads, for this test only."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four RGB photographs as PNG files, 192 x 160 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in PHOTOGRAPHS:
        photograph(name, 192, 160).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def gray16_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two gray images with 16 bits per pixel, 128 x 96 pixels."""
    folder = tmp_path_factory.mktemp("gray16")
    for name in ("camera", "moon"):
        gray = np.asarray(photograph(name, 128, 96), np.float64)
        Image.fromarray((gray * 256 + np.arange(128)).astype(np.uint16)).save(folder / f"{name}.png")
    return folder


def tiny(posterior: str = "uniform", **changes: object) -> ModelConfig:
    """The smallest network worth training: latents at 1/4, hyper-latents at 1/16."""
    sizes: dict[str, object] = {
        "width": 16,
        "inner_width": 16,
        "latent_channels": 8,
        "hyper_channels": 4,
        "scale_width": 8,
        "encoder_blocks": (1, 1),
        "decoder_blocks": (1, 1),
    }
    return preset("small", **{**sizes, "posterior": posterior, **changes})


def photo_batch(side: int, count: int = 2) -> torch.Tensor:
    """(count, 3, side, side) photographs in 0..1."""
    chosen = itertools.islice(itertools.cycle(PHOTOGRAPHS), count)
    pixels = np.stack([np.asarray(photograph(name, side, side)) for name in chosen])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were GPUs: whatever is asked for on one is on the CPU."""
    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *sizes, device=None: ones(*sizes))
