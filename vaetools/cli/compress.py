"""`vaetools compress` and `vaetools decompress`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..codec.container import Limits
from ..folder.ledger import JobProgress, Outcome
from ..folder.names import DEFAULT, RESTORED_FORMATS
from ..folder.plan import ON_EXISTS, Selection
from ..folder.shard import Shard
from ..storage.place import parse_sources
from . import EXIT_FAILED
from .division import DIVISION, asks_for_workers, workers_of
from .limits import max_megapixels_option
from .outcome import beside, print_failures, print_left_out, shown
from .place import PlaceType
from .progress import job_progress

if TYPE_CHECKING:
    from ..codec.codec import Codec
    from ..codec.rate import Rate
    from ..folder.division import Division
    from ..folder.job import Forecast
    from ..folder.spec import Spec
    from ..folder.target import Folder

DEFAULT_QUALITY = 60.0
UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}


class Size(click.ParamType):
    """A number of bytes, with a unit or none."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmg]?i?)b?", str(value).strip().lower())
        if not found or found[2] not in UNITS or float(found[1]) * UNITS[found[2]] < 1:
            self.fail(f"{value!r} is no size; write bytes such as 40000, 40kB or 1MB (1000s), 200KiB or 1MiB (1024s)", param, ctx)
        return round(float(found[1]) * UNITS[found[2]])


@dataclass(frozen=True)
class FolderOptions:
    """The options that both directions share, as they were given."""

    target: Folder
    model: str
    device: str
    batch_size: int
    on_exists: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    retry_failed: bool
    dry_run: bool
    shard: Shard | None
    engine: str
    workers: int | None
    address: str | None
    max_megapixels: float
    as_json: bool
    tar: bool
    tar_samples: int | None
    tar_bytes: int | None

    def __post_init__(self) -> None:
        if not self.tar and (self.tar_samples is not None or self.tar_bytes is not None):
            raise click.UsageError("--tar-samples and --tar-bytes say how --tar divides a folder: give --tar, too")

    @property
    def limits(self) -> Limits:
        return Limits(max_pixels=int(self.max_megapixels * 1e6))

    @property
    def selection(self) -> Selection:
        return Selection(self.on_exists, self.include, self.exclude, self.retry_failed)

    @property
    def common(self) -> dict[str, Any]:
        """What every Spec is told."""
        return {
            "target": self.target,
            "model": self.model,
            "device": self.device,
            "limits": self.limits,
            "batch_size": self.batch_size,
            "selection": self.selection,
        }

    def run(self, spec: Spec) -> Outcome:
        """Load the model and do the job, here or by an engine."""
        if self.tar:
            return self._run_tars(spec)
        from ..folder.engines import run_on_engine

        workers = workers_of(self.engine, self.workers, self.address, self.shard, self.device)
        with job_progress() as progress:
            if workers:
                with redirect_stdout(sys.stderr):  # Ray prints what it knows of dead workers
                    return run_on_engine(spec, self.engine, workers, address=self.address, progress=progress)
            from ..codec.codec import Codec

            codec = Codec.load(self.model, self.device, limits=self.limits)
            return run_here(spec, codec, self.shard, progress)

    def _run_tars(self, spec: Spec) -> Outcome:
        from ..codec.codec import Codec
        from ..folder.tars import run_tars

        division = self.division(spec)
        codec = Codec.load(self.model, self.device, limits=self.limits)
        with job_progress() as progress:
            return run_tars(spec, codec, division, shard=self.shard, progress=progress)

    def division(self, spec: Spec) -> Division:
        from ..folder.division import SAMPLES, Division
        from ..storage.shards import TarShards

        if asks_for_workers(self.engine, self.workers, self.address):
            raise click.UsageError(
                "--tar writes whole tars, which --engine and --workers do not divide: start several with --shard 1/4, 2/4, ..."
            )
        if isinstance(spec.source, TarShards) and (self.tar_samples is not None or self.tar_bytes is not None):
            raise click.UsageError("each tar becomes a tar: --tar-samples and --tar-bytes are for folders")
        return Division(SAMPLES if self.tar_samples is None else self.tar_samples, self.tar_bytes)

    def foresee(self, spec: Spec) -> Forecast:
        """What the job would do, for a shard, whose batches the model tells, or to tars."""
        if self.tar:
            from ..folder.tars import foresee_tars

            return foresee_tars(spec, self.division(spec), shard=self.shard)
        from ..folder.engine import planner
        from ..folder.job import foresee_shard
        from ..folder.plan import check_places
        from ..model.precision import pick_device

        assert self.shard is not None
        check_places(spec.source, spec.target)
        codec, _ = planner(spec, pick_device(self.device).type)
        outcome = Outcome()
        return foresee_shard(spec.job(codec), spec.tasks(outcome), self.target, self.selection, outcome, self.shard)


def run_here(spec: Spec, codec: Codec, shard: Shard | None, progress: JobProgress) -> Outcome:
    """In this process, all of a job or a shard of it."""
    from ..folder.plan import check_places

    check_places(spec.source, spec.target)
    job, outcome = spec.job(codec), Outcome()
    return job.run(spec.tasks(outcome), spec.target, spec.selection, outcome, progress, shard)


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Take the options of FolderOptions, which the command collects."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout."),
        max_megapixels_option("Refuse larger images."),
        *DIVISION,
        click.option(
            "--tar-bytes",
            type=Size(),
            help="Bytes that the files of a tar have in the source, at most, but for a single sample of more: 1GB, 500MB.",
        ),
        click.option("--tar-samples", type=click.IntRange(1), help="Samples a tar, at most, from a folder [default: 10000]."),
        click.option(
            "--tar",
            is_flag=True,
            help="Write WebDataset tars: of a tar one of the same name, with all that is no image in it as it is; of a folder "
            "shard-000000.tar and so on.",
        ),
        click.option("--dry-run", is_flag=True, help="Only print what would be done; needs no model, but with --shard."),
        click.option("--retry-failed", is_flag=True, help="Only the files that failed last time."),
        click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out files of this path or name; repeatable."),
        click.option("--include", multiple=True, metavar="GLOB", help="Only files of this path or name; repeatable."),
        click.option(
            "--on-exists",
            type=click.Choice(ON_EXISTS),
            default="skip",
            show_default=True,
            help="Where an output file is there already: leave it; replace it unless it was made from the same source with the "
            "same settings; or refuse to start.",
        ),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ..."),
        click.option(
            "--batch", "batch_size", type=click.IntRange(1), default=64, show_default=True, help="Images a batch, at most."
        ),
        click.option("--model", default="photo", show_default=True, help="An installed model, a weights file or a training run."),
        click.option("-o", "--output", "target", type=PlaceType(writing=True), required=True, help="Folder to write to."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@folder_options
@click.option(
    "-q",
    "--quality",
    type=click.FloatRange(0, 100),
    help=f"0 smallest to 100 best [default: {DEFAULT_QUALITY:g}, without a target]. Not for a model of one rate.",
)
@click.option("--target-bpp", type=click.FloatRange(0, min_open=True), help="Bits per pixel of each file, at most.")
@click.option("--target-size", type=Size(), help="Bytes of each file, at most: 40kB, 1MB, 200KiB.")
@click.option("--target-psnr", type=click.FloatRange(0, min_open=True), help="dB of each image, at least.")
@click.option("--tile-size", type=click.IntRange(1), default=1024, show_default=True, help="Sides of the tiles of large images.")
@click.option(
    "--effort",
    type=click.IntRange(0, 10),
    default=0,
    show_default=True,
    help="Look for better latents of each image, in 20 steps for each unit: smaller files, which decode as fast, and take some "
    "hundred times as long to write. For GPUs, or patience.",
)
@click.option("--preview", is_flag=True, help="Put a small picture into each file, to look at without the model.")
@click.option("--verify", is_flag=True, help="Decode each file again, and compare, before it gets its name.")
@click.option(
    "--error-report",
    "errors",
    is_flag=True,
    help="Put into each file of 16 bits, and of DICOM and NIfTI, by how much its pixels are off at most.",
)
@click.option("--keep-tags", is_flag=True, help="Keep all that DICOM and NIfTI files say: names of patients, dates, texts.")
def compress(
    sources: tuple[str, ...],
    quality: float | None,
    target_bpp: float | None,
    target_size: int | None,
    target_psnr: float | None,
    tile_size: int,
    effort: int,
    preview: bool,
    verify: bool,
    errors: bool,
    keep_tags: bool,
    **given: Any,
) -> None:
    """Compress every image below SOURCE, a folder or one file, to .vtc files; the tree is kept.

    SOURCE may also be tars: photos.tar, 'photos-{000..041}.tar', 'shards/*.tar', or a folder of them.

    SOURCE and the output are paths, or URLs such as s3://bucket/folder.

    Colours are what the model compresses. Transparency, colour profile, EXIF and XMP are kept as they are, and the pixels as
    they are stored: an EXIF orientation stays one. Animated images are refused, each with a line in the summary. The same
    command again goes on where a job was stopped, even by a power cut.

    DICOM (.dcm) and NIfTI (.nii, .nii.gz) keep their geometry and their window, and no tags, unless --keep-tags asks for them.
    """
    from ..folder.job import foresee_compression
    from ..folder.spec import CompressSpec

    source, rate = parse_sources(sources), _rate(quality=quality, bpp=target_bpp, size=target_size, psnr=target_psnr)
    options = FolderOptions(**given)
    settings: dict[str, Any] = {"preview": preview, "errors": errors, "keep_tags": keep_tags, "effort": effort}
    spec = CompressSpec(source=source, rate=rate, tile_size=tile_size, verify=verify, **settings, **options.common)
    if options.dry_run and (options.shard or options.tar):
        _print_forecast("compressed", options.foresee(spec), options.as_json)
        return
    if options.dry_run:
        forecast = foresee_compression(
            source, options.target, rate, tile_size=tile_size, **settings, limits=options.limits, selection=options.selection
        )
        _print_forecast("compressed", forecast, options.as_json)
        return
    outcome = options.run(spec)
    _finish("compressed", outcome, outcome.bytes_out, options.as_json)


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@folder_options
@click.option(
    "--format",
    "format_name",
    type=click.Choice(RESTORED_FORMATS),
    help="What to write; original: what the name says, or PNG [default: png, and DICOM and NIfTI as they were].",
)
@click.option("--window", is_flag=True, help="DICOM and NIfTI as 8-bit gray, as their window shows them; with --format png, ...")
@click.option("--allow-partial", is_flag=True, help="Restore what is left of damaged files, too; they count as failed.")
def decompress(sources: tuple[str, ...], format_name: str | None, window: bool, allow_partial: bool, **given: Any) -> None:
    """Restore every .vtc file below SOURCE, a folder, one file, or tars as `compress` takes them; the tree is kept.

    a.png.vtc is restored as a.png, a.jpg.vtc as a.jpg.png, and a.dcm.vtc as a.dcm.
    Files name their model by its content: --model is needed only where it is not among the installed ones.
    """
    from ..folder.job import foresee_decompression
    from ..folder.spec import DecompressSpec

    source, options, name = parse_sources(sources), FolderOptions(**given), format_name or DEFAULT
    spec = DecompressSpec(source=source, format=name, allow_partial=allow_partial, window=window, **options.common)
    if options.dry_run and (options.shard or options.tar):
        _print_forecast("restored", options.foresee(spec), options.as_json)
        return
    if options.dry_run:
        forecast = foresee_decompression(
            source, options.target, name, window=window, limits=options.limits, selection=options.selection
        )
        _print_forecast("restored", forecast, options.as_json)
        return
    outcome = options.run(spec)
    _finish("restored", outcome, outcome.bytes_in, options.as_json)


def _rate(**targets: float | None) -> Rate:
    from ..codec.rate import Rate

    given = {kind: value for kind, value in targets.items() if value is not None}
    if len(given) > 1:
        names = [f"--{kind}" if kind == "quality" else f"--target-{kind}" for kind in given]
        raise click.UsageError(f"{' and '.join(names)} exclude each other: give one of them")
    return next((Rate(kind, float(value)) for kind, value in given.items()), Rate("quality", DEFAULT_QUALITY, chosen=False))


def _print_forecast(verb: str, forecast: Forecast, as_json: bool) -> None:
    """One line per file, and a summary; exit with 1 if a file would fail."""
    tasks, outcome = forecast.tasks, forecast.outcome
    todo = sum(task.todo for task in tasks)
    if as_json:
        files = [
            {"source": str(task.source), "target": task.destination, "todo": task.todo, "state": task.state} for task in tasks
        ]
        click.echo(json.dumps({"dry_run": True, "todo": todo, "files": files, **outcome.to_dict()}))
    else:
        for task in tasks:
            click.echo(f"{shown(task.source)} -> {shown(task.destination)}" + (f"  ({shown(task.state)})" if task.state else ""))
        click.echo(f"{todo} images would be {verb}{beside(outcome, 'would fail')}")
    print_left_out(outcome)
    if outcome.failed:
        sys.exit(EXIT_FAILED)


def _finish(verb: str, outcome: Outcome, compressed_bytes: int, as_json: bool) -> None:
    """Print the summary and, if a file failed, exit with 1."""
    print_failures(outcome)
    print_left_out(outcome)
    if as_json:
        click.echo(json.dumps(outcome.to_dict()))
    else:
        line = f"{outcome.done} images {verb}{beside(outcome, 'failed')}"
        if outcome.done:
            megapixels = outcome.pixels / 1e6
            line += (
                f": {megapixels:.1f} megapixels, {outcome.bytes_in:,} -> {outcome.bytes_out:,} bytes, "
                f"{8 * compressed_bytes / outcome.pixels:.3f} bpp, "
                f"{outcome.seconds:.1f} s, {megapixels / outcome.seconds:.2f} MP/s"
            )
        click.echo(line)
        if outcome.verified:
            click.echo(f"{outcome.verified} decoded again and compared: {outcome.lowest_psnr:.2f} dB at the lowest")
        if outcome.measured:
            click.echo(
                f"{outcome.measured} of 16 bits or of a scanner: stored values are off by {outcome.largest_error:g} at most, "
                f"{outcome.lowest_range_psnr:.2f} dB over their range at the lowest; the manifest tells of each"
            )
    if outcome.failed:
        sys.exit(EXIT_FAILED)
