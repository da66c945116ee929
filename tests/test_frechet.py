"""The Fréchet distance, against what is known of normal distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from vaetools.errors import UsageError
from vaetools.evaluation.classifier import SmallCNN, to_input
from vaetools.evaluation.frechet import FeatureStatistics, classifier_features, frechet_distance, nearest_distances

from .augment_models import photographs


def statistics_of(mean: list[float], covariance: list[list[float]]) -> FeatureStatistics:
    return FeatureStatistics(np.array(mean), np.array(covariance), 100)


def test_of_a_distribution_to_itself_it_is_zero() -> None:
    one = FeatureStatistics.of(torch.randn(50, 8))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_shifted_means_count_by_their_square() -> None:
    cloud = torch.randn(50, 3)
    moved = cloud + torch.tensor([3.0, 4.0, 0.0])
    assert frechet_distance(FeatureStatistics.of(cloud), FeatureStatistics.of(moved)) == pytest.approx(25, rel=1e-5)


def test_of_independent_deviations_it_is_their_squared_difference() -> None:
    a, b = statistics_of([0, 0], [[4, 0], [0, 9]]), statistics_of([0, 0], [[1, 0], [0, 25]])
    assert frechet_distance(a, b) == pytest.approx((2 - 1) ** 2 + (3 - 5) ** 2)


def test_the_root_of_the_product_as_the_fid_has_it() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=(40, 5)) @ generator.normal(size=(5, 5)) for _ in range(2))
    a, b = (FeatureStatistics.of(torch.from_numpy(values)) for values in (first, second))
    product = np.trace(sqrtm(a.covariance @ b.covariance).real)
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * product
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_covariances_without_full_rank() -> None:
    few, others = torch.randn(3, 20), torch.randn(4, 20)
    distance = frechet_distance(FeatureStatistics.of(few), FeatureStatistics.of(others))
    assert np.isfinite(distance)
    assert distance > 0


def test_features_of_two_classifiers_are_refused() -> None:
    with pytest.raises(UsageError, match="3 and 4 features"):
        frechet_distance(FeatureStatistics.of(torch.randn(9, 3)), FeatureStatistics.of(torch.randn(9, 4)))


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(UsageError, match="at least two images"):
        FeatureStatistics.of(torch.randn(1, 3))


def test_features_are_what_the_last_layer_sees() -> None:
    network = SmallCNN(3, 16, 4).eval()
    images = photographs(3)
    features = classifier_features(network, images)
    with torch.no_grad():
        assert torch.allclose(list(network)[-1](features), network(to_input(images)), atol=1e-5)


def test_the_nearest_image() -> None:
    among = photographs(4)
    near = among[2:3].clone()
    near[0, :, 0, 0] += 3
    expected = (3 * 3**2 / near[0].numel()) ** 0.5
    assert nearest_distances(near, among).tolist() == [pytest.approx(expected, rel=0.1)]
    assert nearest_distances(among[:1], among[1:])[0] > 10
