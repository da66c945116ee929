"""`vaetools verify`."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING

import click

from ..codec.container import Limits
from . import EXIT_FAILED
from .limits import max_megapixels_option
from .outcome import shown
from .place import PlaceType
from .progress import job_progress

if TYPE_CHECKING:
    from ..folder.target import Folder


@click.command()
@click.argument("folder", type=PlaceType(writing=True))
@click.option("--against", type=PlaceType(writing=True), help="Folder of the originals: compare each file with its own.")
@click.option("--quick", is_flag=True, help="Checksums and names only; needs no model.")
@click.option("--model", default="photo", show_default=True, help="An installed model, a weights file or a training run.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--batch", "batch_size", type=click.IntRange(1), default=64, show_default=True, help="Images a batch, at most.")
@max_megapixels_option("Refuse larger images.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON on stdout.")
def verify(
    folder: Folder,
    against: Folder | None,
    quick: bool,
    model: str,
    device: str,
    batch_size: int,
    max_megapixels: float,
    as_json: bool,
) -> None:
    """Check every .vtc file below FOLDER: what to do before the originals are deleted, or years later.

    Checksums, decoding, and the manifest that `compress` left there: files that are missing, were replaced, or failed. With
    --against, each original must have its file, which must decode to it; the PSNR of each is printed.
    """
    from ..folder.verify import verify_folder

    limits, codec = Limits(max_pixels=int(max_megapixels * 1e6)), None
    if not quick:
        from ..codec.codec import Codec

        codec = Codec.load(model, device, limits=limits)
    with job_progress() as progress:
        result = verify_folder(folder, codec, against=against, batch_size=batch_size, limits=limits, progress=progress)
    for path, problem in result.bad:
        click.echo(f"bad: {shown(path)}: {shown(problem)}", err=True)
    if not result.manifest:
        click.echo(f"{shown(folder)} has no manifest: whether files are missing cannot be told", err=True)
    elif result.unknown:
        first = ", ".join(map(shown, result.unknown[:3]))
        click.echo(f"unknown to the manifest: {len(result.unknown)} files, such as {first}", err=True)
    if result.others and against is not None:
        click.echo(f"not looked at: {result.others} files of other kinds in {shown(against)}: compress leaves them out", err=True)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        for path, psnr in result.psnr.items():
            click.echo(f"{psnr:6.2f} dB  {shown(path)}")
        line = f"{result.checked} files checked{' by their checksums' * quick}, {len(result.bad)} bad"
        if result.psnr:
            lossy = [value for value in result.psnr.values() if value < math.inf]
            if lossy:
                line += f"; {min(lossy):.2f} dB at the lowest, {sum(lossy) / len(lossy):.2f} dB on average"
            if len(lossy) < len(result.psnr):
                line += f"; {len(result.psnr) - len(lossy)} without loss"
        click.echo(line)
    if result.bad:
        sys.exit(EXIT_FAILED)
