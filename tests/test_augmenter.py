"""The Augmenter: images in, images out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vaetools import Augmenter, LatentBank
from vaetools.augment.gate import ClassifierGate, NearestGate
from vaetools.augment.operators import OPERATORS
from vaetools.augment.seeds import digest, digest_one, seed_for
from vaetools.augment.strength import Strength
from vaetools.errors import UsageError
from vaetools.model.vae import VAE
from vaetools.model.weights import save_weights

from .augment_models import photographs, tiny_weights, two_classes
from .conftest import tiny

SEEDS, LABELS = [11, 22, 33, 44], [0, 1, 0, 1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def bank(weights: Path) -> LatentBank:
    return two_classes(weights)


def as_type(images: Tensor, kind: str) -> Tensor:
    whole = images.to(torch.int32)
    floats = {kind: (images.double() / 255).to(getattr(torch, kind)) for kind in ("float16", "float32", "float64")}
    return {"uint8": images, "uint16": (whole * 257).to(torch.uint16), **floats}[kind]


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", OPERATORS)
def test_strength_0_with_detail_returns_the_input_exactly(name: str, kind: str, weights: Path, bank: LatentBank) -> None:
    images = as_type(photographs(4, 18), kind)
    result = Augmenter.load(weights, name, 0.0, device="cpu", bank=bank).augment(images, SEEDS, LABELS)
    assert all(torch.equal(one, image) for one, image in zip(result.images, images, strict=True))


@pytest.mark.parametrize("name", OPERATORS)
def test_an_image_is_the_same_alone_and_in_company_bit_for_bit(
    name: str, weights: Path, bank: LatentBank, threads: Callable[[int], None]
) -> None:
    augmenter = Augmenter.load(weights, name, 0.8, device="cpu", bank=bank)
    images = photographs(4)
    together = augmenter.augment(images, SEEDS, LABELS).images
    threads(2)
    with_threads = augmenter.augment(images, SEEDS, LABELS).images
    alone = [augmenter.augment([images[k]], [SEEDS[k]], [LABELS[k]]).images[0] for k in range(4)]
    for k in range(4):
        assert torch.equal(together[k], alone[k])
        assert torch.equal(together[k], with_threads[k])
    assert any(not torch.equal(together[k], images[k]) for k in range(4))


def test_in_batches_the_images_are_nearly_the_same(weights: Path, bank: LatentBank) -> None:
    images = photographs(4).float() / 255
    exact, batched = (
        Augmenter.load(weights, "jitter,hyper", 0.8, device="cpu", bank=bank, exact=exact).augment(images, SEEDS).images
        for exact in (True, False)
    )
    for one, other in zip(exact, batched, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.02)


def test_detail_keeps_what_the_model_cannot_show(weights: Path) -> None:
    images = photographs(4)
    kept, lost = (
        Augmenter.load(weights, "jitter", 0.1, device="cpu", detail=detail).augment(images, SEEDS).images
        for detail in (True, False)
    )
    distance = [sum((a.float() - b.float()).abs().mean() for a, b in zip(some, images, strict=True)) for some in (kept, lost)]
    assert distance[0] < distance[1] / 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_kind_of_image_keeps_its_channels_and_alpha(channels: int, weights: Path) -> None:
    image = photographs(1)[0][[0, 1, 2, 0][:channels]]
    result = Augmenter.load(weights, "jitter", 1.0, device="cpu").augment([image], [1]).images[0]
    assert result.shape == image.shape
    assert result.dtype == torch.uint8
    assert not torch.equal(result, image)
    if channels in (2, 4):
        assert torch.equal(result[-1], image[-1])


def test_images_of_several_sizes_go_in_one_call(weights: Path) -> None:
    images = [photographs(1, side)[0] for side in (16, 31, 16, 40)]
    result = Augmenter.load(weights, "jitter", 1.0, device="cpu", exact=False).augment(images, SEEDS)
    assert [one.shape for one in result.images] == [image.shape for image in images]


def test_each_image_gets_one_of_the_choices(weights: Path, bank: LatentBank) -> None:
    augmenter = Augmenter.load(weights, "jitter,hyper+style", 0.5, device="cpu", bank=bank)
    result = augmenter.augment(photographs(4).repeat(8, 1, 1, 1), range(32))
    assert set(result.operators) == {"jitter", "hyper+style"}
    assert set(result.strengths) == {0.5}


def test_probability_leaves_images_as_they_are(weights: Path) -> None:
    images = photographs(4).repeat(16, 1, 1, 1)
    result = Augmenter.load(weights, "jitter", 1.0, device="cpu", probability=0.5).augment(images, range(64))
    left = [operator == "" for operator in result.operators]
    assert 16 < sum(left) < 48
    assert [torch.equal(one, image) for one, image in zip(result.images, images, strict=True)] == left


def test_strengths_follow_the_epoch_and_the_class(weights: Path) -> None:
    ramp = Augmenter.load(weights, "jitter", Strength.ramp(0.0, 0.8, 4), device="cpu")
    assert [ramp.augment(photographs(1), [1], epoch=epoch).strengths[0] for epoch in (0, 2, 4, 9)] == [0.0, 0.4, 0.8, 0.8]
    classes = Augmenter.load(weights, "jitter", Strength.per_class({1: 0.9}, 0.1), device="cpu")
    assert classes.augment(photographs(4), SEEDS, LABELS).strengths == (0.1, 0.9, 0.1, 0.9)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "strong", True])
def test_strengths_out_of_range_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        Strength.constant(value)  # type: ignore[arg-type]


def test_mixing_gives_soft_labels(weights: Path, bank: LatentBank) -> None:
    labels = Augmenter.load(weights, "mix", 1.0, device="cpu", bank=bank).augment(photographs(4), SEEDS, LABELS).labels
    assert labels is not None
    assert labels.shape == (4, 2)
    torch.testing.assert_close(labels.sum(1), torch.ones(4))
    hard = Augmenter.load(weights, "interpolate", 1.0, device="cpu", bank=bank).augment(photographs(4), SEEDS, LABELS).labels
    assert hard is not None
    assert hard.tolist() == LABELS


def test_without_a_bank_the_other_images_of_the_call_serve(weights: Path) -> None:
    augmenter = Augmenter.load(weights, "interpolate", 1.0, device="cpu")
    images = photographs(4)
    result = augmenter.augment(images, SEEDS, LABELS).images
    assert not torch.equal(result[0], images[0])
    with pytest.raises(UsageError, match="more images at once"):
        augmenter.augment(images[:1], SEEDS[:1], LABELS[:1])


def test_the_gate_keeps_what_looks_like_its_class_and_counts(weights: Path, bank: LatentBank) -> None:
    images = photographs(4)
    near = Augmenter.load(weights, "jitter", 0.05, device="cpu", bank=bank, gate=NearestGate(bank, 1))
    assert near.augment(images, SEEDS, LABELS).accepted == (True,) * 4
    assert near.acceptance == {0: (2, 2), 1: (2, 2)}
    wrong = near.augment(images, SEEDS, [1, 0, 1, 0])
    assert wrong.accepted == (False,) * 4
    assert wrong.operators == ("",) * 4
    assert all(torch.equal(one, image) for one, image in zip(wrong.images, images, strict=True))
    assert near.acceptance == {0: (2, 12), 1: (2, 12)}  # five draws each, in vain


def test_the_gate_does_not_let_large_classes_outvote_small_ones(weights: Path) -> None:
    images = photographs(8)
    space = Augmenter.load(weights, device="cpu").space
    bank = LatentBank.fit(space, list(images), [0] * 7 + [1])
    gated = Augmenter(space, "jitter", 0.02, bank=bank, gate=NearestGate(bank, 5))
    assert gated.augment(images[7:], [1], [1]).accepted == (True,)


def test_a_classifier_can_be_the_gate(weights: Path) -> None:
    def bright(images: Tensor) -> Tensor:
        return (images.mean((1, 2, 3)) > 0.5).long()

    augmenter = Augmenter.load(weights, "jitter", 0.05, device="cpu", gate=ClassifierGate(bright))
    images = torch.stack([torch.full((3, 16, 16), value, dtype=torch.uint8) for value in (20, 230)])
    assert augmenter.augment(images, [1, 2], [0, 1]).accepted == (True, True)
    assert augmenter.augment(images, [1, 2], [1, 1]).accepted == (False, True)


def test_reconstructions_are_what_the_model_makes_of_an_image(weights: Path) -> None:
    images = photographs(2)
    restored = Augmenter.load(weights, device="cpu").reconstruct(images)
    assert [one.shape for one in restored] == [image.shape for image in images]
    assert not torch.equal(restored[0], images[0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(16, 16), "expected an image"),
        (torch.zeros(5, 16, 16), "expected an image"),
        (torch.zeros(3, 0, 16), "expected an image"),
        (torch.zeros(3, 16, 16, dtype=torch.int64), "expected an image of uint8"),
        (torch.full((3, 16, 16), 1.5), "normalise it afterwards"),
        (torch.full((3, 16, 16), float("nan")), "normalise it afterwards"),
    ],
)
def test_what_is_no_image_is_refused(image: Tensor, message: str, weights: Path) -> None:
    for probability in (0.0, 1.0):
        with pytest.raises(UsageError, match=message):
            Augmenter.load(weights, device="cpu", probability=probability).augment([image], [1])


def test_colours_are_refused_by_a_gray_model(tmp_path: Path) -> None:
    gray = save_weights(VAE(tiny(name="gray", image_channels=1)), None, tmp_path)
    with pytest.raises(UsageError, match="for gray images"):
        Augmenter.load(gray, device="cpu").augment(photographs(1), [1])


def test_wrong_arguments_are_refused(weights: Path, bank: LatentBank) -> None:
    images = photographs(2)
    with pytest.raises(UsageError, match="2 images need as many seeds"):
        Augmenter.load(weights, device="cpu").augment(images, [1])
    with pytest.raises(UsageError, match="give the labels"):
        Augmenter.load(weights, "interpolate", device="cpu", bank=bank).augment(images, [1, 2])
    with pytest.raises(UsageError, match="give those"):
        Augmenter.load(weights, device="cpu", bank=bank, gate="nearest").augment(images, [1, 2])
    with pytest.raises(UsageError, match="give a bank"):
        Augmenter.load(weights, device="cpu", gate="nearest")
    with pytest.raises(UsageError, match="unknown gate"):
        Augmenter.load(weights, device="cpu", bank=bank, gate="far")
    with pytest.raises(UsageError, match="probability"):
        Augmenter.load(weights, device="cpu", probability=2)
    with pytest.raises(UsageError, match="quality"):
        Augmenter.load(weights, device="cpu", quality=101)
    with pytest.raises(UsageError, match="fit it again"):
        Augmenter.load(weights, device="cpu", quality=20, bank=bank)
    for labels in ([0, 2], [0, -1]):
        with pytest.raises(UsageError, match="not among the 2 classes"):
            Augmenter.load(weights, "mix", device="cpu", bank=bank).augment(images, [1, 2], labels)
    with pytest.raises(UsageError, match="labels are class numbers, not None"):
        Augmenter.load(weights, device="cpu").augment(images, [1, 2], [0, None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="not among the 2 classes"):
        Augmenter.load(weights, "mix", device="cpu", bank=bank).augment(images, [1, 2], [0, 2])


def test_gates_are_told_apart_in_the_settings(weights: Path, bank: LatentBank) -> None:
    space = Augmenter.load(weights, device="cpu").space
    gates = [NearestGate(bank, 1), NearestGate(bank, 5), ClassifierGate(lambda x: x), ClassifierGate(lambda x: x, "resnet")]
    assert len({Augmenter(space, bank=bank, gate=gate).settings()["gate"] for gate in gates}) == 4


def test_operators_that_move_pixels_refuse_what_marks_them(weights: Path, bank: LatentBank) -> None:
    Augmenter.load(weights, "jitter,style", device="cpu", bank=bank).refuse_moving("boxes")
    with pytest.raises(UsageError, match=r"interpolate may move what boxes mark: .*jitter, resample, hyper, style, requantise"):
        Augmenter.load(weights, "jitter,interpolate", device="cpu", bank=bank).refuse_moving("boxes")


def test_seeds_tell_runs_epochs_items_and_copies_apart() -> None:
    numbers = [(1, 2, 3, 4), (2, 1, 3, 4), (1, 2, 4, 3), (0, 0, 0, 0), (0, 0, 0, 2**63), (-1, 0, 0, 0)]
    seeds = [seed_for(*each) for each in numbers]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_for(7, 0, 1, 2) == 3504351985799743001  # the same forever: manifests and replays hold such numbers


def test_digests_tell_pixels_sizes_and_types_apart() -> None:
    image = photographs(1)[0]
    changed = image.clone()
    changed[0, 0, 0] += 1
    others = [changed, image.flip(2), image[:, :8], image.float() / 255, image.permute(0, 2, 1), image[:1]]
    assert len({digest_one(one) for one in [image, *others]}) == 7
    assert digest(image[None]) == [digest_one(image)] == digest([image])
    assert digest_one(image.permute(1, 2, 0).contiguous().permute(2, 0, 1)) == digest_one(image)  # however it lies in memory
    assert digest_one(torch.arange(12, dtype=torch.uint8).view(3, 2, 2)) == 4503055657396174313


def test_digests_tell_large_images_apart() -> None:
    red, green = torch.zeros(2, 3, 512, 512, dtype=torch.uint8)
    red[0], green[1] = 255, 85
    assert digest_one(red) != digest_one(green)


def test_digests_need_a_batch_or_a_list() -> None:
    with pytest.raises(UsageError, match="expected images"):
        digest(torch.zeros(3, 4, 4))
