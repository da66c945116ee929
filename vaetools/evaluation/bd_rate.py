"""BD-rate (Bjontegaard, VCEG-M33): how many percent more or fewer bits one codec needs than another for equal PSNR."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import bjontegaard

from ..errors import UsageError

MINIMUM_WINDOW = 0.5  # dB; a mean over less than this says nothing about a codec


@dataclass(frozen=True)
class Curve:
    """Points of one codec, in any order. bpp: bits per pixel; psnr: dB; both averaged over the same images."""

    name: str
    bpp: tuple[float, ...]
    psnr: tuple[float, ...]

    def frontier(self) -> tuple[list[float], list[float]]:
        """bpp and PSNR, rising strictly: points that spend more bits for no more quality are left out, and infinite ones."""
        bpp: list[float] = []
        psnr: list[float] = []
        for rate, quality in sorted(zip(self.bpp, self.psnr, strict=True), key=lambda point: (point[0], -point[1])):
            if rate > 0 and math.isfinite(quality) and (not psnr or quality > psnr[-1]):
                bpp.append(rate)
                psnr.append(quality)
        return bpp, psnr


@dataclass(frozen=True)
class BDRate:
    """percent: negative where fewer bits are needed; None if the curves cannot be compared, for the `reason` given.

    low_db, high_db: the PSNR window of the mean, which is all that both curves cover. A BD-rate means nothing without it.
    """

    percent: float | None
    low_db: float | None = None
    high_db: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Anchors:
    """Curves that others have published. They compare only to measurements on the same images, told by `dataset`."""

    dataset: str
    curves: tuple[Curve, ...]


def bd_rate(curve: Curve, reference: Curve) -> BDRate:
    """The bits of `curve` beside those of `reference`: -10 means 10 % fewer for the same PSNR.

    The mean of log bpp over the whole PSNR overlap, each curve interpolated with monotone cubics (pchip).
    """
    (bpp, psnr), (reference_bpp, reference_psnr) = curve.frontier(), reference.frontier()
    for name, points in ((curve.name, psnr), (reference.name, reference_psnr)):
        if len(points) < 2:
            return BDRate(
                None, reason=f"{name}: too few usable points ({len(points)}); at least 2 of finite, rising PSNR are needed"
            )
    low, high = max(psnr[0], reference_psnr[0]), min(psnr[-1], reference_psnr[-1])
    if high - low < MINIMUM_WINDOW:
        shared = f"only {high - low:.2f} dB" if high > low else "no PSNR"
        return BDRate(None, reason=f"{curve.name} and {reference.name} share {shared}")
    percent = bjontegaard.bd_rate(
        reference_bpp, reference_psnr, bpp, psnr, method="pchip", require_matching_points=False, min_overlap=0
    )
    return BDRate(float(percent), low, high)


def load_anchors(path: str | os.PathLike[str]) -> Anchors:
    """Read `{"dataset": "...", "codecs": {"name": {"bpp": [...], "psnr": [...]}}}`; further keys are ignored.

    Raises UsageError if the file cannot be read or is of another form.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UsageError(f"{path}: no JSON ({error})") from None
    codecs = content.get("codecs") if isinstance(content, dict) else None
    if not isinstance(codecs, dict) or not codecs:
        raise UsageError(f'{path}: no anchors; expected {{"codecs": {{"name": {{"bpp": [...], "psnr": [...]}}}}}}')
    return Anchors(
        str(content.get("dataset", Path(path).name)), tuple(_curve(path, name, points) for name, points in codecs.items())
    )


def _curve(path: str | os.PathLike[str], name: str, points: object) -> Curve:
    try:
        bpp, psnr = (tuple(float(value) for value in points[key]) for key in ("bpp", "psnr"))  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        raise UsageError(f'{path}: the anchor {name!r} needs the lists of numbers "bpp" and "psnr"') from None
    if len(bpp) != len(psnr):
        raise UsageError(f"{path}: the anchor {name!r} has {len(bpp)} values of bpp but {len(psnr)} of psnr")
    return Curve(name, bpp, psnr)
