"""Posteriors, priors, their divergences, and the loss that is made of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from vaetools.model.distributions import LIKELIHOOD_MIN, GaussianPosterior, Noise, NormalPrior, UniformPosterior
from vaetools.model.vae import Outcome, quality_lambda
from vaetools.training.objective import LOSS_UNIT, likelihood_variance, negative_elbo, rate_distortion

means = st.floats(-8, 8)
scales = st.floats(0.11, 20)
log_variances = st.floats(-6, 4)


def seeded(seed: int = 0) -> Noise:
    return Noise(torch.Generator().manual_seed(seed))


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(mean=means, log_variance=log_variances)
def test_gaussian_samples_have_the_posteriors_mean_and_deviation(mean: float, log_variance: float) -> None:
    count = 20_000
    q = GaussianPosterior(torch.full((1, count), mean), torch.full((1, count), log_variance))
    sample = q.sample(seeded())
    sigma = math.exp(0.5 * log_variance)
    assert abs(sample.mean().item() - mean) < 5 * sigma / math.sqrt(count) + 1e-5
    assert sample.std().item() == pytest.approx(sigma, rel=0.05)


def test_reparameterisation_carries_the_gradient_to_mean_and_log_variance() -> None:
    mean, log_variance = torch.zeros(1, 5, requires_grad=True), torch.full((1, 5), 0.8, requires_grad=True)
    sample = GaussianPosterior(mean, log_variance).sample(seeded())
    sample.sum().backward()
    assert torch.equal(mean.grad, torch.ones(1, 5))
    torch.testing.assert_close(log_variance.grad, 0.5 * sample.detach())  # d(exp(v / 2) * eps) / dv


@given(mean=means, log_variance=log_variances, prior_mean=means, prior_scale=scales)
def test_gaussian_divergence_is_the_closed_form(mean: float, log_variance: float, prior_mean: float, prior_scale: float) -> None:
    q = GaussianPosterior(column(mean), column(log_variance))
    kl = q.kl(NormalPrior(column(prior_mean), column(prior_scale)), q.mean)
    expected = kl_divergence(Normal(q.mean, (0.5 * q.log_variance).exp()), Normal(column(prior_mean), column(prior_scale)))
    torch.testing.assert_close(kl, expected, rtol=1e-9, atol=1e-9)


@given(mean=means, log_variance=log_variances)
def test_divergence_from_the_standard_normal_is_the_textbooks(mean: float, log_variance: float) -> None:
    q = GaussianPosterior(column(mean), column(log_variance))
    kl = q.kl(NormalPrior(column(0.0), column(1.0)), q.mean)
    assert kl.item() == pytest.approx(-0.5 * (1 + log_variance - mean**2 - math.exp(log_variance)), abs=1e-9)


def test_gaussian_divergence_from_itself_is_zero() -> None:
    q = GaussianPosterior(column(1.5), column(math.log(4.0)))
    assert q.kl(NormalPrior(column(1.5), column(2.0)), q.mean).item() == pytest.approx(0, abs=1e-12)


@given(x=means, mean=means, scale=scales)
def test_log_prob_is_that_of_the_normal_distribution(x: float, mean: float, scale: float) -> None:
    value = NormalPrior(column(mean), column(scale)).log_prob(column(x))
    torch.testing.assert_close(value, Normal(column(mean), column(scale)).log_prob(column(x)))


@given(x=means, mean=means, scale=scales)
def test_log_bin_is_the_mass_of_the_unit_interval(x: float, mean: float, scale: float) -> None:
    normal = Normal(column(mean), column(scale))
    mass = (normal.cdf(column(x + 0.5)) - normal.cdf(column(x - 0.5))).clamp_min(LIKELIHOOD_MIN)
    torch.testing.assert_close(NormalPrior(normal.mean, normal.scale).log_bin(column(x)).exp(), mass, rtol=1e-6, atol=1e-12)


@given(mean=st.floats(-1, 1), scale=st.floats(0.2, 8))
def test_bins_sum_to_one(mean: float, scale: float) -> None:
    grid = torch.arange(-100, 101, dtype=torch.float64)
    assert NormalPrior(column(mean), column(scale)).log_bin(grid).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_log_bin_keeps_its_precision_in_both_tails() -> None:
    prior = NormalPrior(torch.zeros(1), torch.ones(1))
    exact = Normal(column(0.0), column(1.0))
    expected = (exact.cdf(column(-4.5)) - exact.cdf(column(-5.5))).log().item()
    assert prior.log_bin(torch.tensor([5.0])).item() == pytest.approx(expected, rel=1e-5)
    assert prior.log_bin(torch.tensor([-5.0])).item() == pytest.approx(expected, rel=1e-5)


def test_prior_samples_have_its_mean_and_deviation() -> None:
    prior = NormalPrior(torch.full((20_000,), 3.0), torch.full((20_000,), 0.5))
    sample = prior.sample(seeded())
    assert sample.mean().item() == pytest.approx(3.0, abs=0.02)
    assert sample.std().item() == pytest.approx(0.5, rel=0.03)


def test_uniform_samples_stay_within_half_a_step() -> None:
    mean = torch.randn(4, 1000)
    offset = UniformPosterior(mean).sample(seeded()) - mean
    assert offset.abs().max() <= 0.5 + 1e-6
    assert offset.std().item() == pytest.approx(12**-0.5, rel=0.03)


def test_uniform_divergence_is_the_code_length_of_the_sample() -> None:
    prior = NormalPrior(torch.zeros(3), torch.tensor([0.5, 1.0, 4.0]))
    sample = torch.tensor([0.0, 2.0, -7.0])
    kl = UniformPosterior(sample).kl(prior, sample)
    torch.testing.assert_close(kl / math.log(2), -torch.log2(prior.log_bin(sample).exp()))


@given(mean=st.lists(means, min_size=1, max_size=8), around=means)
def test_uniform_quantised_is_a_whole_number_of_steps_away(mean: list[float], around: float) -> None:
    q = UniformPosterior(column(*mean).requires_grad_(True))
    value = q.quantised(column(around), q.mean)
    value.sum().backward()
    steps = value.detach() - around
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
    assert (value - q.mean).abs().max() <= 0.5 + 1e-9
    assert torch.equal(q.mean.grad, torch.ones_like(q.mean))


def test_gaussian_quantised_is_the_sample() -> None:
    q = GaussianPosterior(torch.zeros(3), torch.zeros(3))
    sample = q.sample(seeded())
    assert q.quantised(torch.ones(3), sample) is sample


def test_gaussian_parameters_are_mean_then_bounded_log_variance() -> None:
    q = GaussianPosterior.from_parameters(torch.tensor([[3.0, 50.0], [-3.0, -50.0]])[:, :, None, None])
    assert q.mean.flatten().tolist() == [3.0, -3.0]
    assert q.log_variance.flatten().tolist() == [6.0, -12.0]


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_noise_of_two_ranks_is_that_of_one_with_the_whole_batch(kind: str) -> None:
    whole = getattr(Noise(torch.Generator().manual_seed(5)), kind)(torch.empty(6, 2, 3))
    parts = [getattr(Noise(torch.Generator().manual_seed(5), rank, 2), kind)(torch.empty(3, 2, 3)) for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_negative_elbo_is_that_of_torch_distributions(beta: float) -> None:
    images, reconstruction = torch.rand(3, 2, 4, 4).double() * 255, torch.rand(3, 2, 4, 4).double() * 255
    variance = torch.tensor([3.0, 20.0, 100.0], dtype=torch.float64)
    q = Normal(torch.randn(3, 7).double(), torch.rand(3, 7).double() + 0.1)
    kl = kl_divergence(q, Normal(torch.zeros(3, 7).double(), 1.0)).sum(1)
    likelihood = Normal(reconstruction, variance.sqrt()[:, None, None, None]).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(negative_elbo(images, reconstruction, kl, variance, beta), -likelihood + beta * kl)


def test_rate_distortion_is_the_negative_elbo_of_a_gaussian_likelihood() -> None:
    """Per pixel and per ln 2, up to a constant that no weight can change, and the weight 1 / sqrt(lambda) of a sample."""
    lambdas, channels, pixels = (0.001, 0.1), 3, 64
    images, quality = torch.rand(1, channels, 8, 8).double(), torch.tensor([0.3]).double()
    lagrange = quality_lambda(quality, lambdas)
    variance = likelihood_variance(lagrange, channels)
    constant = 0.5 * channels * math.log2(2 * math.pi * variance.item())
    for _ in range(3):
        outcome = Outcome(torch.rand_like(images), torch.rand(1).double() * 50, torch.rand(1).double() * 9)
        losses = rate_distortion(images, outcome, quality, lambdas)
        lagrangian = (losses.loss / LOSS_UNIT * lagrange.sqrt()).item()
        elbo = negative_elbo(images * 255, outcome.reconstruction * 255, outcome.kl, variance).item()
        assert lagrangian == pytest.approx(elbo / (pixels * math.log(2)) - constant, rel=1e-9)


def test_rate_distortion_reports_the_unweighted_error_and_rate() -> None:
    images = torch.zeros(2, 3, 4, 4)
    outcome = Outcome(torch.full_like(images, 2 / 255), torch.tensor([16 * math.log(2)] * 2), torch.zeros(2))
    losses = rate_distortion(images, outcome, torch.tensor([0.0, 1.0]), (0.001, 0.1))
    assert losses.mse.item() == pytest.approx(4)
    assert losses.bpp.item() == pytest.approx(1)
    assert losses.loss.item() == pytest.approx((losses.reconstruction + losses.divergence).item())


def test_lagrange_multipliers_are_log_spaced_over_quality() -> None:
    lagrange = quality_lambda(torch.linspace(0, 1, 5).double(), (0.001, 0.1))
    assert lagrange[[0, -1]].tolist() == pytest.approx([0.001, 0.1])
    ratios = lagrange[1:] / lagrange[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(4))
