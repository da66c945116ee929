"""Anomaly detection through its Python interface."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vaetools.anomaly.detector import AnomalyDetector
from vaetools.anomaly.light import evened
from vaetools.anomaly.maps import Scale, painted, top_mean
from vaetools.anomaly.metrics import PixelMetrics, auroc
from vaetools.anomaly.neighbours import coreset, nearest_distances
from vaetools.anomaly.scores import FOR_ALIGNED, SCORES
from vaetools.anomaly.split import split_good
from vaetools.anomaly.threshold import threshold_of
from vaetools.errors import UsageError
from vaetools.model.vae import VAE
from vaetools.model.weights import save_weights

from . import anomaly_files as files
from .conftest import tiny

TEXTURE = 48  # pixels, of images that are not aligned


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, gray: a transform codec with random directions beside it, which is enough to tell images apart."""
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        vae = VAE(tiny(name="tiny", image_channels=1))
        with torch.no_grad():
            for parameter in vae.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    return save_weights(vae, None, tmp_path_factory.mktemp("weights"))


def fitted(weights: Path, count: int = 40, **options: object) -> AnomalyDetector:
    return AnomalyDetector.fit(weights, list(files.good_images(count)), device="cpu", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def detector(weights: Path) -> AnomalyDetector:
    return fitted(weights, false_positives=0.15)


@pytest.fixture(scope="module")
def textures(weights: Path) -> AnomalyDetector:
    images = list(files.textures(30, TEXTURE))
    return AnomalyDetector.fit(weights, images, aligned=False, false_positives=0.3, device="cpu")


def good_and_bad(kind: str) -> list[torch.Tensor]:
    """Eight good images and four with a defect, none of them known."""
    if kind == "textures":
        return [*files.textures(8, TEXTURE, first=50), *files.textures(4, TEXTURE, first=60, square=True)]
    return [*files.good_images(50)[42:], *files.bad_images(4)]


@pytest.mark.parametrize("name", ["combined", "mahalanobis", "mahalanobis-z", "feature", "pca", "1-nn"])
@pytest.mark.parametrize("kind", ["detector", "textures"])
def test_a_defect_scores_above_good_images(kind: str, name: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(kind).score(good_and_bad(kind))
    assert found.scores[name].shape == (12,)
    assert auroc(found.scores[name][:8], found.scores[name][8:]) > (0.8 if kind == "textures" else 0.999)


@pytest.mark.parametrize("kind", ["detector", "textures"])
def test_maps_are_hottest_at_the_defect(kind: str, request: pytest.FixtureRequest) -> None:
    maps = request.getfixturevalue(kind).score(good_and_bad(kind)[-2:]).maps
    where = files.mask(TEXTURE if kind == "textures" else files.SIDE)
    assert maps["combined"][0].shape == where.shape
    for name in ("combined", "mahalanobis", "feature", "pca"):
        assert auroc(maps[name][0][~where], maps[name][0][where]) > 0.85, name


def test_verdicts_follow_the_threshold(detector: AnomalyDetector) -> None:
    found = detector.score([*files.good_images(50)[42:], *files.bad_images(4)])
    assert found.verdicts("feature")[8:].all()
    assert (found.verdicts("feature") == (found.scores["feature"] > detector.thresholds["feature"].value)).all()


def test_threads_share_a_detector(detector: AnomalyDetector) -> None:
    images = list(files.good_images(50))
    batches = [images[start : start + 4] for start in range(0, 48, 4)]
    alone = [detector.score(batch).scores["feature"] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = [found.scores["feature"] for found in pool.map(detector.score, batches)]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_every_score_has_a_threshold_that_held_out_images_set(detector: AnomalyDetector) -> None:
    assert tuple(detector.thresholds) == FOR_ALIGNED
    images = files.good_images(40)
    split = split_good(40)
    held_out = detector.score([images[place] for place in split.held_out])
    for name in FOR_ALIGNED:
        assert (held_out.scores[name] > detector.thresholds[name].value).mean() <= 0.15, name
        assert detector.thresholds[name].value in held_out.scores[name]


def test_held_out_images_are_not_fitted_on(weights: Path) -> None:
    images = files.good_images(40)
    other = images.clone()
    other[split_good(40).held_out] = 255 - other[split_good(40).held_out]
    one, two = (AnomalyDetector.fit(weights, list(some), device="cpu") for some in (images, other))
    assert all(torch.equal(tensor, two.measures.tensors()[name]) for name, tensor in one.measures.tensors().items())
    assert one.thresholds["pca"].value < two.thresholds["pca"].value


@pytest.mark.parametrize("kind", ["detector", "textures"])
def test_a_saved_detector_gives_the_same(kind: str, weights: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    before = request.getfixturevalue(kind)
    file = before.save(tmp_path)
    after = AnomalyDetector.load(tmp_path, model=weights, device="cpu")
    images = list(files.bad_images(2))
    one, two = before.score(images), after.score(images)
    assert all(np.allclose(one.scores[name], two.scores[name], rtol=1e-4) for name in before.thresholds)
    assert all(np.allclose(one.maps[name][1], two.maps[name][1], rtol=1e-3, atol=1e-5) for name in one.maps)
    assert one.thresholds == two.thresholds
    assert tuple(after.thresholds) == tuple(name for name in SCORES if kind == "textures" or name in FOR_ALIGNED)
    assert after.scales == before.scales
    with safe_open(file, framework="pt") as content:
        assert list(content.metadata()) == ["detector"]


def test_a_detector_wants_its_own_model(detector: AnomalyDetector, tmp_path: Path) -> None:
    detector.save(tmp_path)
    torch.manual_seed(1)
    other = save_weights(VAE(tiny(name="other", image_channels=1)), None, tmp_path / "..")
    with pytest.raises(UsageError, match="fitted with the model"):
        AnomalyDetector.load(tmp_path, model=other, device="cpu")


def test_files_that_are_no_detector(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no detector"):
        AnomalyDetector.load(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "detector.safetensors")
    with pytest.raises(UsageError, match="no detector"):
        AnomalyDetector.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", "x"), ("quality", None), ("scales", None), ("image_size", -1), ("counts", [math.inf, 1]), ("size", 2**70)],
)
def test_a_detector_with_damaged_metadata(key: str, value: object, detector: AnomalyDetector, tmp_path: Path) -> None:
    file = detector.save(tmp_path / "d.safetensors")
    with safe_open(file, framework="pt") as content:
        about = json.loads(content.metadata()["detector"])
    save_file(detector.measures.tensors(), file, {"detector": json.dumps({**about, key: value})})
    with pytest.raises(UsageError, match="no detector"):
        AnomalyDetector.load(file)


@pytest.mark.parametrize("change", ["short", "nan", "other type"])
def test_a_detector_with_damaged_tensors(change: str, detector: AnomalyDetector, weights: Path, tmp_path: Path) -> None:
    file = detector.save(tmp_path / "d.safetensors")
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
    whole = detector.measures.tensors()
    changed = {"short": lambda x: x[:-1], "nan": lambda x: x * math.nan, "other type": torch.Tensor.double}[change]
    for name in ("y.mean", "z.precision", "features.mean", "components.mean"):
        save_file({**whole, name: changed(whole[name]).contiguous()}, file, metadata)
        with pytest.raises(UsageError, match=r"no detector|damaged"):
            AnomalyDetector.load(file, model=weights, device="cpu")


def test_aligned_images_have_one_size(detector: AnomalyDetector) -> None:
    with pytest.raises(UsageError, match="32 x 32 pixels: the detector was fitted on aligned images of 24 x 24"):
        detector.score(list(files.good_images(1, 32)))


def test_other_sizes_are_brought_to_that_of_the_detector(weights: Path) -> None:
    small = fitted(weights, 30, size=16, false_positives=0.3)
    found = small.score([files.bad_images(1)[0]])
    assert small.image_size == (16, 16)
    assert found.maps["combined"][0].shape == (24, 24)


def test_even_light_takes_shading_out() -> None:
    pieces = files.textures(2, 256).float() / 255
    shade = torch.linspace(0.3, 1.0, 256)
    before = (pieces - pieces * shade).abs().mean()
    assert (evened(pieces) - evened(pieces * shade)).abs().mean() < 0.1 * before
    assert evened(pieces).std((1, 2, 3)).tolist() == pytest.approx([0.11, 0.11], abs=0.02)


def test_a_detector_knows_whether_light_is_evened(weights: Path, tmp_path: Path) -> None:
    images = list(files.textures(16, TEXTURE))
    before = AnomalyDetector.fit(weights, images, aligned=False, even_light=True, false_positives=0.3, device="cpu")
    after = AnomalyDetector.load(before.save(tmp_path), model=weights, device="cpu")
    one, two = (detector.score(images[:1]).scores["pca"][0] for detector in (before, after))
    assert one == pytest.approx(two, rel=1e-4)
    assert before.standards != AnomalyDetector.fit(weights, images, aligned=False, device="cpu").standards


def test_too_few_images(weights: Path) -> None:
    with pytest.raises(UsageError, match="at least 4"):
        fitted(weights, 5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        fitted(weights, 30, false_positives=1.5)


def test_a_split_depends_on_the_seed_alone() -> None:
    one, two = split_good(50, hold_out=0.3, seed=1), split_good(50, hold_out=0.3, seed=2)
    assert split_good(50, hold_out=0.3, seed=1) == one != two
    assert len(one.held_out) == 15
    assert sorted(one.fit + one.held_out) == list(range(50))


def test_thresholds_keep_their_share_of_false_positives() -> None:
    generator = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        threshold = threshold_of(generator.normal(size=99), 0.05)
        assert threshold.promised
        rates.append((generator.normal(size=200) > threshold.value).mean())
    assert np.mean(rates) == pytest.approx(0.05, abs=0.006)


def test_too_few_held_out_scores_promise_nothing() -> None:
    threshold = threshold_of(np.arange(10.0), 0.01)
    assert (threshold.value, threshold.promised, threshold.count) == (9.0, False, 10)


def test_a_heat_map_has_one_scale() -> None:
    scale = Scale(1.0, 3.0)
    assert scale.of(np.array([0.0, 1.0, 3.0, 5.0, 9.0])).tolist() == [0, 0, 0.5, 1, 1]
    cold, hot = painted(np.full((2, 2), 1.0), scale), painted(np.full((2, 2), 5.0), scale)
    assert cold.max() <= 4
    assert hot[0, 0].tolist() == [252, 255, 164]
    image = np.full((2, 2, 1), 0.5)
    assert (painted(np.full((2, 2), 1.0), scale, image) == 128).all()


def test_the_top_of_a_map() -> None:
    heat = np.zeros((10, 20))
    heat[3, 4], heat[5, 5] = 4.0, 2.0
    assert top_mean(heat, 0.01) == 3.0


def test_pixel_metrics_of_a_perfect_map_and_of_none() -> None:
    where = np.zeros((40, 40), bool)
    where[5:15, 5:15] = where[30:32, 30:32] = True
    perfect, none = PixelMetrics(), PixelMetrics()
    perfect.add(where + 0.0, where)
    none.add(np.random.default_rng(0).random((40, 40)), where)
    assert (perfect.auroc(), perfect.aupro()) == (1.0, 1.0)
    assert none.auroc() == pytest.approx(0.5, abs=0.12)
    assert none.aupro() == pytest.approx(0.15, abs=0.1)  # the diagonal, from 0 to 0.3, by 0.3


def test_small_regions_count_as_much_as_large_ones() -> None:
    where = np.zeros((40, 40), bool)
    where[5:25, 5:25] = where[30:32, 30:32] = True
    heat = np.zeros((40, 40))
    heat[5:25, 5:25] = 1.0  # the small one is missed
    metrics = PixelMetrics()
    metrics.add(heat, where)
    assert metrics.aupro() == pytest.approx(0.5, abs=0.01)
    assert metrics.auroc() > 0.97


def test_large_regions_are_remembered_by_their_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    where = np.zeros((200, 200), bool)
    where[20:150, 20:150] = where[170:175, 170:175] = True
    heat = generator.normal(0, 1, where.shape) + where
    results = []
    for kept in (1 << 20, 500):
        monkeypatch.setattr("vaetools.anomaly.metrics.BAD_PIXELS_KEPT", kept)
        metrics = PixelMetrics()
        metrics.add(heat, where)
        results.append((metrics.auroc(), metrics.aupro()))
    assert results[1] == pytest.approx(results[0], abs=2e-3)


def test_metrics_without_anomalies_are_not_known() -> None:
    metrics = PixelMetrics()
    metrics.add(np.zeros((4, 4)), np.zeros((4, 4), bool))
    assert all(math.isnan(value) for value in (metrics.auroc(), metrics.aupro(), auroc(np.ones(3), np.ones(0))))


def test_a_coreset_reaches_lone_vectors() -> None:
    crowd = torch.randn(500, 8) * 0.01
    lone = torch.eye(8)[:3] * 10
    kept = coreset(torch.cat([crowd, lone]), 6, seed=0)
    assert nearest_distances(lone, kept).max() == 0
    assert len(kept) == 6


# Texture.


def ground(seed: int, *, grain: int, light: float = 1.0, spot: bool = False) -> torch.Tensor:
    """(1, 120, 90) uint8: lines along an axis, as grinding leaves, in more or less light; with a dark spot in the middle."""
    generator = np.random.default_rng(seed)
    lines = generator.normal(0, 12, 90 if grain == 0 else 120)
    pixels = np.full((120, 90), 110.0) + (lines[None] if grain == 0 else lines[:, None]) + generator.normal(0, 3, (120, 90))
    if spot:
        rows, columns = np.mgrid[:120, :90]
        pixels[(rows - 60) ** 2 + (columns - 45) ** 2 < 16] -= 30
    return torch.from_numpy((light * pixels).clip(0, 255).astype(np.uint8))[None]


@pytest.mark.parametrize("grain", [0, 1])
def test_texture_finds_a_spot_in_lines_in_whatever_light(grain: int, weights: Path) -> None:
    lights = np.random.default_rng(9).uniform(0.5, 1.5, 60)
    good = [ground(seed, grain=grain, light=lights[seed]) for seed in range(40)]
    detector = AnomalyDetector.fit(weights, good, aligned=False, device="cpu")
    assert detector.measures.texture is not None
    assert detector.measures.texture.grain == grain
    found = detector.score([ground(seed, grain=grain, light=lights[seed], spot=seed >= 50) for seed in range(40, 60)])
    assert auroc(found.scores["texture"][:10], found.scores["texture"][10:]) > 0.9
    assert auroc(found.scores["texture"][:10], found.scores["texture"][10:]) > auroc(
        found.scores["recon"][:10], found.scores["recon"][10:]
    )
    heat = found.maps["texture"][-1]
    assert heat.shape == (120, 90)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(row - 60) < 10
    assert abs(column - 45) < 10
