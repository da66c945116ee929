"""`vaetools augment`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from ..folder.plan import ON_EXISTS
from ..folder.shard import Shard
from . import EXIT_FAILED
from .division import asks_for_workers, division_options, workers_of
from .limits import max_megapixels_option
from .outcome import FAILURES_SHOWN, shown
from .progress import job_progress

if TYPE_CHECKING:
    from ..dataset.books import AugmentOutcome, ClassCount
    from ..dataset.dataset import Dataset
    from ..dataset.engine import AugmentSpec
    from ..dataset.options import Options

LAYOUTS = ("auto", "imagefolder", "coco", "yolo", "masks", "huggingface", "plain")
DEFAULT_MODEL, DEFAULT_MINUTES = "photo", 10.0


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--copies", type=click.IntRange(0), default=1, show_default=True, help="Augmented copies of each train image.")
@click.option(
    "--balance", is_flag=True, help="More copies in small classes, up to the size of the largest; with --copies 0, those alone."
)
@click.option(
    "--operators",
    metavar="NAMES",
    help="What is done: each copy gets one of these, such as jitter,style or jitter,hyper+style, where + joins "
    "[default: style; with --fit and classes: extrapolate,difference, and with --balance resample too].",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    help="0 nothing, to 1 [default: 0.3; with --fit, classes and no --operators 0.8, and with --balance 0.5].",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another one gives other copies.")
@click.option("--model", help=f"An installed model, a weights file or a training run [default: {DEFAULT_MODEL}].")
@click.option(
    "--fit", type=click.Path(path_type=Path), metavar="RUN", help="Train a small model on the train images first, here."
)
@click.option("--fit-minutes", type=click.FloatRange(0, min_open=True), help=f"For --fit [default: {DEFAULT_MINUTES:g}].")
@click.option("--gate", is_flag=True, help="Leave out copies whose nearest train images are of another class.")
@click.option("--layout", type=click.Choice(LAYOUTS), default="auto", show_default=True, help="How the data set is laid out.")
@click.option("--detail/--no-detail", default=True, show_default=True, help="Keep detail that the model cannot show.")
@click.option("-q", "--quality", type=click.FloatRange(0, 100), default=50.0, show_default=True, help="Of the latents.")
@click.option("--originals/--no-originals", default=True, show_default=True, help="Copy the data set itself too.")
@click.option("--preview", is_flag=True, help="Only write a sheet of examples to the output folder, to choose by.")
@click.option("--dry-run", is_flag=True, help="Only print what would be done; needs no model.")
@click.option(
    "--on-exists",
    type=click.Choice(ON_EXISTS),
    default="skip",
    show_default=True,
    help="Where such a job has written before: go on, with the same settings; replace what it wrote; or refuse to start.",
)
@division_options
@max_megapixels_option("Larger images fail.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
def augment(
    source: Path,
    target: Path,
    copies: int,
    balance: bool,
    operators: str | None,
    strength: float | None,
    seed: int,
    model: str | None,
    fit: Path | None,
    fit_minutes: float | None,
    gate: bool,
    layout: str,
    detail: bool,
    quality: float,
    originals: bool,
    preview: bool,
    dry_run: bool,
    on_exists: str,
    shard: Shard | None,
    engine: str,
    workers: int | None,
    address: str | None,
    max_megapixels: float,
    device: str,
    as_json: bool,
) -> None:
    """Write augmented copies of the images of SOURCE, a data set, to a folder of the same layout.

    \b
    Layouts, of which the right one is found:
      imagefolder  a folder for each class, also below train, val, test
      coco         JSON files with images and annotations
      yolo         images/ and labels/ with text files
      masks        images/ and masks/
      huggingface  metadata.jsonl or metadata.csv beside images
      plain        images without labels

    a.jpg gets a__v1.png, a__v2.png, ... beside it, with its label, boxes or mask. Validation and test images are left as they
    are. The same command again goes on where a job was stopped, even by a power cut.
    """
    from ..augment.operators import parse_operators
    from ..dataset.engine import AugmentSpec
    from ..dataset.fit import begun_in, trained_in
    from ..dataset.job import Options, foresee, preview_folder
    from ..dataset.layouts import open_dataset
    from ..dataset.suitability import MILD, default_operators

    options = Options(
        copies=copies,
        balance=balance,
        seed=seed,
        layout=layout,
        originals=originals,
        gate="nearest" if gate else None,
        on_exists=on_exists,
        max_pixels=int(max_megapixels * 1e6),
    )
    if fit is not None and model is not None:
        raise UsageError("--model and --fit exclude each other: give one of them")
    if fit is None and fit_minutes is not None:
        raise UsageError("--fit-minutes is for --fit, which is not given")
    if preview and (shard or asks_for_workers(engine, workers, address)):
        raise UsageError("--preview is one process's work: leave out --shard, --engine, --workers and --address")
    if dry_run and shard:
        raise UsageError("--dry-run tells of the data set as a whole: leave out --shard")
    count = 0 if preview or dry_run else workers_of(engine, workers, address, shard, device)
    dataset: Dataset | None = open_dataset(source, layout, leave_out=target)
    assert dataset is not None
    # The measured strength is that of the measured operators, and says nothing of others.
    usual = default_operators(dataset, fitted=fit is not None, balance=balance) if operators is None else MILD
    operators, strength = operators or usual[0], usual[1] if strength is None else strength
    if dry_run:
        chains = parse_operators(operators)
        _print_forecast(foresee(source, target, chains, options, dataset=dataset, tell=_tell), as_json)
        return
    if fit is not None:
        # What this refuses is refused before the training.
        new = not (preview or trained_in(fit) or begun_in(fit))
        foresee(source, target, parse_operators(operators), options, dataset=dataset, new_model=new)
        model = _fitted(dataset, target, fit, options, fit_minutes or DEFAULT_MINUTES, device, shard)
        dataset = None  # minutes ago
    spec = AugmentSpec(
        source=source,
        target=target,
        model=model or DEFAULT_MODEL,
        operators=operators,
        strength=strength,
        quality=quality,
        detail=detail,
        device=device,
        options=options,
    )
    if preview:
        for path in preview_folder(source, target, spec.augmenter(device), options, dataset=dataset, tell=_tell):
            click.echo(f"preview: {shown(path)}")
        return
    _finish(_run(spec, dataset, shard, engine, count, address), as_json, sharded=shard is not None)


def _run(
    spec: AugmentSpec, dataset: Dataset | None, shard: Shard | None, engine: str, workers: int, address: str | None
) -> AugmentOutcome:
    """The job, here or by an engine, or one shard of it."""
    from ..dataset.engine import augment_on_engine
    from ..dataset.job import augment_folder
    from ..dataset.shard import augment_shard

    with job_progress() as progress:
        if workers:
            with redirect_stdout(sys.stderr):  # Ray prints what it knows of dead workers
                return augment_on_engine(spec, engine, workers, address=address, dataset=dataset, progress=progress, tell=_tell)
        augmenter, places = spec.augmenter(spec.device), (spec.source, spec.target)
        if shard:
            return augment_shard(*places, augmenter, spec.options, shard, dataset=dataset, progress=progress, tell=_tell)
        return augment_folder(*places, augmenter, spec.options, dataset=dataset, progress=progress, tell=_tell)


def _tell(line: str) -> None:
    click.echo(shown(line), err=True)


def _fitted(dataset: Dataset, target: Path, run: Path, options: Options, minutes: float, device: str, shard: Shard | None) -> str:
    from ..dataset.fit import fit_model, trained_in

    if shard and not trained_in(run):
        raise UsageError(
            f"{run}: holds no trained model yet, and shards must have the same one: run the command once with --preview in place "
            "of --shard, which trains it and writes a sheet of examples"
        )
    weights = fit_model(
        dataset, run, target, minutes=minutes, seed=options.seed, device=device, max_pixels=options.max_pixels, tell=_tell
    )
    return str(weights)


def _print_forecast(outcome: AugmentOutcome, as_json: bool) -> None:
    _print_beside(outcome)
    if as_json:
        click.echo(json.dumps({"dry_run": True, **outcome.to_dict()}))
    else:
        _print_classes(outcome)
        copies = sum(count.copies for count in outcome.classes.values())
        click.echo(f"{copies} copies of {outcome.images} images would be written")
    if outcome.failed:
        sys.exit(EXIT_FAILED)


def _finish(outcome: AugmentOutcome, as_json: bool, *, sharded: bool) -> None:
    """Print the summary and, if an image failed, exit with 1."""
    _print_beside(outcome)
    if as_json:
        click.echo(json.dumps(outcome.to_dict()))
    else:
        _print_classes(outcome)
        parts = [f"{outcome.done} copies of {outcome.images} images written"]
        parts += [f"{outcome.skipped} there already"] * bool(outcome.skipped)
        parts += [f"{outcome.refused} left out by the gate"] * bool(outcome.refused)
        parts += [f"{outcome.files} files copied"] * bool(outcome.files)
        parts += [f"{len(outcome.failed)} failed"] * bool(outcome.failed)
        line = ", ".join(parts)
        if outcome.done:
            line += f": {outcome.bytes_out:,} bytes, {outcome.seconds:.1f} s, {outcome.done / outcome.seconds:.2f} images/s"
        click.echo(line)
        if sharded:
            click.echo(_about_the_whole(outcome))
    if outcome.failed:
        sys.exit(EXIT_FAILED)


def _about_the_whole(outcome: AugmentOutcome) -> str:
    if outcome.whole:
        return "all shards are done, and the data set is whole"
    if outcome.left:
        return f"the data set is not whole yet: {outcome.left} files are left to other shards"
    return "all files are there; what names the images is written by the job that is still running, or by one without --shard"


def _print_classes(outcome: AugmentOutcome) -> None:
    for name in list(outcome.classes)[:FAILURES_SHOWN]:
        click.echo(f"{shown(name) or 'all'}: {_about(outcome.classes[name])}")
    if len(outcome.classes) > FAILURES_SHOWN:
        click.echo(f"{len(outcome.classes) - FAILURES_SHOWN} more classes; --json lists them all")


def _about(count: ClassCount) -> str:
    gate = f", {count.refused} left out by the gate" * bool(count.refused)
    if count.tried:
        gate += f"; it accepted {count.accepted} of {count.tried} ({100 * count.accepted / count.tried:.0f} %)"
    return f"{count.images} images, {count.copies} copies{gate}"


def _print_beside(outcome: AugmentOutcome) -> None:
    """Failures, and what else there is to know, on stderr."""
    for path, reason in outcome.failed[:FAILURES_SHOWN]:
        click.echo(f"failed: {shown(path)}: {shown(reason)}", err=True)
    if len(outcome.failed) > FAILURES_SHOWN:
        click.echo(f"failed: {len(outcome.failed) - FAILURES_SHOWN} more; --json lists them all", err=True)
    for note in outcome.notes[:FAILURES_SHOWN]:
        click.echo(f"note: {shown(note)}", err=True)
    if len(outcome.notes) > FAILURES_SHOWN:
        click.echo(f"note: {len(outcome.notes) - FAILURES_SHOWN} more; --json lists them all", err=True)
    if outcome.same:
        path, train = outcome.same[0]
        click.echo(
            f"warning: {len(outcome.same)} images of other splits are train images too, pixel for pixel: {shown(path)} is "
            f"{shown(train)}, for one; results on that split will look better than they are",
            err=True,
        )
