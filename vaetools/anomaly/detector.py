"""A model, what was learned of good images with it, and thresholds from good images that had no part in that."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import UsageError
from ..files import replace_bytes
from ..model.pixels import to_model
from ..model.space import LatentSpace
from ..model.weights import find_by_hash, find_by_name, load_weights
from .cells import ALIGNED_SIDE
from .light import evened
from .maps import Scale, ScaleOfGood
from .measures import Measured, Measures
from .scores import COMBINED, DEFAULT_SCORE, FOR_ALIGNED, SCORES, Standard
from .split import HOLD_OUT, split_good
from .threshold import FALSE_POSITIVES, Threshold, check_share, threshold_of

FILE = "detector.safetensors"
KEY = "detector"  # of the metadata in it
VERSION = 1
QUALITY = 50.0
MAX_SIDE = 1 << 16


@dataclass(frozen=True)
class Scored:
    """Of N images, each score by name: scores (N,), and maps, (H, W) for each image, of those that have them; float32."""

    scores: dict[str, np.ndarray]
    maps: dict[str, list[np.ndarray]]
    thresholds: dict[str, Threshold]

    def verdicts(self, score: str = DEFAULT_SCORE) -> np.ndarray:
        """(N,) boolean: which images are told to be anomalous."""
        return self.scores[score] > self.thresholds[score].value


@dataclass(frozen=True)
class AnomalyDetector:
    """Tells images that are unlike the good ones it was fitted on.

    size: pixels of the longer side that images are brought to first, or None. even_light: whether slow changes of brightness are
    taken out then. image_size: rows and columns of aligned images,
    which others must have too, and None where nothing is aligned. counts: good images that were fitted on, and held out.
    """

    space: LatentSpace
    measures: Measures
    thresholds: dict[str, Threshold]
    standards: dict[str, Standard]
    scales: dict[str, Scale]
    counts: tuple[int, int]
    size: int | None = None
    even_light: bool = False
    image_size: tuple[int, int] | None = None
    about: dict[str, object] = field(default_factory=dict)

    # Fitting.

    @classmethod
    def fit(
        cls,
        model: str | os.PathLike[str],
        images: Sequence[Tensor],
        *,
        hold_out: float = HOLD_OUT,
        false_positives: float = FALSE_POSITIVES,
        quality: float = QUALITY,
        size: int | None = None,
        even_light: bool = False,
        aligned: bool | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> AnomalyDetector:
        """From good images (C, H, W), uint8, uint16 or floats in 0..1. model: an installed one, a weights file or a training run.

        hold_out: share of them that sets thresholds and scales only. false_positives: share of good images that the thresholds
        let be told anomalous. aligned: whether the same thing is at the same place in all; found by their sizes if None.
        Raises UsageError if there are too few images or an option is out of range, ModelError if the model cannot be loaded.
        """
        space = LatentSpace(load_weights(find_by_name(model)), device, quality=quality)
        split = split_good(len(images), hold_out=hold_out, seed=seed)
        sizes = {(int(image.shape[-2]), int(image.shape[-1])) for image in images}

        def batches(places: Sequence[int]) -> Iterable[Tensor]:
            return (to_model(images[place], space.config)[None] for place in places)

        order = np.random.default_rng(seed).permutation(split.fit).tolist()
        return cls.of_batches(
            space,
            batches(order),
            batches(split.held_out),
            count=len(order),
            aligned=are_aligned(sizes, size) if aligned is None else aligned,
            false_positives=false_positives,
            size=size,
            even_light=even_light,
            seed=seed,
        )

    @classmethod
    def of_batches(
        cls,
        space: LatentSpace,
        good: Iterable[Tensor],
        held_out: Iterable[Tensor],
        *,
        count: int,
        aligned: bool,
        false_positives: float = FALSE_POSITIVES,
        size: int | None = None,
        even_light: bool = False,
        seed: int = 0,
        about: dict[str, object] | None = None,
    ) -> AnomalyDetector:
        """As `fit`, from batches (B, C, H, W) in 0..1, of one size each and in random order; `good` has about `count` images."""
        check_share(false_positives)
        sizes: set[tuple[int, int]] = set()

        def brought(batches: Iterable[Tensor]) -> Iterable[Tensor]:
            for images in batches:
                x = prepared(images, size, even_light=even_light)
                sizes.add((int(x.shape[2]), int(x.shape[3])))
                if aligned and len(sizes) > 1:
                    raise UsageError("aligned images must have one size, and these have several: scale them first")
                yield x

        measures, used = Measures.fit(space, brought(good), count=count, aligned=aligned, seed=seed)
        scores: dict[str, list[np.ndarray]] = {}
        pixels: dict[str, ScaleOfGood] = {}
        for images in brought(held_out):
            for name, (values, heat) in measures.of_images(space, images).items():
                scores.setdefault(name, []).append(values)
                for one in () if heat is None else heat:
                    pixels.setdefault(name, ScaleOfGood(seed)).add(one)
        if not scores:
            raise UsageError("thresholds need held-out good images, and there are none")
        whole = {name: np.concatenate(parts) for name, parts in scores.items()}
        standards = {name: Standard.of(whole[name]) for name in COMBINED}
        scales = {name: kept.scale() for name, kept in pixels.items()}
        whole["combined"] = combined({name: whole[name] for name in COMBINED}, standards)
        scales["combined"] = ScaleOfGood.of({name: pixels[name] for name in COMBINED if name in pixels}, scales)
        return cls(
            space,
            measures,
            {name: threshold_of(whole[name], false_positives) for name in SCORES if name in whole},
            standards,
            scales,
            (used, len(whole["combined"])),
            size,
            even_light,
            next(iter(sizes)) if aligned else None,
            about or {},
        )

    # Scoring.

    def score(self, images: Sequence[Tensor]) -> Scored:
        """Images (C, H, W), uint8, uint16 or floats in 0..1. Raises UsageError for other sizes than those of aligned images."""
        parts = [self.score_batch(to_model(image, self.space.config)[None]) for image in images]
        if not parts:
            raise UsageError("there are no images to score")
        scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores}
        maps = {name: [heat for part in parts for heat in part.maps[name]] for name in parts[0].maps}
        return Scored(scores, maps, self.thresholds)

    def score_batch(self, images: Tensor) -> Scored:
        """As `score`, of a batch (B, C, H, W) in 0..1 with the model's channels. Maps have the size of the images given."""
        x = prepared(images, self.size, even_light=self.even_light)
        size = (int(x.shape[2]), int(x.shape[3]))
        if self.image_size is not None and size != self.image_size:
            have, want = f"{size[1]} x {size[0]}", f"{self.image_size[1]} x {self.image_size[0]}"
            raise UsageError(f"an image of {have} pixels: the detector was fitted on aligned images of {want}; scale it to that")
        found = self.measures.of_images(self.space, x)
        found["combined"] = (combined({name: found[name][0] for name in COMBINED}, self.standards), self._combined_map(found))
        scores = {name: found[name][0] for name in SCORES if name in found}
        maps = {name: list(fitting(heat, images)) for name, (_, heat) in found.items() if heat is not None}
        return Scored(scores, maps, self.thresholds)

    def _combined_map(self, found: dict[str, Measured]) -> np.ndarray:
        heats = {name: found[name][1] for name in COMBINED}
        parts = [self.scales[name].unclipped(heat) for name, heat in heats.items() if heat is not None]
        return np.asarray(np.mean(parts, axis=0), np.float32)

    # Files.

    def save(self, path: str | os.PathLike[str]) -> Path:
        """One safetensors file, of that name or in that folder; the model is not in it. Raises OSError if that fails."""
        file = Path(path)
        file = file / FILE if file.is_dir() else file
        about = {
            "version": VERSION,
            "model": self.space.model_hash,
            "quality": self.space.quality,
            "size": self.size,
            "even_light": self.even_light,
            "image_size": self.image_size,
            "counts": self.counts,
            "thresholds": {name: asdict(value) for name, value in self.thresholds.items()},
            "standards": {name: asdict(value) for name, value in self.standards.items()},
            "scales": {name: asdict(value) for name, value in self.scales.items()},
            "about": self.about,
        }
        replace_bytes(file, save(self.measures.tensors(), {KEY: json.dumps(about, sort_keys=True)}))
        return file

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, model: str | os.PathLike[str] | None = None, device: str = "auto"
    ) -> AnomalyDetector:
        """path: of the file, or of the folder that it is in. Its model is looked for there too, and among the installed ones.

        Raises UsageError if the file is missing or no detector, or the model is another one; ModelError if there is none.
        """
        file = Path(path)
        file = file / FILE if file.is_dir() else file
        try:
            with safe_open(file, framework="pt") as content:
                about = json.loads((content.metadata() or {})[KEY])
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            if about["version"] != VERSION:
                raise UsageError(f"{file}: a detector of version {about['version']}, and this vaetools knows {VERSION}")
            measures = Measures.of_tensors(tensors)
            names = SCORES if measures.texture is not None else FOR_ALIGNED
            thresholds = {name: Threshold(**about["thresholds"][name]) for name in names}
            standards = {name: Standard(**about["standards"][name]) for name in COMBINED}
            scales = {name: Scale(**values) for name, values in dict(about["scales"]).items()}
            quality, model_hash, even_light = _number(about["quality"], 0, 100), str(about["model"]), bool(about["even_light"])
            counts = (int(_number(about["counts"][0])), int(_number(about["counts"][1])))
            size = None if about["size"] is None else int(_number(about["size"], 1, MAX_SIDE))
            shape = about["image_size"]
            if shape is not None:
                shape = (int(_number(shape[0], 1, MAX_SIDE)), int(_number(shape[1], 1, MAX_SIDE)))
            if (shape is not None) != measures.aligned or not re.fullmatch("[0-9a-f]{16}", model_hash):
                raise ValueError("its parts do not fit each other")
            for threshold in thresholds.values():
                _number(threshold.value)
                _number(threshold.count)
                if not 0 < _number(threshold.false_positives) < 1:
                    raise ValueError("a share of false positives is out of range")
            for part in (*standards.values(), *scales.values()):
                for value in vars(part).values():
                    _number(value)
        except (OSError, SafetensorError, LookupError, TypeError, ArithmeticError, ValueError, RecursionError) as error:
            raise UsageError(
                f"{file}: no detector ({error}); write one with `vaetools anomaly fit GOOD --out {file.parent}`"
            ) from None
        space = LatentSpace(load_weights(_weights(model_hash, file.parent, model)), device, quality=quality)
        if space.model_hash != model_hash:
            raise UsageError(f"{file}: fitted with the model {model_hash}, and this is {space.model_hash}: give that one")
        try:
            with_maps = _maps_of_blank(space, measures, shape)
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise UsageError(f"{file}: damaged, does not fit its model ({error}); fit it again") from None
        if scales.keys() != with_maps:
            raise UsageError(f"{file}: damaged, its scales are not those of its maps; fit it again")
        return cls(space, measures, thresholds, standards, scales, counts, size, even_light, shape, about.get("about") or {})


def _number(value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Raises ValueError for what is no finite number in that range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{str(value)[:40]!r} where a number must be")
    return value


def _maps_of_blank(space: LatentSpace, measures: Measures, shape: tuple[int, int] | None) -> set[str]:
    """Names of scores with maps, by a trial. Raises ValueError, RuntimeError and others if tensors do not fit the model."""
    channels = space.config.image_channels
    if shape is not None and measures.components.mean.numel() != channels * shape[0] * shape[1]:
        raise ValueError("components.mean is of another size of image")
    found = measures.of_images(space, torch.zeros(1, channels, *(shape or (64, 64))))
    return {name for name, (_, heat) in found.items() if heat is not None} | {"combined"}


def _weights(model_hash: str, folder: Path, given: str | os.PathLike[str] | None) -> Path:
    """Of the model that was asked for; else the one of that hash in the folder or installed; else what there is in the folder."""
    if given is not None:
        return find_by_name(given)
    beside = sorted(folder.glob(f"*-{model_hash}.safetensors"))
    return beside[0] if beside else find_by_hash(bytes.fromhex(model_hash)) or find_by_name(folder.resolve())


def are_aligned(sizes: set[tuple[int, int]], size: int | None) -> bool:
    """Whether images of these (height, width) are taken to be aligned: one size, and small, once brought to `size`."""
    return len(sizes) == 1 and max(size or 0, 0 if size else max(next(iter(sizes)))) <= ALIGNED_SIDE


def prepared(images: Tensor, size: int | None, *, even_light: bool) -> Tensor:
    """(B, C, H, W) on the CPU, with the longer side of `size` pixels, or as they are if it is None; then evened, if wanted."""
    images, longer = images.cpu(), max(images.shape[2:])
    if size is not None and longer != size:
        shape = [max(1, round(side * size / longer)) for side in images.shape[2:]]
        images = F.interpolate(images, shape, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return evened(images) if even_light else images


def fitting(heat: np.ndarray, images: Tensor) -> np.ndarray:
    """Maps (B, h, w) at the size of images (B, C, H, W)."""
    if heat.shape[1:] == tuple(images.shape[2:]):
        return heat
    x = F.interpolate(torch.from_numpy(heat)[:, None].float(), images.shape[2:], mode="bilinear", align_corners=False)
    return np.asarray(x[:, 0].numpy())


def combined(scores: dict[str, np.ndarray], standards: dict[str, Standard]) -> np.ndarray:
    """(N,): mean over the scores, each by how many standard deviations its logarithm is above that of held-out good images."""
    return np.asarray(np.mean([standards[name].of_scores(scores[name]) for name in COMBINED], axis=0), np.float32)
