"""What new latents are drawn from: the model's own prior, or one that was fitted to the latents of images.

    StandardPrior   z ~ p(z), y ~ p(y|z)           what the model was trained towards
    FittedPrior     y ~ a Gaussian mixture         what the latents of images are like (mixture.py)

Both draw the latents of image k from a generator of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import UsageError
from ..files import replace_bytes
from ..model.space import Latents, LatentSpace, normal
from .mixture import Mixture

PRIOR_NAME = "prior.safetensors"  # beside the weights that it belongs to; without a hyphen, or it would be taken for weights
KINDS = ("mixture", "normal")
COMPONENTS = {True: 10, False: 50}  # in each class, or of all images
METADATA_KEY, SCHEMA = "prior", 1
HALF = frozenset(("basis", "roots"))
MAX_SIDE = 1 << 16


class Prior(Protocol):
    """Draws latents for images of height x width pixels, of one model at one quality."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what images can be asked for; none if there are no classes."""

    def draw(
        self, space: LatentSpace, generators: Sequence[torch.Generator], *, label: int | None = None, temperature: float = 1.0
    ) -> tuple[Tensor, list[int | None]]:
        """y (B, M, h, w) on the space's device, one for each generator, and their classes."""

    def describe(self) -> dict[str, Any]:
        """What tells it from others, for a record."""


@dataclass(frozen=True)
class StandardPrior:
    """The model's own: z ~ N(0, s^2), then y ~ p(y|z) in two passes."""

    height: int
    width: int
    classes: tuple[str, ...] = ()

    def draw(
        self, space: LatentSpace, generators: Sequence[torch.Generator], *, label: int | None = None, temperature: float = 1.0
    ) -> tuple[Tensor, list[int | None]]:
        """y (B, M, h, w) on the space's device, one for each generator, and as many times None.

        temperature: multiplies all deviations. Raises UsageError if a class is asked for: the model knows none.
        """
        if label is not None:
            raise UsageError("the model's own prior knows no classes: fit one with `vaetools fit-prior`")
        rows, columns = space.shape(self.height, self.width)
        per_side = space.config.hyper_stride // space.config.latent_stride
        empty_y = torch.zeros(len(generators), space.config.latent_channels, rows, columns, device=space.device)
        empty_z = torch.zeros(
            len(generators), space.config.hyper_channels, rows // per_side, columns // per_side, device=space.device
        )
        z = temperature * space.prior_z(empty_z).scale * normal(generators, empty_z)
        noise = temperature * normal(generators, empty_y)
        y = space.redraw(Latents(empty_y, z), torch.ones_like(empty_y, dtype=torch.bool), noise)
        return y, [None] * len(generators)

    def describe(self) -> dict[str, Any]:
        return {"kind": "standard"}


@dataclass(frozen=True)
class FittedPrior:
    """A density of y, of images of one size, for one model at one quality.

    classes: their names, in the order of the mixture's labels; none if it was fitted to all images as one. kind: one of
    KINDS. shape: (M, h, w) of y. images: how many it was fitted to.
    """

    mixture: Mixture
    kind: str
    model_hash: str
    quality: float
    height: int
    width: int
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    images: int

    @classmethod
    def fit(
        cls,
        space: LatentSpace,
        images: Iterable[Tensor],
        labels: Sequence[int] | Tensor | None = None,
        *,
        classes: Sequence[str] | None = None,
        kind: str = "mixture",
        components: int | None = None,
        seed: int = 0,
    ) -> FittedPrior:
        """Fit to images (C, H, W) of one size, uint8, uint16 or floats in 0..1.

        labels: class numbers from 0, for a mixture in each class; classes: the names that go with them [default: the
        numbers]. components: in each class, or of all images without labels [default: COMPONENTS]. Raises UsageError if
        the images differ in size, or there are too few.
        """
        from .fit import fit_images

        return fit_images(space, images, labels, classes=classes, kind=kind, components=components, seed=seed)

    def check(self, space: LatentSpace) -> None:
        """Raises UsageError if it is of another model or quality, or its latents are none of that model's."""
        if self.model_hash != space.model_hash or self.quality != space.quality:
            raise UsageError(
                f"the prior was fitted for the model {self.model_hash} at quality {self.quality:g}, and this is "
                f"{space.model_hash} at {space.quality:g}: fit it again with `vaetools fit-prior`, or take the standard one"
            )
        if self.shape != (space.config.latent_channels, *space.shape(self.height, self.width)):
            raise UsageError(
                "the prior is damaged: its latents are not those of its images; fit it again with `vaetools fit-prior`"
            )

    def draw(
        self, space: LatentSpace, generators: Sequence[torch.Generator], *, label: int | None = None, temperature: float = 1.0
    ) -> tuple[Tensor, list[int | None]]:
        """y (B, M, h, w) on the space's device, one for each generator, and the number of each one's class.

        label: the number of a class, counted as in `classes`; without, each class as often as it was seen. temperature:
        multiplies all deviations. Raises UsageError if the space is of another model or quality, or there is no such class.
        """
        self.check(space)
        drawn = [self.mixture.draw(generator, label=label, temperature=temperature) for generator in generators]
        y = torch.stack([point for point, _ in drawn]).view(-1, *self.shape)
        return y.to(space.device), [number if self.classes else None for _, number in drawn]

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "identity": self.identity, "classes": list(self.classes), "images": self.images}

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits of its content."""
        return hashlib.sha256(self._content).hexdigest()[:16]

    # Files.

    @property
    def _content(self) -> bytes:
        about = {
            "schema": SCHEMA,
            "kind": self.kind,
            "model": self.model_hash,
            "quality": self.quality,
            "height": self.height,
            "width": self.width,
            "shape": list(self.shape),
            "classes": list(self.classes),
            "images": self.images,
        }
        tensors = {field.name: getattr(self.mixture, field.name) for field in fields(Mixture)}
        stored = {name: (value.half() if name in HALF else value).contiguous() for name, value in tensors.items()}
        return save(stored, {METADATA_KEY: json.dumps(about)})  # of several keys, the order would vary

    def save(self, path: str | os.PathLike[str]) -> None:
        """One safetensors file. Raises OSError if it cannot be written."""
        replace_bytes(Path(path), self._content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedPrior:
        """Raises UsageError if the file is missing or holds no prior."""
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})[METADATA_KEY])
                tensors = {field.name: file.get_tensor(field.name) for field in fields(Mixture)}
            if about["schema"] > SCHEMA:
                raise ValueError("it was written by a newer vaetools")
            mixture = Mixture(**{name: value if name == "labels" else value.float() for name, value in tensors.items()})
            prior = cls(
                mixture,
                str(about["kind"]),
                str(about["model"]),
                float(about["quality"]),
                int(about["height"]),
                int(about["width"]),
                (int(about["shape"][0]), int(about["shape"][1]), int(about["shape"][2])),
                tuple(str(name) for name in about["classes"]),
                int(about["images"]),
            )
            prior._check_content()
        except (OSError, SafetensorError, LookupError, TypeError, ArithmeticError, ValueError, RecursionError) as error:
            raise UsageError(f"{path}: no prior ({error}); write one with `vaetools fit-prior`") from None
        return prior

    def _check_content(self) -> None:
        """Raises ValueError if the parts do not fit each other."""
        m = self.mixture
        if min(self.shape) < 1:
            raise ValueError("its shape is out of range")
        values, count, kept, size = self.shape[0] * self.shape[1] * self.shape[2], len(m.weights), len(m.basis), m.roots.shape[-1]
        shapes = {
            "mean": (values,),
            "basis": (kept, values),
            "labels": (count,),
            "weights": (count,),
            "means": (count, kept),
            "roots": (count, size, size),
            "scales": (count, kept - size),
        }
        for name, shape in shapes.items():
            tensor = getattr(m, name)
            if tuple(tensor.shape) != shape or not bool(tensor.isfinite().all()):
                raise ValueError(f"{name} does not fit the rest")
        if (
            not count
            or m.labels.dtype != torch.int64
            or not 0 <= int(m.labels.min()) <= int(m.labels.max()) < max(1, len(self.classes))
        ):
            raise ValueError("its classes do not fit their names")
        if bool((m.weights < 0).any()) or not float(m.weights.sum()) > 0:
            raise ValueError("its weights are no shares")
        if not (0 < self.height <= MAX_SIDE and 0 < self.width <= MAX_SIDE and 0 <= self.quality <= 100):
            raise ValueError("its size or quality is out of range")
        if bad := [name for name in self.classes if not is_class_name(name)]:
            raise ValueError(f"the class {bad[0]!r} is no name of a folder")


def is_class_name(name: str) -> bool:
    """Whether it names a folder in the folder that is written to, or ("") that folder itself."""
    return name not in (".", "..") and not any(sign in name for sign in "/\\\0") and not name.startswith(".")
