"""`vaetools train` and `vaetools export`: what the options do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vaetools.cli import main
from vaetools.files import temporary_path
from vaetools.model.weights import load_weights
from vaetools.training.checkpoint import load_checkpoint

QUICK = ("--preset", "small", "--steps-per-epoch", "2", "--batch", "2")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def exported(result: Result) -> Path:
    assert result.exit_code == 0, result.output
    return Path(re.findall(r"^weights: (.*)$", result.stdout, re.M)[0])


@pytest.fixture(scope="module")
def trained(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, made with every option that shapes it."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    options = ("--epochs", 2, "--seed", 5, "--learning-rate", 0.001, "--posterior", "uniform", "--quality-range", 0.002, 0.05)
    exported(run("train", photo_folder, "--out", folder, *QUICK, *options, "--cache-gb", 0.5, "--device", "cpu"))
    return folder


def test_options_reach_the_run(trained: Path) -> None:
    saved = load_checkpoint(trained)
    config, settings = json.loads(saved["config"]), saved["settings"]
    assert (config["name"], config["posterior"], config["quality_lambdas"]) == ("small", "uniform", [0.002, 0.05])
    assert (settings["epochs"], settings["batch"], settings["seed"], settings["learning_rate"]) == (2, 2, 5, 0.001)
    assert (settings["steps_per_epoch"], settings["cache_bytes"]) == (2, 2**29)


def test_a_run_goes_on_with_its_own_settings_to_a_new_budget(trained: Path, photo_folder: Path) -> None:
    unfinished = temporary_path(trained)
    unfinished.write_bytes(b"of a run that was killed")
    weights = exported(run("train", photo_folder, "--out", trained, "--resume", "--epochs", 3, "--quality-range", 0.004, 0.1))
    assert not unfinished.exists()
    saved = load_checkpoint(trained)
    assert (saved["progress"]["step"], saved["settings"]["batch"], saved["settings"]["epochs"]) == (6, 2, 3)
    config = load_weights(weights).vae.config
    assert (config.name, config.posterior, config.quality_lambdas) == ("small", "uniform", (0.004, 0.1))


def test_export_writes_what_compress_reads(trained: Path, photo_folder: Path, tmp_path: Path) -> None:
    weights = exported(run("export", trained, photo_folder))
    done = run("compress", photo_folder, "-o", tmp_path / "small", "--model", weights)
    assert done.exit_code == 0, done.output
    done = run("decompress", tmp_path / "small", "-o", tmp_path / "back", "--model", trained)
    assert done.exit_code == 0, done.output


def test_a_budget_in_minutes_ends_in_time(photo_folder: Path, tmp_path: Path) -> None:
    result = run("train", photo_folder, "--out", tmp_path / "run", *QUICK, "--minutes", 0.02)
    assert exported(result).exists()
    assert load_checkpoint(tmp_path / "run")["progress"]["seconds"] < 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--quality-range", 0.1, 0.001), "LOW must be above 0 and below HIGH"),
        (("--epochs", 1, "--minutes", 1), "either as epochs or as minutes"),
        (("--minutes", -1), "above 0"),
        (("--learning-rate", 2), "learning rate"),
        (("--resume", "--posterior", "uniform"), "fixed once a run has started"),
        (("--device", "abacus"), "abacus"),
        (("--preset", "gray16", "--channels", 3), "images of 16 bits are read as gray"),
        (("--preset", "large"), "large"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_wrong_options_are_usage_errors(photo_folder: Path, tmp_path: Path, options: tuple[object, ...], words: str) -> None:
    done = run("train", photo_folder, "--out", tmp_path / "run", *options)
    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_second_start_in_the_same_folder_is_refused(trained: Path, photo_folder: Path) -> None:
    done = run("train", photo_folder, "--out", trained, *QUICK)
    assert done.exit_code == 1
    assert "--resume" in done.stderr


def test_sixteen_bit_images_are_trained_on_and_compressed(gray16_folder: Path, tmp_path: Path) -> None:
    options = ("--preset", "gray16", "--epochs", 1, "--steps-per-epoch", 2, "--batch", 1)
    exported(run("train", gray16_folder, "--out", tmp_path / "run", *options))
    for command in (
        ("compress", gray16_folder, "-o", tmp_path / "small", "--model", tmp_path / "run", "-q", 100),
        ("decompress", tmp_path / "small", "-o", tmp_path / "back", "--model", tmp_path / "run"),
    ):
        done = run(*command)
        assert done.exit_code == 0, done.output
    for path in gray16_folder.iterdir():
        with Image.open(path) as original, Image.open(tmp_path / "back" / path.name) as restored:
            assert (restored.mode, restored.size) == (original.mode, original.size) == ("I;16", (128, 96))
            difference = np.asarray(original, float) - np.asarray(restored, float)
        assert np.sqrt((difference**2).mean()) < 0.1 * 65535


def test_a_run_among_the_images_does_not_learn_from_its_own_grids(trained: Path, photo_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(photo_folder, photos)
    count = len(list(photos.rglob("*.*")))
    shutil.copytree(trained, photos / "run")
    assert list((photos / "run" / "grids").glob("*.png"))
    epochs = load_checkpoint(trained)["settings"]["epochs"]
    done = run("train", photos, "--out", photos / "run", "--resume", "--epochs", epochs)
    assert f"{count} images, " in done.stderr
