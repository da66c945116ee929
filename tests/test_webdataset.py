"""Tars with the package webdataset: its pipelines read ours, ours reads its, and training from tars."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from vaetools import LatentAugment, latent_collate
from vaetools.cli import main
from vaetools.codec.loaded import codecs
from vaetools.errors import FormatError, TrainingError, UsageError
from vaetools.images.folder import SUFFIXES
from vaetools.images.picture import Picture
from vaetools.model import precision
from vaetools.storage.place import parse_source
from vaetools.storage.shards import TarShards
from vaetools.training.data import CropSampler, ImageCache
from vaetools.training.loop import train as train_on
from vaetools.webdataset import FORMS, in_colours, latent_samples, vtc_decoder

from .conftest import PHOTOGRAPHS, photograph, tiny
from .tar_files import content, make_shards, make_tar, samples
from .test_training import PACKAGE_ROOT, metrics, settings, train

webdataset = pytest.importorskip("webdataset")


@pytest.fixture(autouse=True)
def without_open_tars() -> Iterator[None]:
    """webdataset leaves them to the garbage collector, which complains: here, and not in whatever test comes next."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), count=2, each=3)


@pytest.fixture(scope="module")
def small(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with .vtc members."""
    target = tmp_path_factory.mktemp("small") / "tars"
    result = CliRunner().invoke(main, ["compress", str(shards), "-o", str(target), "--tar"])
    assert result.exit_code == 0, result.stderr
    return target


def pipeline(folder: Path, *decoders: Any) -> Any:
    dataset = webdataset.WebDataset([str(path) for path in sorted(folder.glob("*.tar"))], shardshuffle=False)
    return dataset.decode(*decoders) if decoders else dataset


def one(data: bytes, form: str) -> Any:
    return vtc_decoder(form)(".jpg.vtc", data)


# What webdataset makes of ours.


def test_samples_keep_their_keys_and_their_classes(small: Path) -> None:
    found = list(pipeline(small, vtc_decoder("rgb8")).to_tuple("__key__", "jpg.vtc", "cls", "json"))
    assert [(key, cls, data) for key, _, cls, data in found] == [
        (f"{number:04}", number % 3, {"number": number}) for number in range(6)
    ]
    assert all(image.shape[2] == 3 and image.dtype == np.uint8 for _, image, _, _ in found)


@pytest.mark.parametrize("form", list(FORMS))
def test_forms_are_those_of_webdataset(small: Path, tmp_path: Path, form: str) -> None:
    """Of the decoded image, kept as PNG: its own handler makes the same of it, to the last bit."""
    data = content(small / "photos-000.tar")["0001.jpg.vtc"]
    Image.fromarray(codecs.get("photo").decode([data])[0].picture.pixels).save(tmp_path / "a.png")
    expected = webdataset.imagehandler(form)(".png", (tmp_path / "a.png").read_bytes())
    found = one(data, form)
    assert type(found) is type(expected)
    if isinstance(expected, Image.Image):
        assert found.mode == expected.mode
    else:
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_members_of_other_kinds_are_left_to_other_decoders(shards: Path, small: Path, tmp_path: Path) -> None:
    mixed = {**content(shards / "photos-000.tar"), **content(small / "photos-001.tar")}
    make_tar(tmp_path / "a.tar", list(mixed.items()))
    found = list(pipeline(tmp_path, vtc_decoder("rgb8"), "rgb8").to_tuple("jpg;jpg.vtc", "cls"))
    assert [(image.dtype, image.ndim) for image, _ in found] == [(np.dtype(np.uint8), 3)] * 6


def test_without_the_decoder_a_pipeline_gives_bytes(small: Path) -> None:
    sample = next(iter(pipeline(small, "rgb8")))
    assert sample["jpg.vtc"] == content(small / "photos-000.tar")["0000.jpg.vtc"]


def test_webdataset_decodes_what_was_restored(shards: Path, small: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["decompress", str(small), "-o", str(tmp_path), "--tar"])
    assert result.exit_code == 0, result.stderr
    images = [image for (image,) in pipeline(tmp_path, "rgb8").to_tuple("jpg.png")]
    originals = [image for (image,) in pipeline(shards, "rgb8").to_tuple("jpg")]
    assert [image.shape for image in images] == [image.shape for image in originals]
    assert all(np.abs(a.astype(int) - b).mean() < 12 for a, b in zip(images, originals, strict=True))


def test_workers_decode_what_the_main_process_does(small: Path) -> None:
    expected = dict(pipeline(small, vtc_decoder("torch")).to_tuple("__key__", "jpg.vtc"))
    dataset = pipeline(small, vtc_decoder("torch")).to_tuple("__key__", "jpg.vtc")
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=2)
    found = dict(iter(loader))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], image) for key, image in expected.items())


def test_a_damaged_member_is_for_webdataset_to_pass_over(small: Path, tmp_path: Path) -> None:
    members = {name: data[:60] if name == "0001.jpg.vtc" else data for name, data in content(small / "photos-000.tar").items()}
    make_tar(tmp_path / "a.tar", list(members.items()))
    dataset = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    found = dataset.decode(vtc_decoder("rgb8"), handler=webdataset.ignore_and_continue).to_tuple("__key__")
    assert [key for (key,) in found] == ["0000", "0002"]


def test_the_decoder_goes_to_spawned_workers() -> None:
    decoder = vtc_decoder("rgb8", model="photo")
    assert pickle.loads(pickle.dumps(decoder)) == decoder


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="rgb8, "):
        vtc_decoder("bgr")


def test_alpha_and_16_bits() -> None:
    deep = np.array([[[0, 65535], [32768, 0]]], np.uint16)
    assert in_colours(deep, "rgba").tolist() == [[[0, 0, 0, 65535], [32768, 32768, 32768, 0]]]
    data = codecs.get("photo").compress([Picture(np.full((8, 8, 1), 32768, np.uint16))])[0]
    assert one(data, "l8").max() == one(data, "l8").min() == 128
    assert one(data, "l").max() == pytest.approx(32768 / 65535, abs=1e-6)


def test_samples_become_images_on_the_other_side(small: Path) -> None:
    """Without operators they are the codec's, but for what rounding does in another batch."""
    items = list(pipeline(small).map(latent_samples(crop=40, classes=3)))
    images, labels = LatentAugment("photo", (), device="cpu", bfloat16=False)(latent_collate(items))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    whole = [image for (image,) in pipeline(small, vtc_decoder("torch")).to_tuple("jpg.vtc")]
    for image, one, item in zip(images, whole, items, strict=True):
        place = item.place
        assert (image - one[:, place.top : place.bottom, place.left : place.right]).abs().mean() < 0.02


def test_workers_hand_over_latents(small: Path) -> None:
    dataset = pipeline(small).map(latent_samples(crop=40))
    loader = webdataset.WebLoader(dataset, batch_size=3, collate_fn=latent_collate, num_workers=2)
    assert sorted(label for batch in loader for label in batch.labels.tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("options", [{"label": "txt"}, {"label": "json"}, {"image": "png.vtc"}], ids=str)
def test_a_sample_that_lacks_something_is_told_by_its_key(small: Path, options: dict[str, str]) -> None:
    with pytest.raises(FormatError, match=r"0000: has no|0000: txt|0000: json"):
        next(iter(pipeline(small).map(latent_samples(**options))))


def test_vaetools_does_without_webdataset() -> None:
    code = "import sys, vaetools, vaetools.webdataset; assert 'webdataset' not in sys.modules; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)})


# What we make of webdataset's.


def test_tars_of_its_shard_writer(tmp_path: Path) -> None:
    pixels = np.asarray(photograph("chelsea", 64, 48))
    with webdataset.ShardWriter(str(tmp_path / "its-%06d.tar"), maxcount=2, verbose=0) as writer:
        for number in range(4):
            writer.write({"__key__": f"a/b.c/{number:03}", "png": pixels, "cls": number, "left.jpg": pixels})
    files = TarShards.of(str(tmp_path / "its-{000000..000001}.tar")).list(SUFFIXES).files
    assert [path for path, _ in files][:3] == [
        "its-000000/a/b.c/000.left.jpg",
        "its-000000/a/b.c/000.png",
        "its-000000/a/b.c/001.left.jpg",
    ]
    assert len(files) == 8


# Training.


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs of `photo_folder`, in two tars."""
    folder = tmp_path_factory.mktemp("photographs")
    for shard in range(2):
        members = []
        for name in PHOTOGRAPHS[2 * shard : 2 * shard + 2]:
            path = folder / "image.png"
            photograph(name, 192, 160).save(path)
            members.append((f"{name}.png", path.read_bytes()))
            path.unlink()
        make_tar(folder / f"photos-{shard}.tar", members)
    return folder


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["read again at each use", "held in memory"])
def test_crops_of_tars_are_those_of_a_folder(photographs: Path, photo_folder: Path, limit: int) -> None:
    caches = [ImageCache.load(source, tiny(), limit) for source in (TarShards.of(str(photographs / "*.tar")), photo_folder)]
    one, other = (CropSampler(cache, 0).batch(3, 32, 8).images for cache in caches)
    assert np.array_equal(one, other)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", [(name, data[:90]) for name, data in samples([0])])
    with pytest.raises(TrainingError, match=r"a.tar/0000.jpg"):
        ImageCache.load(parse_source(str(tmp_path / "a.tar")), tiny(), 0)
    whole = make_tar(tmp_path / "b.tar", samples(range(3))).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[: len(whole) // 2])
    assert "b.tar: it" in ImageCache.load(parse_source(str(tmp_path / "b.tar")), tiny(), 0).unreadable[0]


def train_as_rank(rank: int, port: int, source: str, run: Path) -> None:
    """In a process of its own, with what torchrun would say to it."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    precision.has_bfloat16 = lambda device: False  # type: ignore[assignment]
    training = settings(epochs=1, steps_per_epoch=3, batch=4, crops=((0.0, 32),))
    train_on(parse_source(source), run, tiny(), training, device="cpu")


def test_two_processes_train_on_all_tars(
    photographs: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one process does on the folder, with the batches of both; in float32, as bfloat16 rounds otherwise in other batches."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = str(photographs / "photos-{0..1}.tar")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=train_as_rank, args=(rank, port, source, tmp_path / "two")) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    monkeypatch.setattr("vaetools.model.precision.has_bfloat16", lambda device: False)
    train(photo_folder, tmp_path / "one", tiny(), settings(epochs=1, steps_per_epoch=3, batch=8, crops=((0.0, 32),)))
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        for key in ("loss", "reconstruction_loss", "kl_divergence", "mse", "bpp"):
            assert float(two[key]) == pytest.approx(float(one[key]), rel=1e-3), key
