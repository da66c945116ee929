"""The augmenter in torchvision: one sample, and a batch after collate."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vaetools import Augmenter, BatchAugment, LatentBank, LatentTransform
from vaetools.augment.seeds import digest, seed_for
from vaetools.augment.stream import MOST_MET, SeedStream
from vaetools.augment.strength import Strength
from vaetools.errors import UsageError

from .augment_models import photographs, tiny_weights, two_classes


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def bank(weights: Path) -> LatentBank:
    return two_classes(weights)


@pytest.fixture(scope="module")
def load(weights: Path) -> Callable[..., Augmenter]:
    def load(operators: str = "jitter", strength: float | Strength = 0.5, **options: Any) -> Augmenter:
        return Augmenter.load(weights, operators, strength, device="cpu", **options)

    return load


@pytest.fixture(scope="module")
def jitter(load: Callable[..., Augmenter]) -> Augmenter:
    return load()


def expected(augmenter: Augmenter, image: Tensor, seed: int, *, epoch: int = 0, copy: int = 0) -> Tensor:
    return augmenter.augment([image], [seed_for(seed, epoch, digest([image])[0], copy)]).images[0]


# Seeds.


def test_first_meeting_is_copy_0_of_epoch_0() -> None:
    image = photographs(1)
    stream = SeedStream(5)
    assert [stream.draw(image)[0] for _ in range(2)] == [seed_for(5, 0, digest(image)[0], copy) for copy in range(2)]


def test_epoch_is_part_of_the_seed_and_copies_count_anew() -> None:
    image = photographs(1)
    stream = SeedStream(5)
    stream.draw(image)
    stream.set_epoch(3)
    assert stream.draw(image) == [seed_for(5, 3, digest(image)[0], 0)]
    assert stream.epoch == 3


def test_an_epoch_that_is_said_again_begins_again() -> None:
    images = photographs()
    stream = SeedStream(5)
    seeds = [stream.draw(images)]  # someone had a look before the training began
    for epoch in (0, 0):
        stream.set_epoch(epoch)
        seeds.append(stream.draw(images))
    assert seeds[0] == seeds[1] == seeds[2]


def test_order_of_images_does_not_matter() -> None:
    images = photographs()
    assert SeedStream(5).draw(images) == SeedStream(5).draw(images.flip(0))[::-1]


def test_without_a_seed_torch_decides() -> None:
    images = photographs()
    stream = SeedStream()
    drawn = []
    for state in (0, 0, 1):
        torch.manual_seed(state)
        drawn.append(stream.draw(images))
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 8


def test_what_was_met_is_bounded_where_no_epoch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaetools.augment.stream.MOST_MET", 3)
    stream = SeedStream(5)
    seeds = [seed for _ in range(5) for seed in stream.draw(photographs())]
    assert len(set(seeds)) == 20
    assert len(stream._met) <= 4 < MOST_MET


def test_a_stream_is_pickled_with_its_epoch() -> None:
    stream = SeedStream(5)
    stream.set_epoch(2)
    again = pickle.loads(pickle.dumps(stream))
    again.set_epoch(4)
    assert (stream.epoch, again.epoch, again.seed) == (2, 4, 5)
    assert again._said.is_shared()


@pytest.mark.parametrize("seed", [1.5, "1", [1]])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(UsageError, match="a whole number or None"):
        SeedStream(seed)


def test_an_epoch_below_0_is_refused(jitter: Augmenter) -> None:
    with pytest.raises(UsageError, match="epochs count from 0"):
        LatentTransform(jitter).set_epoch(-1)


# One sample.


@pytest.mark.parametrize("operators", ["jitter", "resample", "hyper", "requantise", "jitter,hyper+resample"])
def test_image_is_what_the_augmenter_makes_of_it(load: Callable[..., Augmenter], operators: str) -> None:
    augmenter, image = load(operators), photographs(1)[0]
    result = LatentTransform(augmenter, seed=5)(image)
    assert torch.equal(result, expected(augmenter, image, 5))
    assert not torch.equal(result, image)


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image,
        tv_tensors.Image,
        lambda image: image.float() / 255,
        lambda image: image[:1],
        lambda image: torch.cat([image, image[:1]]),
        lambda image: image.to(torch.int32).mul(257).to(torch.uint16),
    ],
    ids=["pure", "Image", "float", "gray", "alpha", "uint16"],
)
def test_tensors_keep_type_and_shape(jitter: Augmenter, convert: Callable[[Tensor], Tensor]) -> None:
    image = convert(photographs(1)[0])
    result = LatentTransform(jitter, seed=5)(image)
    assert (type(result), result.dtype, result.shape) == (type(image), image.dtype, image.shape)
    assert not torch.equal(result.float(), image.float())


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_pil_images_keep_their_mode(jitter: Augmenter, mode: str) -> None:
    pixels = photographs(1)[0].permute(1, 2, 0).numpy()
    gray16 = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    image = gray16 if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.info["dpi"] = (72, 72)
    result = LatentTransform(jitter, seed=5)(image)
    assert (result.mode, result.size, result.info) == (mode, image.size, image.info)
    assert not np.array_equal(np.asarray(result), np.asarray(image))
    if mode == "RGB":
        assert np.array_equal(np.asarray(result), expected(jitter, photographs(1)[0], 5).permute(1, 2, 0).numpy())


def test_a_palette_is_refused(jitter: Augmenter) -> None:
    with pytest.raises(UsageError, match="mode P cannot be augmented"):
        LatentTransform(jitter)(Image.new("P", (16, 16)))


def test_all_frames_of_a_video_get_the_same_draw(jitter: Augmenter) -> None:
    frame = photographs(1)[0]
    video = tv_tensors.Video(torch.stack([frame, frame, frame]))
    result = LatentTransform(jitter, seed=5)(video)
    assert type(result) is tv_tensors.Video
    assert result.shape == video.shape
    assert torch.equal(result[0], result[2])
    assert not torch.equal(result[0], frame)


def test_boxes_masks_keypoints_and_others_are_the_same_objects(jitter: Augmenter) -> None:
    sample = {
        "image": tv_tensors.Image(photographs(1)[0]),
        "boxes": tv_tensors.BoundingBoxes(torch.tensor([[1, 2, 3, 4]]), format="XYXY", canvas_size=(16, 16)),
        "mask": tv_tensors.Mask(torch.zeros(1, 16, 16, dtype=torch.uint8)),
        "keypoints": tv_tensors.KeyPoints(torch.tensor([[1, 2]]), canvas_size=(16, 16)),
        "labels": torch.tensor([1]),
        "name": "one",
    }
    result = LatentTransform(jitter, seed=5)(sample)
    assert all(result[key] is sample[key] for key in sample if key != "image")
    assert not torch.equal(result["image"], sample["image"])


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        (tv_tensors.BoundingBoxes(torch.tensor([[1, 2, 3, 4]]), format="XYXY", canvas_size=(16, 16)), "boxes"),
        (tv_tensors.Mask(torch.zeros(1, 16, 16, dtype=torch.uint8)), "masks"),
        (tv_tensors.KeyPoints(torch.tensor([[1, 2]]), canvas_size=(16, 16)), "keypoints"),
    ],
    ids=["boxes", "masks", "keypoints"],
)
def test_operators_that_move_pixels_refuse_marks(load: Callable[..., Augmenter], bank: LatentBank, mark: Any, name: str) -> None:
    transform = LatentTransform(load("jitter,interpolate", bank=bank))
    with pytest.raises(UsageError, match=f"interpolate may move what {name} mark"):
        transform(tv_tensors.Image(photographs(1)[0]), {"label": 1, "mark": mark})


def test_several_images_of_a_sample_get_one_draw(jitter: Augmenter) -> None:
    image = tv_tensors.Image(photographs(1)[0])
    left, right = LatentTransform(jitter)(image, image.clone())
    assert torch.equal(left, right)


def test_pure_tensors_after_the_first_are_left_alone(jitter: Augmenter) -> None:
    sample = (photographs(1)[0], torch.tensor([3]), photographs(2)[1])
    result = LatentTransform(jitter)(sample)
    assert result[1] is sample[1]
    assert result[2] is sample[2]


def test_a_sample_without_images_is_passed_on(jitter: Augmenter) -> None:
    assert LatentTransform(jitter, seed=5)({"name": "one"}) == {"name": "one"}


def test_works_in_compositions(jitter: Augmenter) -> None:
    image = tv_tensors.Image(photographs(1)[0])
    transform = v2.Compose(
        [v2.RandomApply([LatentTransform(jitter, seed=5)], p=1.0), v2.Identity(), v2.ToDtype(torch.float32, scale=True)]
    )
    wanted = v2.functional.to_dtype(expected(jitter, photographs(1)[0], 5), torch.float32, scale=True)
    assert torch.equal(transform(image), wanted)
    assert v2.RandomApply([LatentTransform(jitter)], p=0.0)(image) is image


def test_strength_0_changes_nothing(load: Callable[..., Augmenter]) -> None:
    images = photographs()
    augmenter = load("jitter,resample,hyper,requantise", 0.0)
    assert all(torch.equal(LatentTransform(augmenter)(image), image) for image in images)
    assert torch.equal(BatchAugment(augmenter)(images), images)


def test_ramps_follow_the_epoch(load: Callable[..., Augmenter]) -> None:
    transform, image = LatentTransform(load(strength=Strength.ramp(0.0, 1.0, 4)), seed=5), photographs(1)[0]
    change = []
    for epoch in (0, 2, 4):
        transform.set_epoch(epoch)
        change.append(float((transform(image).float() - image.float()).abs().mean()))
    assert change[0] == 0 < change[1] < change[2]


@pytest.mark.parametrize("label", [1, np.int64(1), torch.tensor(1)], ids=["int", "numpy", "tensor"])
@pytest.mark.parametrize(
    "sample",
    [lambda image, label: (image, label), lambda image, label: {"image": tv_tensors.Image(image), "my_label": label}],
    ids=["tuple", "dictionary"],
)
def test_labels_are_found(load: Callable[..., Augmenter], bank: LatentBank, sample: Callable[..., Any], label: Any) -> None:
    augmenter, image = load("interpolate", bank=bank), photographs(1)[0]
    result = LatentTransform(augmenter, seed=5)(sample(image, label))
    result = result["image"] if isinstance(result, dict) else result[0]
    wanted = augmenter.augment([image], [seed_for(5, 0, digest([image])[0], 0)], [1]).images[0]
    assert torch.equal(result, wanted)


def test_labels_getter_finds_them_elsewhere(load: Callable[..., Augmenter]) -> None:
    augmenter = load(strength=Strength.per_class({1: 1.0}))
    transform = LatentTransform(augmenter, labels_getter=lambda sample: sample["class"])
    image = photographs(1)[0]
    assert torch.equal(transform({"image": image, "class": 0})["image"], image)
    assert not torch.equal(transform({"image": image, "class": 1})["image"], image)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (lambda image: image, "none are found in the sample"),
        (lambda image: (image, "cat"), "none are found in the sample"),
        (lambda image: (image, torch.tensor([0, 1])), r"one class number, not a tensor \(2,\)"),
        (lambda image: (image, {"labels": "cat"}), "one class number, not 'cat'"),
    ],
    ids=["none", "text", "several", "text in a dictionary"],
)
def test_labels_that_are_none_are_refused(
    load: Callable[..., Augmenter], bank: LatentBank, sample: Callable[[Tensor], Any], message: str
) -> None:
    transform = LatentTransform(load("interpolate", bank=bank))
    with pytest.raises(UsageError, match=message):
        transform(sample(photographs(1)[0]))


def test_mixing_is_for_batches(load: Callable[..., Augmenter], bank: LatentBank) -> None:
    with pytest.raises(UsageError, match="mix mixes labels, which needs a whole batch: use BatchAugment"):
        LatentTransform(load("mix", bank=bank))


def test_operators_without_their_bank_are_refused_at_once(load: Callable[..., Augmenter]) -> None:
    with pytest.raises(UsageError, match="give the augmenter a bank"):
        LatentTransform(load("style"))


@pytest.mark.parametrize(("getter", "message"), [(None, "give labels_getter"), ("target", "not 'target'")])
def test_a_labels_getter_that_cannot_be_is_refused(
    load: Callable[..., Augmenter], bank: LatentBank, getter: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        LatentTransform(load("interpolate", bank=bank), labels_getter=getter)


def test_a_batch_is_for_batch_augment(jitter: Augmenter) -> None:
    with pytest.raises(UsageError, match=r"got shape \(4, 3, 16, 16\); for batches there is BatchAugment"):
        LatentTransform(jitter)(photographs())


def test_normalised_images_are_refused(jitter: Augmenter) -> None:
    with pytest.raises(UsageError, match="normalise it afterwards"):
        LatentTransform(jitter)(photographs(1)[0].float() / 127.5 - 1)


def test_transforms_are_copied_and_pickled(load: Callable[..., Augmenter], bank: LatentBank) -> None:
    image = photographs(1)[0]
    transform = LatentTransform(load("jitter,style", bank=bank), seed=5)
    saved = io.BytesIO()
    torch.save(transform, saved)
    saved.seek(0)
    others = [copy.deepcopy(transform), pickle.loads(pickle.dumps(transform)), torch.load(saved, weights_only=False)]
    assert all(torch.equal(other(image), transform(image)) for other in others[:1])
    assert all(torch.equal(other(image), expected(transform.augmenter, image, 5)) for other in others[1:])
    assert "operators='jitter,style'" in repr(transform)


# A batch.


def test_batch_gets_what_single_images_get(load: Callable[..., Augmenter], bank: LatentBank) -> None:
    augmenter, images = load("jitter,style+hyper", bank=bank), photographs()
    labels = torch.tensor([0, 1, 0, 1])
    result, same = BatchAugment(augmenter, seed=5)(images, labels)
    assert same is labels
    single = LatentTransform(augmenter, seed=5)
    assert torch.equal(result, torch.stack([single(image) for image in images]))


def test_batch_may_be_a_dictionary_of_images(jitter: Augmenter) -> None:
    batch = {"labels": torch.tensor([1, 0]), "image": tv_tensors.Image(photographs(2)), "name": ["a", "b"]}
    result = BatchAugment(jitter)(batch)
    assert list(result) == list(batch)
    assert type(result["image"]) is tv_tensors.Image
    assert result["labels"] is batch["labels"]
    assert not torch.equal(result["image"], batch["image"])


@pytest.mark.parametrize("keys", [("labels", "images"), ("images", "labels")])
def test_batch_may_be_a_dictionary_of_plain_tensors(jitter: Augmenter, keys: tuple[str, ...]) -> None:
    parts = {"labels": torch.tensor([1, 0]), "images": photographs(2)}
    result = BatchAugment(jitter)({key: parts[key] for key in keys})
    assert torch.equal(result["labels"], parts["labels"])
    assert not torch.equal(result["images"], parts["images"])


def test_epochs_of_a_batch(jitter: Augmenter) -> None:
    module, images = BatchAugment(jitter, seed=5), photographs()
    module.set_epoch(1)
    assert torch.equal(module(images)[2], expected(jitter, images[2], 5, epoch=1))
    assert torch.equal(module(images)[2], expected(jitter, images[2], 5, epoch=1, copy=1))


def test_nothing_happens_in_eval_mode(jitter: Augmenter) -> None:
    batch = (photographs(), torch.zeros(4))
    assert BatchAugment(jitter).eval()(batch) is batch


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "no detail"])
def test_a_model_learns_from_the_images(load: Callable[..., Augmenter], detail: bool) -> None:
    result = BatchAugment(load(detail=detail))(photographs().float() / 255)
    layer = torch.nn.Conv2d(3, 1, 1)
    layer(result).mean().backward()
    assert layer.weight.grad is not None
    assert bool(layer.weight.grad.isfinite().all())


@pytest.mark.parametrize("names", ["mix", "jitter,mix"])
def test_mixed_labels_are_soft(load: Callable[..., Augmenter], bank: LatentBank, names: str) -> None:
    labels = torch.tensor([0, 1, 0, 1])
    images, soft = BatchAugment(load(names, 1.0, bank=bank), seed=5)(photographs(), labels)
    assert (soft.shape, soft.dtype) == ((4, 2), torch.float32)
    assert torch.allclose(soft.sum(1), torch.ones(4))
    assert torch.equal(soft.argmax(1), labels)
    assert bool((soft < 1).all(1).any())
    assert not torch.equal(images, photographs())


def test_without_a_bank_the_batch_is_mixed_with_itself(load: Callable[..., Augmenter]) -> None:
    batch = {"label": torch.tensor([0, 1, 0, 1]), "image": photographs()}
    result = BatchAugment(load("mix", 1.0), num_classes=5)(batch)
    assert result["label"].shape == (4, 5)
    assert torch.allclose(result["label"].sum(1), torch.ones(4))
    assert bool((result["label"][:, 2:] == 0).all())
    assert not torch.equal(result["image"], batch["image"])


def test_mixing_takes_a_labels_getter(load: Callable[..., Augmenter]) -> None:
    module = BatchAugment(load("mix"), num_classes=2, labels_getter=lambda batch: batch["class"])
    result = module({"image": photographs(), "class": torch.tensor([0, 1, 0, 1])})
    assert result["class"].shape == (4, 2)


def test_mixing_needs_the_number_of_classes(load: Callable[..., Augmenter], bank: LatentBank) -> None:
    with pytest.raises(UsageError, match="give num_classes"):
        BatchAugment(load("mix"))
    with pytest.raises(UsageError, match="num_classes is 1, and the augmenter's bank has 2"):
        BatchAugment(load("mix", bank=bank), num_classes=1)
    with pytest.raises(UsageError, match="num_classes is 2, and a label of the batch is 3"):
        BatchAugment(load("mix"), num_classes=2)(photographs(), torch.tensor([0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((photographs(), torch.rand(4, 2)), "not mixed yet; got a tensor"),
        ((photographs(), torch.tensor([1])), "a tensor of 4 class numbers"),
        ((photographs(), torch.rand(4)), "a tensor of 4 class numbers"),
        ((photographs(), {"label": [0, 1, 0, 1]}), "got list"),
        ((photographs(),), "none are found"),
        ((photographs(1)[0], torch.tensor([1])), r"expected a batch of images \(B, C, H, W\), got shape \(3, 16, 16\)"),
        (("a", torch.tensor([1])), "found none"),
        ((tv_tensors.Image(photographs()), torch.tensor([0, 1, 0, 1]), tv_tensors.Image(photographs())), "found 2"),
    ],
    ids=["soft", "too few", "floats", "list", "no labels", "one image", "no image", "two batches"],
)
def test_batches_that_cannot_be_are_refused(load: Callable[..., Augmenter], batch: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BatchAugment(load("mix"), num_classes=2)(*batch)


def test_mixed_labels_must_have_a_place(load: Callable[..., Augmenter]) -> None:
    module = BatchAugment(load("mix"), num_classes=2, labels_getter=lambda batch: batch[1] - 1)
    with pytest.raises(UsageError, match="labels_getter must give the tensor that is in the batch"):
        module(photographs(), torch.tensor([1, 2, 1, 2]))


def test_masks_of_a_batch_are_refused_by_operators_that_move_pixels(load: Callable[..., Augmenter]) -> None:
    masks = tv_tensors.Mask(torch.zeros(4, 16, 16, dtype=torch.uint8))
    with pytest.raises(UsageError, match="mix may move what masks mark"):
        BatchAugment(load("mix"), num_classes=2)(photographs(), torch.tensor([0, 1, 0, 1]), masks)
    assert BatchAugment(load("jitter"))(tv_tensors.Image(photographs()), masks)[1] is masks


def test_an_empty_batch_stays_empty(load: Callable[..., Augmenter]) -> None:
    images, labels = BatchAugment(load("mix"), num_classes=2)(photographs()[:0], torch.zeros(0, dtype=torch.int64))
    assert (images.shape, labels.shape) == ((0, 3, 16, 16), (0, 2))
