"""The images of a folder in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaetools.errors import UsageError
from vaetools.images.collection import Collection


def save(path: Path, pixels: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("cat/1.png", "cat/2.png", "dog/deep/1.png"):
        save(tmp_path / name, generator.integers(0, 256, (20, 30, 3), np.uint8))
    save(tmp_path / "dog/gray.png", generator.integers(0, 256, (20, 30), np.uint8))
    save(tmp_path / "top.png", generator.integers(0, 256, (8, 9, 3), np.uint8))
    return tmp_path


def test_images_of_one_size_come_together_in_order(folder: Path) -> None:
    collection = Collection.of(folder)
    assert collection.names == ["cat/1.png", "cat/2.png", "dog/deep/1.png", "dog/gray.png", "top.png"]
    batches = list(collection.batches(3))
    assert [batch.index for batch in batches] == [[0, 1, 2, 3], [4]]
    assert [tuple(batch.images.shape) for batch in batches] == [(4, 3, 20, 30), (1, 3, 8, 9)]
    expected = np.asarray(Image.open(folder / "cat/2.png")).transpose(2, 0, 1) / 255
    assert torch.allclose(batches[0].images[1], torch.from_numpy(expected).float())


def test_a_batch_holds_no_more_pixels_than_it_may(folder: Path) -> None:
    assert [batch.index for batch in Collection.of(folder).batches(1, batch_pixels=1200)] == [[0, 1], [2, 3], [4]]


def test_classes_are_the_first_folders(folder: Path) -> None:
    collection = Collection.of(folder)
    assert collection.classes == ["", "cat", "dog"]
    assert collection.labels.tolist() == [1, 1, 2, 2, 0]


def test_what_cannot_be_read_is_noted_and_left_out(folder: Path) -> None:
    (folder / "cat/broken.png").write_bytes(b"no image")
    collection = Collection.of(folder)
    assert [batch.index for batch in collection.batches(3, max_pixels=599)] == [[5]]
    assert [name for name, _ in collection.failed] == collection.names[:5]
    assert collection.failed[2] == ("cat/broken.png", "cannot be read (not an image Pillow can read)")


def test_a_folder_of_broken_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"none of the 1 images can be read; the first: broken\.png"):
        list(Collection.of(tmp_path).batches(3))


def test_16_bits_are_kept(tmp_path: Path) -> None:
    pixels = save(tmp_path / "deep.png", np.array([[0, 1], [40000, 65535]], np.uint16))
    (batch,) = Collection.of(tmp_path).batches(1, 16)
    assert torch.equal((batch.images[0, 0] * 65535).round(), torch.from_numpy(pixels.astype(np.float32)))
