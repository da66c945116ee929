"""`vaetools denoise`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..codec.container import Limits
from ..folder.names import RESTORED_FORMATS
from ..folder.plan import ON_EXISTS, Selection
from . import EXIT_FAILED
from .limits import max_megapixels_option
from .outcome import beside, print_failures, print_left_out
from .progress import job_progress

if TYPE_CHECKING:
    from ..folder.ledger import Outcome


class Sigma(click.ParamType):
    """A standard deviation, or auto."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "auto" or isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option(
    "--sigma",
    type=Sigma(),
    default="auto",
    show_default=True,
    help="Standard deviation of the noise, of values in 0..255; auto estimates it image by image.",
)
@click.option("--ensemble", is_flag=True, help="Average over the turned and mirrored image: better, and eight times as slow.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(RESTORED_FORMATS),
    default="png",
    show_default=True,
    help="What to write; original: what the name says, or PNG.",
)
@click.option("--model", default="denoise", show_default=True, help="An installed denoiser, a weights file or a training run.")
@click.option(
    "--on-exists",
    type=click.Choice(ON_EXISTS),
    default="skip",
    show_default=True,
    help="Where an output file is there already: leave it; replace it unless it was made from the same source with the same "
    "settings; or refuse to start.",
)
@click.option("--include", multiple=True, metavar="GLOB", help="Only files of this path or name; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out files of this path or name; repeatable.")
@max_megapixels_option("Refuse larger images.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
def denoise(
    source: Path,
    target: Path,
    sigma: float | str,
    ensemble: bool,
    format_name: str,
    model: str,
    on_exists: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_megapixels: float,
    device: str,
    as_json: bool,
) -> None:
    """Take noise out of every image below SOURCE, a folder or one file; the tree is kept.

    a.png stays a.png, and a.jpg becomes a.jpg.png. The same command again goes on where a job was stopped.
    """
    from ..denoising.denoiser import Denoiser
    from ..denoising.job import denoise_folder

    denoiser = Denoiser.load(model, device, ensemble=ensemble)
    with job_progress() as progress:
        outcome, sigmas = denoise_folder(
            source,
            target,
            denoiser,
            sigma,
            format=format_name,
            limits=Limits(max_pixels=int(max_megapixels * 1e6)),
            selection=Selection(on_exists, include, exclude),
            progress=progress,
        )
    _finish(outcome, sigmas, as_json)


def _finish(outcome: Outcome, sigmas: dict[str, float], as_json: bool) -> None:
    """Print the summary and, if a file failed, exit with 1."""
    print_failures(outcome)
    print_left_out(outcome)
    if as_json:
        click.echo(json.dumps({**outcome.to_dict(), "sigmas": sigmas}))
    else:
        line = f"{outcome.done} images denoised{beside(outcome, 'failed')}"
        if outcome.done:
            levels = sorted(sigmas.values())
            megapixels = outcome.pixels / 1e6
            line += f": sigma {levels[0]:.1f} to {levels[-1]:.1f}, {megapixels:.1f} megapixels, {outcome.seconds:.1f} s"
        click.echo(line)
    if outcome.failed:
        sys.exit(EXIT_FAILED)
