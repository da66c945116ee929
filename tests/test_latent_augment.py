"""Training from compressed files, the device's part: whole numbers to images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaetools import Codec, LatentAugment, LatentBank, LatentFolder, errors, latent_collate
from vaetools.augment.strength import Strength
from vaetools.codec.container import unpack
from vaetools.latents.batch import LatentItem

from .latent_files import CHECKS, HEIGHT, WIDTH, batch_of, decoded, difference, levels, pixels, write, write_folder, write_model


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


@pytest.fixture(scope="module")
def plain(weights: Path) -> LatentAugment:
    """Without operators."""
    return LatentAugment(weights, (), device="cpu")


# What the device makes of it.


@pytest.mark.parametrize("workers", [0, 2])
def test_without_operators_it_is_the_codec(dataset: LatentFolder, codec: Codec, plain: LatentAugment, workers: int) -> None:
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=latent_collate)
    images, labels = zip(*(plain(batch) for batch in loader), strict=True)
    assert torch.cat(labels).tolist() == dataset.targets == [0, 0, 0, 1, 1, 1]
    whole = torch.cat(images)
    assert whole.shape == (6, 3, HEIGHT, WIDTH)
    assert whole.dtype == torch.float32
    assert 0 <= whole.min() < whole.max() <= 1
    # Sums are taken in another order in a batch of another size: a value between two levels may fall to the other one.
    assert difference(whole, decoded(codec, dataset)) <= 1
    assert (levels(whole) != torch.stack(decoded(codec, dataset))).float().mean() < 0.01


@pytest.mark.parametrize("tile_size", [16, 32])
def test_tiles_are_put_together(codec: Codec, weights: Path, plain: LatentAugment, tmp_path: Path, tile_size: int) -> None:
    for number, name in enumerate(("chelsea", "coffee")):
        write(tmp_path / "cats" / f"{number}.vtc", codec, pixels(name), tile_size=tile_size)
    dataset = LatentFolder(tmp_path, model=weights)
    item = dataset[0]
    assert len(item.tiles) == len(unpack((tmp_path / "cats/0.vtc").read_bytes()).header.grid) > 5
    assert difference(plain(batch_of(dataset))[0], decoded(codec, dataset)) <= 1


def test_lossless_files_come_out_as_they_are_beside_others(
    codec: Codec, weights: Path, root: Path, plain: LatentAugment, tmp_path: Path
) -> None:
    write(tmp_path / "a" / "checks.vtc", codec, CHECKS, 100)
    write(tmp_path / "b" / "cat.vtc", codec, pixels("chelsea", 64, 64))
    dataset = LatentFolder(tmp_path, model=weights)
    assert dataset[0].pixels is not None
    assert len(batch_of(dataset).groups) == 2
    assert difference(plain(batch_of(dataset))[0], [CHECKS.expand(3, -1, -1), decoded(codec, dataset)[1]]) <= 1
    still = LatentAugment(weights, "jitter", 0.0, device="cpu")
    assert torch.equal(levels(still(batch_of(dataset))[0][0]), CHECKS.expand(3, -1, -1).float())
    moving = LatentAugment(weights, "jitter", 1.0, device="cpu")
    change = moving(batch_of(dataset))[0] - plain(batch_of(dataset))[0]
    assert (change.abs().amax((1, 2, 3)) > 0.01).all()


def test_gray_alpha_and_sixteen_bits(codec: Codec, weights: Path, plain: LatentAugment, tmp_path: Path) -> None:
    alpha = torch.arange(WIDTH, dtype=torch.uint8).expand(1, HEIGHT, -1)
    gray = pixels("chelsea")[:1]
    deep = (pixels("coffee").to(torch.int32) * 100 + 5000).to(torch.uint16)
    for number, image in enumerate((torch.cat([pixels("coffee"), alpha]), gray, deep)):
        write(tmp_path / "all" / f"{number}.vtc", codec, image)
    dataset = LatentFolder(tmp_path, model=weights)
    images, _ = plain(batch_of(dataset))
    colours, one, sixteen = decoded(codec, dataset)
    assert difference(images[:1], colours[None, :3]) <= 1
    assert difference(images[1:2], one[None].expand(-1, 3, -1, -1)) <= 1
    assert (images[2] * 65535 - sixteen.to(torch.int32).float()).abs().max() < 255
    # A hundredth of the range that occurs: 16-bit images leave the codec in float32, and this one in bfloat16 where there is.


def test_a_network_trains_on_the_images(dataset: LatentFolder, plain: LatentAugment) -> None:
    images, labels = plain(batch_of(dataset))
    layer = torch.nn.Conv2d(3, 2, 3)
    torch.nn.functional.cross_entropy(layer(images).mean((2, 3)), labels).backward()
    assert layer.weight.grad is not None
    images.mul_(2)


@pytest.mark.gpu
def test_a_gpu_makes_the_same_images(dataset: LatentFolder, weights: Path, plain: LatentAugment) -> None:
    (batch,) = DataLoader(dataset, batch_size=6, num_workers=1, collate_fn=latent_collate, pin_memory=True)
    assert batch.groups[0].residuals.is_pinned()
    images, labels = LatentAugment(weights, (), device="cuda")(batch)
    assert (images.device.type, labels.device.type) == ("cuda", "cuda")
    assert (images.cpu() - plain(batch)[0]).abs().max() < 0.02
    for operators in ("jitter", "style+requantise", "mix"):
        LatentAugment(weights, operators, device="cuda")(batch)


def test_type_of_the_images(dataset: LatentFolder, weights: Path) -> None:
    images, _ = LatentAugment(weights, (), device="cpu", dtype=torch.float16)(batch_of(dataset))
    assert images.dtype == torch.float16


# Operators.

ALL = ("jitter", "resample", "hyper", "requantise", "style", "interpolate", "extrapolate", "difference", "sample", "mix")


@pytest.mark.parametrize("operators", [*ALL, "jitter+hyper+style", "mix,jitter"])
def test_operators_change_images_as_far_as_their_strength(
    dataset: LatentFolder, weights: Path, plain: LatentAugment, operators: str
) -> None:
    batch = batch_of(dataset)
    before, _ = plain(batch)
    after, labels = LatentAugment(weights, operators, 1.0, device="cpu", seed=1)(batch)
    assert ((after - before).abs().amax((1, 2, 3)) > 0.01).sum() >= 4
    still, same = LatentAugment(weights, operators, 0.0, device="cpu", seed=1)(batch)
    assert (still - before).abs().max() < 1e-4
    if "mix" in operators:
        assert labels.shape == (6, 2)
        assert torch.allclose(labels.sum(1), torch.ones(6))
        assert same.argmax(1).tolist() == batch.labels.tolist()
    else:
        assert torch.equal(labels, batch.labels)


def test_a_row_does_not_depend_on_its_neighbours(dataset: LatentFolder, weights: Path) -> None:
    together, _ = LatentAugment(weights, "jitter+requantise,hyper", 0.7, device="cpu", seed=5)(batch_of(dataset))
    augment = LatentAugment(weights, "jitter+requantise,hyper", 0.7, device="cpu", seed=5)
    for index in (4, 1):
        alone, _ = augment(batch_of(dataset, [index]))
        assert (alone[0] - together[index]).abs().max() < 0.01


def test_probability_leaves_images_alone(dataset: LatentFolder, weights: Path, plain: LatentAugment) -> None:
    batch = batch_of(dataset)
    changed = LatentAugment(weights, "jitter", 1.0, device="cpu", probability=0.5, seed=2)(batch)[0] - plain(batch)[0]
    assert 0 < (changed.abs().amax((1, 2, 3)) > 1e-4).sum() < 6


def test_strengths_follow_epochs_and_classes(root: Path, weights: Path, plain: LatentAugment) -> None:
    dataset = LatentFolder(root, model=weights)
    ramp = LatentAugment(weights, "jitter", Strength.ramp(0.0, 1.0, 1), device="cpu")
    per_class = LatentAugment(weights, "jitter", Strength.per_class({1: 1.0}), device="cpu")
    before, _ = plain(batch_of(dataset))
    assert (ramp(batch_of(dataset))[0] - before).abs().max() < 1e-4
    changed = (per_class(batch_of(dataset))[0] - before).abs().amax((1, 2, 3)) > 1e-4
    assert changed.tolist() == [False] * 3 + [True] * 3
    dataset.set_epoch(1)
    assert (ramp(batch_of(dataset))[0] - before).abs().max() > 0.01


def test_a_bank_is_of_any_quality(dataset: LatentFolder, weights: Path, plain: LatentAugment) -> None:
    images = [pixels(name) for name in ("astronaut", "coffee")]
    bank = LatentBank.fit(plain.space, images, [0, 1], classes=3)
    augment = LatentAugment(weights, "interpolate,mix", 1.0, device="cpu", bank=bank, seed=3)
    images, labels = augment(batch_of(dataset))
    assert labels.shape == (6, 3)
    assert (images - plain(batch_of(dataset))[0]).abs().max() > 0.02


def test_latents_of_another_quality_are_put_in_the_steps_of_the_bank(codec: Codec, weights: Path, tmp_path: Path) -> None:
    """All the way to the only image of a bank is that image, whatever the quality of the file."""
    for quality in (20, 90):
        write(tmp_path / "cats" / f"{quality}.vtc", codec, pixels("chelsea"), quality)
    plain = LatentAugment(weights, (), device="cpu")
    bank = LatentBank.fit(plain.space, [pixels("coffee")] * 2, [0, 0])
    augment = LatentAugment(weights, "extrapolate", Strength.constant(0.0), device="cpu", bank=bank)
    dataset = LatentFolder(tmp_path, model=weights)
    assert (augment(batch_of(dataset))[0] - plain(batch_of(dataset))[0]).abs().max() < 1e-4
    sampled, _ = LatentAugment(weights, "sample", 1.0, device="cpu", bank=bank)(batch_of(dataset))
    wanted = plain.space.decode(bank.y[:1], HEIGHT, WIDTH).clamp(0, 1)
    assert (sampled - wanted).square().mean((1, 2, 3)).sqrt().max() < 0.03


# Crops.

BORDER = 3  # levels: what a window that does not hold all that the network looks at may cost


def crops_of(dataset: LatentFolder, codec: Codec) -> tuple[list[LatentItem], Tensor]:
    """Items, and what the whole images have in their places, grown to the crop."""
    items = [dataset[index] for index in range(len(dataset))]
    wanted = []
    for item, image in zip(items, decoded(codec, dataset), strict=True):
        part = image[(..., *item.place.slices)].float().expand(3, -1, -1)
        missing = (0, item.width - part.shape[2], 0, item.height - part.shape[1])
        wanted.append(torch.nn.functional.pad(part[None], missing, "replicate")[0])
    return items, torch.stack(wanted)


@pytest.mark.parametrize("crop", [1, 16, 23, 40])
def test_a_crop_is_a_part_of_the_image(root: Path, codec: Codec, weights: Path, plain: LatentAugment, crop: int) -> None:
    items, wanted = crops_of(LatentFolder(root, model=weights, crop=crop), codec)
    images, _ = plain(latent_collate(items))
    assert images.shape == (6, 3, crop, crop)
    assert difference(images, wanted) <= BORDER
    assert len({item.place for item in items}) > 1


@pytest.mark.parametrize("crop", [60, 80])
def test_images_smaller_than_the_crop_go_on_as_they_end(
    root: Path, codec: Codec, weights: Path, plain: LatentAugment, crop: int
) -> None:
    items, wanted = crops_of(LatentFolder(root, model=weights, crop=crop), codec)
    assert difference(plain(latent_collate(items))[0], wanted) <= (1 if crop > WIDTH else BORDER)


def test_a_crop_takes_the_tiles_it_touches(codec: Codec, weights: Path, plain: LatentAugment, tmp_path: Path) -> None:
    write(tmp_path / "cats" / "one.vtc", codec, pixels("chelsea", 160, 200), tile_size=32)
    dataset = LatentFolder(tmp_path, model=weights, crop=20)
    for _ in range(6):
        items, wanted = crops_of(dataset, codec)
        assert len(items[0].tiles) <= 9 < len(unpack((tmp_path / "cats/one.vtc").read_bytes()).header.grid)
        assert difference(plain(latent_collate(items))[0], wanted) <= BORDER


def test_sizes_mix_in_a_cropped_batch(codec: Codec, weights: Path, plain: LatentAugment, tmp_path: Path) -> None:
    for number, (height, width) in enumerate([(96, 64), (64, 96), (33, 41), (20, 90)]):
        write(tmp_path / "all" / f"{number}.vtc", codec, pixels("coffee", height, width))
    write(tmp_path / "all" / "checks.vtc", codec, CHECKS, 100)
    items, wanted = crops_of(LatentFolder(tmp_path, model=weights, crop=32), codec)
    batch = latent_collate(items)
    assert difference(plain(batch)[0], wanted) <= BORDER
    for operators in ("jitter", "style"):
        images, _ = LatentAugment(weights, operators, 1.0, device="cpu")(batch)
        assert ((images - wanted / 255).abs().amax((1, 2, 3)) > 0.02).sum() >= 4


# What cannot be done.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probability": 2}, "probability"),
        ({"dtype": torch.uint8}, "floats"),
        ({"operators": "blur"}, "unknown operator"),
        ({"strength": 3}, "strength"),
        ({"device": "abacus"}, "abacus"),
    ],
    ids=str,
)
def test_wrong_options_are_told_at_once(weights: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.UsageError, match=words):
        LatentAugment(weights, **{"device": "cpu", **options})


def test_what_the_batch_lacks_is_told(root: Path, dataset: LatentFolder, weights: Path) -> None:
    with pytest.raises(errors.UsageError, match="collate_fn=latent_collate"):
        LatentAugment(weights, device="cpu")([dataset[0]])  # type: ignore[arg-type]
    with pytest.raises(errors.UsageError, match="LatentFolder gives"):
        latent_collate([torch.zeros(3)])  # type: ignore[list-item]
    with pytest.raises(errors.UsageError, match="more images at once"):
        LatentAugment(weights, "style", device="cpu")(batch_of(dataset, [0]))
    floats = LatentFolder(root, model=weights, target_transform=float)
    with pytest.raises(errors.UsageError, match="class numbers"):
        LatentAugment(weights, "interpolate", device="cpu")(batch_of(floats))
    with pytest.raises(errors.UsageError, match="crop"):
        LatentFolder(root, model=weights, crop=0)
