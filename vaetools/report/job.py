"""From a compressed folder to what its report says: rows of all images, pictures of some.

files --list_compressed--> items --measure--> rows --choose--> items to be shown --take_shot--> pictures
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..codec.codec import Codec
from ..codec.comparison import compare
from ..codec.container import Contents, unpack
from ..codec.fidelity import Fidelity
from ..errors import Desync, FormatError, ImageError, UsageError, VaetoolsError, reason_of
from ..evaluation.peers import PillowPeer
from ..evaluation.quality import psnr
from ..folder.ledger import JobProgress, Silent
from ..folder.manifest import FAILED, Entry
from ..images.picture import Picture
from ..images.read import read_picture
from ..medical.windowing import scan_of
from .entries import Compressed, list_compressed
from .heatmap import BitCounter
from .rows import Row, Totals, totals_of
from .shots import Shot, rgb_of, similarity, take_shot

IMAGES = 24
PAGE_BYTES = 20_000_000  # of a page, about, if nothing else is asked for
BYTES_PER_PIXEL = 1.4  # of a lossless WebP in base64, of photographs that a codec has smoothed
SMALLEST_AREA, LARGEST_AREA = 96**2, 1024**2  # of the part of an image that is shown
CHUNK_FILES, CHUNK_PIXELS = 32, 16_000_000  # that are decoded together
IMPOSSIBLE = 200.0  # dB either way: 16 bits have less


@dataclass(frozen=True)
class Options:
    """against: codecs at equal bytes. images: how many are shown. crop: sides in pixels of what is shown of a larger image; None
    for as much as keeps the page near PAGE_BYTES."""

    against: tuple[PillowPeer, ...] = ()
    images: int = IMAGES
    crop: int | None = None

    def area(self, images: int, views: int) -> int:
        """Pixels that are shown of each of so many images, in so many versions."""
        if self.crop is not None:
            return self.crop**2
        area = PAGE_BYTES / (max(1, images) * views * BYTES_PER_PIXEL)
        return int(min(max(area, SMALLEST_AREA), LARGEST_AREA))


@dataclass(frozen=True)
class Report:
    """rows: by name. shots: the pictures, by Row.picture. compared: whether originals were at hand."""

    folder: str
    originals: str
    model: str
    rows: tuple[Row, ...]
    shots: tuple[Shot, ...]
    totals: Totals
    against: tuple[PillowPeer, ...]


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A file in memory, and as much of the rest as was asked for."""

    contents: Contents
    restored: Picture | None = None
    original: Picture | None = None


def build_report(
    folder: Path,
    codec: Codec,
    options: Options = Options(),
    *,
    originals: Path | None = None,
    progress: JobProgress | None = None,
) -> Report:
    """Read every compressed file below `folder`; with the originals, decode each and measure it.

    Shown are the worst by PSNR and as many others evenly from the rest; where PSNR is not known, evenly from all. A file or an
    original that cannot be read is a row with a problem. Raises UsageError if there is nothing to report.
    """
    items = list_compressed(folder, originals)
    return _Job(items, folder, codec, options, originals, progress or Silent()).run()


def choose(rows: Sequence[Row], count: int) -> list[int]:
    """Positions of the images to show, in their order: the worst half by PSNR, and the rest evenly from all others."""
    able = [position for position, row in enumerate(rows) if row.file_bytes is not None]
    if len(able) <= count:
        return able
    known = [position for position in able if not math.isinf(rows[position].psnr or math.inf)]
    worst = sorted(known, key=lambda position: rows[position].psnr or 0)[: (count + 1) // 2]
    taken = set(worst)
    others = [position for position in able if position not in taken]
    left = count - len(worst)
    even = [others[(2 * number + 1) * len(others) // (2 * left)] for number in range(left)]
    return sorted([*worst, *even])


class _Job:
    def __init__(
        self,
        items: Sequence[Compressed],
        folder: Path,
        codec: Codec,
        options: Options,
        originals: Path | None,
        progress: JobProgress,
    ) -> None:
        self.items, self.folder, self.codec, self.options = items, folder, codec, options
        self.originals, self.progress = originals, progress
        self.counter = BitCounter(codec.model)
        self.shots: list[Shot] = []
        there = [item for item in items if item.path is not None]
        self.all_shown = len(there) <= options.images
        self.area = options.area(min(len(there), options.images), 2 + len(options.against) if originals else 1)

    def run(self) -> Report:
        sizes = [_size(item.path) for item in self.items]
        again = 0 if self.all_shown else min(self.options.images, len(self.items))
        mean = sum(sizes) // max(1, len(sizes))
        self.progress.start(len(self.items) + again, sum(sizes) + again * mean)
        decoded = self.all_shown or self.originals is not None
        rows: list[Row] = []
        for item, loaded in self._load(self.items, decoded=decoded):
            rows.append(self._row(item, loaded, show=self.all_shown))
            self.progress.advance(sizes[len(rows) - 1], rows[-1].pixels)
        if not any(row.file_bytes is not None for row in rows):
            problem = next((row for row in rows if row.problem), None)
            first = f"; the first: {problem.name}: {problem.problem}" if problem else ""
            raise UsageError(f"{self.folder}: not one of its files can be read{first}")
        if not self.all_shown:
            chosen = choose(rows, self.options.images)
            found = self._load([self.items[position] for position in chosen], decoded=True)
            for position, (item, loaded) in zip(chosen, found, strict=True):
                rows[position] = self._row(item, loaded, show=True)
                self.progress.advance(mean, rows[position].pixels)
        name = f"{self.codec.config.name} ({self.codec.model.hash.hex()})"
        return Report(
            self.folder.resolve().name,
            "" if self.originals is None else self.originals.resolve().name,
            name,
            tuple(rows),
            tuple(self.shots),
            totals_of(rows),
            self.options.against if self.originals else (),
        )

    def _row(self, item: Compressed, loaded: _Loaded | Row, *, show: bool) -> Row:
        if isinstance(loaded, Row):
            return loaded
        row, original = self._measured(item, loaded)
        return self._shown(row, loaded, original) if show else row

    def _load(self, items: Sequence[Compressed], *, decoded: bool) -> Iterator[tuple[Compressed, _Loaded | Row]]:
        """Each item with what is in its files, or with a row that says why that cannot be had."""
        chunk: list[tuple[Compressed, bytes, _Loaded | Row]] = []
        pixels = 0
        for item in items:
            data, loaded = self._opened(item)
            size = 0 if isinstance(loaded, Row) else loaded.contents.header.pixels
            if chunk and (len(chunk) >= CHUNK_FILES or pixels + size > CHUNK_PIXELS):
                yield from self._decoded(chunk, decoded=decoded)
                chunk, pixels = [], 0
            chunk.append((item, data, loaded))
            pixels += size
        yield from self._decoded(chunk, decoded=decoded)

    def _opened(self, item: Compressed) -> tuple[bytes, _Loaded | Row]:
        if item.path is None:
            return b"", Row(item.name, original_bytes=_size(item.original) or None, problem=item.problem)
        entry = item.entry
        try:
            data = item.path.read_bytes()
            contents = unpack(data, self.codec.limits)
            if entry and entry.status != FAILED and (entry.output_bytes, entry.crc32) != (len(data), f"{zlib.crc32(data):08x}"):
                raise FormatError("whole, but not the file that the manifest tells of: it was replaced since")
        except (OSError, VaetoolsError) as error:
            return b"", Row(item.name, original_bytes=_size(item.original) or None, problem=reason_of(error))
        return data, _Loaded(contents)

    def _decoded(
        self, chunk: Sequence[tuple[Compressed, bytes, _Loaded | Row]], *, decoded: bool
    ) -> Iterator[tuple[Compressed, _Loaded | Row]]:
        files = [data for _, data, loaded in chunk if isinstance(loaded, _Loaded)]
        pictures = self._pictures(files) if decoded and files else {}
        number = 0
        for item, _, loaded in chunk:
            if isinstance(loaded, _Loaded):
                picture = pictures.get(number)
                number += 1
                if isinstance(picture, VaetoolsError):
                    yield item, Row(item.name, original_bytes=_size(item.original) or None, problem=reason_of(picture))
                    continue
                loaded = replace(loaded, restored=picture)
            yield item, loaded

    def _pictures(self, files: Sequence[bytes]) -> dict[int, Picture | VaetoolsError]:
        """Together; one by one if one of them is bad."""
        try:
            return {number: restored.picture for number, restored in enumerate(self.codec.decode(files))}
        except VaetoolsError as error:
            if len(files) == 1:
                return {0: error}
        return {number: self._pictures([data])[0] for number, data in enumerate(files)}

    def _original(self, item: Compressed, loaded: _Loaded) -> tuple[Picture | None, list[str], str]:
        """The original, notes, and what is wrong with it."""
        if self.originals is None or loaded.restored is None:
            return None, [], ""
        if item.original is None:
            return None, ["its original is not there"], ""
        try:
            original = read_picture(item.original, max_pixels=self.codec.limits.max_pixels)
        except ImageError as error:
            return None, [], f"its original {reason_of(error).removeprefix(f'{item.original}: ')}"
        try:
            compare(loaded.restored, original, lossless=loaded.contents.header.lossless)
        except Desync as error:
            return None, [], f"its original is not what this file was made from ({error}): it was changed since"
        return original, [], ""

    def _measured(self, item: Compressed, loaded: _Loaded) -> tuple[Row, Picture | None]:
        """What is known about a good file, and its original if it was compared with it."""
        header, entry = loaded.contents.header, item.entry
        original, notes, problem = self._original(item, loaded)
        size = sum(tile.length for tile in loaded.contents.front.entries) + header.payload_start
        row = Row(
            item.name,
            height=header.height,
            width=header.width,
            original_bytes=_size(item.original) or (entry.size if entry else 0) or None,
            file_bytes=size,
            pixel_bytes=size if header.lossless else size - header.boxes_length,
            quality=None if header.lossless else header.quality,
            lossless=header.lossless,
            psnr=_known_psnr(entry),
            notes=(*(entry.notes if entry else ()), *notes),
            problem=problem,
        )
        if original is None or loaded.restored is None:
            return row, None
        if original.bit_depth == 16:
            return replace(row, psnr=Fidelity.between(original.colour, loaded.restored.colour, scan_of(original)).psnr), original
        first, second = rgb_of(original), rgb_of(loaded.restored)
        return replace(row, psnr=psnr(first, second), ms_ssim=similarity(first, second)), original

    def _shown(self, row: Row, loaded: _Loaded, original: Picture | None) -> Row:
        """The row with its pictures, which are kept."""
        assert loaded.restored is not None
        assert row.pixel_bytes is not None
        try:
            shot, peers, troubles = take_shot(
                loaded.contents,
                loaded.restored,
                original,
                self.options.against,
                self.counter,
                area=self.area,
                pixel_bytes=row.pixel_bytes,
            )
        except VaetoolsError as error:
            return replace(row, problem=reason_of(error))
        self.shots.append(shot)
        return replace(row, picture=len(self.shots) - 1, peers=peers, notes=(*row.notes, *troubles))


def _known_psnr(entry: Entry | None) -> float | None:
    """As `compress --verify` measured it; None for what can be no measurement, whoever wrote it."""
    if entry is None:
        return None
    value = entry.psnr if entry.range_psnr is None else entry.range_psnr
    return value if value is not None and (value == math.inf or abs(value) < IMPOSSIBLE) else None


def _size(path: Path | None) -> int:
    """0 for what is not there."""
    try:
        return 0 if path is None else path.stat().st_size
    except OSError:
        return 0
