"""`vaetools anomaly`: what its options do, and what it prints."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from vaetools.anomaly.detector import AnomalyDetector
from vaetools.anomaly.scores import FOR_ALIGNED, SCORES
from vaetools.cli import main
from vaetools.dataset import fit
from vaetools.model.vae import VAE
from vaetools.model.weights import find_by_name, save_weights

from . import anomaly_files as files
from .conftest import tiny

ROOT = Path(__file__).parents[1]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["anomaly", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    return save_weights(VAE(tiny(name="tiny", image_channels=1)), None, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """good/ with 22 images, run/ with a detector of them, test/good, test/square and masks/square."""
    root = tmp_path_factory.mktemp("anomaly")
    files.write_images(root / "good", files.good_images(22))
    files.write_test_set(root)
    options = ("--model", weights, "--hold-out", 0.4, "--false-positives", 0.2, "--device", "cpu")
    done = run("fit", root / "good", "--out", root / "run", *options)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{root / 'run' / 'detector.safetensors'}: fitted on 13 good images, thresholds from 9 others\n"
    return root


def test_each_image_gets_a_verdict(place: Path) -> None:
    done = run("score", place / "run", place / "test", "--score", "pca", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert len(re.findall(r"^anomalous +[\d.e+-]+  square/00\d.png$", done.stdout, re.M)) == 6
    assert len(re.findall(r"^(?:ok|anomalous) +[\d.e+-]+  good/00\d.png$", done.stdout, re.M)) == 8
    assert re.search(r"^\d+ of 14 images are anomalous \(pca above [\d.e-]+, set for 0.2 false positives by 9 good images\)$",
                     done.stdout, re.M)  # fmt: skip


def test_labels_and_masks_give_a_table(place: Path) -> None:
    done = run("score", place / "run", place / "test", "--masks", place / "masks", "--device", "cpu")
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.split()[0] in SCORES}
    assert rows.keys() == set(FOR_ALIGNED)
    assert re.search(r"^AUROC +square +all +pixels +AUPRO +false positives$", done.stdout, re.M)
    assert rows["pca"][:2] == ["1.000", "1.000"]
    assert float(rows["pca"][2]) > 0.9
    assert rows["bpp-png"][2:4] == ["-", "-"]


def test_the_outcome_as_json(place: Path) -> None:
    (place / "test" / "good" / "broken.png").write_text("not an image")
    try:
        done = run("score", place / "run", place / "test", "--good", "good", "--json", "--device", "cpu")
    finally:
        (place / "test" / "good" / "broken.png").unlink()
    assert done.exit_code == 1
    outcome = json.loads(done.stdout)
    assert [Path(path).name for path, _ in outcome["failed"]] == ["broken.png"]
    assert outcome["anomalous"] == sum(image["anomalous"] for image in outcome["images"])
    assert len(outcome["images"]) == 14
    assert outcome["images"][0]["scores"].keys() == set(FOR_ALIGNED)
    assert outcome["auroc"]["1-nn"].keys() == {"square", "all"}
    assert outcome["threshold"]["count"] == 9
    assert "failed: good/broken.png: " in done.stderr


def test_without_labels_there_is_no_table(place: Path) -> None:
    done = run("score", place / "run", place / "test" / "square", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "AUROC" not in done.stdout


def test_masks_alone_tell_good_from_bad(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "masks", tmp_path / "masks")
    (tmp_path / "masks" / "good").mkdir()
    for number in range(8):
        Image.new("L", (files.SIDE, files.SIDE)).save(tmp_path / "masks" / "good" / f"{number:03}_mask.png")
    shutil.copytree(place / "test" / "good", tmp_path / "all" / "good")
    shutil.copytree(place / "test" / "square", tmp_path / "all" / "square")
    (tmp_path / "all" / "good").rename(tmp_path / "all" / "fine")
    (tmp_path / "masks" / "good").rename(tmp_path / "masks" / "fine")
    done = run("score", place / "run", tmp_path / "all", "--masks", tmp_path / "masks", "--json", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["auroc"]["pca"] == {"square": 1.0, "all": 1.0}


def test_maps_have_the_scale_of_the_detector(place: Path, tmp_path: Path) -> None:
    done = run("score", place / "run", place / "test", "--maps", tmp_path / "maps", "--score", "pca", "--device", "cpu")
    assert done.exit_code == 0, done.output
    heat = np.asarray(Image.open(tmp_path / "maps" / "square" / "000.png.png"))
    assert heat.shape == (files.SIDE, files.SIDE, 3)
    assert heat[files.mask()].mean() > 2 * heat[~files.mask()].mean()
    # Alone in a folder, an image has the same map: nothing is scaled by the others.
    alone = files.write_images(tmp_path / "alone", files.good_images(30)[22:23])
    done = run("score", place / "run", alone, "--maps", tmp_path / "other", "--score", "pca", "--device", "cpu")
    assert done.exit_code == 0, done.output
    one, two = (np.asarray(Image.open(tmp_path / path)) for path in ("maps/good/000.png.png", "other/000.png.png"))
    assert np.array_equal(one, two)


def test_an_overlay_shows_the_image(place: Path, tmp_path: Path) -> None:
    options = ("--maps", tmp_path / "maps", "--overlay", "--score", "pca", "--device", "cpu")
    assert run("score", place / "run", place / "test" / "good", *options).exit_code == 0
    image = np.asarray(Image.open(place / "test" / "good" / "000.png"), np.float64)
    shown = np.asarray(Image.open(tmp_path / "maps" / "000.png.png").convert("L"), np.float64)
    assert np.corrcoef(image.ravel(), shown.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--score", "nll"), "no score 'nll': this detector has recon"),
        (("--score", "bpp-png", "--maps", "{new}"), "bpp-png has no maps"),
        (("--overlay",), "--overlay is for --maps"),
        (("--good", "fine"), "has no folder fine"),
        (("--masks", "{new}"), "no such folder of masks"),
        (("--maps", "{full}"), "not an empty folder"),
        (("--include", "*.jpg"), "none of its 14 images is taken"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_options_are_told(place: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    filled = [option.format(new=tmp_path / "new", full=tmp_path / "full") for option in options]
    done = run("score", place / "run", place / "test", *filled, "--device", "cpu")
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "mine.txt"]


def test_a_detector_is_not_overwritten_unasked(place: Path, weights: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    before = (tmp_path / "run" / "detector.safetensors").read_bytes()
    command = ("fit", place / "good", "--out", tmp_path / "run", "--model", weights, "--device", "cpu", "--seed", 1)
    done = run(*command)
    assert (done.exit_code, "--overwrite" in done.stderr) == (2, True)
    assert (tmp_path / "run" / "detector.safetensors").read_bytes() == before
    again = run(*command, "--overwrite")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "run" / "detector.safetensors").read_bytes() != before
    assert "note: 4 held-out images are too few for 0.01 false positives" in again.stderr


def test_the_model_of_a_detector_is_beside_it(place: Path, weights: Path) -> None:
    assert (place / "run" / weights.name).read_bytes() == weights.read_bytes()
    assert AnomalyDetector.load(place / "run", device="cpu").space.model_hash in weights.name


def test_a_model_is_trained_on_the_images_that_are_fitted_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def train(folder: Path, run: Path, config: object, settings: object, *, only: list[Path], **_: object) -> Path:
        seen.extend(only)
        run.mkdir(exist_ok=True)
        return save_weights(VAE(tiny(name="small", image_channels=1)), None, run)

    monkeypatch.setattr(fit, "train", train)
    command = ("fit", place / "good", "--out", tmp_path / "run", "--minutes", 0.1, "--hold-out", 0.4, "--device", "cpu", "--json")
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert (len(seen), json.loads(done.stdout)["fitted_on"]) == (13, 13)
    assert find_by_name(tmp_path / "run").name.startswith("small-")
    assert run(*command, "--overwrite").exit_code == 0  # takes the model that is there
    assert len(seen) == 13
    other = run(*command, "--overwrite", "--seed", 5)
    assert (other.exit_code, "has been trained on other images" in other.stderr) == (2, True)


def test_a_model_that_may_have_seen_held_out_images_is_refused(place: Path, weights: Path, tmp_path: Path) -> None:
    shutil.copy(weights, tmp_path)
    done = run("fit", place / "good", "--out", tmp_path, "--device", "cpu")
    assert (done.exit_code, "may have seen the held-out images" in done.stderr) == (2, True)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "anomaly.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert "(64, 64)" in capsys.readouterr().out
    assert (tmp_path / "detector.safetensors").exists()


def test_the_benchmark_of_tiles(weights: Path, tmp_path: Path) -> None:
    for kind, images in (("MT_Free", files.textures(40, 48)), ("MT_Break", files.textures(4, 48, first=50, square=True))):
        folder = tmp_path / "tiles" / kind / "Imgs"
        folder.mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image[0].numpy()).save(folder / f"{number}.jpg", quality=95)
            drawn = files.mask(48) if kind == "MT_Break" else np.zeros((48, 48), bool)
            Image.fromarray(drawn.astype(np.uint8) * 255).save(folder / f"{number}.png")
    command = [sys.executable, ROOT / "scripts" / "bench-anomaly", "tiles", tmp_path / "tiles", "--out", tmp_path / "runs"]
    command += ["--model", weights, "--device", "cpu", "--even-light", "--picture", tmp_path / "sheet.png"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fitted on 26, thresholds from 6, tested on 8 good images and 4 with defects" in done.stdout
    rows = {line.split("`")[1]: line.split(" | ")[1:] for line in done.stdout.splitlines() if line.startswith("| `")}
    assert rows.keys() == SCORES.keys()
    assert float(rows["pca"][1]) > 0.9
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (288, 436)


def test_good_folders_may_be_deeper(place: Path) -> None:
    done = run("score", place / "run", place, "--good", "test/good/", "--include", "test/*", "--json", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["auroc"]["pca"]["test"] == 1


def test_folders_that_cannot_be_written_to(place: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fitted = run("fit", place / "good", "--out", tmp_path / "file", "--model", weights, "--device", "cpu")
    scored = run("score", place / "run", place / "test", "--maps", tmp_path / "file" / "maps", "--device", "cpu")
    for done in (fitted, scored):
        assert done.exit_code == 2
        assert "cannot be written to" in done.stderr


def test_a_damaged_record_of_the_images_trained_on(place: Path, tmp_path: Path) -> None:
    (tmp_path / "good-images.json").write_text("{")
    done = run("fit", place / "good", "--out", tmp_path, "--device", "cpu")
    assert done.exit_code == 2
    assert "good-images.json: cannot be read" in done.stderr
