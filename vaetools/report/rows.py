"""What the report says of each image, and of all of them together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class AtEqualBytes:
    """Another codec's file of the same image, as near in bytes as its quality setting allows.

    psnr: PSNR-RGB in dB. ms_ssim: 0..1, NaN where it was not measured.
    """

    codec: str
    setting: int
    file_bytes: int
    psnr: float
    ms_ssim: float


@dataclass(frozen=True)
class Row:
    """One image of the folder. What is not known is None.

    name: of the source, below its folder. height, width: in pixels, as stored. original_bytes, file_bytes: of the whole files.
    pixel_bytes: of the compressed file, without what it holds beside the pixels (metadata, alpha). quality: 0..100.
    lossless: the file holds the pixels as they were. psnr: in dB, of the colours, inf if nothing was lost; of 16 bits over the
    range of the original's values. ms_ssim: 0..1; None also where it is not measured: below 161 pixels a side, above 16
    megapixels, and of 16 bits.
    picture: number of the image's pictures on the page. problem: a reason to keep the original.
    """

    name: str
    height: int = 0
    width: int = 0
    original_bytes: int | None = None
    file_bytes: int | None = None
    pixel_bytes: int | None = None
    quality: float | None = None
    lossless: bool = False
    psnr: float | None = None
    ms_ssim: float | None = None
    peers: tuple[AtEqualBytes, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""
    picture: int | None = None

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def bpp(self) -> float | None:
        """Bits per pixel of the whole file."""
        return None if self.file_bytes is None or not self.pixels else 8 * self.file_bytes / self.pixels

    @property
    def pixel_bpp(self) -> float | None:
        """Bits per pixel, metadata and alpha left out: what the plot and other codecs are held against."""
        return None if self.pixel_bytes is None or not self.pixels else 8 * self.pixel_bytes / self.pixels

    def gain(self, codec: str) -> float | None:
        """dB above another codec at equal bytes."""
        found = next((peer for peer in self.peers if peer.codec == codec), None)
        if found is None or self.psnr is None or math.isinf(self.psnr) or math.isinf(found.psnr):
            return None
        return self.psnr - found.psnr

    def to_dict(self) -> dict[str, Any]:
        """For JSON: infinity is "inf", as in the manifest, and NaN is null."""
        return _plain({**asdict(self), "bpp": self.bpp})


@dataclass(frozen=True)
class PeerTotal:
    """images: how many were compared. file_bytes: theirs in all; own_bytes: those of vaetools, of the same images. psnr,
    own_psnr: means in dB over those of them that neither kept without loss."""

    codec: str
    images: int
    file_bytes: int
    own_bytes: int
    psnr: float | None
    own_psnr: float | None


@dataclass(frozen=True)
class Totals:
    """Sums and means over the rows. Bytes of originals are None if any is unknown; means are over what was measured.

    images: compressed files that are good. lossless: those of them that lost nothing. measured: those with a PSNR; lossy:
    those of them whose PSNR is finite, which the mean is of. worst: the row with the lowest.
    """

    images: int
    problems: int
    lossless: int
    pixels: int
    file_bytes: int
    original_bytes: int | None
    measured: int
    lossy: int
    mean_psnr: float | None
    worst: Row | None
    mean_ms_ssim: float | None
    peers: tuple[PeerTotal, ...]

    @property
    def bpp(self) -> float | None:
        return 8 * self.file_bytes / self.pixels if self.pixels else None

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["worst"] = self.worst and self.worst.name
        return _plain({**values, "bpp": self.bpp})


def totals_of(rows: Sequence[Row]) -> Totals:
    good = [row for row in rows if row.file_bytes is not None]
    originals = [row.original_bytes for row in good]
    measured = [row for row in good if row.psnr is not None]
    finite = [row for row in measured if not math.isinf(row.psnr or 0)]
    codecs = dict.fromkeys(peer.codec for row in good for peer in row.peers)
    return Totals(
        images=len(good),
        problems=sum(bool(row.problem) for row in rows),
        lossless=sum(row.lossless for row in good),
        pixels=sum(row.pixels for row in good),
        file_bytes=sum(row.file_bytes or 0 for row in good),
        original_bytes=None if None in originals else sum(size or 0 for size in originals),
        measured=len(measured),
        lossy=len(finite),
        mean_psnr=_mean(row.psnr for row in finite),
        worst=min(finite, key=lambda row: row.psnr or 0, default=None),
        mean_ms_ssim=_mean(row.ms_ssim for row in good),
        peers=tuple(_peer_total(good, codec) for codec in codecs),
    )


def _peer_total(rows: Sequence[Row], codec: str) -> PeerTotal:
    pairs = [(row, peer) for row in rows for peer in row.peers if peer.codec == codec]
    lossy = [(row, peer) for row, peer in pairs if row.gain(codec) is not None]
    return PeerTotal(
        codec,
        len(pairs),
        sum(peer.file_bytes for _, peer in pairs),
        sum(row.pixel_bytes or 0 for row, _ in pairs),
        _mean(peer.psnr for _, peer in lossy),
        _mean(row.psnr for row, _ in lossy),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "inf" if math.isinf(value) else None
    return value
