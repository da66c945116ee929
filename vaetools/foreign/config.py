"""What is known of a model that was trained by another library, before its weights are read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

from ..errors import ModelError
from ..model.config import NAME

FACTORIZED, SCALE, MEAN_SCALE = "bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean"
FAMILIES = (FACTORIZED, SCALE, MEAN_SCALE)
MAX_CHANNELS = 640  # twice those of the largest that CompressAI publishes; they keep a hostile config from taking all memory


@dataclass(frozen=True)
class ForeignConfig:
    """A model of CompressAI: its family, by the name in CompressAI's zoo, and the N and M of that.

    The analysis halves an image four times by convolutions of 5 x 5, and so does the synthesis the other way.
    """

    name: str
    family: str
    n: int
    m: int

    image_channels: ClassVar[int] = 3
    bit_depth: ClassVar[int] = 8
    latent_stride: ClassVar[int] = 16
    encoder_reach: ClassVar[int] = 30  # 2 pixels of each of the grids of 1, 2, 4 and 8
    decoder_reach: ClassVar[int] = 30
    passes: ClassVar[int] = 1
    # The synthesis was trained to see latents on all sides, and shows on the last pixels that the next latent is missing; the
    # one after that changes next to nothing.
    coded_margin: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ModelError(f"config: name must be letters, digits and ._-, at most 64, not {self.name!r}")
        if self.family not in FAMILIES:
            raise ModelError(f"config: family must be one of {', '.join(FAMILIES)}, not {self.family!r}")
        for key in ("n", "m"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_CHANNELS:
                raise ModelError(f"config: {key} must be a whole number from 1 to {MAX_CHANNELS}, not {value!r}")

    @property
    def latent_channels(self) -> int:
        return self.m

    @property
    def has_hyperprior(self) -> bool:
        return self.family != FACTORIZED

    @property
    def hyper_channels(self) -> int:
        return self.n if self.has_hyperprior else 0

    @property
    def hyper_stride(self) -> int:
        return 64 if self.has_hyperprior else self.latent_stride

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ForeignConfig:
        """Raises ModelError on text that is no config, or has keys this version does not know."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ModelError(f"config: not JSON ({error})") from None
        if not isinstance(values, dict) or set(values) != {field.name for field in fields(cls)}:
            raise ModelError("config: not that of a model of CompressAI, or of a newer vaetools")
        return cls(**values)
