"""`vaetools train` and `vaetools export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..model.config import ACTIVATIONS, MAX_NOISE, PRESETS, ModelConfig, preset
from ..storage.place import parse_sources

DEFAULT_PRESET, DEFAULT_EPOCHS = "photo", 20
DENOISER, NOISE_RANGE, DENOISING_LAMBDAS = "denoise", (5.0, 75.0), (0.01, 1.0)


@click.command()
@click.argument("sources", metavar="FOLDER...", nargs=-1, required=True)
@click.option("--out", "run", type=click.Path(path_type=Path), required=True, help="Folder of the training run.")
@click.option("--preset", "preset_name", type=click.Choice(list(PRESETS)), help="[default: photo]")
@click.option("--epochs", type=click.IntRange(1), help="Budget in epochs [default: 20, without --minutes].")
@click.option("--minutes", type=float, help="Budget in minutes of training.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue from the checkpoint in the training run, to the end of its budget or of one given now.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option(
    "--quality-range",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Lagrange multipliers of quality 0 and 100 [default: of the preset, for photo 0.0006 0.16; with --denoise 0.01 1; or of "
    "the model or run that goes on]; higher costs bits and saves detail.",
)
@click.option(
    "--posterior",
    type=click.Choice(("uniform", "gaussian")),
    help="uniform to compress [photo, gray16], gaussian to sample [small].",
)
@click.option("--start-from", metavar="MODEL", help="Start with the weights of a model, of which the network is, and tune them.")
@click.option(
    "--latents",
    type=click.IntRange(2),
    help="For --start-from: more latents than the model has, for what it leaves out of images.",
)
@click.option(
    "--narrow",
    "narrow_share",
    type=click.FloatRange(0, 0.5, min_open=True),
    metavar="SHARE",
    help="For --start-from: leave out the channels inside its blocks that matter least for what they cost, SHARE of the "
    "arithmetic there, such as 0.2.",
)
@click.option(
    "--narrow-in",
    "narrow_stacks",
    multiple=True,
    metavar="STACK",
    help="For --narrow: only in the blocks of this stack, such as decoder_outer, the slowest part of decoding [default: in all]. "
    "May be repeated.",
)
@click.option(
    "--activation",
    type=click.Choice(ACTIVATIONS),
    help="Of the blocks; hardswish is faster on CPUs, and a model with silu can go on with it [default: that of the preset or "
    "model].",
)
@click.option("--denoise", is_flag=True, help="Train a denoiser: the network sees noisy images, and learns the clean ones.")
@click.option(
    "--noise-range",
    nargs=2,
    type=float,
    metavar="LEAST MOST",
    help="For --denoise: standard deviations of the noise, of values in 0..255 [default: 5 75].",
)
@click.option("--channels", type=click.Choice(("1", "3")), help="1 for gray images, 3 for colours [that of the preset].")
@click.option("--batch", type=click.IntRange(1), help="Images a step and process [default: 16].")
@click.option(
    "--smallest-scale",
    type=float,
    help="Three crops in four are of images made smaller, down to this scale: JPEG's traces vanish [default: 0.4 for "
    "photographs, else 1, which makes none smaller].",
)
@click.option("--learning-rate", type=float, help="[default: 0.002]")
@click.option("--steps-per-epoch", type=click.IntRange(1), help="[default: as many crops as images, at least 50 steps]")
@click.option("--seed", type=click.IntRange(0), help="[default: 0]")
@click.option("--cache-gb", type=click.FloatRange(0), help="Memory for decoded images, of each process [default: 4].")
def train(
    sources: tuple[str, ...],
    run: Path,
    preset_name: str | None,
    epochs: int | None,
    minutes: float | None,
    resume: bool,
    device: str,
    quality_range: tuple[float, float] | None,
    posterior: str | None,
    start_from: str | None,
    latents: int | None,
    narrow_share: float | None,
    narrow_stacks: tuple[str, ...],
    activation: str | None,
    denoise: bool,
    noise_range: tuple[float, float] | None,
    channels: str | None,
    batch: int | None,
    smallest_scale: float | None,
    learning_rate: float | None,
    steps_per_epoch: int | None,
    seed: int | None,
    cache_gb: float | None,
) -> None:
    """Train a model on all images below FOLDER, or in tars: 'shards/photos-{000..041}.tar', shards/*.tar.

    Each epoch prints its losses and writes metrics.csv, grids of reconstructions and of new images, and a checkpoint.
    Ctrl-C finishes the step and saves; --resume goes on. At the end the weights are exported, ready for
    `vaetools compress --model RUN`. Runs on several processes under torchrun.
    """
    from ..model import memory
    from ..model.weights import find_by_name, load_weights
    from ..training.growth import check_growth
    from ..training.loop import resumed_settings
    from ..training.loop import train as run_training
    from ..training.narrowing import Narrowing
    from ..training.settings import CROPS, MIRRORED, SMALLEST_SCALE, TrainingSettings

    given = {
        "epochs": epochs,
        "minutes": minutes,
        "batch": batch,
        "smallest_scale": smallest_scale,
        "learning_rate": learning_rate,
        "seed": seed,
        "steps_per_epoch": steps_per_epoch,
        "cache_bytes": None if cache_gb is None else int(cache_gb * 2**30),
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if quality_range and not 0 < quality_range[0] < quality_range[1]:
        raise UsageError("--quality-range: LOW must be above 0 and below HIGH")
    if noise_range and not denoise:
        raise UsageError("--noise-range is for --denoise, which is not given")
    if noise_range and not 0 < noise_range[0] < noise_range[1] <= MAX_NOISE:
        raise UsageError(f"--noise-range: LEAST must be above 0 and below MOST, which is at most {MAX_NOISE}")
    if narrow_stacks and not narrow_share:
        raise UsageError("--narrow-in is for --narrow, which is not given")
    narrowing = Narrowing(narrow_share, narrow_stacks) if narrow_share else None
    config, start = preset(DEFAULT_PRESET), None
    if resume:
        network_given = posterior or preset_name or channels or start_from or latents or narrow_share or activation or denoise
        if network_given or seed is not None:
            fixed = "--preset, --start-from, --latents, --narrow, --activation, --denoise, --posterior, --channels and --seed"
            raise UsageError(f"{fixed} are fixed once a run has started; leave them out with --resume")
        settings = resumed_settings(run, **options)
    else:
        if start_from and (preset_name or posterior or channels):
            raise UsageError("--preset, --posterior and --channels are those of the model with --start-from; leave them out")
        for option, value in (("--latents", latents), ("--narrow", narrow_share)):
            if value and not start_from:
                raise UsageError(f"{option} is for --start-from, which is not given")
        options.setdefault("epochs", None if minutes is not None else DEFAULT_EPOCHS)
        if start_from:
            start = load_weights(find_by_name(start_from))
            if latents:
                check_growth(start.vae.config, latents)
            if narrowing:
                narrowing.check(start.vae.config)
        config = start.vae.config if start else preset(preset_name or DEFAULT_PRESET)
        network: dict[str, Any] = {
            "posterior": posterior,
            "image_channels": int(channels) if channels else None,
            "latent_channels": latents,
            "activation": activation,
        }
        if denoise:
            least, most = noise_range or NOISE_RANGE
            network |= {"name": DENOISER, "noise": (most, least), "quality_lambdas": DENOISING_LAMBDAS}
        network["quality_lambdas"] = quality_range or network.get("quality_lambdas")
        config = replace(config, **{name: value for name, value in network.items() if value is not None})
        if config.bit_depth == 16 and config.image_channels != 1:
            raise UsageError("--channels 3: images of 16 bits are read as gray; take a preset of 8 bits for colours")
        like = preset_name or _like(config)
        options.setdefault("smallest_scale", SMALLEST_SCALE.get(like, 1.0))
        settings = TrainingSettings(crops=CROPS[like], mirrored=like in MIRRORED, **options)
    memory.keep()
    weights = run_training(
        parse_sources(sources),
        run,
        config,
        settings,
        resume=resume,
        quality_lambdas=quality_range,
        device=device,
        start=start,
        narrowing=narrowing,
    )
    if weights:
        click.echo(f"weights: {weights}")


def _like(config: ModelConfig) -> str:
    """The preset whose crops a network takes."""
    if config.hyper_stride < preset("photo").hyper_stride:
        return "small"
    return "gray16" if config.bit_depth == 16 else "photo"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("sources", metavar="FOLDER...", nargs=-1, required=True)
def export(run: Path, sources: tuple[str, ...]) -> None:
    """Write the weights of the last checkpoint in RUN, with tables fitted to the images below FOLDER."""
    from ..training.loop import export_run

    click.echo(f"weights: {export_run(run, parse_sources(sources))}")
