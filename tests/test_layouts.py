"""Which layout a folder has, and what is in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vaetools.dataset.counts import count_copies
from vaetools.dataset.dataset import Dataset, refuse_collisions
from vaetools.dataset.layouts import open_dataset
from vaetools.dataset.suitability import default_operators
from vaetools.errors import UsageError
from vaetools.images.ahead import in_threads, reader_threads

from . import dataset_files as files


def train_paths(dataset: Dataset) -> list[str]:
    return [item.path for item in dataset.train]


def held_out_paths(dataset: Dataset) -> list[str]:
    return [item.path for item in dataset.held_out]


def companions(dataset: Dataset) -> dict[str, list[str]]:
    return {item.path: [each.path for each in item.companions] for item in dataset.items}


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    dataset = open_dataset(files.imagefolder(tmp_path, {"dog": 1, "cat": 2, "cat/deeper": 1}))
    assert (dataset.layout, dataset.classes, dataset.labels) == ("imagefolder", ("cat", "dog"), {"cat": 0, "dog": 1})
    assert {item.path: item.label for item in dataset.train}["cat/deeper/0.png"] == "cat"
    assert dataset.summary() == "imagefolder; 2 classes; 4 images to augment"


def test_classes_below_splits(tmp_path: Path) -> None:
    dataset = open_dataset(files.imagefolder(tmp_path, {"train/cat": 2, "train/dog": 1, "val/cat": 1, "Test/dog": 1}))
    assert train_paths(dataset) == ["train/cat/0.png", "train/cat/1.png", "train/dog/0.png"]
    assert held_out_paths(dataset) == ["Test/dog/0.png", "val/cat/0.png"]
    assert dataset.classes == ("cat", "dog")
    assert dataset.summary() == "imagefolder; 2 classes; 3 images to augment in train; left as they are: 1 in Test, 1 in val"


@pytest.mark.parametrize(
    ("counts", "train"),
    [
        ({"cat/train": 1, "cat/test": 1}, ["cat/train/0.png"]),
        ({"Training/cat": 1, "Testing/cat": 1}, ["Training/cat/0.png"]),
        ({"train/cat": 1}, ["train/cat/0.png"]),
        ({"train/cat": 1, "extra/cat": 1}, ["train/cat/0.png"]),
        ({"train": 1, "test": 1}, ["train/0.png"]),
        ({"train": 1, "bus": 1}, ["bus/0.png", "train/0.png"]),  # a means of transport
        ({"train/test": 1, "val/test": 1}, ["train/test/0.png"]),  # a class
    ],
    ids=[
        "classes first",
        "other words",
        "train alone",
        "unknown split",
        "no classes",
        "a class named train",
        "a class named test",
    ],
)
def test_only_train_is_augmented(tmp_path: Path, counts: dict[str, int], train: list[str]) -> None:
    assert train_paths(open_dataset(files.imagefolder(tmp_path, counts))) == train


@pytest.mark.parametrize("counts", [{"test/cat": 1}, {"val": 1, "images": 1}, {"cat/test": 1, "cat/more": 1}])
def test_test_images_without_train_images_are_refused(tmp_path: Path, counts: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="no train split"):
        open_dataset(files.imagefolder(tmp_path, counts))


def test_images_alone(tmp_path: Path) -> None:
    files.save(tmp_path, "a.png", 1)
    files.save(tmp_path, "b.jpg", 2)
    (tmp_path / "a.txt").write_text("a caption")
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, train_paths(dataset), dataset.classes) == ("plain", ["a.png", "b.jpg"], ())
    assert dataset.others == ("a.txt",)
    assert any("such as a.txt" in note for note in dataset.notes)


def test_images_in_folders_and_beside_them_have_no_class_unless_asked(tmp_path: Path) -> None:
    files.imagefolder(tmp_path, {"cat": 1, "dog": 1})
    files.save(tmp_path, "cover.png", 9)
    assert open_dataset(tmp_path).layout == "plain"
    dataset = open_dataset(tmp_path, "imagefolder")
    assert (train_paths(dataset), dataset.others) == (["cat/0.png", "dog/0.png"], ("cover.png",))
    assert any("cover.png" in note for note in dataset.notes)


def test_a_class_without_images_is_told(tmp_path: Path) -> None:
    files.imagefolder(tmp_path, {"train/cat": 1, "train/dog": 1})
    (tmp_path / "train" / "owl").mkdir()
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.notes == (f"{tmp_path}/train/owl: a class without an image",)


def test_coco(tmp_path: Path) -> None:
    dataset = open_dataset(files.coco(tmp_path))
    assert (dataset.layout, dataset.marks) == ("coco", "boxes")
    assert train_paths(dataset) == ["train2017/000000000000.jpg", "train2017/000000000001.jpg"]
    assert held_out_paths(dataset) == ["val2017/000000000007.jpg"]
    assert [one.path for one in dataset.annotations] == [
        "annotations/captions_train2017.json",
        "annotations/instances_train2017.json",
    ]
    assert dataset.others == ("annotations/instances_val2017.json",)


def test_coco_beside_its_images(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        files.save(tmp_path, f"{split}/same.jpg", len(split))
        files.write_json(tmp_path / split / "_annotations.coco.json", files.coco_json(["same.jpg"]))
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, train_paths(dataset), held_out_paths(dataset)) == ("coco", ["train/same.jpg"], ["valid/same.jpg"])


@pytest.mark.parametrize("name", ["train/a.png", "a.png", "./train/a.png", "train\\a.png"])
def test_coco_names_are_found_from_anywhere(tmp_path: Path, name: str) -> None:
    files.save(tmp_path, "data/images/train/a.png", 1)
    files.save(tmp_path, "data/images/val/a.png", 2)
    files.write_json(tmp_path / "train.json", files.coco_json([name]))
    assert train_paths(open_dataset(tmp_path)) == ["data/images/train/a.png"]


def test_an_image_in_two_coco_files_is_held_out_if_one_says_so(tmp_path: Path) -> None:
    for number in range(2):
        files.save(tmp_path, f"images/{number}.png", number)
    files.write_json(tmp_path / "train.json", files.coco_json(["0.png", "1.png"]))
    files.write_json(tmp_path / "test.json", files.coco_json(["1.png"]))
    dataset = open_dataset(tmp_path)
    assert (train_paths(dataset), held_out_paths(dataset)) == (["images/0.png"], ["images/1.png"])


def test_coco_without_a_word_on_splits_is_all_train(tmp_path: Path) -> None:
    files.save(tmp_path, "images/a.png", 1)
    files.save(tmp_path, "images/unnamed.png", 2)
    files.write_json(tmp_path / "annotations.json", files.coco_json(["a.png", "gone.png"]))
    dataset = open_dataset(tmp_path)
    assert train_paths(dataset) == ["images/a.png"]
    assert dataset.failed == (("images/gone.png", "named in annotations.json, but not there"),)
    assert any("images/unnamed.png" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "no JSON"),
        (json.dumps({"images": [{"id": 1}], "annotations": []}), r"images\[0\] has no file_name"),
        (json.dumps({"images": [{"id": 1, "file_name": "a.png"}] * 2, "annotations": []}), "the id 1 of another image"),
        (json.dumps({"images": [], "annotations": [{"id": 1}]}), r"annotations\[0\] has no image_id"),
        (json.dumps({"images": [{"id": 1, "file_name": "b.png"}], "annotations": []}), "none of the images"),
    ],
    ids=["broken", "no name", "twice", "no image", "nothing there"],
)
def test_broken_coco_is_refused(tmp_path: Path, content: str, message: str) -> None:
    files.save(tmp_path, "images/a.png", 1)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "all.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        open_dataset(tmp_path)


def test_json_that_is_of_something_else_is_passed_along(tmp_path: Path) -> None:
    files.imagefolder(tmp_path, {"cat": 1})
    files.write_json(tmp_path / "names.json", {"cat": "a cat"})
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.others) == ("imagefolder", ("names.json",))


def test_yolo(tmp_path: Path) -> None:
    dataset = open_dataset(files.yolo(tmp_path))
    assert (dataset.layout, dataset.marks, dataset.others) == ("yolo", "boxes", ("data.yaml",))
    assert companions(dataset) == {
        "images/train/a.jpg": ["labels/train/a.txt"],
        "images/train/empty.png": [],
        "images/val/c.jpg": ["labels/val/c.txt"],
    }
    assert train_paths(dataset) == ["images/train/a.jpg", "images/train/empty.png"]
    assert dataset.notes == (
        "data.yaml is passed along as it is: set its path (../elsewhere) to the output folder",
        "1 train images have no label file: YOLO takes them, and their copies, for background",
    )


def test_yolo_with_splits_above_the_images(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        files.save(tmp_path, f"{split}/images/a.png", len(split))
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, train_paths(dataset), held_out_paths(dataset)) == (
        "yolo",
        ["train/images/a.png"],
        ["valid/images/a.png"],
    )


def test_yolo_with_lists_of_images(tmp_path: Path) -> None:
    for number, stem in enumerate("abc"):
        files.save(tmp_path, f"images/{stem}.png", number)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{stem}.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "train.txt").write_text("./images/a.png\n")
    (tmp_path / "val.txt").write_text("/data/set/images/b.png\n")
    dataset = open_dataset(tmp_path)
    assert (train_paths(dataset), held_out_paths(dataset)) == (["images/a.png"], ["images/b.png", "images/c.png"])
    assert [one.path for one in dataset.annotations] == ["train.txt"]
    (tmp_path / "train.txt").unlink()
    with pytest.raises(UsageError, match="no train split"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("suffix", ["", "_mask", "-seg.v2", ".jpg"])
def test_masks(tmp_path: Path, suffix: str) -> None:
    dataset = open_dataset(files.masks(tmp_path, suffix))
    assert (dataset.layout, dataset.marks) == ("masks", "masks")
    assert companions(dataset) == {f"images/{stem}.jpg": [f"masks/{stem}{suffix}.png"] for stem in ("x", "x_2", "y")}
    item = next(item for item in dataset.items if item.path == "images/x_2.jpg")
    copy_suffix = ".png" if suffix == ".jpg" else suffix  # of a mask that is named after all of its image's name
    assert item.companion_path(item.companions[0], 1) == f"masks/x_2__v1{copy_suffix}.png"
    copies = tmp_path / "copies"
    shutil.copytree(tmp_path / "images", copies / "images")
    shutil.copytree(tmp_path / "masks", copies / "masks")
    shutil.copy(tmp_path / item.path, copies / item.copy_path(1))
    shutil.copy(tmp_path / item.companions[0].path, copies / item.companion_path(item.companions[0], 1))
    assert companions(open_dataset(copies))["images/x_2__v1.png"] == [f"masks/x_2__v1{copy_suffix}.png"]


def test_an_image_has_all_its_masks_or_is_told(tmp_path: Path) -> None:
    files.save(tmp_path, "images/train/a.png", 1)
    files.save(tmp_path, "images/train/bare.png", 2)
    files.save(tmp_path, "images/test/c.png", 3)
    for part in ("0", "1"):
        files.save(tmp_path, f"Masks/train/a_{part}.png", 4, mode="L")
    dataset = open_dataset(tmp_path)
    assert companions(dataset) == {
        "images/test/c.png": [],
        "images/train/a.png": ["Masks/train/a_0.png", "Masks/train/a_1.png"],
    }
    assert dataset.failed == (("images/train/bare.png", "it has no mask, and is not augmented"),)
    assert train_paths(dataset) == ["images/train/a.png"]


@pytest.mark.parametrize("layout", ["coco", "yolo", "masks", "imagefolder"])
def test_a_layout_that_it_is_not_is_refused(tmp_path: Path, layout: str) -> None:
    files.save(tmp_path, "a.png", 1)
    with pytest.raises(UsageError, match=str(tmp_path)):
        open_dataset(tmp_path, layout)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    files.save(tmp_path, "a.png", 1)
    (tmp_path / "empty").mkdir()
    for folder, message in (("a.png", "a file"), ("empty", "no image"), ("missing", "no such folder")):
        with pytest.raises(UsageError, match=message):
            open_dataset(tmp_path / folder)
    with pytest.raises(UsageError, match="unknown layout 'voc'"):
        open_dataset(tmp_path, "voc")


def test_hidden_files_links_and_the_output_are_left_out(tmp_path: Path) -> None:
    files.imagefolder(tmp_path / "in", {"cat": 1, ".hidden": 1, "out/cat": 1})
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "in" / "cat")
    dataset = open_dataset(tmp_path / "in", leave_out=tmp_path / "in" / "out")
    assert train_paths(dataset) == ["cat/0.png"]
    assert sorted(note.rpartition(": ")[2] for note in dataset.notes) == [
        "a link to a folder, and is left out",
        "the output folder, and is left out",
    ]


def test_images_of_the_same_stem_have_copies_of_different_names(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.jpg"):
        files.save(tmp_path, name, 1)
    dataset = open_dataset(tmp_path)
    assert [item.copy_path(2) for item in dataset.items] == ["a.jpg__v2.png", "a.png__v2.png", "b__v2.png"]


def test_a_copy_never_takes_the_name_of_an_image(tmp_path: Path) -> None:
    for name in ("a.png", "a__v2.png"):
        files.save(tmp_path, name, 1)
    dataset = open_dataset(tmp_path)
    refuse_collisions(dataset, {"a.png": 1, "a__v2.png": 1})
    with pytest.raises(UsageError, match=r"a__v2.png: copy 2 of a.png would be called a__v2.png"):
        refuse_collisions(dataset, {"a.png": 2})


@pytest.mark.parametrize(
    ("copies", "balance", "expected"),
    [
        (2, False, {"cat": [2, 2, 2, 2, 2], "dog": [2, 2]}),
        (0, True, {"cat": [0, 0, 0, 0, 0], "dog": [1, 2]}),
        (1, True, {"cat": [1, 1, 1, 1, 1], "dog": [4, 4]}),
    ],
)
def test_numbers_of_copies(tmp_path: Path, copies: int, balance: bool, expected: dict[str, list[int]]) -> None:
    dataset = open_dataset(files.imagefolder(tmp_path, {"cat": 5, "dog": 2}))
    counts = count_copies(dataset.train, copies, balance=balance)
    assert {label: [counts[f"{label}/{n}.png"] for n in range(len(each))] for label, each in expected.items()} == expected


def test_numbers_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    files.save(tmp_path, "a.png", 1)
    items = open_dataset(tmp_path).train
    with pytest.raises(UsageError, match="at least 1, not 0"):
        count_copies(items, 0)
    with pytest.raises(UsageError, match="balancing needs classes"):
        count_copies(items, 1, balance=True)


def test_what_is_done_by_default_follows_from_the_data_set_and_the_model(tmp_path: Path) -> None:
    classes = open_dataset(files.imagefolder(tmp_path / "classes", {"dog": 1, "cat": 1}))
    boxes = open_dataset(files.yolo(tmp_path / "boxes"))
    mild = ("style", 0.3)
    assert default_operators(classes, fitted=False, balance=True) == mild
    assert default_operators(boxes, fitted=True, balance=False) == mild
    assert default_operators(classes, fitted=True, balance=False) == ("extrapolate,difference", 0.8)
    assert default_operators(classes, fitted=True, balance=True) == ("extrapolate,difference,resample", 0.5)


def test_few_images_are_decoded_ahead() -> None:
    started: list[str] = []
    most = 0
    for done, (path, found) in enumerate(in_threads(lambda path: (started.append(path), path)[1], map(str, range(100)))):
        assert path == found == str(done)
        most = max(most, len(started) - done)
    assert most <= reader_threads() + 1


# Lists of images beside folders of classes.


def test_lists_say_what_is_held_out_of_classes(tmp_path: Path) -> None:
    """As Food-101 has it, and with bare names."""
    files.imagefolder(tmp_path / "images", {"cat": 3, "dog": 3})
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "train.txt").write_text("cat/0\ncat/1\ndog/0\n")
    (tmp_path / "meta" / "test.txt").write_text("cat/2\ndog/1\ndog/2\n")
    for root, layout in ((tmp_path, "plain"), (tmp_path, "imagefolder")):
        dataset = open_dataset(root, layout)
        assert train_paths(dataset) == ["images/cat/0.png", "images/cat/1.png", "images/dog/0.png"]
        assert [item.split for item in dataset.held_out] == ["test"] * 3
        (extended,) = dataset.annotations
        assert extended.path == "meta/train.txt"
        assert extended.render({"images/dog/0.png": {1: "images/dog/0__v1.png"}}, originals=False) == b"dog/0__v1\n"


def test_all_held_out_says_so(tmp_path: Path) -> None:
    files.imagefolder(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "train.txt").write_text("cat/0.png\ndog/0.png\n")
    (tmp_path / "val.txt").write_text("cat/0.png\ndog/0.png\n")
    with pytest.raises(UsageError, match=r"all of its 2 images are held out, by their folders or by lists of images \(train\)"):
        open_dataset(tmp_path)
