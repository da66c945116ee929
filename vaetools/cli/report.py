"""`vaetools report`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from ..errors import UsageError
from . import EXIT_FAILED
from .limits import max_megapixels_option
from .outcome import FAILURES_SHOWN, shown
from .progress import job_progress

ENDINGS = (".html", ".htm")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), required=True, help="HTML file to write.")
@click.option("--originals", type=click.Path(path_type=Path), help="Folder that it was made from, to measure and compare.")
@click.option("--against", default="jpeg,webp,avif", show_default=True, help="Codecs at equal bytes, with commas; or none.")
@click.option(
    "--images", type=click.IntRange(0), default=24, show_default=True, help="How many are shown: the worst, and some of the rest."
)
@click.option(
    "--crop",
    type=click.IntRange(32, 4096),
    metavar="PIXELS",
    help="Sides of what is shown of a larger image [default: as much as makes a page of about 20 MB].",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@max_megapixels_option("Larger images fail.")
@click.option("--model", default="photo", show_default=True, help="An installed model, a weights file or a training run.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print every number as JSON on stdout.")
def report(
    folder: Path,
    target: Path,
    originals: Path | None,
    against: str,
    images: int,
    crop: int | None,
    overwrite: bool,
    max_megapixels: float,
    model: str,
    device: str,
    as_json: bool,
) -> None:
    """Write one HTML page about the .vtc files below FOLDER: what was saved, what was lost, and where.

    The page has totals, a table of all images, and pictures of some of them: before and after, other codecs at equal bytes, and a
    map of where the bits went. It needs no network. With --originals, every file is decoded and measured; without,
    PSNR is known only of files that `compress --verify` measured.
    """
    _check_target(target, overwrite=overwrite)
    from ..codec.codec import Codec
    from ..codec.container import Limits
    from ..evaluation.peers import find_peers
    from ..files import replace_bytes
    from ..report.job import Options, build_report
    from ..report.page import page_html

    peers = find_peers([name.strip() for name in against.split(",") if name.strip() not in ("", "none")])
    codec = Codec.load(model, device, limits=Limits(max_pixels=int(max_megapixels * 1e6)))
    with job_progress() as progress:
        found = build_report(folder, codec, Options(peers, images, crop), originals=originals, progress=progress)
    page = page_html(found)
    try:
        replace_bytes(target, page)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror or error})") from None
    bad = [row for row in found.rows if row.problem]
    for row in bad[:FAILURES_SHOWN]:
        click.echo(f"bad: {shown(row.name)}: {shown(row.problem)}", err=True)
    if len(bad) > FAILURES_SHOWN:
        click.echo(f"bad: {len(bad) - FAILURES_SHOWN} more; the page and --json list them all", err=True)
    if as_json:
        rows = [row.to_dict() for row in found.rows]
        click.echo(json.dumps({"page": str(target), "bytes": len(page), "totals": found.totals.to_dict(), "images": rows}))
    else:
        pictures = f"{len(found.shots)} of them with pictures"
        click.echo(f"{shown(target)}: {len(found.rows)} images, {pictures}, {len(bad)} bad; {len(page):,} bytes")
    if bad:
        sys.exit(EXIT_FAILED)


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.suffix.lower() not in ENDINGS:
        raise UsageError(f"{target}: the page is an HTML file: give it a name that ends in .html")
    if target.is_dir():
        raise UsageError(f"{target}: is a folder; give the name of a file in it")
    if os.path.lexists(target) and not overwrite:
        raise UsageError(f"{target}: is there already; choose another name, or --overwrite")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"{target}: there is no folder {target.parent} that can be written to")
