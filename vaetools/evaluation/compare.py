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
from ..images.read import read_picture
from .measure import as_rgb
from .quality import ms_ssim, psnr


@dataclass(frozen=True)
class Pair:
    """One image: bytes of the original file and of the compressed one (None if not known), and how close it came back."""

    image: str
    width: int
    height: int
    original_bytes: int
    compressed_bytes: int | None
    psnr_db: float
    ms_ssim: float

    @property
    def bpp(self) -> float | None:
        return None if self.compressed_bytes is None else 8 * self.compressed_bytes / (self.width * self.height)


@dataclass(frozen=True)
class FolderComparison:
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
            original, counterpart = _comparable(path), _comparable(back)
            if original.shape != counterpart.shape:
                raise ImageError(f"{back}: {counterpart.shape} beside an original of {original.shape}")
        except ImageError as error:
            missing.append(str(error))
            continue
        between = compressed / image.with_name(image.name + SUFFIX) if compressed else None
        size = between.stat().st_size if between and between.is_file() else None
        height, width, _ = original.shape
        quality = psnr(original, counterpart), ms_ssim(original, counterpart)
        pairs.append(Pair(image.as_posix(), width, height, path.stat().st_size, size, *quality))
    if not pairs:
        raise UsageError(f"{restored}: holds the counterpart of no image in {originals}; the first: {missing[0]}")
    return FolderComparison(tuple(pairs), tuple(missing))


def _comparable(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 of the colours as stored; of 16 bits the upper 8. Raises ImageError."""
    colour = read_picture(path).colour
    if colour.dtype == np.uint16:
        colour = (colour >> 8).astype(np.uint8)
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
    for name, footer in (
        ("size", ""),
        ("original", f"{sum(pair.original_bytes for pair in pairs):,}"),
        ("compressed", _whole(total)),
        ("bpp", "-" if rate is None else f"{rate:.3f}"),
        ("PSNR dB", _mean([pair.psnr_db for pair in pairs], 2)),
        ("MS-SSIM", _mean(similar, 4)),
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
        )
    return table


def _whole(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _mean(values: list[float], digits: int) -> str:
    finite = [value for value in values if value < math.inf]  # images without loss have no part in it
    return f"{sum(finite) / len(finite):.{digits}f}" if finite else "-"
