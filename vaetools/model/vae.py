"""The two-level convolutional variational autoencoder.

    x --analysis--> y (M channels, 1/16) --hyper-analysis--> z (Z channels, 1/64)

    q(z|x), q(y|x)    posterior, uniform or gaussian                               distributions.py
    p(z) = N(0, s^2)  one scale per channel
    p(y|z) = N(m, s^2)   m from a float network, in two passes: the second sees the first
                         s from integers only, see scales.py

    loss = distortion + beta * ( KL(q(z|x) || p(z)) + KL(q(y|x) || p(y|z)) )       training/objective.py

The strides are those of patch 8. Sources: hyperprior, Ballé et al., ICLR 2018, and Minnen et al., NeurIPS 2018;
two-pass checkerboard context, He et al., CVPR 2021; here it predicts means only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .blocks import QualityGain, ResidualBlock, Unpatches, upsample
from .config import ModelConfig
from .distributions import POSTERIOR_CLASSES, Noise, NormalPrior, Posterior
from .scales import IntegerScales, scale_of

HYPER_SCALE_MIN = 0.11

# On patterns that no photograph has, such as stripes one pixel wide, the network's answers grow without limit. These bounds
# keep the linear path's answer in sight. Photographs reach next to none of them: of their latents, two in 100,000 are cut. Units:
# image range, quantisation steps, image range.
ENCODER_BOUND, MEAN_BOUND, DECODER_BOUND = 4.0, 1024.0, 1.0
# An answer, in image range, that hardly a photograph gets (Kodak: up to 11.5; 3 of 140 others reach 12), and such patterns do
# (black and white stripes: 19 to 54).
STRAIN = 12.0


@dataclass
class Analysis:
    """What the encoder computes of a batch before any quality is known: features (B, W, H/8, W/8), linear (B, M, H/16, W/16).

    chequered: (B,) whether a codec found a pattern of single pixels in it, which the encoder may not see at all.
    """

    features: Tensor
    linear: Tensor
    chequered: Tensor | None = None


@dataclass
class Posteriors:
    """What the encoder says of a batch: q(y|x) and q(z|x), in quantisation steps of the given qualities.

    `strained`: (B,) whether the network's answer went beyond STRAIN, as it hardly ever does for photographs.
    `features`: those that y was made of, as `inner_features` has them.
    """

    y: Posterior
    z: Posterior
    strained: Tensor
    features: Tensor


@dataclass
class Prediction:
    """What the hyper-latents say of y before any of it is known: (B, M, H/16, W/16) means, and features."""

    mean: Tensor
    features: Tensor


@dataclass
class Outcome:
    """One training pass: the reconstruction (B, C, H, W) around 0..1 and each image's divergences in nats, (B,)."""

    reconstruction: Tensor
    kl_y: Tensor
    kl_z: Tensor

    @property
    def kl(self) -> Tensor:
        return self.kl_y + self.kl_z


def first_pass_mask(y: Tensor) -> Tensor:
    """(1, M, h, w): 1 where the first pass codes y. A checkerboard, of the other colour for the last half of the channels.

    M is even. Channels are innermost in memory, as in y: arithmetic on two layouts takes many times as long.
    """
    _, channels, height, width = y.shape
    rows, columns = torch.arange(height, device=y.device), torch.arange(width, device=y.device)
    board = (rows[:, None] + columns) % 2 == 0
    halves = torch.stack([board, ~board], 2).to(y.dtype)[..., None].expand(-1, -1, -1, channels // 2)
    return halves.reshape(1, height, width, channels).permute(0, 3, 1, 2)


def _times(features: Tensor, gain: Tensor) -> Tensor:
    """In the type of the features, which bfloat16 may be: another would be written to memory, and read again, twice."""
    return features * gain.to(features.dtype)


def quality_lambda(quality: Tensor, lambdas: tuple[float, float]) -> Tensor:
    """(B,) qualities in 0..1 -> (B,) Lagrange multipliers, log-spaced between the two ends."""
    low, high = lambdas
    return torch.exp(math.log(low) + quality * math.log(high / low))


def best_log_gain(lagrange: float, channels: int) -> float:
    """Log of quantisation steps per unit of image range that an orthonormal transform wants at `lagrange`.

    Step d costs lambda * d^2 / 12 of distortion and saves channels * log2(d) bits per pixel, at high rate.
    """
    return 0.5 * math.log(255**2 * lagrange * math.log(2) / (6 * channels))


class VAE(nn.Module):
    """Images (B, C, H, W) in 0..1, with H and W multiples of `config.hyper_stride`; qualities (B,) in 0..1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.posterior = POSTERIOR_CLASSES[config.posterior]
        c, patch, width, inner = config.image_channels, config.patch, config.width, config.inner_width
        m, z = config.latent_channels, config.hyper_channels
        heads = self.posterior.parameter_count

        self.encoder_outer = nn.Sequential(
            nn.PixelUnshuffle(patch), nn.Conv2d(c * patch**2, width, 1), nn.Sequential(*self._blocks("encoder_outer"))
        )
        self.encoder_inner = nn.Sequential(
            nn.Conv2d(width, inner, 2, stride=2), nn.Sequential(*self._blocks("encoder_inner")), nn.Conv2d(inner, m * heads, 1)
        )
        self.hyper_encoder = nn.Sequential(
            nn.Conv2d(m, width, 1),
            *self._blocks("hyper_encoder"),
            nn.Conv2d(width, width, 2, stride=2),
            nn.SiLU(),
            nn.Conv2d(width, z * heads, 2, stride=2),
        )
        blocks = self._blocks("hyper_decoder")
        self.hyper_decoder = nn.Sequential(
            upsample(z, width), next(blocks), upsample(width, width), next(blocks), nn.Conv2d(width, 2 * m, 1)
        )
        self.context = nn.Sequential(nn.Conv2d(3 * m, inner, 1), *self._blocks("context"), nn.Conv2d(inner, m, 1))
        self.scales = IntegerScales(z, config.scale_width, m)
        self.decoder_inner = nn.Sequential(
            nn.Conv2d(m, inner, 1), nn.Sequential(*self._blocks("decoder_inner")), upsample(inner, width)
        )
        self.decoder_outer = nn.Sequential(
            nn.Sequential(*self._blocks("decoder_outer")), nn.Conv2d(width, c * patch**2, 1), nn.PixelShuffle(patch)
        )
        self.linear_encoder = nn.Conv2d(c, m, 2 * patch, stride=2 * patch, bias=False)
        self.linear_decoder = Unpatches(m, c, 2 * patch)
        low, high = (best_log_gain(value, c) for value in config.quality_lambdas)
        self.gain_y, self.inverse_gain_y = QualityGain(m, low, high), QualityGain(m, -low, -high)
        self.gain_z = QualityGain(z)
        self.gain_encoder, self.gain_decoder = QualityGain(width), QualityGain(width)
        self.z_raw_scale = nn.Parameter(torch.full((z,), 2.0))

    def _blocks(self, stack: str) -> Iterator[ResidualBlock]:
        channels, _ = self.config.stacks[stack]
        for mixed, gated in self.config.widths(stack):
            yield ResidualBlock(channels, mixed, gated, activation=self.config.activation)

    def set_qualities(self, lambdas: tuple[float, float]) -> None:
        """Give qualities 0 and 1 other Lagrange multipliers. At a multiplier the network does what it did, as nearly as the knots
        of its gains allow; a denoiser does so at a quality, which is its level of noise. Raises ModelError on impossible ones.
        """
        before, self.config = self.config, replace(self.config, quality_lambdas=lambdas)
        if self.config.noise is not None or self.config == before:
            return
        bottom, top = (math.log(value) for value in before.quality_lambdas)
        low, high = ((math.log(value) - bottom) / (top - bottom) for value in lambdas)
        for module in self.modules():
            if isinstance(module, QualityGain):
                module.rescale(low, high)

    # The encoder.

    def encode(self, images: Tensor, quality: Tensor) -> Posteriors:
        """Both posteriors. Their means are what a codec rounds and an application reads; they are deterministic.

        Raises UsageError if a side of the images is no multiple of `config.hyper_stride`.
        """
        return self.encode_at(self.analyse(images), quality)

    def analyse(self, images: Tensor) -> Analysis:
        """The part of `encode` that does not depend on the quality, and most of its work. Raises UsageError as it does."""
        self._check_size(*images.shape[-2:])
        x = images - 0.5
        return Analysis(self.encoder_outer(x), self.linear_encoder(x).float())

    def encode_at(self, analysis: Analysis, quality: Tensor) -> Posteriors:
        """The rest of `encode`."""
        features = self.inner_features(analysis, quality)
        parameters, strained = self._encode_y(features, analysis.linear, quality)
        y = self.posterior.from_parameters(parameters)
        return Posteriors(y, self.encode_hyper(y.mean, quality), strained, features)

    def inner_features(self, analysis: Analysis, quality: Tensor) -> Tensor:
        """(B, W1, H/16, W/16): what the last layer of the encoder sees."""
        features: Tensor = self.encoder_inner[:-1](_times(analysis.features, self.gain_encoder(quality)))
        return features

    def _encode_y(self, features: Tensor, linear: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        parameters = self.encoder_inner[-1](features).float()
        gain = self.gain_y(quality)
        answer = parameters[:, : linear.shape[1]]
        strained = answer.detach().abs().amax((1, 2, 3)) > STRAIN
        mean = (answer.clamp(-ENCODER_BOUND, ENCODER_BOUND) + linear) * gain
        if self.posterior.parameter_count == 1:
            return mean, strained
        # A variance starts at one quantisation step's; it is in units of the gained latents already.
        return torch.cat([mean, parameters[:, linear.shape[1] :]], 1), strained

    def encode_hyper(self, y: Tensor, quality: Tensor) -> Posterior:
        """q(z|x), from the mean of y."""
        parameters = self.hyper_encoder(y).float()
        mean, rest = parameters.split([self.config.hyper_channels, parameters.shape[1] - self.config.hyper_channels], 1)
        return self.posterior.from_parameters(torch.cat([mean * self.gain_z(quality), rest], 1))

    def _check_size(self, height: int, width: int) -> None:
        stride = self.config.hyper_stride
        if height % stride or width % stride or not height or not width:
            raise UsageError(f"images of {height} x {width} pixels: pad both sides to multiples of {stride} first")

    # The priors.

    def prior_z(self) -> NormalPrior:
        """p(z): zero mean, one scale per channel, (1, Z, 1, 1)."""
        scale = F.softplus(self.z_raw_scale).clamp_min(HYPER_SCALE_MIN)[None, :, None, None]
        return NormalPrior(torch.zeros_like(scale), scale)

    def predict(self, z: Tensor) -> Prediction:
        """Means of y for the first pass, and features for the second, from the decoded z."""
        mean, features = self.hyper_decoder(z).chunk(2, 1)
        return Prediction(mean.float().clamp(-MEAN_BOUND, MEAN_BOUND), features)

    def refine(self, prediction: Prediction, residuals: Tensor, first: Tensor) -> Tensor:
        """Means of all y: of the first pass as predicted, of the second from the first's decoded residuals (zero elsewhere)."""
        features, known = prediction.features, (residuals + prediction.mean) * first
        seen = [prediction.mean.to(features.dtype), features, known.to(features.dtype)]
        correction = self.context(torch.cat(seen, 1)).float()
        # A product costs a tenth of torch.where; twice the bound reaches from one end of the means to the other.
        correction = correction.clamp(-2 * MEAN_BOUND, 2 * MEAN_BOUND)
        return torch.addcmul(prediction.mean, correction, 1 - first).clamp(-MEAN_BOUND, MEAN_BOUND)

    # The decoder.

    def decode(self, y: Tensor, quality: Tensor) -> Tensor:
        """Reconstruction (B, C, H, W), around 0..1 and not clipped, from latents (B, M, H/16, W/16)."""
        y = y * self.inverse_gain_y(quality)
        x = self.decoder_outer(_times(self.decoder_inner(y), self.gain_decoder(quality))).float()
        if torch.is_grad_enabled():
            return x.clamp(-DECODER_BOUND, DECODER_BOUND) + self.linear_decoder(y).float() + 0.5
        return x.clamp_(-DECODER_BOUND, DECODER_BOUND).add_(self.linear_decoder(y)).add_(0.5)

    def forward(self, images: Tensor, quality: Tensor, noise: Noise) -> Outcome:
        """Sample both posteriors, reconstruct, and measure the divergences."""
        q = self.encode(images, quality)
        z_sample = q.z.sample(noise)
        kl_z = q.z.kl(self.prior_z(), z_sample)
        z = q.z.quantised(torch.zeros_like(z_sample), z_sample)

        prediction = self.predict(z)
        y_sample = q.y.sample(noise)
        first = first_pass_mask(q.y.mean)
        residuals = (q.y.quantised(prediction.mean, y_sample) - prediction.mean) * first
        mean = self.refine(prediction, residuals, first)
        with torch.autocast(images.device.type, enabled=False):
            u = self.scales.from_hyper_latents(z.float())
            v = self.scales.from_residuals(residuals.float())
            scale = scale_of(self.scales.index(u + v * (1 - first)))
        kl_y = q.y.kl(NormalPrior(mean, scale), y_sample)
        reconstruction = self.decode(q.y.quantised(mean, y_sample), quality)
        return Outcome(reconstruction, kl_y.sum((1, 2, 3)), kl_z.sum((1, 2, 3)))

    @torch.no_grad()
    def sample(self, count: int, height: int, width: int, quality: Tensor, noise: Noise) -> Tensor:
        """New images (count, C, height, width) from the priors: z, then y in two passes, then the decoder.

        Raises UsageError if a side is no multiple of `config.hyper_stride`.
        """
        self._check_size(height, width)
        stride, device = self.config.hyper_stride, self.z_raw_scale.device
        prior = self.prior_z()
        shape = (count, self.config.hyper_channels, height // stride, width // stride)
        decoded = self.posterior.decoded
        z = decoded(NormalPrior(torch.zeros(shape, device=device), prior.scale.expand(shape)).sample(noise))
        prediction = self.predict(z)
        first = first_pass_mask(prediction.mean)
        u = self.scales.from_hyper_latents(z)
        zero = torch.zeros_like(u)
        residuals = decoded(NormalPrior(zero, scale_of(self.scales.index(u))).sample(noise)) * first
        mean = self.refine(prediction, residuals, first)
        scale = scale_of(self.scales.index(u + self.scales.from_residuals(residuals)))
        rest = decoded(NormalPrior(zero, scale).sample(noise)) * (1 - first)
        return self.decode(mean + residuals + rest, quality)

    @torch.no_grad()
    def start_from_pca(self, basis: Tensor) -> None:
        """Start the linear path as the PCA of image patches, so that the network begins as a transform codec.

        `basis`: (K, C * (2 * patch)^2), principal components of patches, the largest first.
        """
        count = min(len(basis), self.config.latent_channels)
        kernels = basis[:count].view(count, *self.linear_encoder.weight.shape[1:])
        self.linear_encoder.weight.zero_()
        self.linear_decoder.weight.zero_()
        self.linear_encoder.weight[:count] = kernels
        self.linear_decoder.weight[:count] = kernels
        for last in (self.encoder_inner[-1], self.decoder_outer[-2]):
            last.get_parameter("weight").mul_(0.1)
