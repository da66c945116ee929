"""One augmenting job on several workers: the same data set from every engine, whoever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vaetools.cli import main
from vaetools.dataset import work
from vaetools.dataset.engine import AugmentSpec, augment_on_engine
from vaetools.dataset.job import Options, augment_folder
from vaetools.dataset.neighbours import BANK
from vaetools.errors import UsageError, VaetoolsError
from vaetools.folder.manifest import MANIFEST

from . import dataset_files as files
from .augment_models import tiny_weights
from .engine_folders import descendants, tree

KINDS = ("balanced", "coco", "yolo")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    files.imagefolder(folder / "balanced", {"train/cat": 9, "train/dog": 4, "val/cat": 1})
    (folder / "balanced/train/cat/broken.png").write_bytes(b"no image")
    files.coco(folder / "coco")
    files.yolo(folder / "yolo")
    (folder / "yolo/train.txt").write_text("images/train/a.jpg\nimages/train/empty.png\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def small_units() -> Any:
    """Several units of small data sets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "PIXELS_ON_CPU", 2_560)  # one copy
        yield


def spec_of(kind: str, sources: Path, target: Path, weights: Path, **options: Any) -> AugmentSpec:
    options = {"copies": 1, "balance": True, "gate": "nearest"} | options if kind == "balanced" else {"copies": 3} | options
    common: dict[str, Any] = {"model": str(weights), "operators": "jitter,style", "strength": 0.9, "quality": 50.0}
    return AugmentSpec(source=sources / kind, target=target, device="cpu", options=Options(**options), **common)


def plain_of(spec: AugmentSpec) -> Any:
    return augment_folder(spec.source, spec.target, spec.augmenter("cpu"), spec.options)


@pytest.fixture(scope="module")
def plain(sources: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plain")
    for kind in KINDS:
        plain_of(spec_of(kind, sources, folder / kind, weights))
    return {kind: folder / kind for kind in KINDS}


class Counting:
    """Progress; kills a worker when some files are done, if it is told which process is one."""

    def __init__(self, is_worker: Callable[[str], bool] | None = None) -> None:
        self.is_worker, self.files, self.done, self.killed = is_worker, 0, 0, 0

    def start(self, files: int, size: int) -> None:
        self.files = files

    def advance(self, size: int, pixels: int) -> None:
        self.done += 1
        if self.done > 4 and self.is_worker and not self.killed:
            self.killed = next(pid for pid, line in descendants(os.getpid()) if self.is_worker(line))
            os.kill(self.killed, signal.SIGKILL)


def told(outcome: Any) -> dict[str, Any]:
    """What an outcome says, but for the time."""
    return outcome.to_dict() | {"seconds": 0.0}


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_write_what_one_does(
    kind: str, sources: Path, weights: Path, plain: dict[str, Path], tmp_path: Path
) -> None:
    outcome = augment_on_engine(spec_of(kind, sources, tmp_path / "out", weights), "local", 2)
    assert tree(tmp_path / "out") == tree(plain[kind])
    assert sorted(path.name for path in (tmp_path / "out").glob(".*")) == sorted((MANIFEST, BANK))
    again = plain_of(spec_of(kind, sources, tmp_path / "again", weights))
    assert told(outcome) == told(again)
    if kind == "balanced":
        assert 0 < outcome.refused < outcome.classes["dog"].tried
        assert [Path(path).name for path, _ in outcome.failed] == ["broken.png"]


def test_a_killed_process_changes_nothing(sources: Path, weights: Path, plain: dict[str, Path], tmp_path: Path) -> None:
    seen = iter((False, True))  # the first of them is the one that the workers are forked from
    killer = Counting(lambda line: "forkserver" in line and next(seen))
    spec = spec_of("balanced", sources, tmp_path / "out", weights, on_exists="error")
    outcome = augment_on_engine(spec, "local", 2, progress=killer)
    assert killer.killed
    assert killer.done == killer.files > outcome.done + outcome.refused == outcome.classes["cat"].images * 2 * 2 - 13
    assert tree(tmp_path / "out") == tree(plain["balanced"])


class Dying(AugmentSpec):
    """Ends its process instead of doing one of the shares."""

    def process(self, share: Any, loaded: Any, **options: Any) -> Any:
        if share.shard.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(share, loaded, **options)


def test_workers_are_forked_before_the_augmenter_is_imported() -> None:
    """Else it would refuse to use CUDA in them."""
    lines = ("import importlib, sys", f"[importlib.import_module(name) for name in {AugmentSpec.imports}]")
    check = "sys.exit('torch' not in sys.modules or 'vaetools.augment.augmenter' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", "\n".join((*lines, check))], check=False).returncode == 0


class Coarser(AugmentSpec):
    """In a worker, another one than where the job is planned."""

    def load(self, device: str, lanes: Any) -> Any:
        return replace(AugmentSpec(**vars(self)), quality=40.0).augmenter(device)


def test_a_share_that_kills_every_worker_leaves_no_whole_data_set(sources: Path, weights: Path, tmp_path: Path) -> None:
    spec = spec_of("coco", sources, tmp_path / "out", weights)
    dying = Dying(**vars(spec))
    with pytest.raises(VaetoolsError, match=r"3 workers died one after another in shard 1/\d \(exit code -9\)"):
        augment_on_engine(dying, "local", 1)
    assert not list(tmp_path.rglob("*_train2017.json"))
    plain_of(spec)
    assert len(list(tmp_path.rglob("*_train2017.json"))) == 2


def vaetools(kind: str, sources: Path, target: Path, weights: Path, *options: object) -> list[str]:
    common = ("--model", weights, "--device", "cpu", "--operators", "jitter,style", "--copies", 100, *options)
    return [str(word) for word in ("augment", sources / kind, "-o", target, *common)]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "vaetools", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(command: list[str]) -> Result:
    return CliRunner().invoke(main, command)


def test_an_interrupted_job_goes_on_with_and_without_workers(
    sources: Path, weights: Path, plain: dict[str, Path], tmp_path: Path
) -> None:
    class Interrupting(Counting):
        def advance(self, size: int, pixels: int) -> None:
            signal.raise_signal(signal.SIGINT)

    spec = spec_of("coco", sources, tmp_path / "out", weights)
    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt, match="files are done; the same command goes on from there"):
            augment_on_engine(spec, "local", workers, progress=Interrupting())
        there = tree(spec.target)
        assert workers <= len([name for name in there if "__v" in name]) < 6
        assert there.items() <= tree(plain["coco"]).items()  # whole files, and nothing beside them
        assert not list(spec.target.rglob("*_train2017.json"))  # nor what would make a data set of them
        assert sorted(path.name for path in spec.target.glob(".*")) == sorted((MANIFEST, BANK))
    assert plain_of(spec).skipped > 0
    assert tree(spec.target) == tree(plain["coco"])


def test_a_job_that_is_done_needs_no_workers(sources: Path, weights: Path, plain: dict[str, Path]) -> None:
    before = tree(plain["yolo"])
    outcome = augment_on_engine(spec_of("yolo", sources, plain["yolo"], weights), "local", 2)
    assert (outcome.done, outcome.skipped, outcome.files) == (0, 6, 0)
    assert tree(plain["yolo"]) == before


def test_workers_with_another_model_do_nothing(sources: Path, weights: Path, tmp_path: Path) -> None:
    spec = spec_of("coco", sources, tmp_path / "out", weights)
    other = Coarser(**vars(spec))
    with pytest.raises(VaetoolsError, match=r"quality 50.0 there, 40.0 now"):
        augment_on_engine(other, "local", 1)
    assert not list(tmp_path.rglob("*__v*.png"))


def test_files_that_fail_are_told_of_by_workers_too(sources: Path, weights: Path, tmp_path: Path) -> None:
    """One changes when it has been looked at."""
    spec = spec_of("coco", sources, tmp_path / "out", weights)
    source = files.coco(tmp_path / "in")
    image = source / "train2017/000000000001.jpg"

    class Changing(Counting):
        def start(self, files_: int, size: int) -> None:
            files.save(source, "train2017/000000000001.jpg", 99)

    outcome = augment_on_engine(AugmentSpec(**vars(spec) | {"source": source}), "local", 1, progress=Changing())
    assert {(path, "changed" in reason) for path, reason in outcome.failed} == {(str(image), True)}
    assert outcome.done == 3
    annotations = json.loads((tmp_path / "out/annotations/instances_train2017.json").read_text())
    assert [one["file_name"] for one in annotations["images"]][2:] == [f"000000000000__v{copy}.png" for copy in (1, 2, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preview", "--workers", 2), "--preview is one process's work"),
        (("--preview", "--shard", "1/2"), "--preview is one process's work"),
        (("--dry-run", "--shard", "1/2"), "--dry-run tells of the data set as a whole"),
        (("--workers", 2, "--shard", "1/2"), "--shard is one process's part of a job"),
        (("--address", "localhost:1"), "an address (--address) is for the engine ray"),
        (("--engine", "local", "--workers", 0), "--workers"),
    ],
)
def test_wrong_usage(sources: Path, weights: Path, tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    done = run(vaetools("coco", sources, tmp_path / "out", weights, *options))
    assert (done.exit_code, message in done.stderr) == (2, True), done.output
    assert not (tmp_path / "out").exists()


def test_without_ray_it_says_what_to_install(
    sources: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'vaetools\[ray\]'"):
        augment_on_engine(spec_of("coco", sources, tmp_path / "out", weights), "ray", 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "a killed actor"])
def test_ray_writes_what_one_process_does(killed: bool, sources: Path, weights: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    process = start(vaetools("coco", sources, out, weights, "--engine", "ray", "--workers", 2, "--json"))
    while killed and process.poll() is None and len(list(out.rglob("*__v*.png"))) < 5:
        time.sleep(0.01)
    if killed:
        actors = [pid for pid, line in descendants(process.pid) if line.startswith("ray::_Actor")]
        assert len(actors) == 2
        os.kill(actors[0], signal.SIGKILL)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert run(vaetools("coco", sources, whole, weights)).exit_code == 0
    assert json.loads(output)["done"] == 200
    assert tree(out) == tree(whole)
    assert sorted(path.name for path in out.glob(".*")) == sorted((MANIFEST, BANK))
