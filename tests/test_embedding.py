"""Vectors of images: what they depend on, what they do not, and the files they are kept in."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vaetools.embedding import embedder as embedding
from vaetools.embedding.embedder import Embedder
from vaetools.embedding.folder import embed_folder
from vaetools.embedding.pooling import Pooling
from vaetools.embedding.table import About, Embeddings
from vaetools.errors import UsageError
from vaetools.model.space import LatentSpace
from vaetools.model.weights import load_weights

from .augment_models import photographs, tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def embedder(weights: Path) -> Embedder:
    return Embedder.load(weights, device="cpu")


def made(weights: Path, **options: Any) -> Embedder:
    return Embedder.load(weights, device="cpu", **options)


# What a vector is.


def test_it_is_the_mean_of_the_posterior_of_z_in_four_cells(embedder: Embedder, weights: Path) -> None:
    images = photographs(2, 32)
    vectors = embedder.embed(images)
    latents = LatentSpace(load_weights(weights), "cpu").encode(images.float() / 255)
    assert (vectors.shape, vectors.dtype) == ((2, 4 * 4), torch.float32)
    assert torch.allclose(vectors, latents.z.flatten(1), atol=1e-2 * float(latents.z.abs().max()))


def test_it_draws_no_noise(embedder: Embedder) -> None:
    images = photographs(2, 32)
    first = embedder.embed(images)
    torch.manual_seed(7)
    assert torch.equal(embedder.embed(images), first)


def test_it_tells_images_apart(embedder: Embedder) -> None:
    a, b = embedder.embed(photographs(2, 32))
    assert not torch.allclose(a, b, atol=1e-3)


def test_it_does_not_depend_on_the_images_beside_it(weights: Path, threads: Callable[[int], None]) -> None:
    images = [*photographs(4, 32), *photographs(3, 24)]
    embedder = made(weights, features="zy")
    threads(1)
    alone = torch.cat([embedder.embed([image]) for image in images])
    assert torch.equal(embedder.embed(images), alone)
    assert torch.equal(embedder.embed(images[::-1]).flip(0), alone)
    threads(3)
    assert torch.equal(embedder.embed(images), alone)
    assert torch.get_num_threads() == 3


def test_batches_give_nearly_the_same(weights: Path, embedder: Embedder) -> None:
    images = [*photographs(4, 32), *photographs(2, 24)]
    exact, batched = embedder.embed(images), made(weights, exact=False).embed(images)
    assert (exact - batched).abs().max() <= 0.05 * exact.abs().max()


def test_batches_are_bounded_in_pixels(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    embedder = made(weights, exact=False)
    look = embedder._vectors
    monkeypatch.setattr(embedding, "BATCH_PIXELS", 2 * 32 * 32)
    monkeypatch.setattr(embedder, "_vectors", lambda x: (sizes.append(len(x)), look(x))[1])
    assert len(embedder.embed(photographs(5, 32))) == 5
    assert sizes == [2, 2, 1]


def test_types_of_pixels_make_no_difference(embedder: Embedder) -> None:
    image = photographs(1, 32)[0]
    deep = (image.to(torch.int32) * 257).to(torch.uint16)
    opaque = torch.cat([image, torch.full_like(image[:1], 255)])
    vectors = embedder.embed([image, image.float() / 255, deep, opaque])
    assert torch.allclose(vectors, vectors[:1].expand(4, -1), atol=1e-2)


def test_quality_makes_a_difference(weights: Path, embedder: Embedder) -> None:
    image = photographs(1, 32)
    assert not torch.equal(embedder.embed(image), made(weights, quality=90).embed(image))


# Sizes.


def test_images_of_any_size_give_one_length(embedder: Embedder) -> None:
    assert embedder.embed([photographs(1, side)[0] for side in (8, 32, 90)]).shape == (3, 16)


def test_a_size_is_what_images_are_brought_to(weights: Path) -> None:
    image = photographs(1, 64)
    small = F.interpolate(image.float() / 255, (16, 48), mode="bilinear", antialias=True, align_corners=False)
    given, original = made(weights, size=(16, 48), pooling="none"), made(weights, size="original", pooling="none")
    assert torch.equal(given.embed(image), original.embed(small))
    assert given.embed(image).shape == (1, 4 * 1 * 3)


def test_positions_that_see_only_padding_are_left_out(weights: Path) -> None:
    """18 x 4 pixels are padded to 32 x 16, and y has 8 x 4 positions: 5 x 1 of them see the image."""
    image = photographs(1, 32)[:, :, :18, :4]
    y = LatentSpace(load_weights(weights), "cpu").encode(image.float() / 255).y
    vector = made(weights, features="y", pooling="mean", size="original").embed(image)
    assert y.shape[2:] == (8, 4)
    assert torch.allclose(vector, y[..., :5, :1].mean((2, 3)), atol=1e-2)
    assert not torch.allclose(vector, y.mean((2, 3)), atol=1e-2)


def test_lengths_that_differ_are_refused(weights: Path) -> None:
    embedder = made(weights, pooling="none", size="original")
    with pytest.raises(UsageError, match=r"differ in length \(16 and 4\): .* give a size, or another pooling"):
        embedder.embed([photographs(1, 32)[0], photographs(1, 16)[0]])


# Pooling.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", [2.5, 0.0]),
        ("mean-std", [2.5, 0.0, 1.25**0.5, 0.0]),
        ("grid:1", [2.5, 0.0]),
        ("grid:2", [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]),
        ("none", [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_poolings(name: str, expected: list[float]) -> None:
    x = torch.stack([torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)])[None]
    assert Pooling.parse(name)(x)[0].tolist() == pytest.approx(expected)


def test_each_level_may_have_a_pooling_of_its_own(weights: Path) -> None:
    image = photographs(1, 32)
    both = made(weights, features="zy", pooling="grid:2,mean-std").embed(image)
    parts = [
        made(weights, features=level, pooling=pooling).embed(image) for level, pooling in (("z", "grid:2"), ("y", "mean-std"))
    ]
    assert torch.equal(both, torch.cat(parts, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"features": "x"}, "unknown features 'x'"),
        ({"features": ""}, "unknown features ''"),
        ({"features": "zz"}, "unknown features 'zz'"),
        ({"pooling": "max"}, "unknown pooling 'max': it is mean,"),
        ({"pooling": "grid:0"}, "unknown pooling 'grid:0'"),
        ({"pooling": "mean,mean"}, "2 poolings 'mean,mean' for the features 'z'"),
        ({"size": "small"}, "not 'small'"),
        ({"size": (0, 10)}, r"not \(0, 10\)"),
        ({"quality": 101}, "between 0 and 100"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(weights: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(weights, **options)


def test_no_image_is_refused(embedder: Embedder) -> None:
    with pytest.raises(UsageError, match="no image to embed"):
        embedder.embed([])


# Folders.


def save(path: Path, image: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = photographs(4, 32)
    for name, image in zip(("cat/1.png", "cat/2.png", "dog/deep/1.png"), images, strict=False):
        save(tmp_path / "in" / name, image)
    save(tmp_path / "in/top.png", images[3, :, :20, :30])
    return tmp_path / "in"


class Progress:
    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def start(self, files: int, size: int) -> None:
        self.files, self.size = files, size

    def advance(self, size: int, pixels: int) -> None:
        self.told.append((size, pixels))


def test_a_folder_gives_what_its_images_give(folder: Path, embedder: Embedder) -> None:
    table, failed = embed_folder(folder, embedder)
    assert table.paths.tolist() == ["cat/1.png", "cat/2.png", "dog/deep/1.png", "top.png"]
    assert table.labels.tolist() == ["cat", "cat", "dog", ""]
    assert failed == []
    images = photographs(4, 32)
    assert np.array_equal(table.embeddings, embedder.embed([*images[:3], images[3, :, :20, :30]]).numpy())
    assert table.about == About(embedder.model, 50.0, "z", "grid:2", "32x32")


def test_images_that_fail_are_told_and_left_out(folder: Path, embedder: Embedder) -> None:
    (folder / "cat/2.png").write_bytes(b"no image")
    (folder / "zebra.png").write_bytes(b"none either")
    progress = Progress()
    table, failed = embed_folder(folder, embedder, progress=progress)
    assert table.paths.tolist() == ["cat/1.png", "dog/deep/1.png", "top.png"]
    assert failed == [(name, "cannot be read (not an image Pillow can read)") for name in ("cat/2.png", "zebra.png")]
    assert [pixels for _, pixels in progress.told] == [1024, 0, 1024, 600, 0]
    assert (progress.files, sum(size for size, _ in progress.told)) == (5, progress.size)


def test_images_whose_vectors_are_of_another_length_fail(folder: Path, weights: Path) -> None:
    table, failed = embed_folder(folder, made(weights, features="y", pooling="none", size="original"))
    assert len(table) == 3
    assert [name for name, _ in failed] == ["top.png"]
    assert "give a size, or another pooling" in failed[0][1]


# Files.


@pytest.fixture
def table() -> Embeddings:
    values = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
    return Embeddings(values, np.array(["a/ä.png", "b.png"]), np.array(["a", ""]), About("tiny-0", 50.0, "z", "mean", "8x8"))


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_files_give_back_what_they_got(table: Embeddings, tmp_path: Path, suffix: str) -> None:
    table.save(tmp_path / f"t{suffix}")
    back = Embeddings.load(tmp_path / f"t{suffix}")
    assert np.array_equal(back.embeddings, table.embeddings)
    assert back.embeddings.dtype == np.float32
    assert (back.paths.tolist(), back.labels.tolist(), back.about) == (["a/ä.png", "b.png"], ["a", ""], table.about)
    assert os.listdir(tmp_path) == [f"t{suffix}"]


def test_npz_needs_no_pickle(table: Embeddings, tmp_path: Path) -> None:
    table.save(tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz", allow_pickle=False) as file:
        assert set(file) == {"embeddings", "paths", "labels", "model", "quality", "features", "pooling", "size"}
        assert file["paths"].tolist() == ["a/ä.png", "b.png"]
        assert str(file["model"]) == "tiny-0"


def test_the_same_table_is_the_same_file(table: Embeddings, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        table.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_parquet_has_lists_of_one_length(table: Embeddings, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table.save(tmp_path / "t.parquet")
    schema = parquet.read_schema(tmp_path / "t.parquet")
    assert schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 3)
    assert b"tiny-0" in schema.metadata[b"vaetools"]


def test_parquet_holds_names_that_are_no_text(table: Embeddings, tmp_path: Path) -> None:
    odd = Embeddings(table.embeddings, np.array([os.fsdecode(b"a\xff.png"), "b"]), table.labels, table.about)
    odd.save(tmp_path / "t.parquet")
    assert Embeddings.load(tmp_path / "t.parquet").paths.tolist() == ["a\\xff.png", "b"]
    odd.save(tmp_path / "t.npz")
    assert os.fsencode(str(Embeddings.load(tmp_path / "t.npz").paths[0])) == b"a\xff.png"


def test_without_pyarrow_the_message_says_what_to_do(table: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"Parquet needs pyarrow, .* pip install 'vaetools\[parquet\]', or write \.npz"):
        table.save(tmp_path / "t.parquet")


def test_a_failure_leaves_the_old_file(table: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.npz").write_bytes(b"old")

    def broken(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="No space"):
        table.save(tmp_path / "t.npz")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"t.npz": b"old"}


@pytest.mark.parametrize("content", [None, b"no archive", b"PK\x03\x04"], ids=["missing", "other", "cut"])
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_files_that_are_none_are_refused(tmp_path: Path, content: bytes | None, suffix: str) -> None:
    if content is not None:
        (tmp_path / f"t{suffix}").write_bytes(content)
    with pytest.raises(UsageError, match="no file of embeddings"):
        Embeddings.load(tmp_path / f"t{suffix}")


def test_npz_of_something_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", embeddings=np.zeros((1, 2)))
    with pytest.raises(UsageError, match="no file of embeddings"):
        Embeddings.load(tmp_path / "t.npz")


def test_a_damaged_npz_is_refused(table: Embeddings, tmp_path: Path) -> None:
    values = {"embeddings": table.embeddings, "paths": table.paths, "labels": table.labels}
    np.savez_compressed(tmp_path / "good.npz", **values, **asdict(table.about))
    good = (tmp_path / "good.npz").read_bytes()
    for place in range(0, len(good), 5):
        (tmp_path / "t.npz").write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        with contextlib.suppress(UsageError):  # some bytes have no part in it
            Embeddings.load(tmp_path / "t.npz")


def test_parquet_without_vectors_is_refused(table: Embeddings, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = arrow.table({"path": ["a"], "label": [""], "embedding": [1.0]})
    parquet.write_table(columns.replace_schema_metadata({"vaetools": json.dumps(asdict(table.about))}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="no file of embeddings"):
        Embeddings.load(tmp_path / "t.parquet")
