"""`vaetools embed`."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from . import EXIT_FAILED
from .limits import max_megapixels_option
from .outcome import FAILURES_SHOWN, shown
from .progress import job_progress

if TYPE_CHECKING:
    from ..embedding.table import Embeddings


class ImageSize(click.ParamType):
    """WIDTHxHEIGHT in pixels as (height, width), or one of the words."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int] | str:
        if not isinstance(value, str) or value in ("auto", "original"):
            return value
        found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", value)
        if not found:
            self.fail(f"{value!r} is no size; write width x height in pixels such as 128x96, auto or original", param, ctx)
        return int(found[2]), int(found[1])


@click.command()
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write: .npz or .parquet.")
@click.option("--model", default="photo", show_default=True, help="An installed model, a weights file or a training run.")
@click.option("--features", default="z", show_default=True, help="Levels of latents: y, z, or both as zy or yz.")
@click.option(
    "--pool",
    "pooling",
    default="grid:2",
    show_default=True,
    help="mean, mean-std, grid:K (means over K x K cells) or none; one for all features, or as grid:2,mean-std one for each.",
)
@click.option(
    "--size",
    type=ImageSize(),
    default="auto",
    show_default=True,
    help="Bring images to this size first; auto is what the model has 2 x 2 hyper-latents for (photo: 128x128), original "
    "leaves them as they are.",
)
@click.option("-q", "--quality", type=click.FloatRange(0, 100), default=50.0, show_default=True, help="Of the latents.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@max_megapixels_option("Larger images fail.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
def embed(
    source: Path,
    output: Path,
    model: str,
    features: str,
    pooling: str,
    size: tuple[int, int] | str,
    quality: float,
    overwrite: bool,
    max_megapixels: float,
    device: str,
    as_json: bool,
) -> None:
    """Write a feature vector for each image of DIR to one file.

    The vectors are the means of the latents, pooled over the image. An .npz file holds embeddings (N, D), paths and labels
    (the first folder of each path), and what they were made with; a .parquet file a row for each image.
    """
    from ..embedding.table import check_output, check_suffix

    check_suffix(output)
    check_output(output, overwrite=overwrite)

    from ..embedding.embedder import Embedder
    from ..embedding.folder import embed_folder

    embedder = Embedder.load(model, features=features, pooling=pooling, size=size, quality=quality, device=device)
    started = time.monotonic()
    with job_progress() as progress:
        embeddings, failed = embed_folder(source, embedder, max_pixels=int(max_megapixels * 1e6), progress=progress)
    try:
        embeddings.save(output)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written ({error.strerror or error})") from None
    _finish(output, embeddings, failed, time.monotonic() - started, as_json)


def _finish(output: Path, embeddings: Embeddings, failed: list[tuple[str, str]], seconds: float, as_json: bool) -> None:
    """Print the summary and, if an image failed, exit with 1."""
    from dataclasses import asdict

    for path, reason in failed[:FAILURES_SHOWN]:
        click.echo(f"failed: {shown(path)}: {shown(reason)}", err=True)
    if len(failed) > FAILURES_SHOWN:
        click.echo(f"failed: {len(failed) - FAILURES_SHOWN} more; --json lists them all", err=True)
    count, dimensions = embeddings.embeddings.shape
    if as_json:
        outcome = {
            "output": str(output),
            "images": count,
            "dimensions": dimensions,
            **asdict(embeddings.about),
            "failed": [{"path": path, "error": reason} for path, reason in failed],
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(outcome))
    else:
        parts = [f"{count} images, {dimensions} values each"] + [f"{len(failed)} failed"] * bool(failed)
        click.echo(f"{', '.join(parts)}: {shown(output)}, {seconds:.1f} s, {count / max(seconds, 1e-6):.1f} images/s")
    if failed:
        sys.exit(EXIT_FAILED)
