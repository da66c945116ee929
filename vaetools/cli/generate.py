"""`vaetools fit-prior`, `vaetools sample` and `vaetools interpolate`."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError, reason_of
from . import EXIT_FAILED
from .outcome import FAILURES_SHOWN, shown
from .progress import job_progress

if TYPE_CHECKING:
    from ..generation.prior import Prior
    from ..model.space import LatentSpace
    from ..model.weights import LoadedModel

DEFAULT_QUALITY, STANDARD = 50.0, "standard"
LARGEST_SIZE = 1 << 14
OUTPUTS = (".png", ".webp", ".gif")


class Size(click.ParamType):
    """WIDTHxHEIGHT in pixels, as (height, width)."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
        if not found or not all(1 <= int(side) <= LARGEST_SIZE for side in found.groups()):
            self.fail(f"{value!r} is no size such as 64x48, of 1 to {LARGEST_SIZE} pixels a side", param, ctx)
        return int(found[2]), int(found[1])


def _space(loaded: LoadedModel, device: str, quality: float) -> LatentSpace:
    from ..model.space import LatentSpace

    return LatentSpace(loaded, device, quality=quality)


def _load(model: str) -> LoadedModel:
    from ..model.weights import find_by_name, load_weights

    return load_weights(find_by_name(model))


def _tell(line: str) -> None:
    click.echo(f"note: {shown(line)}", err=True)


def _check_new(path: Path, overwrite: bool) -> None:
    """Raises UsageError if a file cannot be written there, or would replace something unasked."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, where a file is to be written")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path}: is there already; --overwrite replaces it")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: there is no folder {path.parent} that can be written to")


@click.command("fit-prior")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="An installed model, a weights file or a training run.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write [default: prior.safetensors beside the weights]."
)
@click.option(
    "--kind", type=click.Choice(("mixture", "normal")), default="mixture", show_default=True, help="normal: one component."
)
@click.option(
    "--components",
    type=click.IntRange(1, 1000),
    help="Of the mixture of each class [default: 10], or of all images [default: 50].",
)
@click.option("--per-class/--no-per-class", default=None, help="[default: per class where there are class folders]")
@click.option("--size", type=Size(), help="Bring all images to this size first, in pixels.")
@click.option(
    "-q", "--quality", type=click.FloatRange(0, 100), default=DEFAULT_QUALITY, show_default=True, help="Of the latents."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the fit's starting points.")
@click.option("--overwrite", is_flag=True, help="Replace a prior that is there.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
def fit_prior(
    folder: Path,
    model: str,
    output: Path | None,
    kind: str,
    components: int | None,
    per_class: bool | None,
    size: tuple[int, int] | None,
    quality: float,
    seed: int,
    overwrite: bool,
    device: str,
    as_json: bool,
) -> None:
    """Fit what `vaetools sample` draws from to the images below FOLDER, all of one size; their class is their first folder.

    Give the images that the model was trained on, or others of their kind.
    """
    from ..generation.fit import Options, fit_folder
    from ..generation.prior import PRIOR_NAME
    from ..model.weights import PACKAGED

    if kind == "normal" and components is not None:
        raise UsageError("--components is for --kind mixture: a normal distribution is one component")
    loaded = _load(model)
    beside = loaded.path.parent
    if output is None and beside.resolve() == PACKAGED.resolve():
        raise UsageError(f"{model} is an installed model: say with -o where its prior is to be written")
    path = output or beside / PRIOR_NAME
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: a prior's name ends in .safetensors")
    if path.parent.resolve() == beside.resolve() and "-" in path.name:
        raise UsageError(f"{path}: beside weights, a name with a hyphen would be taken for weights: choose one without")
    if path.resolve() == loaded.path.resolve():
        raise UsageError(f"{path}: is the model itself: choose another name for its prior")
    _check_new(path, overwrite)
    options = Options(kind, components, per_class, size, seed)
    with job_progress() as progress:
        prior, failed = fit_folder(_space(loaded, device, quality), folder, options, tell=_tell, progress=progress)
    try:
        prior.save(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({reason_of(error)})") from None
    for name, reason in failed[:FAILURES_SHOWN]:
        click.echo(f"failed: {shown(name)}: {shown(reason)}", err=True)
    if len(failed) > FAILURES_SHOWN:
        click.echo(f"failed: {len(failed) - FAILURES_SHOWN} more", err=True)
    count = len(prior.mixture.weights)
    if as_json:
        about = {"path": str(path), "components": count, "size": [prior.width, prior.height], "quality": prior.quality}
        click.echo(json.dumps({**prior.describe(), **about, "model": prior.model_hash, "failed": failed}))
    else:
        of = f" of {len(prior.classes)} classes" if prior.classes else ""
        click.echo(
            f"prior: {shown(path)}: {prior.kind}, {count} components{of}, fitted to {prior.images} images of "
            f"{prior.width} x {prior.height} pixels at quality {prior.quality:g}"
        )
    if failed:
        sys.exit(EXIT_FAILED)


@click.command()
@click.option("--model", required=True, help="An installed model, a weights file or a training run.")
@click.option("-n", "--count", type=click.IntRange(1, 1_000_000), required=True, help="How many images.")
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), required=True, help="Folder to write to: new or empty."
)
@click.option(
    "--prior",
    "prior_name",
    metavar="standard|fitted|FILE",
    help="The model's own, the one that `fit-prior` wrote beside it, or a file [default: fitted if there is one].",
)
@click.option("--class", "class_name", metavar="NAME", help="Only images of this class.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 10),
    default=1.0,
    show_default=True,
    help="Below 1: nearer to typical images, and less varied.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another one gives other images.")
@click.option(
    "--size", type=Size(), help="In pixels [default: that of the prior; for the standard one twice the model's stride]."
)
@click.option("--grid", is_flag=True, help="Draw the first images in one picture too, .vaetools-grid.png.")
@click.option("-q", "--quality", type=click.FloatRange(0, 100), help="Of the latents [default: that of the prior; standard: 50].")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
def sample(
    model: str,
    count: int,
    target: Path,
    prior_name: str | None,
    class_name: str | None,
    temperature: float,
    seed: int,
    size: tuple[int, int] | None,
    grid: bool,
    quality: float | None,
    device: str,
    as_json: bool,
) -> None:
    """Make new images with a trained model, as PNG files, in a folder for each class that the prior knows.

    An image depends on the model, the prior, the seed and its own number, not on how many there are. What they were made
    from is written to .vaetools-samples.json.
    """
    from ..generation.sampling import GRID, class_number, write_samples

    loaded = _load(model)
    space, prior = _space_and_prior(loaded, prior_name, quality, size, device)
    label = None if class_name is None else class_number(prior, class_name)
    with job_progress() as progress:
        record = write_samples(
            target, space, prior, count, seed=seed, label=label, temperature=temperature, grid=grid, progress=progress
        )
    if as_json:
        click.echo(json.dumps(record))
        return
    kind = record["prior"]["kind"]
    click.echo(f"{count} images of {prior.width} x {prior.height} pixels, {kind} prior, seed {seed}: {shown(target)}")
    if grid:
        click.echo(f"grid: {shown(target / GRID)}")


def _space_and_prior(
    loaded: LoadedModel, name: str | None, quality: float | None, size: tuple[int, int] | None, device: str
) -> tuple[LatentSpace, Prior]:
    """Raises UsageError if a fitted prior is of another model, or a size or quality is asked for that is not its own."""
    from ..generation.prior import PRIOR_NAME, FittedPrior, StandardPrior

    beside = loaded.path.parent / PRIOR_NAME
    if name is None and not beside.is_file():
        _tell("no prior was fitted for this model (vaetools fit-prior): images are drawn from the model's own")
        name = STANDARD
    if name == STANDARD:
        height, width = size or (2 * loaded.vae.config.hyper_stride,) * 2
        return _space(loaded, device, DEFAULT_QUALITY if quality is None else quality), StandardPrior(height, width)
    path = beside if name in (None, "fitted") else Path(str(name))
    prior = FittedPrior.load(path)
    if quality is not None and quality != prior.quality:
        raise UsageError(f"{path}: was fitted at quality {prior.quality:g}, not {quality:g}: fit another, or leave -q out")
    if size is not None and size != (prior.height, prior.width):
        raise UsageError(
            f"{path}: was fitted to images of {prior.width} x {prior.height} pixels: fit another with --size, or leave it out"
        )
    space = _space(loaded, device, prior.quality)
    prior.check(space)
    return space, prior


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="An installed model, a weights file or a training run.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="File: .png a strip, .webp or .gif an animation."
)
@click.option("--steps", type=click.IntRange(2, 10_000), default=8, show_default=True, help="Images, both ends included.")
@click.option(
    "--detail/--no-detail",
    default=None,
    help="Keep what the model cannot show: the ends are the images themselves [default: with models for photographs].",
)
@click.option("--loop", is_flag=True, help="Animate there and back, for ever.")
@click.option("--milliseconds", type=click.IntRange(10, 60_000), default=100, show_default=True, help="Of each image.")
@click.option("--size", type=Size(), help="Bring both images to this size first, in pixels.")
@click.option(
    "-q", "--quality", type=click.FloatRange(0, 100), default=DEFAULT_QUALITY, show_default=True, help="Of the latents."
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
def interpolate(
    a: Path,
    b: Path,
    model: str,
    output: Path,
    steps: int,
    detail: bool | None,
    loop: bool,
    milliseconds: int,
    size: tuple[int, int] | None,
    quality: float,
    overwrite: bool,
    device: str,
) -> None:
    """Go from image A to image B through the latents of a model, in a strip or an animation."""
    from ..files import replace_bytes
    from ..generation.grid import animation, tile
    from ..generation.interpolation import interpolate as between
    from ..images.png import png_bytes
    from ..images.read import read_for_training
    from ..images.tensors import to_tensor

    suffix = output.suffix.lower()
    if suffix not in OUTPUTS:
        raise UsageError(f"{output}: its name must end in {', '.join(OUTPUTS[:-1])} or {OUTPUTS[-1]}")
    if loop and suffix == ".png":
        raise UsageError("--loop is for animations: -o something.webp or something.gif")
    _check_new(output, overwrite)
    loaded = _load(model)
    config = loaded.vae.config
    ends = [to_tensor(read_for_training(path, config.image_channels, config.bit_depth)) for path in (a, b)]
    images = between(_space(loaded, device, quality), ends[0], ends[1], steps, detail=detail, size=size)
    pixels = [image.permute(1, 2, 0).numpy() for image in images]
    if suffix == ".png":
        data = png_bytes(tile(pixels, columns=len(pixels)))
    else:
        data = animation(pixels, suffix, milliseconds=milliseconds, loop=loop)
    try:
        replace_bytes(output, data)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written ({reason_of(error)})") from None
    click.echo(f"{steps} images of {pixels[0].shape[1]} x {pixels[0].shape[0]} pixels: {shown(output)}")
