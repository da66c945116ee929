"""Augmented data sets: that they are valid, told by readers that know nothing of this package."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from vaetools import Augmenter
from vaetools.augment.seeds import digest, seed_for
from vaetools.dataset.books import AugmentOutcome
from vaetools.dataset.job import Options, augment_folder
from vaetools.errors import UsageError
from vaetools.images.tensors import to_tensor

from . import dataset_files as files
from .augment_models import tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def augmenter(weights: Path) -> Augmenter:
    return Augmenter.load(weights, "jitter,hyper", device="cpu")


def augment(source: Path, augmenter: Augmenter, **options: Any) -> tuple[Path, AugmentOutcome]:
    target = source.parent / "out"
    return target, augment_folder(source, target, augmenter, Options(**options))


def new_files(source: Path, target: Path) -> list[str]:
    """What is in `target` alone; the rest must be as it was."""
    before, after = files.files_below(source), files.files_below(target)
    assert {name: data for name, data in after.items() if name in before} == before
    return sorted(after.keys() - before.keys())


def test_a_folder_for_each_class(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path / "in", {"train/cat": 2, "train/dog": 1, "val/cat": 1})
    target, outcome = augment(source, augmenter, copies=2)
    expected = [f"train/{image}__v{copy}.png" for image in ("cat/0", "cat/1", "dog/0") for copy in (1, 2)]
    assert new_files(source, target) == expected
    assert (outcome.images, outcome.done, outcome.files, outcome.failed) == (3, 6, 4, [])
    assert {name: (count.images, count.copies) for name, count in outcome.classes.items()} == {"cat": (2, 4), "dog": (1, 2)}
    train = ImageFolder(str(target / "train"))
    assert (train.class_to_idx, [label for _, label in train.samples]) == ({"cat": 0, "dog": 1}, [0] * 6 + [1] * 3)
    for path, _ in train.samples:
        original = source / "train" / Path(path).parent.name / f"{Path(path).stem.partition('__')[0]}.png"
        same = np.array_equal(files.pixels_of(Path(path)), files.pixels_of(original))
        assert same == (Path(path).name == original.name)


def test_progress_is_that_of_the_copies(tmp_path: Path, augmenter: Augmenter) -> None:
    class Told:
        def __init__(self) -> None:
            self.total, self.shares = 0, list[int]()

        def start(self, files: int, size: int) -> None:
            self.total = size

        def advance(self, size: int, pixels: int) -> None:
            self.shares.append(size)

    source, told = files.imagefolder(tmp_path / "in", {"cat": 2}), Told()
    (source / "large.txt").write_bytes(bytes(1_000_000))  # takes no time
    augment_folder(source, tmp_path / "out", augmenter, progress=told)
    assert sorted(told.shares) == [1, 1, 1, 40 * 32, 40 * 32]
    assert told.total == sum(told.shares)


def test_records_tell_how_to_make_each_copy_again(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path / "in", {"train/cat": 1, "test/cat": 1})
    target, _ = augment(source, augmenter, copies=2, seed=7)
    image = to_tensor(files.pixels_of(source / "train/cat/0.png"))
    for copy in (1, 2):
        name = f"train/cat/0__v{copy}.png"
        record = files.records_of(target)[name]
        assert (record.parent, record.label, record.split, record.copy) == ("train/cat/0.png", "cat", "train", copy)
        assert record.seed == seed_for(7, 0, digest([image])[0], copy - 1)
        assert (record.model, record.accepted) == (augmenter.space.model_hash, True)
        assert record.strength == augmenter.strength.at(0, None)
        assert record.size == (target / name).stat().st_size
        again = augmenter.augment([image], [record.seed])
        assert again.operators[0] == record.operator
        assert torch.equal(again.images[0], to_tensor(files.pixels_of(target / name)))


def test_coco(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.coco(tmp_path / "in")
    target, _ = augment(source, augmenter, copies=2)
    before, after = (json.loads((root / "annotations/instances_train2017.json").read_text()) for root in (source, target))
    captions = json.loads((target / "annotations/captions_train2017.json").read_text())
    assert captions["images"] == after["images"]  # ids agree between files
    assert {**after, "images": [], "annotations": []} == {**before, "images": [], "annotations": []}
    assert after["images"][:2] == before["images"]
    assert after["annotations"][:3] == before["annotations"]
    held_out = json.loads((target / "annotations/instances_val2017.json").read_text())
    ids = [image["id"] for image in (*after["images"], *held_out["images"])]
    assert len(set(ids)) == len(ids) == 7
    assert len({box["id"] for box in after["annotations"]}) == len(after["annotations"]) == 9
    by_id = {image["id"]: image for image in after["images"]}
    for image in after["images"]:
        with Image.open(target / "train2017" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
        original = next(other for other in before["images"] if other["file_name"][:12] == image["file_name"][:12])
        boxes = [box["bbox"] for box in after["annotations"] if box["image_id"] == image["id"]]
        assert boxes == [box["bbox"] for box in before["annotations"] if box["image_id"] == original["id"]]
        assert by_id[image["id"]]["license"] == 3
    listed = {image["file_name"] for image in after["images"]}
    assert listed == set(os.listdir(target / "train2017"))


def test_coco_with_ids_that_are_text(tmp_path: Path, augmenter: Augmenter) -> None:
    source = tmp_path / "in"
    files.save(source, "images/a.png", 1)
    annotation = {"id": "x", "image_id": "one", "bbox": [0, 0, 1, 1]}
    data = {"images": [{"id": "one", "file_name": "a.png"}], "annotations": [annotation, {"image_id": "one"}]}
    files.write_json(source / "annotations.json", data)
    target, _ = augment(source, augmenter)
    after = json.loads((target / "annotations.json").read_text())
    assert [image["id"] for image in after["images"]] == ["one", "one__v1"]
    assert len({json.dumps(one.get("id")) for one in after["annotations"]}) == 3  # two ids, and none where there was none
    assert [one["image_id"] for one in after["annotations"]] == ["one", "one", "one__v1", "one__v1"]


def test_yolo(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.yolo(tmp_path / "in")
    target, outcome = augment(source, augmenter)
    assert new_files(source, target) == ["images/train/a__v1.png", "images/train/empty__v1.png", "labels/train/a__v1.txt"]
    assert (target / "labels/train/a__v1.txt").read_bytes() == (source / "labels/train/a.txt").read_bytes()
    assert any("background" in note for note in outcome.notes)


def test_yolo_with_lists_of_images(tmp_path: Path, augmenter: Augmenter) -> None:
    source = tmp_path / "in"
    for number, stem in enumerate("ab"):
        files.save(source, f"images/{stem}.png", number)
        (source / "labels").mkdir(exist_ok=True)
        (source / "labels" / f"{stem}.txt").write_text("0 0.5 0.5 1 1\n")
    (source / "train.txt").write_text("./images/a.png\n")
    (source / "val.txt").write_text("./images/b.png\n")
    target, _ = augment(source, augmenter, copies=2)
    assert (target / "train.txt").read_text().splitlines() == [
        "./images/a.png",
        "./images/a__v1.png",
        "./images/a__v2.png",
    ]
    assert (target / "val.txt").read_bytes() == (source / "val.txt").read_bytes()


def test_masks(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.masks(tmp_path / "in")
    target, _ = augment(source, augmenter)
    stems = ("x", "x_2", "y")
    expected = sorted([*(f"images/{stem}__v1.png" for stem in stems), *(f"masks/{stem}__v1_mask.png" for stem in stems)])
    assert new_files(source, target) == expected
    for stem in stems:
        assert (target / f"masks/{stem}__v1_mask.png").read_bytes() == (source / f"masks/{stem}_mask.png").read_bytes()
        assert files.pixels_of(target / f"images/{stem}__v1.png").shape == (32, 40, 3)


@pytest.mark.parametrize("layout", ["imagefolder", "coco", "yolo", "masks", "plain"])
def test_without_originals_only_copies_are_there(tmp_path: Path, augmenter: Augmenter, layout: str) -> None:
    source = tmp_path / "in"
    if layout in ("imagefolder", "plain"):
        files.imagefolder(source, {"train/cat": 2, "val/cat": 1})
    else:
        getattr(files, layout)(source)
    target, outcome = augment(source, augmenter, layout=layout, originals=False)
    there = list(files.files_below(target))
    assert outcome.done == len([name for name in there if not name.endswith((".json", ".txt", "_mask.png"))])
    assert all("__v1" in name for name in there if not name.endswith(".json"))
    if layout == "coco":
        data = json.loads((target / "annotations/instances_train2017.json").read_text())
        assert [image["file_name"] for image in data["images"]] == [f"{number:012}__v1.png" for number in range(2)]
        assert {box["image_id"] for box in data["annotations"]} == {image["id"] for image in data["images"]}
        assert not (target / "annotations/instances_val2017.json").exists()


def test_kinds_of_images_are_kept_with_what_their_files_say(tmp_path: Path, augmenter: Augmenter) -> None:
    source = tmp_path / "in"
    source.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    files.picture(1).save(source / "turned.jpg", exif=exif, icc_profile=b"a profile of colours" * 10)
    files.picture(2, mode="RGBA").save(source / "clear.png")
    files.picture(3, mode="L").save(source / "gray.png")
    files.picture(4, mode="1").save(source / "bilevel.png")
    files.picture(5, mode="P").save(source / "palette.gif")
    Image.fromarray(np.asarray(files.picture(6, mode="L")).astype(np.uint16) * 257).save(source / "deep.png")
    target, outcome = augment(source, augmenter)
    assert (outcome.done, outcome.failed) == (6, [])
    found = {}
    for path in sorted(target.glob("*__v1.png")):
        with Image.open(path) as image:
            found[path.name.partition("__")[0]] = (image.mode, image.size)
    assert found == {
        "bilevel": ("1", (40, 32)),
        "clear": ("RGBA", (40, 32)),
        "deep": ("I;16", (40, 32)),
        "gray": ("L", (40, 32)),
        "palette": ("RGB", (40, 32)),
        "turned": ("RGB", (40, 32)),
    }
    with Image.open(target / "turned__v1.png") as turned:
        assert (turned.getexif()[0x0112], turned.info["icc_profile"][:9]) == (6, b"a profile")
    with Image.open(target / "clear__v1.png") as clear, Image.open(source / "clear.png") as original:
        assert np.array_equal(clear.getchannel("A"), original.getchannel("A"))


def test_balanced_classes_are_of_one_size(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 5, "dog": 2, "owl": 1})
    target, outcome = augment(source, augmenter, copies=0, balance=True)
    assert np.bincount(ImageFolder(str(target)).targets).tolist() == [5, 5, 5]
    assert {name: count.copies for name, count in outcome.classes.items()} == {"cat": 0, "dog": 3, "owl": 4}


def test_only_images_that_can_be_read_count_when_classes_are_balanced(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 4, "dog": 2})
    (source / "dog" / "0.png").write_bytes(b"not an image")
    target, outcome = augment(source, augmenter, copies=0, balance=True)
    assert len(list(target.glob("dog/1__v*.png"))) == 3
    assert [path for path, _ in outcome.failed] == [str(source / "dog/0.png")]


def test_neighbours_and_gate_come_from_the_train_images(tmp_path: Path, weights: Path) -> None:
    source = files.imagefolder(tmp_path / "in", {"train/cat": 6, "train/dog": 6, "val/cat": 2})
    between = Augmenter.load(weights, "interpolate,style", device="cpu")
    target, outcome = augment(source, between, gate="nearest", copies=2)
    assert between.bank is None  # the caller's is left alone
    there = {name for name in files.files_below(target) if "__v" in name}
    records = {name: record for name, record in files.records_of(target).items() if record.copy}
    assert there == {name for name, record in records.items() if record.accepted}
    assert {record.operator for record in records.values() if record.accepted} == {"interpolate", "style"}
    assert outcome.refused == sum(not record.accepted for record in records.values()) > 0
    assert outcome.done == len(there)
    for label, count in outcome.classes.items():
        mine = [record for record in records.values() if record.label == label]
        assert (count.copies, count.refused) == (sum(one.accepted for one in mine), sum(not one.accepted for one in mine))
        assert count.accepted == count.copies <= count.tried


@pytest.mark.parametrize("layout", ["coco", "yolo", "masks"])
def test_boxes_and_masks_forbid_operators_that_move_pixels(tmp_path: Path, weights: Path, layout: str) -> None:
    getattr(files, layout)(tmp_path / "in")
    moving = Augmenter.load(weights, "jitter,interpolate+style,sample", device="cpu")
    with pytest.raises(UsageError, match=r"interpolate, sample may move .* \(jitter, resample, hyper, style, requantise\)"):
        augment(tmp_path / "in", moving)
    assert not (tmp_path / "out").exists()
    _, outcome = augment(tmp_path / "in", Augmenter.load(weights, "style", device="cpu"))
    assert outcome.done > 0


@pytest.mark.parametrize(
    ("operators", "options", "folder", "message"),
    [
        ("sample", {}, ".", "sample work within a class"),
        ("jitter", {"gate": "nearest"}, ".", "the gate compares classes"),
        ("mix", {}, "cat", "mix mixes classes"),
        ("jitter", {"balance": True}, ".", "balancing needs classes"),
        ("jitter", {"copies": 0}, "cat", "at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, weights: Path, operators: str, options: dict[str, Any], folder: str, message: str
) -> None:
    files.save(tmp_path / "in", f"{folder}/a.png", 1)
    with pytest.raises(UsageError, match=message):
        augment(tmp_path / "in", Augmenter.load(weights, operators, device="cpu"), **options)
    assert not (tmp_path / "out").exists()


def test_test_images_that_are_train_images_too_are_told(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path / "in", {"train/cat": 2, "test/cat": 2})
    Image.fromarray(files.pixels_of(source / "train/cat/1.png")).save(source / "test/cat/1.bmp")
    target, outcome = augment(source, augmenter)
    assert outcome.same == [("test/cat/1.bmp", "train/cat/1.png")]
    assert outcome.notes == []
    assert new_files(source, target) == ["train/cat/0__v1.png", "train/cat/1__v1.png"]


def test_train_images_that_are_there_twice_are_told(tmp_path: Path, augmenter: Augmenter) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        files.save(tmp_path / "in", name, 1)
    _, outcome = augment(tmp_path / "in", augmenter)
    assert outcome.notes == ["1 train images are others, too, pixel for pixel, and so are their copies: dog/b.png is cat/a.png"]


def test_copies_do_not_depend_on_what_else_is_in_the_folder(tmp_path: Path, augmenter: Augmenter) -> None:
    few, _ = augment(files.imagefolder(tmp_path / "few" / "in", {"cat": 1}), augmenter, copies=2)
    many, _ = augment(files.imagefolder(tmp_path / "many" / "in", {"cat": 4, "dog": 3}), augmenter, copies=3)
    for name in ("cat/0__v1.png", "cat/0__v2.png"):
        assert (few / name).read_bytes() == (many / name).read_bytes()
    other, _ = augment(files.imagefolder(tmp_path / "other" / "in", {"cat": 1}), augmenter, seed=1)
    assert (few / "cat/0__v1.png").read_bytes() != (other / "cat/0__v1.png").read_bytes()
