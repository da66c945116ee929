"""The augmenter in albumentations."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vaetools import Augmenter, LatentTransform
from vaetools.augment import album
from vaetools.augment.album import A, LatentAugmentation
from vaetools.errors import ModelError, UsageError

from .augment_models import photographs, tiny_weights, two_classes


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def bank(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    two_classes(weights).save(path)
    return path


@pytest.fixture(scope="module")
def always(weights: Path) -> Callable[..., LatentAugmentation]:
    def always(operators: str | list[str] = "jitter", **options: Any) -> LatentAugmentation:
        return LatentAugmentation(weights, operators, **{"p": 1.0, **options})

    return always


def pixels(number: int = 0) -> np.ndarray:
    return np.ascontiguousarray(photographs(number + 1)[number].permute(1, 2, 0).numpy())


def test_same_seed_as_in_torchvision_gives_the_same_image(always: Callable[..., LatentAugmentation], weights: Path) -> None:
    transform = LatentTransform(Augmenter.load(weights, "jitter,hyper", device="cpu"), seed=5)
    result = always("jitter,hyper", seed=5)(image=pixels())["image"]
    assert np.array_equal(result, transform(photographs(1)[0]).permute(1, 2, 0).numpy())
    assert not np.array_equal(result, pixels())


@pytest.mark.parametrize(
    "image",
    [pixels(), pixels()[..., 0], pixels()[..., :1], pixels().astype(np.float32) / 255, pixels().astype(np.uint16) * 257],
    ids=["uint8", "gray", "one channel", "float32", "uint16"],
)
def test_arrays_keep_type_and_shape(always: Callable[..., LatentAugmentation], image: np.ndarray) -> None:
    result = always()(image=image)["image"]
    assert (result.dtype, result.shape) == (image.dtype, image.shape)
    assert result.flags.c_contiguous
    assert not np.array_equal(result, image)


@pytest.mark.parametrize("target", ["images", "volume", "volumes"])
@pytest.mark.parametrize("seed", [None, 5])
def test_images_of_one_call_are_augmented_alike(always: Callable[..., LatentAugmentation], target: str, seed: int | None) -> None:
    stack = np.stack([pixels(), pixels(), pixels(1)])
    data = stack[None] if target == "volumes" else stack
    result = A.Compose([always(seed=seed)])(**{target: data})[target]
    assert result.shape == data.shape
    first, second, other = result[0] if target == "volumes" else result
    assert np.array_equal(first, second)
    assert not np.array_equal(first, pixels())
    assert not np.array_equal(other, pixels(1))


def test_a_list_of_images_comes_back_as_one(always: Callable[..., LatentAugmentation]) -> None:
    result = A.Compose([always()])(images=[pixels(), pixels(1)])["images"]
    assert isinstance(result, list)
    assert len(result) == 2


def test_strength_0_changes_nothing(always: Callable[..., LatentAugmentation]) -> None:
    assert np.array_equal(always(strength=0.0)(image=pixels())["image"], pixels())


# Random numbers.


def test_seed_of_compose_decides(always: Callable[..., LatentAugmentation]) -> None:
    def some(seed: int) -> list[bytes]:
        transform = A.Compose([always()], seed=seed)
        return [transform(image=pixels())["image"].tobytes() for _ in range(3)]

    assert some(1) == some(1)
    assert len({*some(1), *some(2)}) == 6


def test_own_seed_outlives_that_of_compose(always: Callable[..., LatentAugmentation]) -> None:
    results = [A.Compose([always(seed=5)], seed=seed)(image=pixels())["image"] for seed in (None, 1, 2)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_with_a_seed_probability_follows_from_the_image(always: Callable[..., LatentAugmentation]) -> None:
    images = [pixels(number) for number in range(12)]
    first, second = (A.Compose([always(seed=5, p=0.5)]) for _ in range(2))
    forwards = [first(image=image)["image"] for image in images]
    backwards = [second(image=image)["image"] for image in reversed(images)][::-1]
    assert all(np.array_equal(one, other) for one, other in zip(forwards, backwards, strict=True))
    changed = sum(not np.array_equal(one, image) for one, image in zip(forwards, images, strict=True))
    assert 0 < changed < 12


def test_epochs_differ(always: Callable[..., LatentAugmentation]) -> None:
    transform = always(seed=5)
    results = []
    for epoch in (0, 1, 0):
        transform.set_epoch(epoch)
        results.append(transform(image=pixels())["image"])
    assert np.array_equal(results[0], results[2])
    assert not np.array_equal(results[0], results[1])


@pytest.mark.parametrize("seed", [None, 5])
def test_replay_gives_the_same_image(always: Callable[..., LatentAugmentation], seed: int | None) -> None:
    transform = A.ReplayCompose([A.HorizontalFlip(p=0.5), always("jitter,resample,hyper", seed=seed, p=0.7)])
    for _ in range(5):
        result = transform(image=pixels())
        replay = json.loads(json.dumps(result["replay"]))
        assert np.array_equal(A.ReplayCompose.replay(replay, image=pixels())["image"], result["image"])


# Files and copies.


def test_arguments_survive_a_file(weights: Path, bank: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "model": weights,
        "operators": ["jitter", "style+hyper"],
        "strength": 0.25,
        "quality": 50.0,
        "detail": False,
        "bank": bank,
        "seed": 7,
        "p": 1.0,
    }
    transform = A.Compose([LatentAugmentation(**arguments)])
    A.save(transform, tmp_path / "transform.json")
    again = A.load(tmp_path / "transform.json")
    assert A.to_dict(again) == A.to_dict(transform)
    wanted = {**arguments, "model": str(weights), "bank": str(bank), "operators": "jitter,style+hyper", "device": "cpu"}
    stored = A.to_dict(again)["transform"]["transforms"][0]
    assert stored == {"__class_fullname__": "vaetools.augment.album.LatentAugmentation", **wanted}
    assert np.array_equal(again(image=pixels())["image"], transform(image=pixels())["image"])
    assert "operators='jitter,style+hyper'" in repr(again)


def test_transforms_are_copied_and_pickled(always: Callable[..., LatentAugmentation]) -> None:
    transform = A.Compose([always(seed=5)])
    others = copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))
    results = [each(image=pixels())["image"] for each in (transform, *others)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_model_is_loaded_once_and_when_it_is_needed(
    always: Callable[..., LatentAugmentation], monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = album.load_weights, []
    monkeypatch.setattr(album, "load_weights", lambda path: loaded.append(path) or load(path))
    album._space.cache_clear()
    album._augmenter.cache_clear()
    transforms = [always("jitter"), always("hyper"), always("jitter", strength=0.1)]
    assert not loaded
    for transform in transforms:
        transform(image=pixels())
    assert len(loaded) == 1


def test_a_bank_that_is_written_anew_is_read_anew(
    always: Callable[..., LatentAugmentation], weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bank.safetensors"
    results = []
    for count in (2, 8):
        two_classes(weights, count).save(path)
        os.utime(path, ns=(count, count))
        results.append(always("style", strength=1.0, bank=path, seed=5)(image=pixels(1))["image"])
    assert not np.array_equal(*results)


def test_albumentations_did_not_ask_for_updates() -> None:
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
    assert A.check_version.opener is None


# What else a call holds.

BOXES = A.BboxParams(format="pascal_voc", label_fields=["classes"])


def marked() -> dict[str, Any]:
    return {
        "image": pixels(),
        "mask": np.arange(256, dtype=np.uint8).reshape(16, 16),
        "bboxes": np.array([[1, 2, 3, 4]], np.float32),
        "classes": [1],
        "keypoints": np.array([[1, 2]], np.float32),
    }


def test_boxes_and_masks_are_left_alone(always: Callable[..., LatentAugmentation]) -> None:
    transform = A.Compose([A.NoOp(), always()], bbox_params=BOXES, keypoint_params=A.KeypointParams(format="xy"))
    result, given = transform(**marked()), marked()
    assert all(np.array_equal(result[name], given[name]) for name in ("mask", "bboxes", "classes", "keypoints"))
    assert not np.array_equal(result["image"], given["image"])


@pytest.fixture
def moving(always: Callable[..., LatentAugmentation], bank: Path, monkeypatch: pytest.MonkeyPatch) -> LatentAugmentation:
    """With an operator that moves pixels and needs no label, as one of a user's own may be."""
    from vaetools.augment import operators

    def shift(latents: Any, context: Any, strength: torch.Tensor, generators: Any) -> Any:
        return latents.moved(latents.y.roll(1, 3))

    monkeypatch.setitem(operators.OPERATORS, "shift", operators.Operator("shift", "", shift, keeps_pixels=False))
    return always("shift", p=0.01)


@pytest.mark.parametrize(
    ("target", "name"), [("mask", "masks"), ("bboxes", "boxes"), ("keypoints", "keypoints"), ("left", "masks")]
)
def test_operators_that_move_pixels_refuse_them(moving: LatentAugmentation, target: str, name: str) -> None:
    transform = A.Compose([A.NoOp(), moving], additional_targets={"left": "mask"})
    data = {"mask": marked()["mask"], **marked()}["mask" if target == "left" else target]
    with pytest.raises(UsageError, match=f"shift may move what {name} mark"):
        transform(image=pixels(), **{target: data})
    assert transform(image=pixels(), mask=None)["mask"] is None


# Arguments that cannot be.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operators": "interpolate"}, "interpolate works on labels, which albumentations does not show"),
        ({"operators": "jitter+mix"}, "mix works on labels"),
        ({"operators": "style"}, "style takes other images' latents: give a bank"),
        ({"operators": "blur"}, "unknown operator 'blur'"),
    ],
    ids=["labels", "mixed labels", "bank", "unknown"],
)
def test_operators_that_cannot_work_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LatentAugmentation(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"strength": 2.0}, {"quality": 101}, {"p": -1}, {"model": None}, {"seed": "one"}, {"device": None}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_arguments_out_of_range_are_value_errors_as_everywhere_in_albumentations(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LatentAugmentation(**arguments)


def test_what_is_missing_is_told_when_it_is_needed(always: Callable[..., LatentAugmentation], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown model 'nosuch'"):
        LatentAugmentation("nosuch", p=1.0)(image=pixels())
    with pytest.raises(UsageError, match="no bank of latents"):
        always("style", bank=tmp_path / "nosuch")(image=pixels())


def test_normalised_images_are_refused(always: Callable[..., LatentAugmentation]) -> None:
    with pytest.raises(UsageError, match="normalise it afterwards"):
        always()(image=pixels().astype(np.float32) / 127.5 - 1)
