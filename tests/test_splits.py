"""Which images of a data set are for training, and which are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaetools.dataset.layouts import open_dataset
from vaetools.errors import UsageError

from . import dataset_files as files
from .test_layouts import held_out_paths, train_paths

# Splits that are named as part of a word.


@pytest.mark.parametrize(
    ("counts", "train"),
    [
        ({"seg_train/sea": 1, "seg_test/sea": 1, "seg_pred": 0}, ["seg_train/sea/0.png"]),
        ({"DIV2K_train_HR": 1, "DIV2K_valid_HR": 1}, ["DIV2K_train_HR/0.png"]),
        ({"trainA": 1, "trainB": 1, "testA": 1, "testB": 1}, ["trainA/0.png", "trainB/0.png"]),
        ({"train": 1, "ood_test": 1}, ["train/0.png"]),
        ({"train": 1, "validate": 1}, ["train/0.png"]),
        ({"train": 1, "hold_out": 1}, ["train/0.png"]),
        ({"seg_train": 1, "test": 1}, ["seg_train/0.png"]),
        ({"seg_train/cat": 1, "train_test/cat": 1}, ["seg_train/cat/0.png"]),  # held out wins
        ({"test_tube": 1, "beaker": 1}, ["beaker/0.png", "test_tube/0.png"]),
        ({"latest": 1, "trainer": 1}, ["latest/0.png", "trainer/0.png"]),
        ({"train/test_tube": 1, "train/train_engine": 1}, ["train/test_tube/0.png", "train/train_engine/0.png"]),
    ],
)
def test_splits_are_found_in_words_of_names(tmp_path: Path, counts: dict[str, int], train: list[str]) -> None:
    assert train_paths(open_dataset(files.imagefolder(tmp_path, counts))) == train


def test_splits_that_are_named_in_full_go_before_words(tmp_path: Path) -> None:
    assert train_paths(open_dataset(files.imagefolder(tmp_path, {"train": 1, "val": 1, "cat": 1}))) == ["train/0.png"]


def test_splits_that_may_be_classes_are_refused(tmp_path: Path) -> None:
    files.imagefolder(tmp_path, {"test_tube": 1, "train_engine": 1, "lamp": 1})
    with pytest.raises(UsageError, match="found train_engine and test_tube beside lamp"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["validate", "hold_out"])
def test_other_words_for_held_out_images(tmp_path: Path, name: str) -> None:
    files.imagefolder(tmp_path, {name: 1, "more": 1})
    with pytest.raises(UsageError, match="no train split"):
        open_dataset(tmp_path)


# Splits that a file names.


def boxes(root: Path, *paths: str) -> Path:
    """Images below images/ with a label file each."""
    for number, path in enumerate(paths):
        files.save(root, f"images/{path}.png", number)
        place = root / "labels" / f"{path}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("0 0.5 0.5 1 1\n")
    return root


@pytest.mark.parametrize(
    "text",
    [
        "train: images/one\nval: images/two\n",
        "path: ../datasets/x\ntrain: 'images/one'  # here\nval: \"images/two\"\ntest:  # none\n",
        "path: /data/images\ntrain: one/\nval: ./two\n",
        "train: ../images/one\nval: [images/two]\nnames:\n  0: cat\n",
        "train:\n  - images/one\nval:\n- images/two\n",
        "train: images\nval: splits/held.txt\n",
    ],
)
def test_yolo_with_splits_in_its_yaml(tmp_path: Path, text: str) -> None:
    boxes(tmp_path, "one/a", "two/b")
    (tmp_path / "data.yaml").write_text(text)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "held.txt").write_text("images/two/b.png\n")
    dataset = open_dataset(tmp_path)
    assert (train_paths(dataset), held_out_paths(dataset)) == (["images/one/a.png"], ["images/two/b.png"])


@pytest.mark.parametrize(
    "value", ["&one images/two", "{a: images/two}", "*one", "[images/two", '"a\\tb"', "\n  a: images/two", "|"]
)
def test_yaml_that_is_not_understood_is_refused(tmp_path: Path, value: str) -> None:
    boxes(tmp_path, "one/a", "two/b")
    (tmp_path / "data.yaml").write_text(f"train: images/one\nval: {value}\n")
    with pytest.raises(UsageError, match=r"data.yaml: cannot tell what val is"):
        open_dataset(tmp_path)


def test_yaml_whose_train_images_are_elsewhere_is_refused(tmp_path: Path) -> None:
    boxes(tmp_path, "one/a", "two/b")
    (tmp_path / "data.yaml").write_text("train: images/three\nval: images/two\n")
    with pytest.raises(UsageError, match=r"data.yaml: the images of its train split are not below"):
        open_dataset(tmp_path)


def test_lists_in_a_folder(tmp_path: Path) -> None:
    boxes(tmp_path, "a", "b", "c")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("images/a.png\nb\n")
    (tmp_path / "splits" / "val.txt").write_text("images/c.png\n")
    dataset = open_dataset(tmp_path)
    assert (train_paths(dataset), held_out_paths(dataset)) == (["images/a.png", "images/b.png"], ["images/c.png"])
    assert [one.path for one in dataset.annotations] == ["splits/train.txt"]
    copies = {f"images/{stem}.png": {1: f"images/{stem}__v1.png"} for stem in "ab"}
    text = dataset.annotations[0].render(copies, originals=True)
    assert text == b"images/a.png\nb\nimages/a__v1.png\nb__v1\n"


def test_masks_with_lists(tmp_path: Path) -> None:
    files.masks(tmp_path, "")
    (tmp_path / "train.txt").write_text("x\nx_2\n")
    (tmp_path / "val.txt").write_text("y\n")
    dataset = open_dataset(tmp_path)
    assert (train_paths(dataset), held_out_paths(dataset)) == (["images/x.jpg", "images/x_2.jpg"], ["images/y.jpg"])
    assert [one.path for one in dataset.annotations] == ["train.txt"]


def test_a_list_that_says_more_is_read_but_not_extended(tmp_path: Path) -> None:
    files.masks(tmp_path, "")
    (tmp_path / "train.txt").write_text("images/x.jpg masks/x.png\nimages/x_2.jpg masks/x_2.png\n")
    dataset = open_dataset(tmp_path)
    assert (train_paths(dataset), dataset.annotations) == (["images/x.jpg", "images/x_2.jpg"], ())
    assert any("train.txt says more of images" in note for note in dataset.notes)


@pytest.mark.parametrize("layout", ["yolo", "masks"])
def test_a_list_of_something_else_is_refused(tmp_path: Path, layout: str) -> None:
    getattr(files, layout)(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "val.txt").write_text("17\n18\n")
    with pytest.raises(UsageError, match=r"lists/val.txt: named after a split, but its lines \('17', ...\) name no image"):
        open_dataset(tmp_path)
