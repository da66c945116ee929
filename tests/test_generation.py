"""Mixtures, priors and the images that are drawn from them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vaetools.augment.seeds import generator_of
from vaetools.errors import UsageError
from vaetools.generation.fit import Options, fit_folder
from vaetools.generation.mixture import Mixture, principal_components
from vaetools.generation.prior import FittedPrior, StandardPrior
from vaetools.generation.sampling import as_batch, class_number, sample_images, write_samples
from vaetools.model.space import LatentSpace
from vaetools.model.weights import load_weights

from . import dataset_files as files
from .augment_models import photographs, tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def space(weights: Path) -> LatentSpace:
    return LatentSpace(load_weights(weights), "cpu", quality=60)


@pytest.fixture(scope="module")
def prior(space: LatentSpace) -> FittedPrior:
    """Of dark and of light images."""
    images = list(photographs(12) // 3) + [255 - image // 3 for image in photographs(12)]
    return FittedPrior.fit(space, images, [0] * 12 + [1] * 12, classes=["dark", "light"])


def draws(mixture: Mixture, count: int, *, label: int | None = None, temperature: float = 1.0) -> torch.Tensor:
    generator = generator_of(1)
    return torch.stack([mixture.draw(generator, label=label, temperature=temperature)[0] for _ in range(count)])


# Mixtures.


def test_a_mixture_has_the_means_and_covariances_of_its_points() -> None:
    torch.manual_seed(1)
    shape = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.0, 0.0, 0.1]])
    points = torch.randn(4000, 3) @ shape.T + torch.tensor([5.0, 0.0, -3.0])
    drawn = draws(Mixture.fit(points, torch.zeros(4000, dtype=torch.int64), components=1), 4000)
    assert torch.allclose(drawn.mean(0), points.mean(0), atol=0.15)
    assert torch.allclose(drawn.T.cov(), points.T.cov(), atol=0.3)


def test_what_is_beyond_the_full_covariance_keeps_its_deviations() -> None:
    points = torch.randn(2000, 4) * torch.tensor([8.0, 4.0, 2.0, 1.0])
    mixture = Mixture.fit(points, torch.zeros(2000, dtype=torch.int64), components=1, dimensions=1, kept=3)
    assert (mixture.roots.shape[1], mixture.scales.shape[1]) == (1, 2)
    found = draws(mixture, 2000).std(0)
    assert torch.allclose(found[:3], torch.tensor([8.0, 4.0, 2.0]), rtol=0.1)
    assert found[3] < 0.3


def test_latents_of_many_values_go_another_way_to_the_same_components(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(300, 30) * torch.linspace(8, 1, 30)
    _, exact, variances = principal_components(points, 5)
    monkeypatch.setattr("vaetools.generation.mixture.EXACT", 10)
    _, found, others = principal_components(points, 5)
    assert torch.allclose(variances, others, rtol=1e-3)
    assert torch.allclose((exact @ found.T).abs(), torch.eye(5), atol=0.02)


def test_components_find_clusters() -> None:
    centres = torch.tensor([[10.0, 0.0], [-10.0, 0.0]])
    points = torch.randn(400, 2) + centres.repeat(200, 1)
    mixture = Mixture.fit(points, torch.zeros(400, dtype=torch.int64), components=2)
    assert len(mixture.weights) == 2
    assert (draws(mixture, 200)[:, 0].abs() > 5).all()


def test_few_points_get_few_components() -> None:
    labels = torch.tensor([0] * 120 + [1] * 20)
    mixture = Mixture.fit(torch.randn(140, 3), labels, components=10)
    assert torch.bincount(mixture.labels).tolist() == [2, 1]
    assert mixture.weights.sum().item() == pytest.approx(1)
    assert mixture.weights[mixture.labels == 1].sum().item() == pytest.approx(20 / 140)


def test_temperature_scales_the_deviations() -> None:
    mixture = Mixture.fit(torch.randn(500, 3), torch.zeros(500, dtype=torch.int64), components=1)
    assert torch.allclose(draws(mixture, 5, temperature=0), (mixture.mean + mixture.means[0] @ mixture.basis).expand(5, 3))
    assert draws(mixture, 300, temperature=0.5).std() == pytest.approx(draws(mixture, 300).std().item() / 2, rel=0.1)


def test_a_class_of_one_image_is_refused() -> None:
    with pytest.raises(UsageError, match="a density needs two"):
        Mixture.fit(torch.randn(5, 3), torch.tensor([0, 0, 1, 0, 0]), components=1)


# Priors.


def test_a_fitted_prior_draws_its_classes(space: LatentSpace, prior: FittedPrior) -> None:
    own = space.encode(photographs(12) // 3 / 255).y.mean(0), space.encode((255 - photographs(12) // 3) / 255).y.mean(0)
    for label in (0, 1):
        y, labels = prior.draw(space, [generator_of(number) for number in range(8)], label=label, temperature=0.2)
        distances = [float((y - mean).square().mean()) for mean in own]
        assert labels == [label] * 8
        assert distances[label] < 0.5 * distances[1 - label]
    assert {sample.label for sample in sample_images(space, prior, 12)} == {0, 1}


def test_a_prior_from_a_file_draws_the_same(space: LatentSpace, prior: FittedPrior, tmp_path: Path) -> None:
    prior.save(tmp_path / "prior.safetensors")
    again = FittedPrior.load(tmp_path / "prior.safetensors")
    assert (again.classes, again.quality, again.identity) == (("dark", "light"), 60, prior.identity)
    a, b = (as_batch(sample_images(space, one, 3))[0] for one in (prior, again))
    assert torch.equal(a, b)


def test_a_prior_of_another_model_or_quality_is_refused(weights: Path, prior: FittedPrior) -> None:
    other = LatentSpace(load_weights(weights), "cpu", quality=50)
    with pytest.raises(UsageError, match=r"at quality 60, and this is .* at 50: fit it again"):
        next(sample_images(other, prior, 1))


def test_files_that_hold_no_prior(prior: FittedPrior, weights: Path, tmp_path: Path) -> None:
    for path in (weights, tmp_path / "missing.safetensors"):
        with pytest.raises(UsageError, match="no prior"):
            FittedPrior.load(path)
    prior.save(tmp_path / "p.safetensors")
    tensors = load_file(tmp_path / "p.safetensors")
    metadata = json.dumps(
        {
            "schema": 1,
            "kind": "mixture",
            "model": "0" * 16,
            "quality": 50,
            "height": 16,
            "width": 16,
            "shape": [8, 4, 4],
            "classes": ["../escape", "light"],
            "images": 24,
        }
    )
    save_file(tensors, tmp_path / "hostile.safetensors", {"prior": metadata})
    with pytest.raises(UsageError, match=r"no prior \(the class '../escape' is no name of a folder"):
        FittedPrior.load(tmp_path / "hostile.safetensors")
    tensors["means"] = tensors["means"][:, :-1].contiguous()
    save_file(tensors, tmp_path / "torn.safetensors", {"prior": metadata})
    with pytest.raises(UsageError, match=r"no prior \(means does not fit the rest"):
        FittedPrior.load(tmp_path / "torn.safetensors")


@pytest.mark.parametrize(("key", "value"), [("width", math.inf), ("images", math.inf), ("height", 999), ("shape", [-1, -1, 128])])
def test_damaged_priors(key: str, value: object, space: LatentSpace, prior: FittedPrior, tmp_path: Path) -> None:
    prior.save(tmp_path / "p.safetensors")
    with safe_open(tmp_path / "p.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["prior"])
    save_file(load_file(tmp_path / "p.safetensors"), tmp_path / "q.safetensors", {"prior": json.dumps({**about, key: value})})
    with pytest.raises(UsageError, match=r"no prior|damaged"):
        next(sample_images(space, FittedPrior.load(tmp_path / "q.safetensors"), 1))


def test_images_of_several_sizes_are_refused(space: LatentSpace) -> None:
    with pytest.raises(UsageError, match="image 1 has 20 x 16 pixels, those before it 16 x 16"):
        FittedPrior.fit(space, [torch.zeros(3, 16, 16), torch.zeros(3, 16, 20)])


def test_the_standard_prior_is_the_models_own(space: LatentSpace) -> None:
    own = StandardPrior(32, 48)
    images, labels = as_batch(sample_images(space, own, 3))
    assert (tuple(images.shape), labels) == ((3, 3, 32, 48), [None] * 3)
    calm = as_batch(sample_images(space, own, 3, temperature=0))[0]
    assert torch.equal(calm[0], calm[1])
    assert not torch.equal(images[0], images[1])
    with pytest.raises(UsageError, match="knows no classes"):
        next(sample_images(space, own, 1, label=0))


# Images.


@pytest.mark.parametrize("kind", ["standard", "fitted"])
def test_an_image_depends_on_its_seed_and_number_alone(
    kind: str, space: LatentSpace, prior: FittedPrior, threads: Callable[[int], None]
) -> None:
    chosen = StandardPrior(16, 16) if kind == "standard" else prior
    all_of_them = list(sample_images(space, chosen, 4, seed=7))
    threads(2)
    (last,) = sample_images(space, chosen, 1, seed=7, first=3)
    assert torch.equal(last.image, all_of_them[3].image)
    assert last.seed == all_of_them[3].seed
    (other,) = sample_images(space, chosen, 1, seed=8, first=3)
    assert not torch.equal(other.image, last.image)


def test_images_that_are_made_together_are_the_same_but_for_rounding(space: LatentSpace, prior: FittedPrior) -> None:
    alone, together = (as_batch(sample_images(space, prior, 5, together=together))[0] for together in (False, True))
    assert (alone.int() - together.int()).abs().max() <= 3


def test_wrong_wishes_are_refused(space: LatentSpace, prior: FittedPrior) -> None:
    with pytest.raises(UsageError, match="temperature must be 0 or more"):
        next(sample_images(space, prior, 1, temperature=-1))
    with pytest.raises(UsageError, match=r"no class 'owl' \(classes: dark, light\)"):
        class_number(prior, "owl")


def test_a_folder_with_classes_and_a_record(space: LatentSpace, prior: FittedPrior, tmp_path: Path) -> None:
    record = write_samples(tmp_path / "out", space, prior, 6, seed=3, grid=True)
    names = [entry["path"] for entry in record["images"]]
    assert [name.split("/")[1] for name in names] == [f"{number:06d}.png" for number in range(6)]
    assert {name.split("/")[0] for name in names} <= {"dark", "light"}
    assert all((tmp_path / "out" / name).is_file() for name in names)
    stored = json.loads((tmp_path / "out/.vaetools-samples.json").read_text())
    assert (stored["seed"], stored["model"], stored["prior"]["identity"]) == (3, space.model_hash, prior.identity)
    assert (tmp_path / "out/.vaetools-grid.png").is_file()
    with pytest.raises(UsageError, match="is not empty"):
        write_samples(tmp_path / "out", space, prior, 1)


def test_a_folder_is_fitted_by_its_class_folders(space: LatentSpace, tmp_path: Path) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 4, "dog": 3})
    (source / "cat" / "broken.png").write_text("no image")
    prior, failed = fit_folder(space, source, Options())
    assert (prior.classes, prior.images, [name for name, _ in failed]) == (("cat", "dog"), 7, ["cat/broken.png"])
    everything, _ = fit_folder(space, source, Options(kind="normal", per_class=False, size=(20, 24)))
    assert (everything.classes, everything.height, everything.width) == ((), 20, 24)
    (source / "owl").mkdir()
    (source / "cat" / "0.png").rename(source / "owl" / "0.png")
    with pytest.raises(UsageError, match=r"the class 'owl' has one image.*--no-per-class"):
        fit_folder(space, source, Options())


def test_more_images_than_memory_holds(space: LatentSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 6, "dog": 6})
    rows, columns = space.shape(32, 40)
    monkeypatch.setattr("vaetools.generation.fit.LIMIT_BYTES", 5 * 4 * rows * columns * space.config.latent_channels)
    told: list[str] = []
    prior, _ = fit_folder(space, source, Options(per_class=False), tell=told.append)
    assert prior.images == 5
    assert told == ["fitted to 5 of 12 images, drawn at random: more would not fit into memory"]
    rare = files.imagefolder(tmp_path / "rare", {"cat": 20, "dog": 2})
    prior, _ = fit_folder(space, rare, Options(kind="normal"), tell=told.append)
    assert (prior.classes, prior.images) == (("cat", "dog"), 5)
