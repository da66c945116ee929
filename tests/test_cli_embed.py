"""`vaetools embed`, and the script that measures embeddings."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vaetools.cli import main
from vaetools.embedding.table import Embeddings

from .augment_models import photographs, tiny_weights
from .test_scripts import run_script

PAGE = (Path(__file__).parents[1] / "docs" / "embeddings.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


def fill(folder: Path, names: list[str], side: int = 32) -> Path:
    for name, image in zip(names, photographs(len(names), side), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return fill(tmp_path / "in", ["cat/1.png", "cat/2.png", "dog/1.png"])


def run(weights: Path, *arguments: object) -> Result:
    options = ["--model", weights, "--device", "cpu"]
    return CliRunner().invoke(main, ["embed", *(str(argument) for argument in (*arguments, *options))])


def test_a_folder_becomes_a_file(source: Path, tmp_path: Path, weights: Path) -> None:
    done = run(weights, source, "-o", tmp_path / "f.npz")
    assert done.exit_code == 0, done.output
    assert re.match(r"3 images, 16 values each: .*f\.npz, [\d.]+ s, [\d.]+ images/s\n$", done.stdout)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as file:
        assert file["embeddings"].shape == (3, 16)
        assert file["labels"].tolist() == ["cat", "cat", "dog"]


def test_the_same_command_gives_the_same_bytes(source: Path, tmp_path: Path, weights: Path) -> None:
    for name in ("a.npz", "b.npz"):
        assert run(weights, source, "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_options_reach_the_vectors(source: Path, tmp_path: Path, weights: Path) -> None:
    options = ("--features", "zy", "--pool", "grid:2,mean", "--size", "48x16", "-q", "80")
    assert run(weights, source, "-o", tmp_path / "f.npz", *options).exit_code == 0
    table = Embeddings.load(tmp_path / "f.npz")
    about = table.about
    assert (about.features, about.pooling, about.size, about.quality) == ("zy", "grid:2,mean", "48x16", 80)
    assert about.model == weights.stem
    assert table.embeddings.shape == (3, 4 * 4 + 8)


def test_original_sizes(source: Path, tmp_path: Path, weights: Path) -> None:
    assert run(weights, source, "-o", tmp_path / "f.npz", "--size", "original", "--pool", "none").exit_code == 0
    assert Embeddings.load(tmp_path / "f.npz").about.size == "original"


def test_parquet(source: Path, tmp_path: Path, weights: Path) -> None:
    done = run(weights, source, "-o", tmp_path / "f.parquet")
    assert done.exit_code == 0, done.output
    assert Embeddings.load(tmp_path / "f.parquet").paths.tolist() == ["cat/1.png", "cat/2.png", "dog/1.png"]


def test_images_that_fail_are_a_line_each_and_the_others_are_written(source: Path, tmp_path: Path, weights: Path) -> None:
    (source / "cat/2.png").write_text("not an image")
    done = run(weights, source, "-o", tmp_path / "f.npz", "--json")
    assert done.exit_code == 1
    assert done.stderr == "failed: cat/2.png: cannot be read (not an image Pillow can read)\n"
    outcome = json.loads(done.stdout)
    assert (outcome["images"], outcome["dimensions"], outcome["pooling"]) == (2, 16, "grid:2")
    assert outcome["failed"] == [{"path": "cat/2.png", "error": "cannot be read (not an image Pillow can read)"}]
    assert len(Embeddings.load(tmp_path / "f.npz")) == 2


def test_images_above_the_limit_fail(source: Path, tmp_path: Path, weights: Path) -> None:
    fill(source, ["large.png"], 64)
    done = run(weights, source, "-o", tmp_path / "f.npz", "--max-megapixels", "0.002")
    assert (done.exit_code, "failed: large.png: " in done.stderr) == (1, True)


def test_a_file_that_is_there_is_kept(source: Path, tmp_path: Path, weights: Path) -> None:
    (tmp_path / "f.npz").write_bytes(b"mine")
    done = run(weights, source, "-o", tmp_path / "f.npz")
    assert (done.exit_code, "there already; give another name, or --overwrite" in done.stderr) == (2, True)
    assert (tmp_path / "f.npz").read_bytes() == b"mine"
    assert run(weights, source, "-o", tmp_path / "f.npz", "--overwrite").exit_code == 0
    assert len(Embeddings.load(tmp_path / "f.npz")) == 3


def test_the_output_may_be_inside_the_folder(source: Path, weights: Path) -> None:
    for options in ((), ("--overwrite",)):
        done = run(weights, source, "-o", source / "f.npz", *options)
        assert done.stdout.startswith("3 images"), done.output
    assert sorted(path.name for path in source.iterdir()) == ["cat", "dog", "f.npz"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "f.csv"), "ends in .npz or .parquet"),
        (("-o", "nowhere/f.npz"), "there is no folder of that name"),
        (("-o", "f.npz", "--size", "big"), "'big' is no size"),
        (("-o", "f.npz", "--size", "0x5"), "the size must be"),
        (("-o", "f.npz", "--pool", "max"), "unknown pooling 'max'"),
        (("-o", "f.npz", "--features", "w"), "unknown features 'w'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage(
    source: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(source.parent)
    done = run(weights, source, *arguments)
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr
    assert sorted(path.name for path in source.parent.iterdir()) == ["in"]


def test_a_folder_without_images_is_wrong_usage(tmp_path: Path, weights: Path) -> None:
    done = run(weights, tmp_path, "-o", tmp_path / "f.npz")
    assert (done.exit_code, "no image in it" in done.stderr) == (2, True)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "photos", ["cat/1.png", "2.png"], 48)
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^\$ vaetools (.*)$", PAGE, re.M)
    done = CliRunner().invoke(main, shlex.split(command))
    assert done.exit_code == 0, done.output
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(example, {})
    printed = capsys.readouterr().out
    assert "cat/1.png: nearest is 2.png, at 0." in printed
    assert printed.endswith("torch.Size([2, 256])\n")


def test_the_script_measures_classes(tmp_path: Path, weights: Path) -> None:
    train = fill(tmp_path / "train", [f"{name}/{number}.png" for name in ("a", "b") for number in range(8)], 16)
    test = fill(tmp_path / "test", [f"{name}/{number}.png" for name in ("a", "b") for number in range(8)], 16)
    report, picture = tmp_path / "r.json", tmp_path / "p.png"
    done = run_script(
        "bench-embed", train, test, "--model", weights, "--settings", "z mean", "--json", report, "--picture", picture
    )
    assert done.returncode == 0, done.stderr
    rows = {row["vectors"]: row["results"] for row in json.loads(report.read_text())["rows"]}
    assert set(rows) == {"z mean", "PCA of pixels, 4", "pixels", "colour histogram"}
    assert rows["pixels"]["1-NN euclidean"] == 1  # the test images are the train images
    assert picture.stat().st_size > 0


def test_the_script_finds_copies(tmp_path: Path, weights: Path) -> None:
    photos = fill(tmp_path / "photos", [f"{number}.png" for number in range(4)], 48)
    done = run_script("bench-embed", photos, "--model", weights, "--settings", "z grid:2", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    rows = {row["vectors"]: row["results"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert rows["thumbnail, 9 x 9 RGB"]["half size, JPEG 75"] == 1


def test_a_file_that_cannot_be_written_is_one_line(
    source: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    done = run(weights, source, "-o", tmp_path / "f.npz")
    assert (done.exit_code, "f.npz: cannot be written (No space left on device)" in done.stderr) == (2, True), done.stderr


def test_a_folder_that_cannot_be_written_to_is_told_first(
    source: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda _, mode, **__: not mode & os.W_OK)
    done = run(weights, source, "-o", tmp_path / "f.npz")
    assert (done.exit_code, "cannot be written to" in done.stderr) == (2, True), done.stderr
