"""The augmenter in data loaders: what their workers and epochs make of seeds."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vaetools import Augmenter, BatchAugment, LatentTransform
from vaetools.augment.album import A, LatentAugmentation
from vaetools.augment.seeds import digest, seed_for
from vaetools.errors import UsageError

from .augment_models import photographs, tiny_weights
from .conftest import photograph

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
SEED = 5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def augmenter(weights: Path) -> Augmenter:
    return Augmenter.load(weights, device="cpu")


class Images(Dataset[list[Tensor]]):
    """Each image through all of the transforms."""

    def __init__(self, images: Tensor, *transforms: Any) -> None:
        self.images, self.transforms = images, transforms

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        image = self.images[index]
        return [
            transform(image) if isinstance(transform, torch.nn.Module) else _in_albumentations(transform, image)
            for transform in self.transforms
        ]


def _in_albumentations(transform: Any, image: Tensor) -> Tensor:
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return torch.from_numpy(transform(image=pixels)["image"]).permute(2, 0, 1)


def epoch_of(loader: DataLoader[list[Tensor]]) -> list[Tensor]:
    """(N, C, H, W) for each of the transforms."""
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def wanted(augmenter: Augmenter, images: Tensor, epoch: int) -> Tensor:
    seeds = [seed_for(SEED, epoch, item, 0) for item in digest(images)]
    return torch.stack(augmenter.augment(images, seeds).images)


# The same everywhere, once the epoch is said.


@pytest.mark.parametrize(
    ("workers", "start"), [(0, None), (1, "fork"), (2, "fork"), (4, "fork"), (1, "spawn")], ids=lambda value: str(value)
)
def test_images_follow_from_seed_and_epoch_alone(augmenter: Augmenter, weights: Path, workers: int, start: str | None) -> None:
    images = photographs(6)
    latent, album = LatentTransform(augmenter, seed=SEED), LatentAugmentation(weights, seed=SEED, p=1.0)
    latent(images[0])  # in this process, before others are forked from it
    loader = DataLoader(
        Images(images, latent, A.Compose([album])),
        batch_size=2,
        num_workers=workers,
        multiprocessing_context=start,
        persistent_workers=workers == 2 or start == "spawn",
    )
    module = BatchAugment(augmenter, seed=SEED)
    for epoch in (0, 3):
        for each in (latent, album, module):
            each.set_epoch(epoch)
        assert all(torch.equal(result, wanted(augmenter, images, epoch)) for result in epoch_of(loader))
        assert torch.equal(module(images), wanted(augmenter, images, epoch))


def test_epoch_0_without_workers_is_what_is_seen_when_none_is_said(augmenter: Augmenter) -> None:
    images = photographs()
    (result,) = epoch_of(DataLoader(Images(images, LatentTransform(augmenter, seed=SEED))))
    assert torch.equal(result, wanted(augmenter, images, 0))


# Different everywhere, when it is not said.


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)], ids=["none", "anew", "persistent"])
@pytest.mark.parametrize("seed", [None, SEED])
def test_no_two_workers_or_epochs_give_the_same(
    augmenter: Augmenter, weights: Path, seed: int | None, workers: int, persistent: bool
) -> None:
    images = photographs(1).expand(4, -1, -1, -1)
    loader = DataLoader(
        Images(
            images,
            LatentTransform(augmenter, seed=seed),
            A.Compose([LatentAugmentation(weights, seed=seed, p=1.0)], seed=None if seed is None else 1),
        ),
        num_workers=workers,
        persistent_workers=persistent,
    )
    epochs = [epoch_of(loader) for _ in range(3)]
    for results in zip(*epochs, strict=True):
        assert len({image.numpy().tobytes() for result in results for image in result}) == 12


def test_an_image_that_is_drawn_twice_differs(augmenter: Augmenter) -> None:
    transform = LatentTransform(augmenter, seed=SEED)
    transform.set_epoch(2)
    loader = DataLoader(Images(photographs(1), transform), sampler=[0, 0, 0], num_workers=1)
    (result,) = epoch_of(loader)
    assert len({image.numpy().tobytes() for image in result}) == 3


def test_probability_of_albumentations_does_not_repeat_either(weights: Path) -> None:
    images = photographs(1).expand(12, -1, -1, -1)
    loader = DataLoader(Images(images, A.Compose([LatentAugmentation(weights, p=0.5)], seed=1)), num_workers=1)
    changed = [(epoch_of(loader)[0] != images).flatten(1).any(1).tolist() for _ in range(2)]
    assert changed[0] != changed[1]
    assert all(0 < sum(epoch) < 12 for epoch in changed)


# A GPU in a forked worker.


@pytest.mark.parametrize("where", ["torchvision", "albumentations"])
def test_a_gpu_in_a_forked_worker_is_refused_before_it_is_touched(
    augmenter: Augmenter, weights: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def touched() -> None:
        raise AssertionError("CUDA was touched")

    monkeypatch.setattr(torch.cuda, "_lazy_init", touched)
    monkeypatch.setattr(augmenter.space, "device", torch.device("cuda"))
    transform: Any = LatentTransform(augmenter) if where == "torchvision" else LatentAugmentation(weights, device="cuda", p=1.0)
    context = multiprocessing.get_context("fork")
    answers, answer = context.Pipe(duplex=False)

    def work() -> None:
        try:
            Images(photographs(1), transform)[0]
        except UsageError as error:
            answer.send(str(error))

    process = context.Process(target=work)
    process.start()
    process.join()
    assert answers.poll()
    assert re.search(r"CUDA cannot be used in a forked worker.*BatchAugment.*'spawn'.*device='cpu'", answers.recv())


# docs/loaders.md.


def test_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("cat/chelsea", "cup/coffee", "cup/rocket")):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        photograph(name.partition("/")[2], 60 + number, 70).save(tmp_path / "train" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "loaders.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(example, names)
    assert capsys.readouterr().out.splitlines() == [
        *(f"{epoch} torch.Size([3, 3, 128, 128])" for epoch in range(2)),
        *["torch.float32 torch.Size([3, 2])"] * 2,
    ]
    assert (names["image"].shape, names["image"].dtype) == ((64, 96, 3), np.float32)
