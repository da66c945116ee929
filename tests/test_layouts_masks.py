"""Masks that are not called so: which are found, which are refused, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaetools.dataset.layouts import open_dataset
from vaetools.errors import UsageError

from . import dataset_files as files
from .medical_files import nifti, volume
from .test_layouts import companions


@pytest.mark.parametrize(
    ("images", "masks"),
    [("JPEGImages", "SegmentationClass"), ("image", "label"), ("images", "gt"), ("imgs", "annotations")],
)
def test_more_names_of_masks(tmp_path: Path, images: str, masks: str) -> None:
    for number in range(2):
        files.save(tmp_path, f"{images}/{number}.jpg", number)
        files.save(tmp_path, f"{masks}/{number}.png", number, mode="L")
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, companions(dataset)) == ("masks", {f"{images}/{n}.jpg": [f"{masks}/{n}.png"] for n in range(2)})


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("train/{}.jpg", "train_masks/{}_mask.gif"),
        ("photo/{}.jpg", "outline/{}.png"),
        ("photo/{}.png", "outline/{}_o.png"),
        ("photo/{}.png", "road_labels/{}.png"),
        ("a/x{}y.png", "b/x{}y.png"),
    ],
)
def test_masks_are_not_taken_for_a_class(tmp_path: Path, images: str, masks: str) -> None:
    for number in range(5):
        files.save(tmp_path, images.format(number), number)
        files.save(tmp_path, masks.format(number), number, mode="L")
    with pytest.raises(UsageError, match=r"most images in \w+ have one in \w+ .* --layout masks; .* --layout imagefolder"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, "imagefolder").classes) == 2


def test_masks_beside_the_train_split_are_not_passed_over(tmp_path: Path) -> None:
    for number in range(3):
        files.save(tmp_path, f"train/{number}.jpg", number)
        files.save(tmp_path, f"train_masks/{number}_mask.png", number, mode="L")
    files.save(tmp_path, "test/9.jpg", 9)
    with pytest.raises(UsageError, match="most images in train have one in train_masks"):
        open_dataset(tmp_path)


def test_classes_that_count_their_images_are_no_masks(tmp_path: Path) -> None:
    for number in range(6):
        for name in ("cat", "dog"):
            files.save(tmp_path, f"{name}/img_{number}.jpg", number)
    assert open_dataset(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("leftImg8bit/train/aachen/{}_leftImg8bit.png", "gtFine/train/aachen/{}_gtFine_labelIds.png"),
        ("imagesTr/{}_0000.png", "labelsTr/{}.png"),
        ("p{}/{}.png", "p{}/{}_mask.png"),
        ("{}.png", "{}_mask.png"),
    ],
    ids=["Cityscapes", "nnU-Net", "patients", "one folder"],
)
def test_masks_that_no_layout_knows_are_refused(tmp_path: Path, image: str, mask: str) -> None:
    for number in range(4):
        files.save(tmp_path, image.format(number, number), number)
        files.save(tmp_path, mask.format(number, number), 9, mode="L")
    with pytest.raises(UsageError, match="--layout masks"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, "plain").train


def test_classes_whose_names_are_of_masks_are_classes(tmp_path: Path) -> None:
    assert open_dataset(files.imagefolder(tmp_path / "both", {"with_mask": 3, "without_mask": 3})).layout == "imagefolder"
    for folder, count in (("label", 3), ("face", 4)):
        for number in range(count):
            files.save(tmp_path / "one", f"{folder}/{folder}{number}.png", number)
    assert open_dataset(tmp_path / "one").layout == "imagefolder"


def test_masks_of_volumes(tmp_path: Path) -> None:
    for folder, mask in (("images", ""), ("masks", "_mask")):
        for name in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            nifti(tmp_path / folder / f"{name}{mask}.nii.gz", volume(2))
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.marks) == ("masks", "masks")
    item = dataset.train[0]
    (companion,) = item.companions
    assert (item.copy_path(1), item.companion_path(companion, 1)) == ("images/a__v1.nii.gz", "masks/a__v1_mask.nii.gz")


def test_images_beside_those_with_masks_are_told(tmp_path: Path) -> None:
    for path in ("images/a.png", "masks/a.png", "1st_manual/a1.png"):
        files.save(tmp_path, path, 1)
    notes = open_dataset(tmp_path).notes
    assert "1 images are neither of the data set nor its masks, and not augmented, such as 1st_manual/a1.png" in notes
