"""A folder of restored images beside its originals: sizes, bits per pixel, PSNR, MS-SSIM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from ..errors import ImageError, UsageError
from ..folder.job import SUFFIX, restored_name
from ..images.folder import list_images
from ..images.picture import Picture
from ..images.read import read_picture
from ..medical.scan import Scan
from ..medical.windowing import scan_of
from .measure import as_rgb
from .quality import ms_ssim, psnr


@dataclass(frozen=True)
class Pair:
    """One image: bytes of the original file and of the compressed one (None if not known), and how close it came back.

    max_error: of 16 bits and of scans, the largest difference of two stored values; range_psnr_db: over the range of the
    original's. None for other images.
    """

    image: str
    width: int
    height: int
    original_bytes: int
    compressed_bytes: int | None
    psnr_db: float
    ms_ssim: float
    max_error: float | None = None
    range_psnr_db: float | None = None

    @property
    def bpp(self) -> float | None:
        return None if self.compressed_bytes is None else 8 * self.compressed_bytes / (self.width * self.height)


@dataclass(frozen=True)
class FolderComparison:
    """pairs: images that are in both folders. missing: paths of those that are not, or cannot be read."""

    pairs: tuple[Pair, ...]
    missing: tuple[str, ...]


def compare_folders(originals: Path, restored: Path, compressed: Path | None = None) -> FolderComparison:
    """Pair every image below `originals` with what `decompress` makes of it below `restored`.

    `compressed`: the folder between, for the sizes. Images without a counterpart, or that cannot be read, are `missing`.
    Raises UsageError if there is not one pair.
    """
    paths = list_images(originals)
    pairs, missing, taken = [], [], set()
    for path in sorted(paths, key=lambda path: path.with_name(path.name + SUFFIX)):  # the order of decompress
        image = path.relative_to(originals)
        back = restored / image.with_name(restored_name(image.name + SUFFIX))
        if back in taken:
            missing.append(f"{back}: is another image's restoration, not that of {image}")
            continue
        taken.add(back)
        try:
            first, second = read_picture(path), read_picture(back)
            if first.bit_depth != second.bit_depth:
                raise ImageError(f"{back}: {second.bit_depth} bits beside an original of {first.bit_depth}")
            values, others = _values(first, second)
            levels = float(values.min()), float(values.max())
            original, counterpart = _comparable(values, levels), _comparable(others, levels)
            if original.shape != counterpart.shape or first.colour.shape != second.colour.shape:
                raise ImageError(f"{back}: {second.colour.shape} beside an original of {first.colour.shape}")
        except ImageError as error:
            missing.append(str(error))
            continue
        between = compressed / image.with_name(image.name + SUFFIX) if compressed else None
        size = between.stat().st_size if between and between.is_file() else None
        height, width, _ = original.shape
        quality = psnr(original, counterpart), ms_ssim(original, counterpart)
        pairs.append(
            Pair(image.as_posix(), width, height, path.stat().st_size, size, *quality, *_errors(values, others, scan_of(first)))
        )
    if not pairs:
        raise UsageError(f"{restored}: holds the counterpart of no image in {originals}; the first: {missing[0]}")
    return FolderComparison(tuple(pairs), tuple(missing))


def _values(original: Picture, restored: Picture) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, C) of the colours: as they are stored, of DICOM and NIfTI what their files store."""
    scans = scan_of(original), scan_of(restored)
    first, second = original.colour, restored.colour
    if scans[0] is None:
        return first, second
    # A restored PNG holds the pixels of a scan.
    return scans[0].values(first), (scans[1] or scans[0]).values(second)


def _errors(original: np.ndarray, restored: np.ndarray, scan: Scan | None) -> tuple[float | None, float | None]:
    """The largest difference of stored values, and the PSNR over their range; None of plain 8 bits."""
    if original.dtype == np.uint8:
        return None, None
    if scan is not None:
        original, restored = (np.concatenate([part.ravel() for part in scan.used(x)]) for x in (original, restored))
    difference = original.astype(np.float64) - restored
    squared = float((difference**2).mean())
    spread = float(original.max()) - float(original.min()) or 1.0
    return float(np.abs(difference).max()), 10 * math.log10(spread**2 / squared) if squared else math.inf


def _comparable(values: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """(H, W, 3) uint8 of the colours as stored; but for 8 bits, the levels become 0 and 255."""
    colour = values
    if values.dtype != np.uint8:
        low, high = levels
        share = (values - low) / ((high - low) or 1)
        colour = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    return as_rgb(colour[:, :, 0] if colour.shape[2] == 1 else colour)


def comparison_table(comparison: FolderComparison) -> Table:
    """One line an image; sizes in bytes. Below, the totals of sizes and bits per pixel, and the means of the rest."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("image", no_wrap=True)
    pairs = comparison.pairs
    sizes = [pair.compressed_bytes for pair in pairs]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    rate = None if total is None else 8 * total / sum(pair.width * pair.height for pair in pairs)
    similar = [pair.ms_ssim for pair in pairs if not math.isnan(pair.ms_ssim)]
    table.columns[0].footer = f"{len(pairs)} images"
    measured = [pair.max_error for pair in pairs if pair.max_error is not None]
    ranges = [pair.range_psnr_db for pair in pairs if pair.range_psnr_db is not None]
    deep = (("max error", f"{max(measured):g}"), ("range dB", _mean(ranges, 2))) if measured else ()
    for name, footer in (
        ("size", ""),
        ("original", f"{sum(pair.original_bytes for pair in pairs):,}"),
        ("compressed", _whole(total)),
        ("bpp", "-" if rate is None else f"{rate:.3f}"),
        ("PSNR dB", _mean([pair.psnr_db for pair in pairs], 2)),
        ("MS-SSIM", _mean(similar, 4)),
        *deep,
    ):
        table.add_column(name, footer, justify="right", no_wrap=True)
    for pair in pairs:
        table.add_row(
            Text(pair.image),
            f"{pair.width}x{pair.height}",
            f"{pair.original_bytes:,}",
            _whole(pair.compressed_bytes),
            "-" if pair.bpp is None else f"{pair.bpp:.3f}",
            f"{pair.psnr_db:.2f}",
            "-" if math.isnan(pair.ms_ssim) else f"{pair.ms_ssim:.4f}",
            *(["-" if pair.max_error is None else f"{pair.max_error:g}"] if deep else []),
            *(["-" if pair.range_psnr_db is None else f"{pair.range_psnr_db:.2f}"] if deep else []),
        )
    return table


def _whole(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _mean(values: list[float], digits: int) -> str:
    finite = [value for value in values if value < math.inf]  # images without loss have no part in it
    return f"{sum(finite) / len(finite):.{digits}f}" if finite else "-"
