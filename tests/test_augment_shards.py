"""Shards of an augmenting job: together they are the whole, in any order, at the same time, and after any death; alone they are
no data set."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vaetools import Augmenter
from vaetools.cli import main
from vaetools.dataset import work
from vaetools.dataset.books import AugmentOutcome
from vaetools.dataset.engine import AugmentSpec, augment_on_engine
from vaetools.dataset.job import Options, augment_folder
from vaetools.dataset.neighbours import BANK
from vaetools.dataset.preparation import PREPARATION, prepared_by_one
from vaetools.dataset.records import Records
from vaetools.dataset.shard import augment_shard
from vaetools.errors import UsageError
from vaetools.folder.manifest import MANIFEST
from vaetools.folder.shard import Shard

from . import dataset_files as files
from .augment_models import tiny_weights
from .engine_folders import tree

KINDS = ("balanced", "coco", "yolo", "masks")
OPERATORS = "jitter,style"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def augmenter(weights: Path) -> Augmenter:
    return Augmenter.load(weights, OPERATORS, 0.9, device="cpu")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    files.imagefolder(folder / "balanced", {"train/cat": 5, "train/dog": 3, "val/cat": 1})
    (folder / "balanced/train/cat/broken.png").write_bytes(b"no image")
    files.coco(folder / "coco")
    files.yolo(folder / "yolo")
    (folder / "yolo/train.txt").write_text("images/train/a.jpg\nimages/train/empty.png\n")
    files.masks(folder / "masks")
    return folder


@pytest.fixture(scope="module", autouse=True)
def small_units() -> Any:
    """As many as there are copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "PIXELS_ON_CPU", 2_560)
        yield


@pytest.fixture(scope="module")
def plain(sources: Path, augmenter: Augmenter, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plain")
    for kind in KINDS:
        augment_folder(sources / kind, folder / kind, augmenter, options_of(kind))
    return {kind: folder / kind for kind in KINDS}


def options_of(kind: str, **options: Any) -> Options:
    return Options(**{"copies": 2, "balance": kind == "balanced", "gate": "nearest" if kind == "balanced" else None} | options)


class At:
    """Progress that does something when so many files are done."""

    def __init__(self, number: int, call: Callable[[], None]) -> None:
        self.left, self.call, self.files, self.done = number, call, 0, 0

    def start(self, files: int, size: int) -> None:
        self.files = files

    def advance(self, size: int, pixels: int) -> None:
        self.left, self.done = self.left - 1, self.done + 1
        if self.left == 0:
            self.call()


class Death(BaseException):
    """What no except clause of a job takes for its own."""


def die() -> None:
    raise Death


Go = Callable[..., AugmentOutcome]


@pytest.fixture
def go(sources: Path, augmenter: Augmenter, tmp_path: Path) -> Go:
    """One shard of a data set to `tmp_path / "out"`, or all of it."""

    def run(kind: str, shard: str = "", *, progress: At | None = None, tell: Any = None, **options: Any) -> AugmentOutcome:
        given = (sources / kind, tmp_path / "out", augmenter, options_of(kind, **options))
        if not shard:
            return augment_folder(*given, progress=progress, tell=tell)
        return augment_shard(*given, Shard.parse(shard), progress=progress, tell=tell)

    return run


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", list(permutations((1, 2))), ids=str)
def test_two_shards_in_any_order_are_the_whole(
    kind: str, order: tuple[int, ...], go: Go, plain: dict[str, Path], tmp_path: Path
) -> None:
    first, second = (go(kind, f"{index}/2") for index in order)
    assert tree(tmp_path / "out") == tree(plain[kind])
    assert hidden(tmp_path / "out") == hidden(plain[kind])
    assert (first.whole, second.whole, second.left) == (False, True, 0)
    assert first.done > 0
    assert second.done > 0
    assert first.left == second.done + second.files + (second.refused - first.refused)
    assert [Path(path).name for path, _ in first.failed + second.failed] == ["broken.png"] * (kind == "balanced")


def test_what_one_shard_leaves_is_no_data_set(go: Go, plain: dict[str, Path], tmp_path: Path) -> None:
    go("coco", "1/2")
    there = tree(tmp_path / "out")
    assert there.items() < tree(plain["coco"]).items()
    assert not list((tmp_path / "out").rglob("*_train2017.json"))
    assert ".vaetools-manifest.1-of-2.jsonl" in hidden(tmp_path / "out")


def test_counts_of_classes_are_those_of_the_whole(go: Go, plain: dict[str, Path], sources: Path, augmenter: Augmenter) -> None:
    first, second = go("balanced", "1/2"), go("balanced", "2/2")
    again = augment_folder(sources / "balanced", plain["balanced"], augmenter, options_of("balanced"))
    for name, count in again.classes.items():
        assert (second.classes[name].images, second.classes[name].copies) == (count.images, count.copies)
        assert second.classes[name].refused == count.refused
    assert first.done + second.done == again.skipped
    assert sum(one.classes["cat"].accepted for one in (first, second)) == again.classes["cat"].copies


def test_a_shard_that_died_goes_on(go: Go, plain: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(Death):
        go("coco", "1/2", progress=At(1, die))
    assert not go("coco", "2/2").whole
    progress = At(0, die)
    assert go("coco", "1/2", progress=progress).whole
    assert progress.done == progress.files
    assert tree(tmp_path / "out") == tree(plain["coco"])


def test_shards_run_beside_each_other(go: Go, plain: dict[str, Path], tmp_path: Path) -> None:
    """The second one runs in the middle of the first, and does not take the data set for whole."""
    middle = []
    last = go("yolo", "1/2", progress=At(2, lambda: middle.append(go("yolo", "2/2"))))
    assert (middle[0].whole, last.whole) == (False, True)
    assert tree(tmp_path / "out") == tree(plain["yolo"])


def test_all_may_be_there_before_the_last_shard_ends(go: Go, plain: dict[str, Path], tmp_path: Path) -> None:
    """Whoever comes last writes the lists, and not the one that finds another one running."""
    go("coco", "2/2")
    with Records.open_shard(tmp_path / "out", Shard(2, 2)):  # still running, with nothing left to do
        outcome = go("coco", "1/2")
        assert (outcome.whole, outcome.left) == (False, 0)
        assert not list((tmp_path / "out").rglob("*_train2017.json"))
    assert go("coco", "2/2").whole
    assert tree(tmp_path / "out") == tree(plain["coco"])


@pytest.mark.parametrize(
    ("running", "starting"), [("1/2", "1/2"), ("1/2", ""), ("", "1/2"), ("1/2", "3/3")], ids=["same", "whole", "shard", "count"]
)
def test_jobs_that_would_meet_exclude_each_other(go: Go, running: str, starting: str) -> None:
    refused = []

    def other() -> None:
        with pytest.raises(UsageError, match="another job is writing"):
            go("coco", starting)
        refused.append(starting)

    go("coco", running, progress=At(1, other))
    assert refused == [starting]


def test_shards_wait_for_the_one_that_prepares(go: Go, plain: dict[str, Path], tmp_path: Path) -> None:
    lines: list[str] = []
    waits = threading.Event()

    def tell(line: str) -> None:
        lines.append(line)
        if "waited for" in line:
            waits.set()

    (tmp_path / "out").mkdir()
    thread = threading.Thread(target=lambda: go("coco", "1/2", tell=tell))
    with prepared_by_one(tmp_path / "out", lines.append):
        thread.start()
        assert waits.wait(30)
        assert not (tmp_path / "out" / BANK).exists()
    thread.join()
    bank = (tmp_path / "out" / BANK).stat().st_mtime_ns
    told: list[str] = []
    assert go("coco", "2/2", tell=told.append).whole
    assert not any("encoding" in line for line in told)  # the bank is the first one's
    assert (tmp_path / "out" / BANK).stat().st_mtime_ns == bank
    assert tree(tmp_path / "out") == tree(plain["coco"])
    assert not (tmp_path / "out" / PREPARATION).exists()


def test_any_way_goes_on_where_another_one_was_stopped(
    go: Go, weights: Path, sources: Path, plain: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "out"
    with pytest.raises(Death):
        go("masks", progress=At(2, die))
    assert not go("masks", "2/3").whole
    known: dict[str, Any] = {"model": str(weights), "operators": OPERATORS, "strength": 0.9, "quality": 50.0, "device": "cpu"}
    spec = AugmentSpec(source=sources / "masks", target=target, options=options_of("masks"), **known)
    outcome = augment_on_engine(spec, "local", 2)
    assert outcome.done < 6
    assert outcome.skipped > 0
    assert tree(target) == tree(plain["masks"])
    assert go("masks", "1/3").whole
    assert go("masks").done == 0
    assert (tree(target), hidden(target)) == (tree(plain["masks"]), hidden(plain["masks"]))


def test_a_whole_job_ends_what_shards_left(go: Go, plain: dict[str, Path], tmp_path: Path) -> None:
    for index in (1, 2):
        go("coco", f"{index}/2")
    lists = list((tmp_path / "out").rglob("*_train2017.json"))
    for path in lists:
        path.unlink()
    outcome = go("coco")
    assert (outcome.done, outcome.files, outcome.skipped, len(lists)) == (0, 0, 4, 2)
    assert tree(tmp_path / "out") == tree(plain["coco"])


def test_files_that_fail_do_not_keep_the_data_set_from_being_whole(sources: Path, augmenter: Augmenter, tmp_path: Path) -> None:
    source, target = files.coco(tmp_path / "in"), tmp_path / "out"
    image = source / "train2017/000000000001.jpg"
    before, status = image.read_bytes(), image.stat()
    failed = []
    for index in (1, 2):
        change = At(0, die)
        change.start = lambda files_, size: (image.write_bytes(b"gone"), None)[1]  # type: ignore[method-assign]
        outcome = augment_shard(source, target, augmenter, options_of("coco"), Shard(index, 2), progress=change)
        failed += outcome.failed
        image.write_bytes(before)
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert {path for path, _ in failed} == {str(image)}
    assert outcome.whole
    assert (target / "annotations/instances_train2017.json").exists()


def test_overwrite_mends_and_replaces_no_other_job(go: Go, plain: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "out"
    for index in (1, 2):
        go("masks", f"{index}/2")
    spoilt = target / "images/x__v1.png"
    spoilt.write_bytes(bytes(spoilt.stat().st_size))
    assert sum(go("masks", f"{index}/2", on_exists="overwrite").done for index in (1, 2)) == 1
    assert tree(target) == tree(plain["masks"])
    with pytest.raises(UsageError, match=r"seed 0 there, 1 now\); .* a shard replaces nothing of other jobs"):
        go("masks", "1/2", on_exists="overwrite", seed=1)
    assert tree(target) == tree(plain["masks"])


def test_error_wants_none_of_its_own_files_there(go: Go) -> None:
    go("masks", "1/2", on_exists="error")
    go("masks", "2/2", on_exists="error")
    with pytest.raises(UsageError, match="there already"):
        go("masks", "1/2", on_exists="error")


def test_files_of_others_are_never_replaced(go: Go, tmp_path: Path) -> None:
    path = tmp_path / "out/annotations/instances_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UsageError, match="not written by such a job"):
        go("coco", "1/2")
    assert (path.read_text(), hidden(tmp_path / "out")) == ("mine", [])


def test_shards_on_the_command_line(sources: Path, weights: Path, plain: dict[str, Path], tmp_path: Path) -> None:
    common = ["--operators", OPERATORS, "--strength", "0.9", "--copies", "2", "--model", str(weights), "--device", "cpu"]
    command = ["augment", str(sources / "coco"), "-o", str(tmp_path / "out"), *common]
    first = CliRunner().invoke(main, [*command, "--shard", "1/2"])
    assert "the data set is not whole yet: 2 files are left to other shards\n" in first.stdout, first.output
    second = CliRunner().invoke(main, [*command, "--shard", "2/2"])
    assert second.stdout.endswith("all shards are done, and the data set is whole\n")
    assert tree(tmp_path / "out") == tree(plain["coco"])
    assert hidden(tmp_path / "out") == sorted((BANK, MANIFEST))


def test_a_shard_does_not_train(sources: Path, tmp_path: Path) -> None:
    given = ["augment", str(sources / "coco"), "-o", str(tmp_path / "out"), "--fit", str(tmp_path / "run")]
    done = CliRunner().invoke(main, [*given, "--shard", "1/2"])
    assert (done.exit_code, "holds no trained model yet" in done.stderr) == (2, True), done.output
    assert not (tmp_path / "run").exists()


def test_shards_with_other_numbers_of_copies_make_no_whole(go: Go, tmp_path: Path) -> None:
    """The second one begins and ends while the first, of fewer copies, is at work."""
    go("coco", "2/2")
    with pytest.raises(UsageError, match="holds 1 files that are not of this job"):
        go("coco", "1/2", progress=At(1, lambda: (go("coco", "2/2", copies=3), None)[1]))
    assert not list((tmp_path / "out").rglob("*_train2017.json"))
