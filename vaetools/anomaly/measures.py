"""What was learned of good images, and what it says of others: distances and errors, as one number for each image, and as maps.

Aligned images have one size and show the same thing at the same place: each cell has a distribution of its own, and an image is
judged by the mean over its cells. Others are textures or scenes: one distribution or one bank stands for all places, maps are
smoothed, and an image is judged by the top 1 % of its map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..model.config import ModelConfig
from ..model.space import LatentSpace
from .baselines import NearestPixels, PrincipalComponents
from .cells import KINDS, Cells, as_map, cells_of, drawn
from .gaussian import Gaussians
from .look import Look, bits_per_pixel, bits_per_pixel_map, look_at, negative_elbo_map, png_bits_per_pixel
from .maps import SMOOTHING, smoothed, top_mean
from .neighbours import coreset, nearest_distances
from .texture import Texture, logarithms, sides_of

LIMIT_BYTES = 1 << 30  # of what is kept of good images meanwhile
CELLS_WANTED = 60_000  # of all good images together, where nothing is aligned
BANK, NEIGHBOURS = 4000, 3  # features that are kept, and nearest ones that count
DTYPES = {"bank": torch.float16, "pixels.bank": torch.uint8, "texture.grain_and_sides": torch.int64}  # others are float32
Measured = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Measures:
    """All that is fitted.

    features: of aligned images. bank: (N, D) features of others, in units of `feature_scale` (2, D), their means and deviations.
    texture: of others.
    """

    y: Gaussians
    z: Gaussians
    features: Gaussians | None
    bank: Tensor | None
    feature_scale: Tensor
    components: PrincipalComponents
    pixels: NearestPixels
    texture: Texture | None = None

    @property
    def aligned(self) -> bool:
        return self.features is not None

    # Fitting.

    @classmethod
    def fit(cls, space: LatentSpace, good: Iterable[Tensor], *, count: int, aligned: bool, seed: int) -> tuple[Measures, int]:
        """From batches (B, C, H, W) of good images, about `count` in all, in random order, and how many were used.

        What would take more than LIMIT_BYTES is left out. Raises UsageError if there are none.
        """
        generator = torch.Generator().manual_seed(seed)
        stride, each = space.config.latent_stride, max(1, CELLS_WANTED // max(1, count))
        kept: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
        lights: list[Tensor] = []
        used = size = 0
        for images in good:
            if size > LIMIT_BYTES:
                break
            if not aligned:
                sides = (int(lights[0].shape[0]), int(lights[0].shape[1])) if lights else sides_of(*images.shape[2:])
                lights += logarithms(images, sides)
                size += 2 * len(images) * lights[0].nbytes  # and as much again for their statistics
            look = look_at(space, images)
            for kind in KINDS:
                cells = cells_of(look, kind, aligned=aligned, stride=stride)
                kept[kind].append(cells.vectors.clone() if aligned else drawn(cells, each, generator))
                size += kept[kind][-1].nbytes
            used += len(images)
        if not used:
            raise UsageError("a detector needs good images, and there are none")
        measures = cls.of_vectors({kind: torch.cat(parts) for kind, parts in kept.items()}, aligned=aligned, seed=seed)
        return (measures if aligned else replace(measures, texture=Texture.fit(lights))), used

    @classmethod
    def of_vectors(cls, vectors: dict[str, Tensor], *, aligned: bool, seed: int) -> Measures:
        """vectors: of each kind (N, P, D), P the cells of an image if they are aligned, and else 1."""
        features, pixels = vectors["features"], vectors["pixels"][:, 0]
        scale = torch.stack([features.mean((0, 1)), features.std((0, 1)) + 1e-6])
        bank = None if aligned else coreset((features[:, 0] - scale[0]) / scale[1], BANK, seed).half()
        return cls(
            Gaussians.fit(vectors["y"]),
            Gaussians.fit(vectors["z"]),
            Gaussians.fit(features) if aligned else None,
            bank,
            scale,
            PrincipalComponents.fit(pixels, seed),
            NearestPixels.fit(pixels, seed, thinned=not aligned),
        )

    # Measuring.

    def of_images(self, space: LatentSpace, images: Tensor) -> dict[str, Measured]:
        """As `of`, of images (B, C, H, W) in 0..1."""
        return self.of(look_at(space, images), space.config, space.quality)

    def of(self, look: Look, config: ModelConfig, quality: float) -> dict[str, Measured]:
        """Of each score but `combined`: (B,) numbers, and maps (B, H, W) where it has them, both float32."""
        bits = bits_per_pixel(look).numpy()
        elbo = negative_elbo_map(look, quality, config.quality_lambdas)
        spread = bits_per_pixel_map(look).numpy()
        found: dict[str, Measured] = {
            "recon": self._judged(look.error),
            "elbo": (elbo.mean((1, 2)).numpy(), self._shown(elbo.numpy())),
            "bpp": (bits, self._shown(spread)),
            "bpp-png": (bits - png_bits_per_pixel(look.images, config.bit_depth), None),
        }
        cells = {kind: cells_of(look, kind, aligned=self.aligned, stride=config.latent_stride) for kind in KINDS}
        found["mahalanobis"] = self._of_cells(look, cells["y"], self._distances(self.y, cells["y"]))
        found["mahalanobis-z"] = self._of_cells(look, cells["z"], self._distances(self.z, cells["z"]))
        found["feature"] = self._of_cells(look, cells["features"], self._of_features(cells["features"]))
        errors = self.components.errors(cells["pixels"].vectors)
        if self.aligned:
            heat = errors.view(look.images.shape).mean(1)
            found["pca"] = (heat.mean((1, 2)).numpy(), heat.numpy())
        else:
            found["pca"] = self._of_cells(look, cells["pixels"], errors.mean(2))
        if self.texture is not None:
            found["texture"] = self._of_texture(self.texture, look)
        found["1-nn"] = self._of_cells(look, cells["pixels"], self.pixels.distances(cells["pixels"].vectors))
        return found

    def _distances(self, gaussians: Gaussians, cells: Cells) -> Tensor:
        if len(gaussians.mean) == 1:
            return gaussians.distances_to_one(cells.vectors)
        return gaussians.distances(cells.vectors)

    def _of_features(self, cells: Cells) -> Tensor:
        if self.features is not None:
            return self.features.distances(cells.vectors)
        assert self.bank is not None
        queries = (cells.vectors - self.feature_scale[0]) / self.feature_scale[1]
        found = nearest_distances(queries.flatten(0, 1), self.bank.float(), NEIGHBOURS)
        return found.view(queries.shape[:2]) / queries.shape[2] ** 0.5

    def _of_texture(self, texture: Texture, look: Look) -> Measured:
        grid = texture.distances(look.images)
        heat = F.interpolate(grid[:, None], look.size, mode="bilinear", align_corners=False)[:, 0].numpy()
        return np.array([top_mean(one) for one in grid.numpy()], np.float32), self._shown(heat)

    def _of_cells(self, look: Look, cells: Cells, values: Tensor) -> Measured:
        if self.aligned:
            heat = None if cells.rows * cells.columns == 1 else as_map(values, cells, look.size).numpy()
            return values.mean(1).numpy(), heat
        return self._judged(as_map(values, cells, look.size))

    def _judged(self, heat: Tensor) -> Measured:
        shown = self._shown(heat.numpy())
        if self.aligned:
            return shown.mean((1, 2)), shown
        return np.array([top_mean(one) for one in shown], np.float32), shown

    def _shown(self, heat: np.ndarray) -> np.ndarray:
        return heat if self.aligned else np.stack([smoothed(one, SMOOTHING) for one in heat])

    # Tensors, to be stored.

    def tensors(self) -> dict[str, Tensor]:
        """By name: what `of_tensors` takes."""
        found: dict[str, Tensor] = {"feature_scale": self.feature_scale, "pixels.bank": self.pixels.bank}
        if self.bank is not None:
            found["bank"] = self.bank
        for name in ("y", "z", "features", "components"):
            part = getattr(self, name)
            found |= {} if part is None else {f"{name}.{field.name}": getattr(part, field.name) for field in fields(part)}
        if self.texture is not None:
            found |= {f"texture.{field.name}": getattr(self.texture.gaussians, field.name) for field in fields(Gaussians)}
            found["texture.grain_and_sides"] = torch.tensor([self.texture.grain, *self.texture.sides])
        return {name: tensor.contiguous() for name, tensor in found.items()}

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor]) -> Measures:
        """Raises KeyError if one is missing, and ValueError if one has not the form that it must have."""
        for name, tensor in tensors.items():
            sides = 3 if name.endswith(".precision") else 1 if name in ("components.mean", "texture.grain_and_sides") else 2
            wanted = DTYPES.get(name, torch.float32)
            if tensor.ndim != sides or not tensor.numel() or tensor.dtype != wanted or not bool(tensor.isfinite().all()):
                raise ValueError(f"{name} is damaged")
            if sides == 3 and tensor.shape != (*tensors[f"{name.partition('.')[0]}.mean"].shape, tensor.shape[2]):
                raise ValueError(f"{name} does not fit its mean")
        features = None if "bank" in tensors else Gaussians(tensors["features.mean"], tensors["features.precision"])
        texture = None
        if "texture.mean" in tensors:
            grain, height, width = (int(value) for value in tensors["texture.grain_and_sides"])
            if grain not in (0, 1) or sides_of(height, width) != (height, width):
                raise ValueError("texture.grain_and_sides is damaged")
            texture = Texture(Gaussians(tensors["texture.mean"], tensors["texture.precision"]), grain, (height, width))
        return cls(
            Gaussians(tensors["y.mean"], tensors["y.precision"]),
            Gaussians(tensors["z.mean"], tensors["z.precision"]),
            features,
            tensors.get("bank"),
            tensors["feature_scale"],
            PrincipalComponents(tensors["components.mean"], tensors["components.basis"]),
            NearestPixels(tensors["pixels.bank"]),
            texture,
        )
