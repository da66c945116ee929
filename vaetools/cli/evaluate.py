"""`vaetools eval` and `vaetools compare`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import click

from ..errors import UsageError
from . import EXIT_FAILED

FILE_WIDTH = 120  # columns of a table that goes into a file


@click.command("eval")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--against", default="jpeg,webp,avif", show_default=True, help="Codecs to measure beside, with commas; or none.")
@click.option("--anchors", type=click.Path(path_type=Path), help="JSON file of published curves on the same images.")
@click.option("--qualities", help="Qualities of vaetools, with commas [default: 0 to 100 in steps of 12.5].")
@click.option("--effort", type=click.IntRange(0, 10), default=0, show_default=True, help="Of vaetools; see `vaetools compress`.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every measurement to this file.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="Draw the rate-distortion curves to this PNG.")
@click.option("--model", default="photo", show_default=True, help="An installed model, a weights file or a training run.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
def evaluate(
    folder: Path,
    against: str,
    anchors: Path | None,
    qualities: str | None,
    effort: int,
    json_file: Path | None,
    plot_file: Path | None,
    model: str,
    device: str,
) -> None:
    """Measure file sizes, PSNR-RGB, MS-SSIM and speed on the images below FOLDER, and BD-rate against other codecs.

    Sizes are those of whole files. A BD-rate is the mean difference in size at equal PSNR, over the stated window of
    PSNR that both curves reach; below zero, vaetools needs fewer bits.
    """
    from ..codec.codec import Codec
    from ..evaluation.bd_rate import load_anchors
    from ..evaluation.measure import evaluate as measure
    from ..evaluation.peers import QUALITIES, find_peers
    from ..evaluation.report import print_report, save_plot, write_json

    for path in (json_file, plot_file):
        if path and not os.access(path.parent, os.W_OK):
            raise UsageError(f"{path}: there is no folder {path.parent} that can be written to")
    peers = find_peers([name.strip() for name in against.split(",") if name.strip() not in ("", "none")])
    codec = Codec.load(model, device)
    chosen = _numbers(qualities) if qualities else None
    codec.encode([], effort=effort)  # refuses what it would refuse for every image
    if chosen and codec.one_rate:
        raise UsageError(f"the model {codec.config.name} has one rate: leave out --qualities")
    if codec.config.image_channels == 1:
        raise UsageError(
            f"the model {codec.config.name} is for gray images, and `eval` measures all in RGB: `compare` takes gray"
        )
    result = measure(
        folder,
        codec,
        peers,
        load_anchors(anchors) if anchors else None,
        qualities=chosen or (None if codec.one_rate else QUALITIES),
        effort=effort,
        progress=_say,
    )
    print_report(result)
    if json_file:
        write_json(result, json_file, shlex.join(["vaetools", *sys.argv[1:]]))
    if plot_file:
        save_plot(result, plot_file)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--qualities: expected numbers with commas between, such as 0,50,100, not {text!r}") from None
    if not all(0 <= value <= 100 for value in values):
        raise UsageError(f"--qualities: each must be from 0 to 100, not {text!r}")
    return tuple(sorted(set(values)))


def _say(done: int, total: int, name: str) -> None:
    click.echo(
        f"\r{done} of {total}  {name}\x1b[K" if sys.stderr.isatty() else f"{done} of {total}  {name}",
        err=True,
        nl=not sys.stderr.isatty(),
    )
    if done == total and sys.stderr.isatty():
        click.echo(err=True)


@click.command()
@click.argument("originals", type=click.Path(path_type=Path))
@click.argument("restored", type=click.Path(path_type=Path))
@click.option("--compressed", type=click.Path(path_type=Path), help="The folder between, for sizes and bits per pixel.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def compare(originals: Path, restored: Path, compressed: Path | None, as_json: bool) -> None:
    """Compare the images below RESTORED with those below ORIGINALS that they were made from."""
    from rich.console import Console

    from ..evaluation.compare import compare_folders, comparison_table
    from ..evaluation.report import finite

    result = compare_folders(originals, restored, compressed)
    if as_json:
        rows = [asdict(pair) | {"bpp": pair.bpp} for pair in result.pairs]
        click.echo(json.dumps(finite({"images": rows, "missing": list(result.missing)}), allow_nan=False))
    else:
        on_terminal = sys.stdout.isatty()
        Console(width=None if on_terminal else FILE_WIDTH).print(comparison_table(result))
    for line in result.missing:
        click.echo(f"missing: {line}", err=True)
    if result.missing:
        sys.exit(EXIT_FAILED)
