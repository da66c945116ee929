"""`vaetools import-compressai`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import UsageError


@click.command("import-compressai")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What --model shall call it.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the current folder",
    help="Folder to write the weights to.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON on stdout.")
def import_compressai(checkpoint: Path, name: str, folder: Path, as_json: bool) -> None:
    """Make weights of CHECKPOINT, a model that was trained with CompressAI: NAME-HASH.safetensors.

    bmshj2018-factorized, bmshj2018-hyperprior and mbt2018-mean can be imported, with any number of channels; not the
    autoregressive ones. CHECKPOINT is a state dict, or what CompressAI's training script saves. --model takes the file that is
    written, or NAME if its folder is in VAETOOLS_MODELS.
    """
    from ..foreign.checkpoint import import_checkpoint
    from ..foreign.weights import save_foreign
    from ..model.config import NAME
    from ..model.weights import PACKAGED

    if not NAME.fullmatch(name):
        raise UsageError(f"--name must be letters, digits and ._-, at most 64, not {name!r}")
    if any(path.stem.rpartition("-")[0] == name for path in PACKAGED.glob("*-*.safetensors")):
        raise UsageError(f"--name {name}: a model of vaetools has that name; choose another one")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: no folder")
    model = import_checkpoint(checkpoint, name)
    folder.mkdir(parents=True, exist_ok=True)
    path = save_foreign(model, folder)
    config = model.config
    if as_json:
        said = {"weights": str(path), "name": name, "family": config.family, "n": config.n, "m": config.m}
        click.echo(json.dumps({**said, "bytes": path.stat().st_size}))
        return
    click.echo(f"{config.family}, N = {config.n}, M = {config.m}: {path} ({path.stat().st_size:,} bytes)")
    click.echo(f"--model {path} takes it; or --model {name}, with {folder} in VAETOOLS_MODELS")
