"""`vaetools anomaly fit` and `vaetools anomaly score`."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from ..folder.plan import Selection
from . import EXIT_FAILED
from .limits import max_megapixels_option
from .outcome import FAILURES_SHOWN, shown

if TYPE_CHECKING:
    from ..anomaly.job import ScoredImage, ScoreOutcome
    from ..anomaly.threshold import Threshold

COMBINED = "combined"


@click.group()
def anomaly() -> None:
    """Learn what good images look like, and score others."""


def _tell(line: str) -> None:
    click.echo(shown(line), err=True)


@anomaly.command()
@click.argument("good", type=click.Path(path_type=Path))
@click.option("--out", "run", type=click.Path(path_type=Path), required=True, help="Folder for the detector and its model.")
@click.option("--model", help="An installed model, a weights file or a training run [default: one is trained on GOOD].")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Of training, without --model [default: 10].")
@click.option("--hold-out", type=float, default=0.2, show_default=True, help="Share of GOOD that only sets the thresholds.")
@click.option(
    "--false-positives",
    type=float,
    default=0.01,
    show_default=True,
    help="Share of good images that may be told to be anomalous.",
)
@click.option("-q", "--quality", type=click.FloatRange(0, 100), default=50.0, show_default=True, help="Of the latents.")
@click.option("--size", type=click.IntRange(1), metavar="PIXELS", help="Bring the longer side of all images to this first.")
@click.option("--even-light", is_flag=True, help="Take slow changes of brightness out first: for textures in changing light.")
@click.option(
    "--aligned/--not-aligned",
    default=None,
    help="Whether the same thing is at the same place in all images [default: aligned if all have one size of up to 64 pixels].",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which images are held out, and all else.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only files of this path or name; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out files of this path or name; repeatable.")
@click.option("--overwrite", is_flag=True, help="Replace a detector that is there; its model is kept.")
@max_megapixels_option("Refuse larger images.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
def fit(
    good: Path,
    run: Path,
    model: str | None,
    minutes: float | None,
    hold_out: float,
    false_positives: float,
    quality: float,
    size: int | None,
    even_light: bool,
    aligned: bool | None,
    seed: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    overwrite: bool,
    max_megapixels: float,
    device: str,
    as_json: bool,
) -> None:
    """Fit a detector on the images below GOOD, all of them good.

    A part of them is held out: neither the model that is trained nor the detector sees it, and thresholds and the scale of heat
    maps come from it alone. A training that was interrupted goes on with the same command.
    """
    from ..anomaly.job import FitOptions, fit_folder

    if model is not None and minutes is not None:
        raise UsageError("--model and --minutes exclude each other: with a model, none is trained")
    options = FitOptions(
        model=model,
        minutes=minutes,
        hold_out=hold_out,
        false_positives=false_positives,
        quality=quality,
        size=size,
        even_light=even_light,
        aligned=aligned,
        seed=seed,
        selection=Selection(include=include, exclude=exclude),
        overwrite=overwrite,
        max_pixels=int(max_megapixels * 1e6),
        device=device,
    )
    fitted = fit_folder(good, run, options, tell=_tell)
    detector = fitted.detector
    _print_failures(fitted.failed)
    _warn(detector.thresholds[COMBINED])
    fitted_on, held_out = detector.counts
    if as_json:
        thresholds = {name: threshold.value for name, threshold in detector.thresholds.items()}
        found = {"detector": str(fitted.file), "model": detector.space.model_hash, "fitted_on": fitted_on, "held_out": held_out}
        aligned_ = {"aligned": detector.measures.aligned, "failed": [{"path": p, "reason": r} for p, r in fitted.failed]}
        click.echo(json.dumps({**found, **aligned_, "false_positives": false_positives, "thresholds": thresholds}))
    else:
        click.echo(f"{shown(fitted.file)}: fitted on {fitted_on} good images, thresholds from {held_out} others")
    if fitted.failed:
        sys.exit(EXIT_FAILED)


@anomaly.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--score", default=COMBINED, show_default=True, help="Which one verdicts and maps are of.")
@click.option("--maps", type=click.Path(path_type=Path), metavar="OUT", help="Write a heat map of each image to this new folder.")
@click.option("--overlay", is_flag=True, help="Lay the heat over the image.")
@click.option(
    "--good", help="Folders in FOLDER whose images are good, with commas; others are anomalous [default: good, if any]."
)
@click.option("--masks", type=click.Path(path_type=Path), help="Folder of masks, white where an image is anomalous.")
@click.option("--model", help="The detector's model, if it is not beside it or installed.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only files of this path or name; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out files of this path or name; repeatable.")
@max_megapixels_option("Refuse larger images.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print every score as JSON on stdout.")
def score(
    run: Path,
    folder: Path,
    score: str,
    maps: Path | None,
    overlay: bool,
    good: str | None,
    masks: Path | None,
    model: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_megapixels: float,
    device: str,
    as_json: bool,
) -> None:
    """Score the images below FOLDER with the detector in RUN: one line for each, with its verdict.

    \b
    combined       mahalanobis, mahalanobis-z and feature together
    recon          squared error of the reconstruction
    elbo           negative evidence lower bound
    bpp            bits per pixel of the latents
    bpp-png        bpp less the bits per pixel of a PNG file
    mahalanobis    distance of the latents y
    mahalanobis-z  distance of the hyper-latents z
    feature        distance of the encoder's features
    texture        local statistics of brightness; only where nothing is aligned
    pca, 1-nn      baselines

    With --good or --masks, AUROC of all scores follows, and with --masks that of pixels, and AUPRO. Anomalies are no failure:
    the exit code is 0.
    """
    if overlay and maps is None:
        raise UsageError("--overlay is for --maps, which is not given")
    from ..anomaly.detector import AnomalyDetector
    from ..anomaly.job import score_folder
    from ..anomaly.truth import Truth

    detector = AnomalyDetector.load(run, model=model, device=device)
    names = {name for name in (good or "").split(",") if name}
    for name in names:
        if not (folder / name).is_dir():
            raise UsageError(f"--good: {folder} has no folder {name}")
    if good is None and (folder / "good").is_dir():
        names = {"good"}
    _warn(detector.thresholds.get(score))
    outcome = score_folder(
        detector,
        folder,
        score=score,
        truth=Truth(frozenset(names), masks),
        maps=maps,
        overlay=overlay,
        selection=Selection(include=include, exclude=exclude),
        max_pixels=int(max_megapixels * 1e6),
        each=(lambda image: None) if as_json else (lambda image: _print_image(image, score)),
    )
    _print_failures(outcome.failed)
    if as_json:
        click.echo(json.dumps(outcome.to_dict()))
    else:
        _print_summary(outcome)
    if outcome.failed:
        sys.exit(EXIT_FAILED)


def _warn(threshold: Threshold | None) -> None:
    if threshold is not None and not threshold.promised:
        needed = math.ceil(1 / threshold.false_positives) - 1
        click.echo(
            f"note: {threshold.count} held-out images are too few for {threshold.false_positives:.3g} false positives: the "
            f"thresholds are their largest scores; {needed} would do",
            err=True,
        )


def _print_image(image: ScoredImage, score: str) -> None:
    click.echo(f"{'anomalous' if image.anomalous else 'ok':9}  {image.scores[score]:10.5g}  {shown(image.path)}")


def _print_summary(outcome: ScoreOutcome) -> None:
    threshold = outcome.threshold
    click.echo(
        f"{outcome.anomalous} of {len(outcome.images)} images are anomalous ({outcome.score} above {threshold.value:.5g}, "
        f"set for {threshold.false_positives:.3g} false positives by {threshold.count} good images)"
    )
    if not outcome.false_positives:
        return
    from rich.console import Console
    from rich.table import Table

    columns = list(next(iter(outcome.auroc.values()), {}))
    table = Table(box=None, pad_edge=False)
    table.add_column("AUROC", no_wrap=True)
    for name in [*(shown(name) for name in columns), *(["pixels", "AUPRO"] if outcome.pixel_auroc else []), "false positives"]:
        table.add_column(name, justify="right")
    for key, rate in outcome.false_positives.items():
        row = [_number(outcome.auroc[key][name]) for name in columns]
        row += [_number(part.get(key)) for part in (outcome.pixel_auroc, outcome.aupro) if outcome.pixel_auroc]
        table.add_row(key, *row, f"{rate:.2%}")
    Console(width=max(80, 20 * (len(columns) + 4))).print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _print_failures(failed: list[tuple[str, str]]) -> None:
    for path, reason in failed[:FAILURES_SHOWN]:
        click.echo(f"failed: {shown(path)}: {shown(reason)}", err=True)
    if len(failed) > FAILURES_SHOWN:
        click.echo(f"failed: {len(failed) - FAILURES_SHOWN} more; --json lists them all", err=True)
