"""An augmenting job that was stopped, and what is in its output folder when it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vaetools import Augmenter
from vaetools.dataset.books import AugmentOutcome
from vaetools.dataset.job import Options, augment_folder
from vaetools.dataset.neighbours import BANK
from vaetools.dataset.records import Job, Record, Records
from vaetools.errors import UsageError
from vaetools.folder.manifest import MANIFEST

from . import dataset_files as files
from .augment_models import tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def augmenter(weights: Path) -> Augmenter:
    return Augmenter.load(weights, "jitter", device="cpu")


class Interrupting:
    """Progress that stops the job after so many files."""

    def __init__(self, after: int) -> None:
        self.left = after

    def start(self, files: int, size: int) -> None:
        pass

    def advance(self, size: int, pixels: int) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return files.imagefolder(tmp_path / "in", {"train/cat": 4, "train/dog": 3, "val/cat": 1})


def go(source: Path, target: Path, augmenter: Augmenter, options: Options = Options()) -> AugmentOutcome:
    return augment_folder(source, target, augmenter, options)


def test_the_same_call_again_has_nothing_to_do(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    go(source, tmp_path / "out", augmenter)
    before = files.files_below(tmp_path / "out")
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}
    outcome = go(source, tmp_path / "out", augmenter)
    assert (outcome.done, outcome.skipped, outcome.files, outcome.images) == (0, 7, 0, 7)
    assert outcome.classes["cat"].copies == 4
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == times


def test_only_what_is_missing_or_cut_short_is_made_again(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    target = tmp_path / "out"
    go(source, target, augmenter)
    before = files.files_below(target)
    (target / "train/cat/2__v1.png").unlink()
    (target / "train/dog/0__v1.png").write_bytes(b"cut")
    (target / "val/cat/0.png").unlink()
    outcome = go(source, target, augmenter)
    assert (outcome.done, outcome.skipped, outcome.files) == (2, 5, 1)
    assert files.files_below(target) == before


@pytest.mark.parametrize("layout", ["coco", "masks", "yolo"])
def test_what_belongs_to_a_copy_comes_back_alone(tmp_path: Path, augmenter: Augmenter, layout: str) -> None:
    source, target = getattr(files, layout)(tmp_path / "in"), tmp_path / "out"
    go(source, target, augmenter)
    before = files.files_below(target)
    gone = [name for name in before if name.endswith((".json", "__v1.txt", "__v1_mask.png"))]
    for name in gone:
        (target / name).unlink()
    outcome = go(source, target, augmenter)
    assert gone
    assert (outcome.done, files.files_below(target)) == (0, before)


def test_an_interrupted_job_goes_on(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    go(source, tmp_path / "whole", augmenter, Options(copies=3))
    with pytest.raises(KeyboardInterrupt, match=r"^\d+ copies are done; the same command goes on from there"):
        augment_folder(source, tmp_path / "out", augmenter, Options(copies=3), progress=Interrupting(5))
    go(source, tmp_path / "out", augmenter, Options(copies=3))
    assert files.files_below(tmp_path / "out") == files.files_below(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob("*.tmp"))


RUN = """
import os, signal, sys
from pathlib import Path
from vaetools import Augmenter
from vaetools.dataset.job import Options, augment_folder

class Killing:
    left = 17

    def start(self, files, size):
        pass

    def advance(self, size, pixels):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

augmenter = Augmenter.load(sys.argv[1], "jitter,style", device="cpu")
augment_folder(Path(sys.argv[2]), Path(sys.argv[3]), augmenter, Options(copies=6, gate="nearest"), progress=Killing())
"""


def test_a_kill_does_no_harm(tmp_path: Path, weights: Path) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 3, "dog": 3}, size=(192, 96))  # several batches
    options = Options(copies=6, gate="nearest")
    whole = go(source, tmp_path / "whole", Augmenter.load(weights, "jitter,style", device="cpu"), options)
    target = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", RUN, str(weights), str(source), str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    there = {name for name in files.files_below(target) if "__v" in name}
    records = files.records_of(target)
    assert all(records[name].size == (target / name).stat().st_size for name in there)
    outcome = go(source, target, Augmenter.load(weights, "jitter,style", device="cpu"), options)
    assert 0 < len(there) < whole.done == outcome.done + outcome.skipped
    assert files.files_below(target) == files.files_below(tmp_path / "whole")
    assert not list(target.rglob("*.tmp"))


def test_images_that_go_through_the_network_together_do_so_again(tmp_path: Path, weights: Path) -> None:
    source = files.imagefolder(tmp_path / "in", {"cat": 3, "dog": 2})
    files.save(source, "cat/tall.png", 9, size=(32, 40))
    together = Augmenter.load(weights, "jitter", device="cpu", exact=False)
    go(source, tmp_path / "out", together, Options(copies=2))
    before = files.files_below(tmp_path / "out")
    for name in ("cat/1__v2.png", "cat/tall__v1.png"):
        (tmp_path / "out" / name).unlink()
    assert go(source, tmp_path / "out", together, Options(copies=2)).done == 2
    assert files.files_below(tmp_path / "out") == before


def test_more_copies_are_added_and_fewer_refused(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    target = tmp_path / "out"
    go(source, target, augmenter)
    outcome = go(source, target, augmenter, Options(copies=2))
    assert (outcome.done, outcome.skipped) == (7, 7)
    with pytest.raises(UsageError, match=r"holds 7 files that are not of this job, such as .*__v2.png.*--on-exists overwrite"):
        go(source, target, augmenter, Options(copies=1))
    outcome = go(source, target, augmenter, Options(copies=1, on_exists="overwrite"))
    assert (outcome.done, outcome.skipped) == (0, 7)
    go(source, tmp_path / "anew", augmenter)
    assert files.files_below(target) == files.files_below(tmp_path / "anew")


def test_images_that_come_later_are_added(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    go(source, tmp_path / "out", augmenter)
    files.save(source, "train/cat/late.png", 77)
    outcome = go(source, tmp_path / "out", augmenter)
    assert (outcome.done, outcome.skipped, outcome.files) == (1, 7, 1)


def test_copies_of_an_image_that_has_changed_are_made_anew(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    go(source, tmp_path / "out", augmenter)
    files.save(source, "train/cat/0.png", 99)
    os.utime(source / "train/cat/1.png", ns=(1, 1))  # the same pixels: its file is copied again, its copy stays
    outcome = go(source, tmp_path / "out", augmenter)
    assert (outcome.done, outcome.skipped, outcome.files) == (1, 6, 2)
    go(source, tmp_path / "anew", augmenter)
    assert files.files_below(tmp_path / "out") == files.files_below(tmp_path / "anew")


def test_copies_of_an_image_whose_metadata_have_changed_are_made_anew(tmp_path: Path, augmenter: Augmenter) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    image = files.picture(1)
    for orientation in (1, 6):
        exif = image.getexif()
        exif[0x0112] = orientation
        source.mkdir(exist_ok=True)
        image.save(source / "a.png", exif=exif)
        assert go(source, target, augmenter).done == 1
    go(source, tmp_path / "anew", augmenter)
    assert files.files_below(target) == files.files_below(tmp_path / "anew")


def test_other_settings_are_refused_or_replace_what_is_there(source: Path, tmp_path: Path, weights: Path) -> None:
    target = tmp_path / "out"
    go(source, target, Augmenter.load(weights, "jitter", device="cpu"), Options(seed=1, copies=2))
    before = files.files_below(target)
    other = Augmenter.load(weights, "hyper", 0.25, device="cpu")
    with pytest.raises(UsageError, match=r'operators \["jitter"\] there, \["hyper"\] now; seed 1 there, 2 now; strength .*0.25'):
        go(source, target, other, Options(seed=2))
    assert files.files_below(target) == before
    outcome = go(source, target, other, Options(seed=2, on_exists="overwrite"))
    assert (outcome.done, outcome.skipped) == (7, 0)
    go(source, tmp_path / "anew", other, Options(seed=2))
    assert files.files_below(target) == files.files_below(tmp_path / "anew")


def test_a_bank_is_kept_until_its_images_change(tmp_path: Path, weights: Path) -> None:
    source, target = files.imagefolder(tmp_path / "in", {"cat": 3, "dog": 3}), tmp_path / "out"
    styled = Augmenter.load(weights, "style", device="cpu")
    go(source, target, styled)
    bank = (target / BANK).read_bytes()
    (target / "cat/0__v1.png").unlink()
    told: list[str] = []
    augment_folder(source, target, styled, tell=told.append)
    assert not any("encoding" in line for line in told)
    assert (target / BANK).read_bytes() == bank
    (target / BANK).unlink()
    assert go(source, target, styled).skipped == 6  # it is fitted again, to the same
    assert (target / BANK).read_bytes() == bank
    files.save(source, "cat/late.png", 50)
    with pytest.raises(UsageError, match=r"was written with other settings \(bank .*images "):
        go(source, target, styled)


def test_overwrite_mends_what_is_not_as_it_was_written(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    target = tmp_path / "out"
    go(source, target, augmenter)
    before = files.files_below(target)
    for name in ("train/cat/0__v1.png", "val/cat/0.png"):
        (target / name).write_bytes(bytes(len(before[name])))
    assert go(source, target, augmenter).done == 0
    outcome = go(source, target, augmenter, Options(on_exists="overwrite"))
    assert (outcome.done, outcome.files, files.files_below(target)) == (1, 1, before)


def test_files_of_others_are_never_replaced_unless_asked(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    target = tmp_path / "out"
    place = files.save(target, "train/cat/0__v1.png", 5)
    before = place.read_bytes()
    for on_exists in ("skip", "error"):
        with pytest.raises(UsageError, match=r"0__v1.png: there already, and not written by such a job"):
            go(source, target, augmenter, Options(on_exists=on_exists))
    assert (files.files_below(target), list(target.glob(".*"))) == ({"train/cat/0__v1.png": before}, [])
    go(source, target, augmenter, Options(on_exists="overwrite"))
    assert place.read_bytes() != before


def test_error_starts_in_a_new_folder_only(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    go(source, tmp_path / "out", augmenter, Options(on_exists="error"))
    with pytest.raises(UsageError, match="holds augmented images already"):
        go(source, tmp_path / "out", augmenter, Options(on_exists="error"))


def test_two_jobs_do_not_write_to_one_folder(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    (tmp_path / "out").mkdir()
    with Records.open(tmp_path / "out"), pytest.raises(UsageError, match="another job is writing"):
        go(source, tmp_path / "out", augmenter)


def test_nothing_is_removed_or_written_through_links(source: Path, tmp_path: Path, augmenter: Augmenter) -> None:
    target, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    go(source, target, augmenter)
    os.rename(target / "train", elsewhere)
    (target / "train").symlink_to(elsewhere)
    before = files.files_below(elsewhere)
    outcome = go(source, target, augmenter, Options(seed=9, on_exists="overwrite"))
    assert files.files_below(elsewhere) == before
    assert {reason.partition(" ")[2] for _, reason in outcome.failed} == {"is a link, and nothing is written through links"}


def test_records_survive_what_manifests_do(tmp_path: Path) -> None:
    record = Record("a.png", "a__v1.png", copy=1, label="cat", operator="jitter", strength=0.5, seed=2**62, size=5, notes=("x",))
    with Records.open(tmp_path) as records:
        records.append([Job({"seed": 1}), record, Record("b", "b", size=3)])
    with (tmp_path / MANIFEST).open("ab") as file:
        file.write(b'{"parent": "c", "output": "c", "new": 1}\n{"parent": "d", "outp\n{"job": 3}\n{"path": "a", "output": "b"}\n')
        file.write(b'{"parent": "e", "output": "e", "size": "large"}\n{"parent": "f", "out')
    with Records.open(tmp_path) as records:
        records.append([Record("g", "g")])
    read = Records.read(tmp_path)
    assert (read.job, read.last("a.png", "a__v1.png")) == (Job({"seed": 1}), record)
    assert [one.parent for one in read.files] == ["a.png", "b", "c", "g"]
