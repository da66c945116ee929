"""What a training run tells: lines on the terminal, metrics.csv, grids of images."""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from ..errors import TrainingError
from ..files import replace_bytes, replace_file
from ..model.distributions import Noise
from ..model.noise import noise_level, noisy_pair
from ..model.precision import autocast
from ..model.vae import VAE
from .checkpoint import CHECKPOINT, Progress
from .data import CropSampler, ImageCache, to_unit_range
from .objective import Losses

COLUMNS = [
    "epoch",
    "step",
    "seconds",
    "loss",
    "reconstruction_loss",
    "kl_divergence",
    "mse",
    "psnr",
    "bpp",
    "learning_rate",
    "skipped",
]
GRID_IMAGES = 8
RETRY_SECONDS, RETRIES = 10.0, 360
LINE_SECONDS = 30.0  # between lines about the running epoch, where there is no terminal to draw a bar on


@dataclass
class Sums:
    """Running sums of the losses of an epoch, kept on the device until they are read."""

    count: int = 0
    totals: torch.Tensor | None = None

    def add(self, losses: Losses | None) -> None:
        if losses is None:
            return
        row = torch.stack([losses.loss, losses.reconstruction, losses.divergence, losses.mse, losses.bpp]).detach().double()
        self.totals = row if self.totals is None else self.totals + row
        self.count += 1

    def means(self) -> list[float]:
        """loss, reconstruction, divergence, mse, bpp; nan if every step was skipped."""
        return [math.nan] * 5 if self.totals is None else (self.totals / self.count).tolist()

    @classmethod
    def of(cls, count: int, means: list[float], device: torch.device) -> Sums:
        """Those of `count` steps with these means."""
        return cls(count, torch.tensor(means, dtype=torch.float64, device=device) * count if count else None)


@dataclass
class EpochBar:
    bar: ProgressBar | None
    task: int = 0
    quiet: bool = False
    drawn: float = field(default_factory=time.monotonic)

    def advance(self, progress: Progress, sums: Sums) -> None:
        if self.bar is not None:
            self.bar.advance(self.task)  # type: ignore[arg-type]
        elif self.quiet:
            return
        if time.monotonic() - self.drawn > (0.5 if self.bar else LINE_SECONDS):
            self.drawn = time.monotonic()
            loss, _, _, mse, bpp = sums.means()
            text = f"loss {loss:.3f}  {bpp:.3f} bpp  {psnr_of(mse):.2f} dB"
            if self.bar:
                self.bar.update(self.task, description=text)  # type: ignore[arg-type]
            else:
                print(f"step {progress.step}: {text}", file=sys.stderr, flush=True)


def psnr_of(mse: float) -> float:
    """dB, of a mean squared error on the scale 0..255."""
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


class RunReport:
    """Writes below `run`; with `quiet` (ranks other than the first) it writes and prints nothing."""

    def __init__(self, run: Path, *, quiet: bool = False) -> None:
        self.run, self.quiet = run, quiet

    def message(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def refuse_existing(self) -> None:
        """Raises TrainingError if `run` holds a training already, or cannot be written to."""
        if (self.run / CHECKPOINT).exists():
            raise TrainingError(f"{self.run}: holds a training run already; continue it with --resume or choose another --out")
        try:
            self.run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.run}: cannot be made ({error.strerror})") from None

    def folder(self, cache: ImageCache, crop: int) -> None:
        pixels = sum(height * width for height, width in cache.sizes) / 1e6
        self.message(f"{len(cache)} images, {pixels:.1f} megapixels, {len(cache.decoded)} of them held in memory")
        for line in cache.unreadable[:10]:
            self.message(f"left out: {line}")
        if len(cache.unreadable) > 10:
            self.message(f"left out: {len(cache.unreadable) - 10} more images that cannot be read")
        if small := cache.smaller_than(crop):
            self.message(f"{small} images are smaller than the crop of {crop} pixels: their edges are repeated to fill it")

    def resumed(self, progress: Progress) -> None:
        self.message(f"resuming at step {progress.step}, epoch {progress.epoch + 1}, after {progress.seconds / 60:.1f} minutes")
        if not self.quiet:
            self.save(lambda: self._drop_rows_after(progress.step))

    @contextmanager
    def epoch(self, progress: Progress, per_epoch: int, total: int | None) -> Iterator[EpochBar]:
        console = Console(stderr=True)
        if self.quiet or not console.is_terminal:
            yield EpochBar(None, quiet=self.quiet)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with ProgressBar(*columns, console=console, transient=True) as bar:
            task = bar.add_task("starting", total=per_epoch, completed=progress.step % per_epoch)
            yield EpochBar(bar, task)

    def finish_epoch(
        self,
        net: VAE,
        cache: ImageCache,
        progress: Progress,
        means: list[float],
        rate: float,
        fraction: float,
        epochs: int | None,
    ) -> None:
        """Print the epoch's line, add it to metrics.csv, and draw the two grids."""
        loss, reconstruction, divergence, mse, bpp = means
        count = epochs if epochs is not None else max(progress.epoch, round(progress.epoch / max(fraction, 1e-9)))
        about = "" if epochs is not None or fraction >= 1 else "~"
        skipped = f"  {progress.skipped} steps skipped" if progress.skipped else ""
        print(
            f"Epoch {progress.epoch}/{about}{count}  Loss: {loss:.4f}  Reconstruction Loss: {reconstruction:.4f}  "
            f"KL Divergence: {divergence:.4f}  ({bpp:.4f} bpp, {psnr_of(mse):.2f} dB)  "
            f"{progress.step} steps, {progress.seconds / 60:.1f} min{skipped}",
            flush=True,
        )
        values = [loss, reconstruction, divergence, mse, psnr_of(mse), bpp, rate]
        row = [progress.epoch, progress.step, f"{progress.seconds:.1f}", *(f"{v:.6g}" for v in values), progress.skipped]
        self.save(lambda: self._add_row(row))
        name = f"epoch-{progress.epoch:04d}"
        self.save(lambda: self._save_grid(f"{name}-reconstruction.png", reconstruction_grid(net, cache)))
        self.save(lambda: self._save_grid(f"{name}-samples.png", sample_grid(net, cache)))

    def _drop_rows_after(self, step: int) -> None:
        """Epochs that ended after the checkpoint was written will be trained, and added, again."""
        path = self.run / "metrics.csv"
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []
        kept = rows[:1] + [row for row in rows[1:] if len(row) == len(COLUMNS) and int(row[COLUMNS.index("step")]) <= step]
        if len(kept) < len(rows):
            text = "".join(",".join(row) + "\r\n" for row in kept)
            replace_bytes(path, text.encode())

    def _add_row(self, row: list[object]) -> None:
        path = self.run / "metrics.csv"
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(COLUMNS)
            writer.writerow(row)

    def _save_grid(self, name: str, grid: Image.Image) -> None:
        folder = self.run / "grids"
        folder.mkdir(exist_ok=True)
        replace_file(folder / name, lambda path: grid.save(path, format="png"))

    def save(self, write: Callable[[], object], *, must: bool = False) -> None:
        """Write, or say why not and train on. What `must` be written is tried again for an hour."""
        for attempt in range(RETRIES if must else 1):
            try:
                write()
                return
            except OSError as error:
                self.message(f"cannot write: {error}")
                if not must:
                    self.message("training goes on; the last checkpoint is whole. Free some space before the end.")
                    return
                if attempt == 0:
                    self.message(f"free some space: trying again every {RETRY_SECONDS:.0f} s, nothing is lost meanwhile")
                time.sleep(RETRY_SECONDS)
        raise TrainingError(f"{self.run}: the checkpoint could not be written")


def tile(rows: list[np.ndarray]) -> Image.Image:
    """Rows of (N, H, W, C) uint8 images -> one picture, two pixels of white between."""
    count, height, width, channels = rows[0].shape
    canvas = np.full((len(rows) * (height + 2) - 2, count * (width + 2) - 2, channels), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            canvas[r * (height + 2) :, c * (width + 2) :][:height, :width] = image
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) around 0..1 -> (B, H, W, C) uint8, rounded and clipped."""
    return images.float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def reconstruction_grid(net: VAE, cache: ImageCache) -> Image.Image:
    """The same crops every time: the originals, then their reconstructions at quality 0, 50 and 100; of a denoiser, from the
    originals with the noise of that quality, each below what it was made of.
    """
    side = grid_side(net)
    device = net.z_raw_scale.device
    images = to_unit_range(CropSampler(cache, seed=7, mirrored=False).batch(0, side, GRID_IMAGES).images, net.config, device)
    rows = [to_pixels(images)]
    for quality in (0.0, 0.5, 1.0):
        q = torch.full((GRID_IMAGES,), quality, device=device)
        noise = Noise(torch.Generator(device).manual_seed(0))
        seen = images
        if net.config.noise is not None:
            _, seen = noisy_pair(images, noise_level(q, net.config.noise), noise)
            rows.append(to_pixels(seen))
        with autocast(device):
            rows.append(to_pixels(net(seen, q, noise).reconstruction))
    return tile(rows)


@torch.no_grad()
def sample_grid(net: VAE, cache: ImageCache) -> Image.Image:
    """Newly generated images: one row each at quality 0, 50 and 100."""
    side, device = grid_side(net), net.z_raw_scale.device
    rows = []
    for quality in (0.0, 0.5, 1.0):
        q = torch.full((GRID_IMAGES,), quality, device=device)
        rows.append(to_pixels(net.sample(GRID_IMAGES, side, side, q, Noise(torch.Generator(device).manual_seed(1)))))
    return tile(rows)


def grid_side(net: VAE) -> int:
    """Pixels a side of the images in the grids: 128 for photographs, 32 for small images."""
    return 2 * net.config.hyper_stride
