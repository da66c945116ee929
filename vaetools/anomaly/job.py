"""A detector from a folder of good images, and the scores of another folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import ImageError, UsageError, VaetoolsError, reason_of
from ..files import replace_bytes, replace_file
from ..folder.plan import Selection
from ..images.collection import Collection
from ..images.opening import MAX_PIXELS
from ..images.png import png_bytes
from ..images.read import probe
from ..model.space import LatentSpace
from ..model.weights import find_by_hash, find_by_name, load_weights
from .detector import FILE, QUALITY, AnomalyDetector, are_aligned
from .maps import painted
from .metrics import PixelMetrics, auroc
from .split import HOLD_OUT, split_good
from .threshold import FALSE_POSITIVES, Threshold, check_share
from .training import train_on_good
from .truth import Truth

SPLIT_FILE = "good-images.json"  # which images the model in a run has been trained on


@dataclass(frozen=True)
class FitOptions:
    """model: None to train one for `minutes` in the run itself. The rest as in AnomalyDetector.fit."""

    model: str | os.PathLike[str] | None = None
    minutes: float | None = None
    hold_out: float = HOLD_OUT
    false_positives: float = FALSE_POSITIVES
    quality: float = QUALITY
    size: int | None = None
    even_light: bool = False
    aligned: bool | None = None
    seed: int = 0
    selection: Selection = field(default_factory=Selection)
    overwrite: bool = False
    max_pixels: int = MAX_PIXELS
    device: str = "auto"


@dataclass(frozen=True)
class Fitted:
    detector: AnomalyDetector
    file: Path
    failed: list[tuple[str, str]]


def chosen(folder: Path, selection: Selection, *, leave_out: Path | None = None) -> Collection:
    """The images below `folder` that the selection takes. Raises UsageError if there are none."""
    everything = Collection.of(folder, leave_out=leave_out)
    names = [name for name in everything.names if selection.takes(name)]
    if not names:
        raise UsageError(f"{folder}: none of its {len(everything)} images is taken by --include and --exclude")
    return Collection(everything.root, names, everything.failed)


def fit_folder(folder: Path, run: Path, options: FitOptions, *, tell: Callable[[str], None]) -> Fitted:
    """Fit a detector on the good images below `folder` and write it to the folder `run`, with the model beside it.

    Raises UsageError, TrainingError or ModelError before anything of an earlier run is touched.
    """
    file = run / FILE
    if file.exists() and not options.overwrite:
        raise UsageError(f"{file}: is there already; choose another --out, or --overwrite")
    check_share(options.false_positives)
    if options.size is not None and options.size < 1:
        raise UsageError(f"the size must be at least 1 pixel, not {options.size}")
    good = chosen(folder, options.selection, leave_out=run)
    split = split_good(len(good), hold_out=options.hold_out, seed=options.seed)
    fit_names = [good.names[place] for place in split.fit]
    _make_folder(run, "--out")
    weights = _model(good, fit_names, run, options, tell)
    space = LatentSpace(load_weights(weights), options.device, quality=options.quality)
    aligned = options.aligned
    if aligned is None:
        aligned = are_aligned(_sizes(good, options.max_pixels), options.size)
    order = np.random.default_rng(options.seed).permutation(split.fit).tolist()

    def batches(places: Sequence[int]) -> Iterator[Tensor]:
        config = space.config
        found = good.batches(config.image_channels, config.bit_depth, only=places, max_pixels=options.max_pixels)
        return (batch.images for batch in found)

    tell(f"fitting on {len(split.fit)} good images, {'aligned' if aligned else 'not aligned'}; {len(split.held_out)} held out")
    detector = AnomalyDetector.of_batches(
        space,
        batches(order),
        batches(split.held_out),
        count=len(order),
        aligned=aligned,
        false_positives=options.false_positives,
        size=options.size,
        even_light=options.even_light,
        seed=options.seed,
        about={"good": folder.name, "seed": options.seed, "hold_out": options.hold_out},
    )
    if find_by_hash(bytes.fromhex(space.model_hash)) is None and weights.resolve().parent != run.resolve():
        beside = run / f"{weights.stem.removesuffix('-' + space.model_hash)}-{space.model_hash}.safetensors"
        replace_file(beside, lambda temporary: shutil.copyfile(weights, temporary))
    return Fitted(detector, detector.save(file), good.failed)


def _model(good: Collection, fit_names: list[str], run: Path, options: FitOptions, tell: Callable[[str], None]) -> Path:
    """Of the given model, or of one trained on the images that are fitted on, and on no other."""
    if options.model is not None:
        return find_by_name(options.model)
    digest = hashlib.sha256("\n".join(fit_names).encode(errors="surrogateescape")).hexdigest()
    record = run / SPLIT_FILE
    if record.exists():
        try:
            known_digest = json.loads(record.read_bytes())["digest"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise UsageError(f"{record}: cannot be read ({reason_of(error)}); choose another --out") from None
        if known_digest != digest:
            raise UsageError(f"{run}: its model has been trained on other images or with another --seed; choose another --out")
    elif run.is_dir() and any(run.glob("*-*.safetensors")):
        raise UsageError(f"{run}: holds a model that may have seen the held-out images; choose another --out, or --model {run}")
    else:
        replace_bytes(record, json.dumps({"digest": digest, "images": len(fit_names)}).encode())
    budget = {"minutes": options.minutes, "seed": options.seed, "device": options.device, "max_pixels": options.max_pixels}
    return train_on_good(good.root, fit_names, run, **budget, tell=tell)  # type: ignore[arg-type]


def _sizes(images: Collection, max_pixels: int) -> set[tuple[int, int]]:
    """Height and width of all images; those whose head cannot be read are told of later. More than one are enough to know."""
    sizes: set[tuple[int, int]] = set()
    for name in images.names:
        try:
            sizes.add(probe(images.root / name, max_pixels=max_pixels).as_seen)
        except (ImageError, OSError):
            continue
        if len(sizes) > 1:
            break
    return sizes or {(0, 0)}


@dataclass(frozen=True)
class ScoredImage:
    """One image: scores by name, and where its map is, relative to the folder of maps."""

    path: str
    anomalous: bool
    scores: dict[str, float]
    map: str | None = None


@dataclass
class ScoreOutcome:
    """auroc: of each score, that of each class of anomalous images against the good ones, and of all; None where it is not known.
    false_positives: share of the good images above the threshold."""

    score: str
    threshold: Threshold
    images: list[ScoredImage] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    auroc: dict[str, dict[str, float | None]] = field(default_factory=dict)
    pixel_auroc: dict[str, float | None] = field(default_factory=dict)
    aupro: dict[str, float | None] = field(default_factory=dict)
    false_positives: dict[str, float] = field(default_factory=dict)

    @property
    def anomalous(self) -> int:
        return sum(image.anomalous for image in self.images)

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "anomalous": self.anomalous}


def score_folder(
    detector: AnomalyDetector,
    folder: Path,
    *,
    score: str,
    truth: Truth | None = None,
    maps: Path | None = None,
    overlay: bool = False,
    selection: Selection | None = None,
    max_pixels: int = MAX_PIXELS,
    each: Callable[[ScoredImage], None] = lambda image: None,
) -> ScoreOutcome:
    """Score every image below `folder`; with `maps`, write a heat map of each to that folder, as PATH.png.

    Raises UsageError for an unknown score, one without maps, a folder of maps that holds something, or if no image can be read.
    """
    truth = truth or Truth()
    if score not in detector.thresholds:
        raise UsageError(f"no score {score!r}: this detector has {', '.join(detector.thresholds)}")
    if maps is not None:
        _check_maps(maps, score, detector)
        _make_folder(maps, "--maps")
    images = chosen(folder, selection or Selection(), leave_out=maps)
    outcome = ScoreOutcome(score, detector.thresholds[score])
    labels: list[str | None] = []
    pixels: dict[str, PixelMetrics] = {}
    config = detector.space.config
    for batch in images.batches(config.image_channels, config.bit_depth, max_pixels=max_pixels):
        names = [images.names[place] for place in batch.index]
        try:
            scored = detector.score_batch(batch.images)
        except UsageError as error:
            images.failed += [(name, reason_of(error)) for name in names]
            continue
        verdicts = scored.verdicts(score)
        for row, name in enumerate(names):
            try:
                mask = truth.mask(name, tuple(batch.images.shape[2:]))
            except (VaetoolsError, OSError) as error:
                images.failed.append((name, reason_of(error)))
                continue
            if mask is not None:
                for key, heats in scored.maps.items():
                    pixels.setdefault(key, PixelMetrics()).add(heats[row], mask)
            place = None if maps is None else f"{name}.png"
            if maps is not None and place is not None:
                under = batch.images[row].permute(1, 2, 0).numpy() if overlay else None
                (maps / place).parent.mkdir(parents=True, exist_ok=True)
                replace_bytes(maps / place, png_bytes(painted(scored.maps[score][row], detector.scales[score], under)))
            values = {key: float(scored.scores[key][row]) for key in scored.scores}
            labels.append(truth.label(name, mask))
            outcome.images.append(ScoredImage(name, bool(verdicts[row]), values, place))
            each(outcome.images[-1])
    outcome.failed = images.failed
    if not outcome.images:
        raise UsageError(f"{folder}: none of its {len(images)} images could be scored; the first: {': '.join(images.failed[0])}")
    _judge(outcome, np.array(labels, object), detector.thresholds)
    outcome.pixel_auroc = {key: known(metrics.auroc()) for key, metrics in pixels.items()}
    outcome.aupro = {key: known(metrics.aupro()) for key, metrics in pixels.items()}
    return outcome


def _make_folder(folder: Path, option: str) -> None:
    """Raises UsageError if it cannot be written to: before hours of work, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written to ({reason_of(error)}); choose another {option}") from None


def _check_maps(maps: Path, score: str, detector: AnomalyDetector) -> None:
    if score not in detector.scales:
        raise UsageError(f"the score {score} has no maps: choose one of {', '.join(detector.scales)}")
    if maps.exists() and (not maps.is_dir() or any(maps.iterdir())):
        raise UsageError(f"{maps}: is there already, and not an empty folder; choose another --maps")


def _judge(outcome: ScoreOutcome, labels: np.ndarray, thresholds: dict[str, Threshold]) -> None:
    """labels (N,): "" for good, the class of an anomalous image, None where it is not known."""
    if not (labels == "").any():
        return
    kinds = sorted({label for label in labels if label})
    for key in thresholds:
        values = np.array([image.scores[key] for image in outcome.images])
        good = values[labels == ""]
        outcome.false_positives[key] = float((good > thresholds[key].value).mean())
        if kinds:
            per_kind = {kind: known(auroc(good, values[labels == kind])) for kind in kinds}
            bad = values[np.array([bool(label) for label in labels])]
            outcome.auroc[key] = per_kind | {"all": known(auroc(good, bad))}


def known(value: float) -> float | None:
    return None if np.isnan(value) else value
