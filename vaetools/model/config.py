"""The one description of a network: every width, depth and range that its weights depend on."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields, replace

from ..errors import ModelError

POSTERIORS = ("uniform", "gaussian")
ACTIVATIONS = ("silu", "hardswish")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # it becomes part of a file's name
MAX_NOISE = 255  # levels
GATED = 2  # times the channels of a block are gated, unless it is narrower
MAX_SIZE, MAX_DEPTH = 8192, 64  # far above what trains; they keep a hostile config from taking all memory
# Partial sums of the integer network stay below 2^24 up to these sizes: see the table in scales.py.
MAX_SCALE_WIDTH, MAX_HYPER_CHANNELS, MAX_LATENT_CHANNELS = 250, 64, 550


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a two-level convolutional VAE.

    The image is cut into `patch` x `patch` squares; the latents y have one position per `2 * patch` pixels a side, the
    hyper-latents z one per `8 * patch`.

    name: of weights files. image_channels: 1 or 3. bit_depth: of images, 8 or 16. width, inner_width: channels on the grid of
    patches and on that of y. latent_channels, hyper_channels: of y and z. scale_width: channels of the integer network.
    encoder_blocks, decoder_blocks: how many on the two grids. posterior: "uniform" for a codec, "gaussian" to sample from.
    quality_lambdas: the Lagrange multipliers of quality 0 and 100 in `lambda * 255^2 * MSE + bits per pixel`. noise: of a
    denoiser, the standard deviations of the white noise in its input that quality 0 and quality 100 stand for, the larger first,
    of values in 0..255. activation: of the residual blocks, "silu" or "hardswish", which CPUs do faster. block_widths: of stacks
    (see `stacks`) whose blocks are narrower than others, their names, each with the channels that its blocks mix in space and
    those that they gate: `(("context", ((128, 384),)),)`.

    Raises ModelError on values that are out of range or do not go together.
    """

    name: str = "photo"
    image_channels: int = 3
    bit_depth: int = 8
    patch: int = 8
    width: int = 192
    inner_width: int = 256
    latent_channels: int = 160
    hyper_channels: int = 64
    scale_width: int = 96
    encoder_blocks: tuple[int, int] = (3, 2)
    decoder_blocks: tuple[int, int] = (4, 2)
    posterior: str = "uniform"
    quality_lambdas: tuple[float, float] = (0.001, 0.16)
    noise: tuple[float, float] | None = None
    activation: str = "silu"
    block_widths: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = ()

    def __post_init__(self) -> None:
        pairs = ("encoder_blocks", "decoder_blocks", "quality_lambdas", *(("noise",) if self.noise is not None else ()))
        for key in pairs:
            value = getattr(self, key)
            if not isinstance(value, (tuple, list)) or len(value) != 2:
                raise ModelError(f"config: {key} must be two numbers, not {value!r}")
            object.__setattr__(self, key, tuple(value))
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ModelError(f"config: name must be letters, digits and ._-, not {self.name!r}")
        sizes = ("image_channels", "patch", "width", "inner_width", "latent_channels", "hyper_channels", "scale_width")
        for key in sizes:
            if not _is_whole(getattr(self, key), 1, MAX_SIZE):
                raise ModelError(f"config: {key} must be a whole number from 1 to {MAX_SIZE}, not {getattr(self, key)!r}")
        for key in ("encoder_blocks", "decoder_blocks"):
            if not all(_is_whole(depth, 0, MAX_DEPTH) for depth in getattr(self, key)):
                raise ModelError(f"config: {key} must be whole numbers from 0 to {MAX_DEPTH}, not {getattr(self, key)!r}")
        if self.latent_channels % 2:
            raise ModelError(f"config: latent_channels must be even (two coding passes), not {self.latent_channels}")
        limits = {"scale_width": MAX_SCALE_WIDTH, "hyper_channels": MAX_HYPER_CHANNELS, "latent_channels": MAX_LATENT_CHANNELS}
        for key, limit in limits.items():
            if getattr(self, key) > limit:
                raise ModelError(
                    f"config: {key} {getattr(self, key)} is above {limit}, the most that integer scales compute exactly"
                )
        if self.bit_depth not in (8, 16):
            raise ModelError(f"config: bit_depth must be 8 or 16, not {self.bit_depth!r}")
        if self.posterior not in POSTERIORS:
            raise ModelError(f"config: posterior must be one of {', '.join(POSTERIORS)}, not {self.posterior!r}")
        if self.activation not in ACTIVATIONS:
            raise ModelError(f"config: activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")
        self._check_widths()
        low, high = self.quality_lambdas
        if not all(isinstance(value, (int, float)) for value in (low, high)) or not 0 < low < high < math.inf:
            raise ModelError(f"config: quality_lambdas must rise from above 0, not {low!r} to {high!r}")
        if self.noise is not None:
            most, least = self.noise
            if not all(isinstance(value, (int, float)) for value in (most, least)) or not 0 < least < most <= MAX_NOISE:
                raise ModelError(f"config: noise must fall from at most {MAX_NOISE} to above 0, not {most!r} to {least!r}")

    def _check_widths(self) -> None:
        try:
            given = {name: tuple((mix, gate) for mix, gate in widths) for name, widths in self.block_widths}
        except (TypeError, ValueError):
            raise ModelError(f"config: block_widths must be names and pairs of widths, not {self.block_widths!r}") from None
        for name, widths in given.items():
            if name not in self.stacks or len(given) < len(self.block_widths):
                known = ", ".join(self.stacks)
                raise ModelError(f"config: block_widths must name each stack once, of {known}, not {self.block_widths!r}")
            channels, depth = self.stacks[name]
            fits = all(_is_whole(mixed, 1, channels) and _is_whole(gated, 1, GATED * channels) for mixed, gated in widths)
            if len(widths) != depth or not fits:
                most = (channels, GATED * channels)
                raise ModelError(f"config: block_widths of {name!r} must be {depth} pairs of at most {most}, not {widths!r}")
        narrower = {name: widths for name, widths in given.items() if widths != self._full_widths(name)}
        object.__setattr__(self, "block_widths", tuple(sorted(narrower.items())))

    @property
    def stacks(self) -> dict[str, tuple[int, int]]:
        """Of each stack of residual blocks, its channels and how many blocks it has."""
        (encoder_outer, encoder_inner), (decoder_outer, decoder_inner) = self.encoder_blocks, self.decoder_blocks
        return {
            "encoder_outer": (self.width, encoder_outer),
            "encoder_inner": (self.inner_width, encoder_inner),
            "hyper_encoder": (self.width, 1),
            "hyper_decoder": (self.width, 2),
            "context": (self.inner_width, 1),
            "decoder_inner": (self.inner_width, decoder_inner),
            "decoder_outer": (self.width, decoder_outer),
        }

    def widths(self, stack: str) -> tuple[tuple[int, int], ...]:
        """Of each block of a stack, how many channels it mixes in space, and how many it gates."""
        return dict(self.block_widths).get(stack, self._full_widths(stack))

    def _full_widths(self, stack: str) -> tuple[tuple[int, int], ...]:
        channels, depth = self.stacks[stack]
        return ((channels, GATED * channels),) * depth

    @property
    def latent_stride(self) -> int:
        """Pixels a side per position of the latents y."""
        return 2 * self.patch

    @property
    def hyper_stride(self) -> int:
        """Pixels a side per position of the hyper-latents z: images are padded to multiples of it."""
        return 8 * self.patch

    @property
    def encoder_reach(self) -> int:
        """Pixels a side that the encoder sees around those that a latent stands for."""
        return self.encoder_blocks[0] * self.patch + self.encoder_blocks[1] * self.latent_stride

    @property
    def decoder_reach(self) -> int:
        """Pixels a side that the decoder sees around one that it paints."""
        return self.decoder_blocks[0] * self.patch + self.decoder_blocks[1] * self.latent_stride

    @property
    def passes(self) -> int:
        """In so many passes the residuals of y are coded."""
        return 2

    @property
    def coded_margin(self) -> int:
        """Latents a side beyond those that cover a pixel that are coded, too."""
        return 0

    @property
    def is_codec(self) -> bool:
        """Whether a codec can use the network: it rounds, and gives back what it sees."""
        return self.posterior == "uniform" and self.noise is None

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Raises ModelError on text that is no config, or has keys this version does not know."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ModelError(f"config: not JSON ({error})") from None
        if not isinstance(values, dict):
            raise ModelError("config: not a JSON object")
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ModelError(f"config: unknown key {', '.join(unknown)}: the model needs a newer vaetools")
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"config: {error}") from None


# What a trained network of full width had use for: see training/narrowing.py.
PHOTO_WIDTHS = (
    ("context", ((256, 480),)),
    ("decoder_inner", ((32, 144), (16, 192))),
    ("decoder_outer", ((112, 336), (144, 336), (192, 368), (192, 384))),
    ("encoder_inner", ((16, 16), (16, 64))),
    ("encoder_outer", ((176, 352), (192, 368), (192, 368))),
    ("hyper_decoder", ((192, 224), (112, 96))),
    ("hyper_encoder", ((192, 160),)),
)
PRESETS = {
    "photo": ModelConfig(latent_channels=256, quality_lambdas=(0.0006, 0.16), activation="hardswish", block_widths=PHOTO_WIDTHS),
    "small": ModelConfig(
        name="small",
        patch=2,
        width=64,
        inner_width=96,
        latent_channels=32,
        hyper_channels=16,
        scale_width=32,
        encoder_blocks=(2, 1),
        decoder_blocks=(2, 1),
        posterior="gaussian",
    ),
    "gray16": ModelConfig(
        name="gray16", image_channels=1, bit_depth=16, width=128, inner_width=192, latent_channels=96, scale_width=64
    ),
}


def preset(name: str, /, **changes: object) -> ModelConfig:
    """The preset of that name (`photo`, `small`, `gray16`) with some fields changed. Raises ModelError if unknown.

    With other widths or depths, its blocks are as wide as those of any network, unless `block_widths` is among the changes.
    """
    if name not in PRESETS:
        raise ModelError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    if {*changes} & {"width", "inner_width", "encoder_blocks", "decoder_blocks"}:
        changes = {"block_widths": (), **changes}
    return replace(PRESETS[name], **changes)  # type: ignore[arg-type]
