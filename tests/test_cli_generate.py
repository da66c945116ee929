"""`vaetools fit-prior`, `sample` and `interpolate`: what their options do, and what they print."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vaetools.cli import main
from vaetools.model.vae import VAE
from vaetools.model.weights import find_by_name, load_weights, save_weights

from . import dataset_files as files
from .augment_models import tiny_weights
from .conftest import tiny


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What a training run leaves: weights in a folder."""
    return tiny_weights(tmp_path / "run").parent


@pytest.fixture(autouse=True)
def folder_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return files.imagefolder(tmp_path / "in", {"cat": 4, "dog": 3}, size=(16, 12))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def images_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png") if not path.name.startswith("."))


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def size_of(path: Path) -> tuple[int, int]:
    height, width = pixels_of(path).shape[:2]
    return width, height


def test_a_prior_is_fitted_and_drawn_from(run_folder: Path, source: Path, tmp_path: Path) -> None:
    done = run("fit-prior", source, "--model", run_folder, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "mixture, 2 components of 2 classes, fitted to 7 images of 16 x 12 pixels at quality 50" in done.stdout
    assert (run_folder / "prior.safetensors").is_file()
    assert find_by_name(run_folder).name.startswith("tiny-")
    drawn = run("sample", "--model", run_folder, "-n", 5, "-o", tmp_path / "out", "--grid", "--device", "cpu")
    assert drawn.exit_code == 0, drawn.output
    assert "5 images of 16 x 12 pixels, mixture prior, seed 0" in drawn.stdout
    names = images_below(tmp_path / "out")
    assert len(names) == 5
    assert {name.split("/")[0] for name in names} <= {"cat", "dog"}
    assert size_of(tmp_path / "out" / names[0]) == (16, 12)
    assert (tmp_path / "out/.vaetools-grid.png").is_file()


def test_one_class_alone(run_folder: Path, source: Path, tmp_path: Path) -> None:
    assert run("fit-prior", source, "--model", run_folder, "--kind", "normal", "--json").exit_code == 0
    drawn = run("sample", "--model", run_folder, "-n", 3, "-o", tmp_path / "out", "--class", "dog", "--json")
    record = json.loads(drawn.stdout)
    assert [entry["path"] for entry in record["images"]] == [f"dog/{number:06d}.png" for number in range(3)]
    assert (record["class"], record["prior"]["kind"]) == ("dog", "normal")
    wrong = run("sample", "--model", run_folder, "-n", 1, "-o", tmp_path / "more", "--class", "owl")
    assert (wrong.exit_code, "classes: cat, dog" in wrong.stderr) == (2, True)
    assert not (tmp_path / "more").exists()


def test_without_a_fitted_prior_the_models_own_is_taken(run_folder: Path, tmp_path: Path) -> None:
    drawn = run("sample", "--model", run_folder, "-n", 2, "-o", tmp_path / "out", "--size", "20x12", "-q", 30)
    assert drawn.exit_code == 0, drawn.output
    assert "note: no prior was fitted for this model" in drawn.stderr
    assert images_below(tmp_path / "out") == ["000000.png", "000001.png"]
    assert size_of(tmp_path / "out/000000.png") == (20, 12)
    asked = run("sample", "--model", run_folder, "-n", 2, "-o", tmp_path / "asked", "--prior", "standard")
    assert "note" not in asked.stderr
    missing = run("sample", "--model", run_folder, "-n", 2, "-o", tmp_path / "missing", "--prior", "fitted")
    assert (missing.exit_code, "no prior" in missing.stderr) == (2, True)


def test_gray_models_of_16_bits_draw_such_images(tmp_path: Path) -> None:
    save_weights(VAE(tiny(image_channels=1, bit_depth=16)), None, tmp_path / "run")
    assert run("sample", "--model", tmp_path / "run", "-n", 1, "-o", tmp_path / "out").exit_code == 0
    assert pixels_of(tmp_path / "out/000000.png").dtype == np.uint16


def test_more_images_begin_with_the_same(run_folder: Path, tmp_path: Path) -> None:
    for count in (2, 4):
        run("sample", "--model", run_folder, "-n", count, "-o", tmp_path / str(count), "--seed", 9, "--device", "cpu")
    for name in images_below(tmp_path / "2"):
        assert (tmp_path / "2" / name).read_bytes() == (tmp_path / "4" / name).read_bytes()


def test_what_a_prior_was_not_fitted_for_is_refused(run_folder: Path, source: Path, tmp_path: Path) -> None:
    run("fit-prior", source, "--model", run_folder)
    for option in (("-q", 70), ("--size", "20x20")):
        wrong = run("sample", "--model", run_folder, "-n", 1, "-o", tmp_path / "out", *option)
        assert (wrong.exit_code, "was fitted" in wrong.stderr) == (2, True)
    save_weights(VAE(tiny(name="other")), None, tmp_path)
    other = run("sample", "--model", tmp_path, "-n", 1, "-o", tmp_path / "out", "--prior", run_folder / "prior.safetensors")
    assert (other.exit_code, "was fitted for the model" in other.stderr) == (2, True)


def test_nothing_is_overwritten_unasked(run_folder: Path, source: Path, tmp_path: Path) -> None:
    assert run("fit-prior", source, "--model", run_folder).exit_code == 0
    before = (run_folder / "prior.safetensors").read_bytes()
    again = run("fit-prior", source, "--model", run_folder, "-q", 20)
    assert (again.exit_code, "--overwrite replaces it" in again.stderr) == (2, True)
    assert (run_folder / "prior.safetensors").read_bytes() == before
    assert run("fit-prior", source, "--model", run_folder, "-q", 20, "--overwrite").exit_code == 0
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    full = run("sample", "--model", run_folder, "-n", 1, "-o", tmp_path / "out")
    assert (full.exit_code, "is not empty (it holds mine.txt)" in full.stderr) == (2, True)
    assert images_below(tmp_path / "out") == []


def test_a_prior_cannot_take_the_place_of_weights(run_folder: Path, source: Path) -> None:
    named = run("fit-prior", source, "--model", run_folder, "-o", run_folder / "my-prior.safetensors")
    assert (named.exit_code, "would be taken for weights" in named.stderr) == (2, True)
    installed = run("fit-prior", source, "--model", "photo")
    assert (installed.exit_code, "say with -o" in installed.stderr) == (2, True)
    load_weights(find_by_name(run_folder))


def test_images_that_cannot_be_read_are_one_line(run_folder: Path, source: Path) -> None:
    (source / "cat" / "broken.png").write_text("no image")
    done = run("fit-prior", source, "--model", run_folder)
    assert done.exit_code == 1
    assert "failed: cat/broken.png: cannot be read" in done.stderr
    assert "fitted to 7 images" in done.stdout


def test_images_of_several_sizes_need_one(run_folder: Path, source: Path) -> None:
    files.save(source, "dog/9.png", 1, size=(20, 20))
    wrong = run("fit-prior", source, "--model", run_folder)
    assert (wrong.exit_code, "9.png: has 20 x 20 pixels, those before it 16 x 12" in wrong.stderr) == (2, True)
    assert "of 24 x 10 pixels" in run("fit-prior", source, "--model", run_folder, "--size", "24x10").stdout


def test_a_strip(run_folder: Path, source: Path, tmp_path: Path) -> None:
    ends = source / "cat/0.png", source / "dog/1.png"
    done = run("interpolate", *ends, "--model", run_folder, "-o", tmp_path / "strip.png", "--steps", 4)
    assert done.exit_code == 0, done.output
    strip = pixels_of(tmp_path / "strip.png")
    assert strip.shape == (12, 4 * 16 + 3 * 2, 3)
    first = strip[:, :16]
    assert np.array_equal(first, pixels_of(ends[0]))  # the model is one for photographs
    plain = run("interpolate", *ends, "--model", run_folder, "-o", tmp_path / "plain.png", "--no-detail")
    assert plain.exit_code == 0
    assert not np.array_equal(pixels_of(tmp_path / "plain.png")[:, :16], first)


def test_an_animation(run_folder: Path, source: Path, tmp_path: Path) -> None:
    ends = source / "cat/0.png", source / "dog/1.png"
    options = ("--model", run_folder, "--steps", 4, "--milliseconds", 40)
    for name in ("a.webp", "a.gif"):
        assert run("interpolate", *ends, *options, "-o", tmp_path / name, "--loop").exit_code == 0
        with Image.open(tmp_path / name) as animation:
            assert animation.n_frames == 6  # type: ignore[attr-defined]
    again = run("interpolate", *ends, *options, "-o", tmp_path / "a.gif")
    assert (again.exit_code, "--overwrite" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "a.jpg"), "must end in .png, .webp or .gif"),
        (("-o", "a.png", "--loop"), "--loop is for animations"),
        (("-o", "nowhere/a.png"), "there is no folder nowhere"),
        (("-o", "a.png", "--size", "16"), "no size such as 64x48"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], words: str, run_folder: Path, source: Path) -> None:
    wrong = run("interpolate", source / "cat/0.png", source / "cat/1.png", "--model", run_folder, *arguments)
    assert (wrong.exit_code, words in wrong.stderr) == (2, True)


def test_an_end_that_cannot_be_read(run_folder: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    options = ("--model", run_folder, "-o", tmp_path / "out.png")
    failed = run("interpolate", source / "cat/0.png", tmp_path / "broken.png", *options)
    assert (failed.exit_code, "broken.png: cannot be read" in failed.stderr) == (1, True)
    assert not (tmp_path / "out.png").exists()
