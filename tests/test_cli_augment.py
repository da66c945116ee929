"""`vaetools augment`: what its options do, and what it prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from vaetools import Augmenter
from vaetools.cli import main
from vaetools.dataset import coco, work
from vaetools.dataset.records import Records
from vaetools.model.weights import find_by_name, load_weights

from . import dataset_files as files
from .augment_models import tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return files.imagefolder(tmp_path / "in", {"train/cat": 3, "train/dog": 1, "val/cat": 1})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["augment", *(str(argument) for argument in arguments)])


def settings_of(target: Path) -> dict[str, object]:
    job = Records.read(target).job
    assert job is not None
    return dict(job.settings)


def test_a_data_set_with_its_copies(source: Path, tmp_path: Path, weights: Path) -> None:
    done = run(source, "-o", tmp_path / "out", "--model", weights, "--device", "cpu", "--copies", 2)
    assert done.exit_code == 0, done.output
    assert "imagefolder; 2 classes; 4 images to augment in train; left as they are: 1 in val" in done.stderr
    assert "cat: 3 images, 6 copies\ndog: 1 images, 2 copies\n" in done.stdout
    assert re.search(r"^8 copies of 4 images written, 5 files copied: [\d,]+ bytes, .* s, .* images/s$", done.stdout, re.M)
    assert (tmp_path / "out/train/dog/0__v2.png").exists()
    again = run(source, "-o", tmp_path / "out", "--model", weights, "--device", "cpu", "--copies", 2)
    assert "0 copies of 4 images written, 8 there already\n" in again.stdout


def test_options_reach_the_job(source: Path, tmp_path: Path, weights: Path) -> None:
    options = ("--operators", "hyper+jitter,style", "--strength", 0.25, "--seed", 3, "--quality", 70, "--no-detail", "--balance")
    done = run(source, "-o", tmp_path / "out", "--model", weights, *options, "--no-originals", "--copies", 0, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert list(files.files_below(tmp_path / "out")) == ["train/dog/0__v1.png", "train/dog/0__v2.png"]
    settings = settings_of(tmp_path / "out")
    strength = settings["strength"]
    assert isinstance(strength, dict)
    assert (settings["operators"], settings["seed"], settings["quality"]) == (["hyper+jitter", "style"], 3, 70)
    assert (settings["detail"], strength["start"]) == (False, 0.25)


def test_the_outcome_as_json(source: Path, tmp_path: Path, weights: Path) -> None:
    (source / "train/cat/0.png").write_text("not an image")
    Image.open(source / "train/dog/0.png").save(source / "val/cat/0.png")
    done = run(source, "-o", tmp_path / "out", "--model", weights, "--gate", "--device", "cpu", "--json")
    assert done.exit_code == 1
    outcome = json.loads(done.stdout)
    assert (outcome["layout"], outcome["images"], outcome["done"] + outcome["refused"]) == ("imagefolder", 3, 3)
    assert outcome["classes"]["cat"].keys() == {"images", "copies", "refused", "tried", "accepted"}
    assert [Path(one["path"]).name for one in outcome["failed"]] == ["0.png"]
    assert outcome["same"] == [{"path": "val/cat/0.png", "train": "train/dog/0.png"}]
    assert outcome["model"] == load_weights(weights).hash.hex()
    assert re.search(r"^failed: .*train/cat/0.png: cannot be read", done.stderr, re.M)
    assert (
        "warning: 1 images of other splits are train images too, pixel for pixel: val/cat/0.png is train/dog/0.png" in done.stderr
    )


def test_the_gate_tells_of_each_class(tmp_path: Path, weights: Path) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 8, "dog": 2})
    done = run(source, "-o", tmp_path / "out", "--model", weights, "--gate", "--device", "cpu")
    assert done.exit_code == 0, done.output
    found = re.search(
        r"^cat: 8 images, (\d) copies, (\d) left out by the gate; it accepted (\d) of \d+ \(\d+ %\)$", done.stdout, re.M
    )
    assert found, done.stdout
    assert int(found[1]) + int(found[2]) == 8
    assert int(found[1]) == int(found[3])
    assert re.search(r"^dog: 2 images, 2 copies; it accepted 2 of \d+ \(\d+ %\)$", done.stdout, re.M)
    assert f"{2 + int(found[1])} copies of 10 images written, {found[2]} left out by the gate" in done.stdout


def test_a_layout_that_is_given(source: Path, tmp_path: Path, weights: Path) -> None:
    done = run(source, "-o", tmp_path / "out", "--model", weights, "--layout", "plain", "--device", "cpu")
    assert "all: 4 images, 4 copies" in done.stdout
    wrong = run(source, "-o", tmp_path / "other", "--model", weights, "--layout", "yolo", "--device", "cpu")
    assert (wrong.exit_code, "no image has a label file" in wrong.stderr) == (2, True)


def test_dry_run_writes_nothing_and_needs_no_model(source: Path, tmp_path: Path) -> None:
    (source / "train" / "owl").mkdir()
    done = run(source, "-o", tmp_path / "out", "--model", "no such model", "--balance", "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.stdout == "cat: 3 images, 3 copies\ndog: 1 images, 5 copies\n8 copies of 4 images would be written\n"
    assert re.search(r"^note: .*train/owl: a class without an image$", done.stderr, re.M)
    assert not (tmp_path / "out").exists()
    forecast = json.loads(run(source, "-o", tmp_path / "out", "--dry-run", "--json").stdout)
    assert (forecast["dry_run"], forecast["classes"]["dog"]["copies"]) == (True, 1)


def test_each_json_file_is_read_once(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, read = files.coco(tmp_path / "in"), []
    check = coco._check
    monkeypatch.setattr(coco, "_check", lambda name, data: (read.append(name), check(name, data)))
    done = run(source, "-o", tmp_path / "out", "--model", weights, "--operators", "jitter", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert len(read) == len(set(read)) == 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), 0.8), (("--balance",), 0.5), (("--operators", "jitter"), 0.3), (("--strength", 0.1), 0.1)],
)
def test_the_measured_strength_is_for_the_measured_operators(
    source: Path, tmp_path: Path, weights: Path, options: tuple[object, ...], expected: float
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / weights.name).write_bytes(weights.read_bytes())  # as if it had been trained
    done = run(source, "-o", tmp_path / "out", "--fit", tmp_path / "run", "--device", "cpu", *options)
    assert done.exit_code == 0, done.output
    strength = settings_of(tmp_path / "out")["strength"]
    assert isinstance(strength, dict)
    assert strength["start"] == expected


def test_a_preview_is_all_that_is_written(source: Path, tmp_path: Path, weights: Path) -> None:
    done = run(source, "-o", tmp_path / "out", "--model", weights, "--preview", "--device", "cpu")
    assert done.exit_code == 0, done.output
    names = [".vaetools-preview.html", ".vaetools-preview.png"]
    assert sorted(done.stdout.splitlines()) == [f"preview: {tmp_path / 'out' / name}" for name in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert run(source, "-o", tmp_path / "out", "--model", weights, "--strength", 0.1, "--device", "cpu").exit_code == 0


def test_existing_output(source: Path, tmp_path: Path, weights: Path) -> None:
    base = (source, "-o", tmp_path / "out", "--model", weights, "--device", "cpu")
    assert run(*base, "--on-exists", "error").exit_code == 0
    assert run(*base, "--on-exists", "error").exit_code == 2
    refused = run(*base, "--seed", 1)
    assert refused.exit_code == 2
    assert (
        "was written with other settings (seed 0 there, 1 now); choose another folder, or --on-exists overwrite" in refused.stderr
    )
    assert run(*base, "--seed", 1, "--on-exists", "overwrite").exit_code == 0
    assert settings_of(tmp_path / "out")["seed"] == 1


def test_large_images_fail(source: Path, tmp_path: Path, weights: Path) -> None:
    done = run(source, "-o", tmp_path / "out", "--model", weights, "--max-megapixels", 0.001, "--device", "cpu")
    assert (done.exit_code, "above the limit of 1,000" in done.stderr) == (2, True)


def test_an_interruption_tells_how_to_go_on(source: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work.Pipeline, "run", interrupt)
    done = run(source, "-o", tmp_path / "out", "--model", weights, "--device", "cpu")
    assert done.exit_code == 130
    assert "Interrupted: 0 copies are done; the same command goes on from there." in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "photo", "--fit", "run"), "--model and --fit exclude each other"),
        (("--fit-minutes", 1), "--fit-minutes is for --fit"),
        (("--operators", "blur"), "unknown operator 'blur'"),
        (("--copies", 0), "at least 1"),
        (("--strength", 2), "--strength"),
        (("--layout", "voc"), "--layout"),
    ],
)
def test_wrong_usage(source: Path, tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    done = run(source, "-o", tmp_path / "out", *options)
    assert (done.exit_code, message in done.stderr) == (2, True), done.output
    assert not (tmp_path / "out").exists()


def test_help_needs_no_torch() -> None:
    code = "import sys; from vaetools.cli import main; main(['augment', '--help'], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--on-exists" in done.stdout


# Models of one's own.


def test_a_model_is_trained_on_the_train_images_alone_and_used_again(source: Path, tmp_path: Path) -> None:
    base = (source, "-o", tmp_path / "out", "--fit", tmp_path / "run", "--device", "cpu")
    done = run(*base, "--fit-minutes", 0.01, "--json")
    assert done.exit_code == 0, done.output
    assert "4 images, 0.0 megapixels" in done.stderr
    outcome = json.loads(done.stdout)  # nothing of the training is on stdout
    weights = find_by_name(tmp_path / "run")
    model = load_weights(weights)
    assert (outcome["model"], outcome["done"]) == (model.hash.hex(), 4)
    assert (model.vae.config.name, model.vae.config.image_channels) == ("small", 3)
    again = run(*base)
    assert f"holds a trained model, which is used ({weights.name})" in again.stderr
    assert "4 there already" in again.stdout
    for path in tmp_path.glob("run/small-*"):  # as if it had been interrupted
        path.unlink()
    resumed = run(*base)
    assert "goes on with the training that was interrupted" in resumed.stderr
    assert "4 there already" in resumed.stdout


def test_gray_images_get_a_gray_model(tmp_path: Path) -> None:
    files.imagefolder(tmp_path / "in", {"cat": 2}, mode="L")
    files.save(tmp_path / "in", "val/cat.png", 3)
    files.save(tmp_path / "in", "train/cat.png", 3, mode="L")
    done = run(tmp_path / "in", "-o", tmp_path / "out", "--fit", tmp_path / "run", "--fit-minutes", 0.005, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert load_weights(find_by_name(tmp_path / "run")).vae.config.image_channels == 1


@pytest.mark.parametrize("place", ["in/run", "out/run"])
def test_a_training_run_is_neither_in_the_data_set_nor_in_the_output(source: Path, tmp_path: Path, place: str) -> None:
    done = run(source, "-o", tmp_path / "out", "--fit", tmp_path / place)
    assert (done.exit_code, "must not be inside" in done.stderr) == (2, True)
    assert not (tmp_path / place).exists()


def test_what_does_not_go_together_is_refused_before_the_training(tmp_path: Path) -> None:
    source = files.masks(tmp_path / "in")
    done = run(source, "-o", tmp_path / "out", "--fit", tmp_path / "run", "--operators", "sample")
    assert (done.exit_code, "may move what the masks" in done.stderr) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("there", "words"),
    [("cat/0__v1.png", "there already, and not written by such a job"), ("cat/1.png", "there already")],
)
def test_files_in_the_way_are_refused_before_the_training(tmp_path: Path, there: str, words: str) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 2})
    (blocked := tmp_path / "out" / there).parent.mkdir(parents=True)
    blocked.write_text("mine")
    done = run(source, "-o", tmp_path / "out", "--fit", tmp_path / "run", "--fit-minutes", 0.005)
    assert (done.exit_code, words in done.stderr, blocked.read_text()) == (2, True, "mine")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_model_is_refused_before_the_training(source: Path, tmp_path: Path, weights: Path) -> None:
    assert run(source, "-o", tmp_path / "out", "--model", weights, "--device", "cpu").exit_code == 0
    done = run(source, "-o", tmp_path / "out", "--fit", tmp_path / "run", "--fit-minutes", 0.005)
    assert (done.exit_code, "of another model than the one to be trained" in done.stderr) == (2, True)
    assert not (tmp_path / "run").exists()
    sheet = run(source, "-o", tmp_path / "out", "--fit", tmp_path / "run", "--fit-minutes", 0.005, "--preview", "--device", "cpu")
    assert sheet.exit_code == 0, sheet.output


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_stopped_job_ends_as_an_undisturbed_one(tmp_path: Path, weights: Path) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 20, "dog": 20})
    base = (source, "--model", weights, "--operators", "jitter,interpolate", "--device", "cuda", "--copies", 3)
    assert run(*base, "-o", tmp_path / "whole").exit_code == 0
    assert run(*base, "-o", tmp_path / "out").exit_code == 0
    for path in list(tmp_path.glob("out/*/*__v2.png"))[:7]:
        path.unlink()
    assert run(*base, "-o", tmp_path / "out").exit_code == 0
    assert files.files_below(tmp_path / "out") == files.files_below(tmp_path / "whole")
    assert not Augmenter.load(weights, device="cuda").exact


@pytest.mark.parametrize(("inside", "outside"), [("data", "data/out"), ("data/train", ".")])
def test_a_folder_inside_the_other_is_refused(inside: str, outside: str, tmp_path: Path) -> None:
    files.imagefolder(tmp_path / "data", {"train/cat": 1, "train/dog": 1})
    done = run(tmp_path / inside, "-o", tmp_path / outside, "--dry-run")
    assert (done.exit_code, "must not be inside one another" in done.stderr) == (2, True)
    assert not (tmp_path / "data" / "out").exists()
