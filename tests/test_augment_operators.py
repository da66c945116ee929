"""The operators' contract, and what each of them promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vaetools.augment.augmenter import Augmenter
from vaetools.augment.bank import LatentBank
from vaetools.augment.operators import OPERATORS, Context, parse_operators
from vaetools.augment.seeds import generator_of
from vaetools.errors import UsageError
from vaetools.model.space import Latents, LatentSpace
from vaetools.model.weights import load_weights

from .augment_models import photographs, tiny_weights

MOVING = {"interpolate", "extrapolate", "difference", "sample", "mix"}
LABELS = [0, 1, 0, 1, 0, 1, 0, 1]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> LatentSpace:
    weights = tiny_weights(tmp_path_factory.mktemp("weights"))
    return LatentSpace(load_weights(weights), "cpu", bfloat16=False)


@pytest.fixture(scope="module")
def bank(space: LatentSpace) -> LatentBank:
    return LatentBank.fit(space, list(photographs(8)), LABELS)


@pytest.fixture
def context(space: LatentSpace, bank: LatentBank) -> Context:
    return Context(space, bank, torch.tensor(LABELS[:4]))


@pytest.fixture
def latents(space: LatentSpace) -> Latents:
    plain = space.encode(photographs(4).float() / 255)
    return Latents(plain.y, plain.z, torch.eye(2)[LABELS[:4]])


def generators(*seeds: int) -> list[torch.Generator]:
    return [generator_of(seed) for seed in seeds]


def applied(name: str, latents: Latents, context: Context, strength: float, seeds: list[int]) -> Latents:
    return OPERATORS[name].apply(latents, context, torch.full((len(latents),), strength), generators(*seeds))


def test_the_registry_knows_which_operators_keep_pixels_in_place() -> None:
    assert {name for name, operator in OPERATORS.items() if not operator.keeps_pixels} == MOVING
    assert {name for name, operator in OPERATORS.items() if operator.needs_labels} == MOVING
    assert {name for name, operator in OPERATORS.items() if operator.needs_bank} == {*MOVING, "style"}
    assert {name for name, operator in OPERATORS.items() if operator.mixes_labels} == {"mix"}


@pytest.mark.parametrize("name", OPERATORS)
def test_strength_0_gives_the_latents_back(name: str, latents: Latents, context: Context) -> None:
    same = applied(name, latents, context, 0.0, [1, 2, 3, 4])
    assert torch.equal(same.y, latents.y)
    assert torch.equal(same.z, latents.z)
    assert torch.equal(same.labels, latents.labels)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_same_generator_gives_the_same_and_another_does_not(name: str, latents: Latents, context: Context) -> None:
    first = applied(name, latents, context, 1.0, [1, 2, 3, 4])
    again = applied(name, latents, context, 1.0, [1, 2, 3, 4])
    other = applied(name, latents, context, 1.0, [5, 6, 7, 8])
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.y, latents.y)
    assert not torch.equal(first.y, other.y)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_image_does_not_see_its_neighbours_in_the_batch(name: str, latents: Latents, context: Context) -> None:
    together = applied(name, latents, context, 0.7, [1, 2, 3, 4])
    index = torch.tensor([2])
    alone = applied(name, latents.rows(index), context.rows(index), 0.7, [3])
    torch.testing.assert_close(alone.y[0], together.y[2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", OPERATORS)
def test_strengths_hold_per_image(name: str, latents: Latents, context: Context) -> None:
    strength = torch.tensor([0.0, 1.0, 0.0, 1.0])
    result = OPERATORS[name].apply(latents, context, strength, generators(1, 2, 3, 4))
    assert torch.equal(result.y[0], latents.y[0])
    assert torch.equal(result.y[2], latents.y[2])
    assert not torch.equal(result.y[1], latents.y[1])


def test_jitter_has_the_priors_standard_deviation(latents: Latents, context: Context) -> None:
    scale = context.space.conditional(latents).scale
    draws = torch.stack([applied("jitter", latents, context, 0.5, [k, k + 500, k + 1000, k + 1500]).y for k in range(100)])
    ratio = ((draws - latents.y) / scale).std().item()
    assert ratio == pytest.approx(0.5, rel=0.02)


def test_resample_draws_the_share_of_places_that_the_strength_says(latents: Latents, context: Context) -> None:
    shares = []
    for seed in range(40):
        changed = applied("resample", latents, context, 0.3, [seed, seed + 100, seed + 200, seed + 300]).y != latents.y
        shares.append(changed.any(1).float().mean().item())  # a place changes in all channels or none
        assert torch.equal(changed.all(1), changed.any(1))
    assert sum(shares) / len(shares) == pytest.approx(0.3, abs=0.05)


def test_hyper_keeps_the_standing_of_y_within_its_prior(latents: Latents, context: Context) -> None:
    result = applied("hyper", latents, context, 1.0, [1, 2, 3, 4])
    before, after = context.space.conditional(latents), context.space.conditional(Latents(latents.y, result.z))
    torch.testing.assert_close(
        (result.y - after.mean) / after.scale, (latents.y - before.mean) / before.scale, rtol=1e-3, atol=1e-3
    )


def test_style_at_full_strength_has_the_other_images_moments(latents: Latents, context: Context, bank: LatentBank) -> None:
    result = applied("style", latents, context, 1.0, [1, 2, 3, 4]).y
    theirs = {tuple(y.mean((1, 2)).round(decimals=2).tolist()) for y in bank.y}
    assert all(tuple(y.mean((1, 2)).round(decimals=2).tolist()) in theirs for y in result)


def test_requantise_puts_y_on_a_grid_around_its_mean(latents: Latents, context: Context) -> None:
    result = applied("requantise", latents, context, 1.0, [1, 2, 3, 4])
    assert len((result.y - context.space.conditional(latents).mean)[0, 0].unique()) < latents.y[0, 0].numel()


def test_interpolate_ends_at_an_image_of_the_same_class(latents: Latents, context: Context, bank: LatentBank) -> None:
    result = applied("interpolate", latents, context, 1.0, [1, 2, 3, 4])
    for row, label in enumerate(LABELS[:4]):
        step = result.y[row] - latents.y[row]
        ways = [bank.y[place] - latents.y[row] for place in bank.members(label)]
        cosines = [torch.cosine_similarity(step.flatten(), way.flatten(), 0).item() for way in ways]
        assert max(cosines) > 0.999


def test_extrapolate_goes_the_other_way(latents: Latents, context: Context) -> None:
    towards = applied("interpolate", latents, context, 1.0, [1, 2, 3, 4]).y - latents.y
    away = applied("extrapolate", latents, context, 1.0, [1, 2, 3, 4]).y - latents.y
    torch.testing.assert_close(towards, -away, rtol=1e-4, atol=1e-4)


def test_difference_adds_what_two_images_of_the_class_differ_by(latents: Latents, context: Context, bank: LatentBank) -> None:
    result = applied("difference", latents, context, 1.0, [1, 2, 3, 4])
    for row, label in enumerate(LABELS[:4]):
        step = result.y[row] - latents.y[row]
        members = bank.members(label)
        assert any(torch.allclose(step, bank.y[a] - bank.y[b], atol=1e-3) for a in members for b in members if a != b)


def test_sample_draws_around_the_mean_of_the_class(latents: Latents, context: Context, bank: LatentBank) -> None:
    draws = torch.stack([applied("sample", latents, context, 1.0, [k, k + 999, k + 2000, k + 3000]).y[0] for k in range(300)])
    members = bank.y[bank.members(0)]
    error = (draws.mean(0) - members.mean(0)).abs().mean() / members.std(0).mean()
    assert error < 0.15
    assert draws.std(0).mean() == pytest.approx(members.std(0).mean().item(), rel=0.15)


def test_mix_moves_the_labels_as_far_as_the_latents(latents: Latents, context: Context) -> None:
    result = applied("mix", latents, context, 1.0, [1, 2, 3, 4])
    assert result.labels is not None
    torch.testing.assert_close(result.labels.sum(1), torch.ones(4))
    assert bool((result.labels.argmax(1) == torch.tensor(LABELS[:4])).all())  # never more than half the way
    assert bool((result.labels.max(1).values < 1).any())


def test_operators_say_what_they_lack(latents: Latents, space: LatentSpace, bank: LatentBank) -> None:
    with pytest.raises(UsageError, match="give a bank"):
        applied("style", latents, Context(space), 1.0, [1, 2, 3, 4])
    with pytest.raises(UsageError, match="give the labels"):
        applied("interpolate", latents, Context(space, bank), 1.0, [1, 2, 3, 4])
    with pytest.raises(UsageError, match="no image of class 5"):
        applied("sample", latents, Context(space, bank, torch.full((4,), 5)), 1.0, [1, 2, 3, 4])


def test_names_are_parsed_to_choices_and_chains() -> None:
    choices = parse_operators("jitter, hyper+style")
    assert [[operator.name for operator in chain] for chain in choices] == [["jitter"], ["hyper", "style"]]


@pytest.mark.parametrize("names", ["", "wobble", "jitter+", []])
def test_unknown_names_are_refused(names: str | list[str]) -> None:
    with pytest.raises(UsageError, match="choose among jitter, resample"):
        parse_operators(names)


def test_a_bank_interpolates_to_images_of_another_size(space: LatentSpace, bank: LatentBank) -> None:
    larger = space.encode(photographs(2, 32).float() / 255)
    result = OPERATORS["style"].apply(larger, Context(space, bank), torch.ones(2), generators(1, 2))
    assert result.y.shape == larger.y.shape


def test_a_bank_survives_a_file(bank: LatentBank, space: LatentSpace, tmp_path: Path) -> None:
    bank.save(tmp_path / "bank.safetensors")
    again = LatentBank.load(tmp_path / "bank.safetensors")
    again.check(space)
    assert again.identity == bank.identity
    assert torch.equal(again.y, bank.y)
    assert again.labels.tolist() == LABELS


def test_a_bank_from_a_file_gives_the_same_images_bit_for_bit(bank: LatentBank, space: LatentSpace, tmp_path: Path) -> None:
    bank.save(tmp_path / "one")
    again = LatentBank.load(tmp_path / "one")
    again.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    images = photographs(4, 64)
    small = LatentBank.fit(space, list(images), [0, 1, 0, 1])
    small.save(tmp_path / "three")
    for name in ("style", "difference", "sample"):
        fresh, loaded = (
            Augmenter(space, name, 1.0, bank=each).augment(images.float() / 255, range(4), [0, 1, 0, 1]).images
            for each in (small, LatentBank.load(tmp_path / "three"))
        )
        assert all(torch.equal(one, other) for one, other in zip(fresh, loaded, strict=True))


def test_a_bank_takes_at_most_so_many_of_a_class(space: LatentSpace) -> None:
    few = LatentBank.fit(space, list(photographs(8)), [0] * 6 + [1] * 2, limit_per_class=3, seed=1)
    assert torch.bincount(few.labels).tolist() == [3, 2]


def test_a_bank_does_not_depend_on_the_number_of_threads(space: LatentSpace, threads: Callable[[int], None]) -> None:
    images, labels = list(photographs(4, 64)), [0, 1, 0, 1]
    banks = []
    for count in (1, 2):
        threads(count)
        banks.append(LatentBank.fit(space, images, labels))
        assert torch.get_num_threads() == count
    assert banks[0].identity == banks[1].identity


def test_a_bank_of_large_images_is_of_bounded_size(space: LatentSpace) -> None:
    large = LatentBank.fit(space, [torch.zeros(3, 40, 2000, dtype=torch.uint8)], [0])
    assert large.y.shape[-1] * space.config.latent_stride == 256


def test_another_image_is_another(space: LatentSpace) -> None:
    two = LatentBank.fit(space, list(photographs(2)), [0, 1])
    latents = space.encode(photographs(2).float() / 255)
    for seed in range(20):
        result = OPERATORS["style"].apply(latents, Context(space, two), torch.ones(2), generators(seed, seed + 1))
        assert not torch.equal(result.y[0], latents.y[0])
        assert not torch.equal(result.y[1], latents.y[1])


def test_banks_that_cannot_be_used_are_refused(space: LatentSpace, bank: LatentBank, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 images and 2 labels"):
        LatentBank.fit(space, list(photographs(3)), [0, 1])
    with pytest.raises(UsageError, match="there are none"):
        LatentBank.fit(space, [], [])
    with pytest.raises(UsageError, match="no bank of latents"):
        LatentBank.load(tmp_path / "missing")
    other = LatentBank(bank.y, bank.z, bank.labels, model_hash="0" * 16, quality=50)
    with pytest.raises(UsageError, match="fit it again"):
        other.check(space)
