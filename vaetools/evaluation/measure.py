"""Rate, distortion and speed of several codecs on a folder of images, from the bytes of real files.

    for every image:  for every codec:  for every setting:  encode -> file -> decode -> PSNR, MS-SSIM

The codecs take turns on each image, so that a change of the machine's load meets all of them.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import ImageError, UsageError
from ..images.folder import list_images
from ..images.read import read_exact
from .bd_rate import Anchors, BDRate, Curve, bd_rate
from .peers import QUALITIES, ImageCodec, Peer, VaetoolsPeer
from .quality import ms_ssim, psnr

ReportProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Row:
    """One image through one codec at one setting. psnr_db: math.inf if it came back identical. ms_ssim: nan if too small."""

    image: str
    codec: str
    setting: float
    width: int
    height: int
    file_bytes: int
    psnr_db: float
    ms_ssim: float
    encode_seconds: float
    decode_seconds: float

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def bpp(self) -> float:
        """Bits per pixel of the whole file, headers included."""
        return 8 * self.file_bytes / self.pixels


@dataclass(frozen=True)
class Average:
    """One codec at one setting: the mean over images of each image's bpp and PSNR, as is the custom on Kodak.

    ms_ssim: over the images that are large enough; nan if none is.
    """

    codec: str
    setting: float
    images: int
    bpp: float
    psnr_db: float
    ms_ssim: float


@dataclass(frozen=True)
class Speed:
    """One codec over all images and settings: megapixels per second of the encode and decode calls, nothing else."""

    codec: str
    how: str
    encode_mp_per_s: float
    decode_mp_per_s: float


@dataclass(frozen=True)
class Comparison:
    """BD-rate of vaetools against a codec measured here, or against one that was `published`."""

    against: str
    published: bool
    result: BDRate


@dataclass(frozen=True)
class LeftOut:
    """An image that was not measured, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class Machine:
    """What the times were measured on."""

    processor: str
    logical_cores: int
    torch_threads: int
    device: str
    torch_version: str
    python_version: str
    system: str

    @classmethod
    def here(cls, device: torch.device) -> Machine:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        return cls(
            _processor(), os.cpu_count() or 1, torch.get_num_threads(), name, torch.__version__,
            platform.python_version(), platform.system(),
        )  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.logical_cores} logical cores, torch {self.torch_version} on {self.device} "
            f"with {self.torch_threads} threads, Python {self.python_version}, {self.system}"
        )


@dataclass(frozen=True)
class Evaluation:
    """Everything that `evaluate` measured, of one folder on one machine.

    rows: one for each image, codec and setting. left_out: images that not every codec could hold, or that have no part in the
    averages, with reasons. averages: one for each codec and setting. speeds: one for each codec. comparisons: BD-rates against
    the others. anchors: curves that others have published, if there were any.
    """

    folder: str
    machine: Machine
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    averages: tuple[Average, ...]
    speeds: tuple[Speed, ...]
    comparisons: tuple[Comparison, ...]
    anchors: Anchors | None

    @property
    def codecs(self) -> list[str]:
        return [speed.codec for speed in self.speeds]

    @property
    def images(self) -> int:
        return len({row.image for row in self.rows})

    def curve(self, codec: str) -> Curve:
        return curve_of(codec, self.averages)


def evaluate(
    folder: str | os.PathLike[str],
    codec: ImageCodec,
    peers: Sequence[Peer] = (),
    anchors: Anchors | None = None,
    *,
    qualities: Sequence[float] | None = QUALITIES,
    effort: int = 0,
    progress: ReportProgress | None = None,
) -> Evaluation:
    """Measure `codec` at each of `qualities`, and every peer at each of its settings, on the images below `folder`.

    Gray images are measured as RGB, by every codec. An image that cannot be read, or that one of the codecs cannot hold,
    is left out for all of them; one that comes back identical, so that it has no PSNR, from a setting where others do not is left
    out of the averages. `qualities` is None for a codec of one rate, whose setting is called 0. `progress` is called
    with the images done, their total and the last one's name.
    Raises UsageError if no image is left; a file that does not decode is an error of its codec and ends the run.
    """
    paths = list_images(folder)
    settings = (0.0,) if qualities is None else tuple(qualities)
    own_peer = VaetoolsPeer(codec, settings, effort=effort, one_rate=qualities is None)
    codecs: list[Peer] = [own_peer, *peers]
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    for done, path in enumerate(paths, 1):
        name = path.relative_to(folder).as_posix()
        try:
            rgb = as_rgb(read_exact(path))
            if not rows:
                warm_up(codecs, rgb)
            rows += [row for one in codecs for row in measure_image(one, name, rgb)]
        except ImageError as error:
            left_out.append(LeftOut(name, str(error).removeprefix(f"{path}: ")))
        if progress is not None:
            progress(done, len(paths), name)
    if not rows:
        raise UsageError(
            f"{folder}: none of its {len(paths)} images can be measured; the first, {left_out[0].image}: {left_out[0].reason}"
        )
    identical = identical_sometimes(rows)
    left_out += identical
    apart = {left.image for left in identical}
    compared = [row for row in rows if row.image not in apart]
    averages = tuple(average(compared, one.name, setting) for one in codecs for setting in one.settings)
    own, *others = (curve_of(one.name, averages) for one in codecs)
    comparisons = [Comparison(other.name, False, bd_rate(own, other)) for other in others]
    comparisons += [Comparison(other.name, True, bd_rate(own, other)) for other in (anchors.curves if anchors else ())]
    speeds = tuple(speed(rows, one) for one in codecs)
    machine = Machine.here(codec.device)
    return Evaluation(str(folder), machine, tuple(rows), tuple(left_out), averages, speeds, tuple(comparisons), anchors)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 -> (H, W, 3) uint8."""
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def warm_up(codecs: Sequence[Peer], rgb: np.ndarray) -> None:
    """The first call of a network allocates and chooses kernels; a folder pays that once, not per image."""
    for codec in codecs:
        codec.decode(codec.encode(rgb, codec.settings[len(codec.settings) // 2]))


def measure_image(codec: Peer, name: str, rgb: np.ndarray) -> list[Row]:
    """One row per setting. rgb: (H, W, 3) uint8. Raises ImageError if the codec cannot hold the image."""
    height, width, _ = rgb.shape
    rows = []
    for setting in codec.settings:
        start = time.perf_counter()
        data = codec.encode(rgb, setting)
        encoded = time.perf_counter()
        decoded = codec.decode(data)
        finish = time.perf_counter()
        quality = psnr(rgb, decoded), ms_ssim(rgb, decoded)
        rows.append(Row(name, codec.name, setting, width, height, len(data), *quality, encoded - start, finish - encoded))
    return rows


def identical_sometimes(rows: Sequence[Row]) -> list[LeftOut]:
    """The images whose PSNR is infinite where that of others is not: with them, no mean would be left. None if all are such."""
    finite = {(row.codec, row.setting) for row in rows if math.isfinite(row.psnr_db)}
    found: dict[str, Row] = {}
    for row in rows:
        if math.isinf(row.psnr_db) and (row.codec, row.setting) in finite:
            found.setdefault(row.image, row)
    if len(found) == len({row.image for row in rows}):
        return []
    return [
        LeftOut(name, f"{row.codec} gives it back as it was at setting {row.setting:g}: without a PSNR, it is in no average")
        for name, row in found.items()
    ]


def average(rows: Sequence[Row], codec: str, setting: float) -> Average:
    chosen = [row for row in rows if (row.codec, row.setting) == (codec, setting)]
    similar = [row.ms_ssim for row in chosen if not math.isnan(row.ms_ssim)]
    return Average(
        codec,
        setting,
        len(chosen),
        _mean([row.bpp for row in chosen]),
        _mean([row.psnr_db for row in chosen]),
        _mean(similar) if similar else math.nan,
    )


def speed(rows: Sequence[Row], codec: Peer) -> Speed:
    chosen = [row for row in rows if row.codec == codec.name]
    megapixels = sum(row.pixels for row in chosen) / 1e6
    encode, decode = (sum(getattr(row, f"{task}_seconds") for row in chosen) for task in ("encode", "decode"))
    return Speed(codec.name, codec.how, megapixels / encode, megapixels / decode)


def curve_of(codec: str, averages: Sequence[Average]) -> Curve:
    chosen = [point for point in averages if point.codec == codec]
    return Curve(codec, tuple(point.bpp for point in chosen), tuple(point.psnr_db for point in chosen))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
