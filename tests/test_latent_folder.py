"""Training from compressed files, the workers' part: files to whole numbers, crops, batches."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from vaetools import Codec, LatentAugment, LatentBank, LatentFolder, errors, latent_collate
from vaetools.augment.seeds import generator_of
from vaetools.codec.container import pack, unpack
from vaetools.codec.symbols import TileReader
from vaetools.codec.tiles import Rect, TileGrid
from vaetools.latents import augment as augment_module
from vaetools.latents import item as item_module
from vaetools.latents import reader as reader_module
from vaetools.latents.window import window_of
from vaetools.model import quantiser
from vaetools.model.config import ModelConfig
from vaetools.model.weights import load_weights

from .latent_files import CHECKS, batch_of, pixels, write, write_folder, write_model

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    return write_model(tmp_path_factory.mktemp("weights"), photo_folder)


@pytest.fixture(scope="module")
def codec(weights: Path) -> Codec:
    return Codec.load(weights, "cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, codec: Codec) -> Path:
    return write_folder(tmp_path_factory.mktemp("small"), codec)


@pytest.fixture(scope="module")
def dataset(root: Path, weights: Path) -> LatentFolder:
    return LatentFolder(root, model=weights)


# The folder.


def test_it_has_what_an_image_folder_has(root: Path, dataset: LatentFolder) -> None:
    like = ImageFolder(str(root), loader=lambda path: path, is_valid_file=lambda path: path.endswith(".vtc"))
    assert (dataset.classes, dataset.class_to_idx) == (like.classes, like.class_to_idx)
    assert (dataset.samples, dataset.targets) == (like.samples, like.targets)
    assert len(dataset) == 6


def test_targets_and_items_can_be_transformed(root: Path, weights: Path) -> None:
    dataset = LatentFolder(
        root, model=weights, transform=lambda item: (item, "more"), target_transform=lambda label: label + 10.5
    )
    item, more = dataset[5]
    assert (item.label, more) == (11.5, "more")


def test_files_name_their_model(root: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAETOOLS_MODELS", str(weights.parent))
    assert LatentFolder(root).model == weights
    monkeypatch.delenv("VAETOOLS_MODELS")
    with pytest.raises(errors.ModelMissing, match=r"0\.png\.vtc: .*not installed"):
        LatentFolder(root)


def test_indexes_are_those_of_the_codec(
    root: Path, dataset: LatentFolder, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    class Recorder(TileReader):
        def read_pass(self, number: int, index: np.ndarray) -> None:
            seen.append(index.copy())
            super().read_pass(number, index)

    monkeypatch.setattr(reader_module, "TileReader", Recorder)
    item = dataset[0]
    vae = load_weights(weights).vae
    with torch.inference_mode():
        first = quantiser.first_pass(vae, item.z[None].float())
        second = quantiser.second_pass(vae, first, item.residuals[None].float())
    there = first.mask[0].bool().numpy()
    assert item.residuals.count_nonzero() > 100
    assert (second.index != first.index).float().mean() > 0.1
    assert np.array_equal(seen[0], first.index[0].numpy())
    assert np.array_equal(seen[1][~there], second.index[0].numpy()[~there])


# Workers.


def test_spawned_workers_load_what_they_need(dataset: LatentFolder) -> None:
    loader = DataLoader(
        dataset, batch_size=6, num_workers=1, collate_fn=latent_collate, multiprocessing_context="spawn", persistent_workers=True
    )
    dataset.set_epoch(4)
    (batch,) = loader
    expected = batch_of(dataset)
    assert torch.equal(batch.groups[0].residuals, expected.groups[0].residuals)
    assert torch.equal(batch.identities, expected.identities)
    dataset.set_epoch(0)
    assert (batch.epoch, next(iter(loader)).epoch) == (4, 0)  # a worker that lives on is told


def test_workers_get_the_integer_network_only(dataset: LatentFolder, weights: Path) -> None:
    copied = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 5000
    assert torch.equal(copied[0].z, dataset[0].z)
    held = [value for value in vars(copied.reader).values() if isinstance(value, torch.nn.Module)]
    assert held == [copied.reader.scales]


# Random numbers.


def epochs_of(root: Path, weights: Path, workers: int, **options: Any) -> list[Tensor]:
    dataset = LatentFolder(root, model=weights, crop=24, **options)
    augment = LatentAugment(weights, "jitter,hyper", 1.0, device="cpu", seed=options.get("seed"))
    loader = DataLoader(dataset, batch_size=3, num_workers=workers, collate_fn=latent_collate, persistent_workers=workers > 0)
    found = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        found.append(torch.cat([augment(batch)[0] for batch in loader]))
    return found


def test_a_seed_decides_whatever_the_number_of_workers(root: Path, weights: Path) -> None:
    alone, by_two = epochs_of(root, weights, 0, seed=7), epochs_of(root, weights, 2, seed=7)
    for one, other in zip(alone, by_two, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(alone[0], epochs_of(root, weights, 0, seed=8)[0])


def test_an_epoch_can_be_done_again(root: Path, weights: Path) -> None:
    dataset = LatentFolder(root, model=weights, seed=3)
    augment, again = (LatentAugment(weights, "jitter", device="cpu", seed=7) for _ in range(2))
    for epoch in (0, 1, 2):
        dataset.set_epoch(epoch)
        images, _ = augment(batch_of(dataset))
    assert torch.equal(again(batch_of(dataset))[0], images)
    assert not torch.equal(again(batch_of(dataset))[0], images)  # met twice in one epoch


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_that_is_said_again_repeats(root: Path, weights: Path, workers: int) -> None:
    augment = LatentAugment(weights, "jitter,hyper", 1.0, device="cpu", seed=7)

    def started() -> tuple[LatentFolder, DataLoader[Any]]:
        """As after a restart: a data set and a loader of their own."""
        dataset = LatentFolder(root, model=weights, crop=24, seed=7)
        return dataset, DataLoader(
            dataset, batch_size=3, num_workers=workers, collate_fn=latent_collate, persistent_workers=workers > 0
        )

    def epoch_of(dataset: LatentFolder, loader: DataLoader[Any], epoch: int) -> Tensor:
        dataset.set_epoch(epoch)
        return torch.cat([augment(batch)[0] for batch in loader])

    one, other = started(), started()
    images = [epoch_of(*one, 0), epoch_of(*one, 0), epoch_of(*other, 0), epoch_of(*one, 1), epoch_of(*one, 0)]
    assert [torch.equal(images[0], again) for again in images] == [True, True, True, False, True]


def test_two_folders_that_take_turns_keep_what_was_met(root: Path, weights: Path) -> None:
    augment = LatentAugment(weights, "jitter", 1.0, device="cpu", seed=7)
    folders = [LatentFolder(root, model=weights, seed=7) for _ in range(2)]
    for folder in folders:
        folder.set_epoch(2)
        augment(batch_of(folder, [0]))
    first, second = ([augment(batch_of(folder, [number]))[0] for number, folder in enumerate(folders, 1)] for _ in range(2))
    assert not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_without_set_epoch_no_two_epochs_are_alike(root: Path, weights: Path) -> None:
    dataset = LatentFolder(root, model=weights, seed=7)
    augment = LatentAugment(weights, "jitter", 1.0, device="cpu", seed=7)
    assert not torch.equal(augment(batch_of(dataset))[0], augment(batch_of(dataset))[0])


def test_a_crop_and_its_augmentation_are_drawn_apart(root: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data set and LatentAugment have one seed and know a file by one number; what is drawn must not be."""
    seeds: dict[Any, list[int]] = {item_module: [], augment_module: []}

    def record(module: Any) -> None:
        def recorder(seed: int) -> torch.Generator:
            seeds[module].append(seed)
            return generator_of(seed)

        monkeypatch.setattr(module, "generator_of", recorder)

    for module in seeds:
        record(module)
    dataset = LatentFolder(root, model=weights, crop=24, seed=7)
    dataset.set_epoch(0)
    LatentAugment(weights, "jitter", device="cpu", seed=7)(batch_of(dataset))
    assert [len(drawn) for drawn in seeds.values()] == [6, 6]
    assert len({seed for drawn in seeds.values() for seed in drawn}) == 12


def test_without_a_seed_torch_decides(root: Path, weights: Path) -> None:
    torch.manual_seed(1)
    first = epochs_of(root, weights, 0)[0]
    other = epochs_of(root, weights, 0)[0]
    torch.manual_seed(1)
    assert torch.equal(first, epochs_of(root, weights, 0)[0])
    assert not torch.equal(first, other)


# Windows.


@pytest.mark.parametrize("crop", [1, 5, 64, 65, 224, 500])
def test_windows_hold_their_crop_and_are_of_one_size(crop: int) -> None:
    config, grid = ModelConfig(), TileGrid(1000, 700, 512, 384)
    sizes = set()
    for top in (0, 1, 63, 64, 100, 700 - crop):
        for left in (0, 15, 16, 333, 1000 - crop):
            wanted = Rect(top, left, top + crop, left + crop).within(grid.bounds)
            if wanted.height < crop:
                continue
            window = window_of(config, grid, wanted)
            sizes.add((window.hyper.height, window.hyper.width, window.seen.height, window.seen.width))
            latents = window.hyper.times(4)
            seen = window.seen.moved(Rect(-latents.top, -latents.left, 0, 0))
            assert window.wanted.moved(Rect(-16 * seen.top, -16 * seen.left, 0, 0)) == wanted
            assert seen.within(latents) == seen
            assert window.wanted.within(Rect(0, 0, 16 * seen.height, 16 * seen.width)) == window.wanted
            assert sum(part.height * part.width for _, part in window.tiles) == window.hyper.height * window.hyper.width
    assert len(sizes) == 1


# What cannot be done.


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "ROOT/CLASS"),
        (("cat.vtc",), "ROOT/CLASS"),
        (("cats/cat.png",), "no .vtc file in cats"),
        (("cats/cat.vtc", "dogs/.hidden.vtc"), "no .vtc file in dogs"),
    ],
    ids=str,
)
def test_folders_without_files(tmp_path: Path, weights: Path, files: tuple[str, ...], words: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(errors.UsageError, match=words):
        LatentFolder(tmp_path, model=weights)
    with pytest.raises(errors.UsageError, match="no such folder"):
        LatentFolder(tmp_path / "nowhere", model=weights)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)


def write_text(path: Path) -> None:
    path.write_text("text")


def claim_other_symbols(path: Path) -> None:
    contents = unpack(path.read_bytes())
    (entry,), (payload,) = contents.front.entries, contents.payloads
    assert payload is not None
    path.write_bytes(pack(contents.header, contents.front.boxes, [(payload, entry.symbols_crc ^ 1)]))


def error_of(loader: DataLoader[Any]) -> Exception | None:
    """Without its traceback, which would keep the workers waiting."""
    try:
        list(loader)
    except Exception as error:
        return error.with_traceback(None)
    return None


DAMAGES = [
    (cut_short, errors.Truncated),
    (change_a_byte, errors.Corrupt),
    (claim_other_symbols, errors.Desync),
    (write_text, errors.NotThisFormat),
    (Path.unlink, errors.ImageError),
]


@pytest.mark.parametrize(("damage", "kind"), DAMAGES, ids=lambda value: value.__name__)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named(
    codec: Codec, weights: Path, tmp_path: Path, damage: Damage, kind: type[Exception], workers: int
) -> None:
    for name in "ab":
        write(tmp_path / "cats" / f"{name}.vtc", codec, pixels("chelsea"))
    dataset = LatentFolder(tmp_path, model=weights)
    damage(tmp_path / "cats" / "b.vtc")
    error = error_of(DataLoader(dataset, num_workers=workers, collate_fn=latent_collate))
    assert type(error) is kind
    assert "cats/b.vtc: " in str(error)


def test_sizes_that_differ_need_a_crop(codec: Codec, weights: Path, tmp_path: Path) -> None:
    write(tmp_path / "cats" / "a.vtc", codec, pixels("chelsea", 64, 48))
    write(tmp_path / "cats" / "b.vtc", codec, pixels("chelsea", 48, 64))
    with pytest.raises(errors.UsageError, match=r"48 x 64, 64 x 48 pixels .*crop="):
        batch_of(LatentFolder(tmp_path, model=weights))


def test_files_of_another_model(root: Path, dataset: LatentFolder, tmp_path: Path, photo_folder: Path, weights: Path) -> None:
    other = write_model(tmp_path, photo_folder, seed=2)
    with pytest.raises(errors.ModelMissing, match=r"0\.png\.vtc: .* was written with the model"):
        LatentFolder(root, model=other)[0]
    with pytest.raises(errors.UsageError, match="the files are of the model"):
        LatentAugment(other, (), device="cpu")(batch_of(dataset))
    bank = LatentBank.fit(LatentAugment(other, (), device="cpu").space, [pixels("coffee")], [0])
    with pytest.raises(errors.UsageError, match="bank was fitted with the model"):
        LatentAugment(weights, "style", device="cpu", bank=bank)


def test_a_model_without_a_codec(root: Path, tmp_path: Path, photo_folder: Path) -> None:
    gaussian = write_model(tmp_path, photo_folder, posterior="gaussian")
    for make in (lambda: LatentFolder(root, model=gaussian), lambda: LatentAugment(gaussian, (), device="cpu")):
        with pytest.raises(errors.ModelError, match="gaussian posterior"):
            make()


def test_a_folder_of_lossless_files_must_say_its_model(codec: Codec, weights: Path, tmp_path: Path) -> None:
    write(tmp_path / "a" / "checks.vtc", codec, CHECKS, 100)
    with pytest.raises(errors.UsageError, match="model="):
        LatentFolder(tmp_path)
    assert LatentFolder(tmp_path, model=weights)[0].pixels is not None
