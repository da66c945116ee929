"""`vaetools compress` and `vaetools decompress`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..codec.container import Limits
from ..codec.job import ON_EXISTS, Outcome
from . import EXIT_FAILED
from .progress import job_progress

FAILURES_SHOWN = 20


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that both directions share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout."),
        click.option(
            "--max-megapixels",
            type=click.FloatRange(0, min_open=True),
            default=100.0,
            show_default=True,
            help="Refuse larger images; one takes up to 200 bytes of memory a pixel.",
        ),
        click.option(
            "--on-exists",
            type=click.Choice(ON_EXISTS),
            default="skip",
            show_default=True,
            help="What to do where an output file is there already, whatever is in it.",
        ),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ..."),
        click.option(
            "--batch", "batch_size", type=click.IntRange(1), default=8, show_default=True, help="Images a batch, at most."
        ),
        click.option("--model", default="photo", show_default=True, help="An installed model, a weights file or a training run."),
        click.option("-o", "--output", "target", type=click.Path(path_type=Path), required=True, help="Folder to write to."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@folder_options
@click.option("-q", "--quality", type=click.FloatRange(0, 100), default=60.0, show_default=True, help="0 smallest to 100 best.")
def compress(source: Path, quality: float, **options: Any) -> None:
    """Compress every image below SOURCE, a folder or one file, to .vtc files; the tree is kept.

    What is kept are the pixel values of 8-bit gray and RGB images, turned as EXIF says. Metadata (EXIF, ICC, XMP) is not
    kept, so an image with a wide-gamut profile will look different. Images with transparency, with 16 bits, CMYK and
    animated ones are refused, each with a line in the summary. The same command again goes on where a job was stopped.
    """
    from ..codec.folder import compress_folder

    outcome = _run(compress_folder, source, quality=quality, **options)
    _finish("compressed", outcome, outcome.bytes_out, options["as_json"])


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@folder_options
def decompress(source: Path, **options: Any) -> None:
    """Restore every .vtc file below SOURCE, a folder or one file, as a PNG; the tree is kept.

    a.png.vtc is restored as a.png, and a.jpg.vtc as a.jpg.png.
    Files name their model by its content: --model is needed only where it is not among the installed ones.
    """
    from ..codec.folder import decompress_folder

    outcome = _run(decompress_folder, source, **options)
    _finish("restored", outcome, outcome.bytes_in, options["as_json"])


def _run(
    job: Callable[..., Outcome],
    source: Path,
    *,
    target: Path,
    model: str,
    device: str,
    max_megapixels: float,
    as_json: bool,
    **rest: Any,
) -> Outcome:
    """Load the model and do the job; `rest` are its own options."""
    from ..codec.codec import Codec

    codec = Codec.load(model, device, limits=Limits(max_pixels=int(max_megapixels * 1e6)))
    with job_progress() as progress:
        return job(source, target, codec, progress=progress, **rest)


def _finish(verb: str, outcome: Outcome, compressed_bytes: int, as_json: bool) -> None:
    """Print the summary and, if a file failed, exit with 1."""
    for path, reason in outcome.failed[:FAILURES_SHOWN]:
        click.echo(f"failed: {path}: {reason}", err=True)
    if len(outcome.failed) > FAILURES_SHOWN:
        click.echo(f"failed: {len(outcome.failed) - FAILURES_SHOWN} more", err=True)
    for path in outcome.linked:
        click.echo(f"left out: {path}: a link to a folder", err=True)
    if outcome.others:
        click.echo(f"left out: {outcome.others} files of other kinds", err=True)
    if as_json:
        click.echo(json.dumps(outcome.to_dict()))
    else:
        others = [
            f"{outcome.skipped} there already" * bool(outcome.skipped),
            f"{len(outcome.failed)} failed" * bool(outcome.failed),
        ]
        notes = "".join(f", {note}" for note in others if note)
        line = f"{outcome.done} images {verb}{notes}"
        if outcome.done:
            megapixels = outcome.pixels / 1e6
            line += (
                f": {megapixels:.1f} megapixels, {outcome.bytes_in:,} -> {outcome.bytes_out:,} bytes, "
                f"{8 * compressed_bytes / outcome.pixels:.3f} bpp, "
                f"{outcome.seconds:.1f} s, {megapixels / outcome.seconds:.2f} MP/s"
            )
        click.echo(line)
    if outcome.failed:
        sys.exit(EXIT_FAILED)
