"""An augmenting job that meets what it should not."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vaetools import Augmenter
from vaetools.augment.operators import OPERATORS
from vaetools.dataset import work
from vaetools.dataset.job import Options, augment_folder, preview_folder
from vaetools.dataset.layouts import open_dataset
from vaetools.dataset.preparation import about_lonely
from vaetools.errors import ImageError, UsageError, VaetoolsError
from vaetools.folder.ledger import Product
from vaetools.images.tensors import to_tensor
from vaetools.model.space import LatentSpace
from vaetools.model.vae import VAE
from vaetools.model.weights import load_weights, save_weights

from . import dataset_files as files
from .augment_models import tiny_weights
from .conftest import tiny


@pytest.fixture(scope="module")
def augmenter(tmp_path_factory: pytest.TempPathFactory) -> Augmenter:
    return Augmenter.load(tiny_weights(tmp_path_factory.mktemp("weights")), "jitter", device="cpu")


def test_a_bad_image_is_one_line_and_the_others_are_done(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path / "in", {"train/cat": 3, "val/cat": 1})
    (source / "train/cat/0.png").write_bytes((source / "train/cat/0.png").read_bytes()[:200])
    (source / "train/cat/word.jpg").write_text("not an image")
    (source / "val/cat/0.png").write_text("nor this")
    files.save(source, "train/cat/large.png", 5, size=(64, 64))
    outcome = augment_folder(source, tmp_path / "out", augmenter, Options(max_pixels=50 * 50))
    assert [Path(path).name for path, _ in outcome.failed] == ["0.png", "large.png", "word.jpg"]
    assert "above the limit" in outcome.failed[1][1]
    assert outcome.notes == ["val/cat/0.png, which is not for training: cannot be read (not an image Pillow can read)"]
    assert (outcome.images, outcome.done, outcome.files) == (2, 2, 6)
    assert (tmp_path / "out/train/cat/word.jpg").read_text() == "not an image"  # as it was


def test_nothing_but_bad_images_is_refused(tmp_path: Path, augmenter: Augmenter) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("not an image")
    with pytest.raises(UsageError, match=r"none of the 1 train images can be augmented; the first: a.png: cannot be read"):
        augment_folder(tmp_path / "in", tmp_path / "out", augmenter)
    assert not (tmp_path / "out").exists()


def test_a_model_of_gray_images_takes_those_alone(tmp_path: Path) -> None:
    save_weights(VAE(tiny(image_channels=1, name="gray")), None, tmp_path)
    gray = Augmenter(LatentSpace(load_weights(next(tmp_path.glob("gray-*.safetensors"))), "cpu"), "jitter,style")
    files.save(tmp_path / "in", "colour.png", 1)
    files.save(tmp_path / "in", "gray.png", 2, mode="L")
    files.save(tmp_path / "in", "more.png", 3, mode="LA")
    outcome = augment_folder(tmp_path / "in", tmp_path / "out", gray)
    assert outcome.done == 2
    assert [(Path(path).name, reason.partition(",")[0]) for path, reason in outcome.failed] == [
        ("colour.png", "the model gray is for gray images")
    ]


def test_coco_with_missing_and_broken_images(tmp_path: Path, augmenter: Augmenter) -> None:
    source = tmp_path / "in"
    files.save(source, "images/a.png", 1)
    (source / "images" / "broken.png").write_text("not an image")
    files.write_json(source / "annotations.json", files.coco_json(["a.png", "broken.png", "gone.png"]))
    outcome = augment_folder(source, tmp_path / "out", augmenter, Options(copies=2))
    assert [Path(path).name for path, _ in outcome.failed] == ["broken.png", "gone.png"]
    after = json.loads((tmp_path / "out" / "annotations.json").read_text())
    names = [image["file_name"] for image in after["images"]]
    assert names == ["a.png", "broken.png", "gone.png", "a__v1.png", "a__v2.png"]


class Beforehand:
    """Progress that does something before the first file is read."""

    def __init__(self, what: Callable[[], object]) -> None:
        self.what = what

    def start(self, files: int, size: int) -> None:
        self.what()

    def advance(self, size: int, pixels: int) -> None:
        pass


def test_an_image_that_changes_meanwhile_fails(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 3, "dog": 3})
    change = Beforehand(lambda: files.save(source, "dog/1.png", 99))
    outcome = augment_folder(source, tmp_path / "out", augmenter, progress=change)
    assert [(Path(path).name, reason.partition(";")[0]) for path, reason in outcome.failed] == [
        ("1.png", "it was changed while the job ran")
    ]
    assert not (tmp_path / "out/dog/1__v1.png").exists()


@pytest.mark.parametrize("broken", [False, True])
def test_no_bank_is_made_of_images_that_change_meanwhile(tmp_path: Path, augmenter: Augmenter, broken: bool) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 3, "dog": 3})

    def tell(line: str) -> None:
        if line.startswith("encoding"):
            files.save(source, "dog/1.png", 99)
            if broken:
                (source / "dog/1.png").write_text("not an image")

    with pytest.raises(ImageError, match=r"dog/1.png: (it was changed while the job ran|cannot be read)"):
        augment_folder(source, tmp_path / "out", augmenter, Options(gate="nearest"), tell=tell)
    assert not files.files_below(tmp_path / "out")


def test_a_file_that_came_where_a_copy_failed_is_never_replaced_unasked(tmp_path: Path, augmenter: Augmenter) -> None:
    source, target = files.imagefolder(tmp_path / "in", {"cat": 2}), tmp_path / "out"
    original = (source / "cat/1.png").read_bytes()
    change = Beforehand(lambda: files.save(source, "cat/1.png", 99))
    assert augment_folder(source, target, augmenter, Options(copies=2), progress=change).failed
    (source / "cat/1.png").write_bytes(original)
    place = files.save(target, "cat/1__v2.png", 5)
    own = place.read_bytes()
    with pytest.raises(UsageError, match=r"1__v2.png: there already, and not written by such a job"):
        augment_folder(source, target, augmenter, Options(copies=2))
    augment_folder(source, target, augmenter, Options(seed=1, on_exists="overwrite"))  # which has no such name
    assert place.read_bytes() == own


def test_a_copy_that_fails_later_is_still_known_for_the_jobs_own(tmp_path: Path, augmenter: Augmenter) -> None:
    source, target = files.imagefolder(tmp_path / "in", {"cat": 2}), tmp_path / "out"
    augment_folder(source, target, augmenter)
    files.save(source, "cat/1.png", 98)
    change = Beforehand(lambda: files.save(source, "cat/1.png", 99))
    assert augment_folder(source, target, augmenter, progress=change).failed
    outcome = augment_folder(source, target, augmenter)
    assert (outcome.done, outcome.failed) == (1, [])


def test_a_full_disk_ends_the_job_with_advice(tmp_path: Path, augmenter: Augmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *rest: object, **options: object) -> Product:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = files.imagefolder(tmp_path / "in", {"cat": 3})
    monkeypatch.setattr(work, "save_picture", full)
    with pytest.raises(VaetoolsError, match=r"no space left on device; 0 files are done: free some space"):
        augment_folder(source, tmp_path / "out", augmenter)
    monkeypatch.undo()
    outcome = augment_folder(source, tmp_path / "out", augmenter)
    assert (outcome.done, outcome.failed) == (3, [])


def test_the_output_must_not_lie_in_the_source_or_be_it(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path, {"cat": 1})
    with pytest.raises(UsageError, match="must not be inside one another"):
        augment_folder(source, tmp_path / "out", augmenter)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="must not be the input folder"):
        augment_folder(source, tmp_path, augmenter)


def test_folders_in_the_way_are_told_beforehand(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.coco(tmp_path / "in")
    (tmp_path / "out/annotations/instances_train2017.json").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"instances_train2017.json: is a folder, where a file is to be written"):
        augment_folder(source, tmp_path / "out", augmenter)


def test_names_of_any_bytes(tmp_path: Path, augmenter: Augmenter) -> None:
    name = os.fsdecode(b"caf\xe9\n")
    source = files.imagefolder(tmp_path / "in", {name: 1})
    for done in (1, 0):
        assert augment_folder(source, tmp_path / "out", augmenter).done == done
    assert sorted(files.files_below(tmp_path / "out")) == [f"{name}/0.png", f"{name}/0__v1.png"]


def test_many_copies_of_a_large_image_come_in_parts(tmp_path: Path, augmenter: Augmenter) -> None:
    files.save(tmp_path / "in", "large.png", 1, size=(512, 256))
    outcome = augment_folder(tmp_path / "in", tmp_path / "out", augmenter, Options(copies=6))
    image = to_tensor(files.pixels_of(tmp_path / "in/large.png"))
    records = files.records_of(tmp_path / "out")
    assert outcome.done == 6
    for copy in (1, 6):
        name = f"large__v{copy}.png"
        assert torch.equal(
            augmenter.augment([image], [records[name].seed]).images[0], to_tensor(files.pixels_of(tmp_path / "out" / name))
        )


def test_unknown_words_are_refused() -> None:
    with pytest.raises(UsageError, match="on_exists must be one of"):
        Options(on_exists="never")
    with pytest.raises(UsageError, match="unknown gate 'closed'"):
        Options(gate="closed")


def test_a_preview_looks_on_until_it_has_enough(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 20})
    names = sorted(path.name for path in source.glob("cat/*"))
    for name in names[:2] + names[4::2]:
        (source / "cat" / name).write_text("not an image")
    good = sorted(path.name for path in source.glob("cat/*") if path.read_bytes()[:1] != b"n")
    page = preview_folder(source, tmp_path / "out", augmenter)[1].read_text()
    assert sum(f"cat/{name}" in page for name in good) == 8
    for name in names:
        (source / "cat" / name).write_text("not an image")
    with pytest.raises(UsageError, match="none of the 20 train images can be augmented"):
        preview_folder(source, tmp_path / "out", augmenter)


def test_a_preview_shows_readable_train_images(tmp_path: Path, augmenter: Augmenter) -> None:
    source = files.imagefolder(tmp_path / "in", {"train/cat": 3, "train/dog": 3, "val/cat": 1})
    (source / "train/cat/0.png").write_text("not an image")
    paths = preview_folder(source, tmp_path / "out", augmenter, Options(gate="nearest"))
    assert [path.name for path in paths] == [".vaetools-preview.png", ".vaetools-preview.html"]
    page = paths[1].read_text()
    assert "train/cat/1.png" in page
    assert "val/cat" not in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)


@pytest.mark.parametrize(("chains", "told"), [(("extrapolate",), "all"), (("extrapolate", "style"), "some"), (("style",), "")])
def test_classes_of_one_image_are_told(tmp_path: Path, chains: tuple[str, ...], told: str) -> None:
    dataset = open_dataset(files.imagefolder(tmp_path, {"cat": 2, "dog": 1}))
    augmenter: Any = SimpleNamespace(operators=[[OPERATORS[name]] for name in chains])
    seen: Any = {item.path: None for item in dataset.items}
    notes = about_lonely(dataset, seen, augmenter)
    expected = [f"1 classes have one image, such as 'dog': {told}"] if told else []
    assert [note.partition(" of its copies")[0] for note in notes] == expected
