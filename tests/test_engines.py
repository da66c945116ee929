"""One folder job on several workers: the same files from every engine, whoever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from vaetools.cli import main
from vaetools.codec.rate import Rate
from vaetools.errors import UsageError, VaetoolsError
from vaetools.folder.engine import DEATHS, Died, Message, Told, Workers, lanes_of_each, run_shares
from vaetools.folder.engines import gpus_of_each, run_on_engine
from vaetools.folder.ledger import Outcome, Silent, Task
from vaetools.folder.manifest import MANIFEST
from vaetools.folder.plan import Selection
from vaetools.folder.shard import Shard
from vaetools.folder.shares import Share
from vaetools.folder.spec import CompressSpec, DecompressSpec
from vaetools.model.threads import Lanes

from .engine_folders import descendants, make_album, tree

IMAGES = 60


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_album(tmp_path_factory.mktemp("album"), IMAGES, largest=65)


@pytest.fixture(scope="module")
def plain(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("plain") / "out"
    done = CliRunner().invoke(main, ["compress", str(album), "-o", str(target), "--device", "cpu", "--batch", "4"])
    assert done.exit_code == 1  # one file is broken
    return target


def spec_of(album: Path, target: Path, selection: Selection = Selection()) -> CompressSpec:
    return CompressSpec(source=album, target=target, device="cpu", batch_size=4, selection=selection)


class Killer:
    """Kills a process below this one as soon as some files are done."""

    def __init__(self, is_worker: Callable[[str], bool]) -> None:
        self.is_worker, self.files, self.killed = is_worker, 0, 0

    def start(self, files: int, size: int) -> None:
        pass

    def advance(self, size: int, pixels: int) -> None:
        self.files += 1
        if self.files > 4 and not self.killed:
            self.killed = next(pid for pid, line in descendants(os.getpid()) if self.is_worker(line))
            os.kill(self.killed, signal.SIGKILL)


class Script(Workers[int]):
    """Workers that say what was written down for them, one line for each share that they are given."""

    def __init__(self, *lines: Sequence[Message]) -> None:
        self.lines, self.given, self.closed = list(lines), list[tuple[int, Shard]](), list[bool]()
        self.working: dict[int, Sequence[Message]] = {}

    def hire(self, number: int) -> int:
        return number

    def give(self, worker: int, share: Share) -> None:
        self.given.append((worker, share.shard))
        self.working[worker] = self.lines.pop(0)

    def listen(self, workers: Sequence[int]) -> Iterator[tuple[int, Message]]:
        for worker in workers:
            for message in self.working.pop(worker):
                yield worker, message

    def close(self, *, gently: bool) -> None:
        self.closed.append(gently)


class Counting(Silent):
    files = 0

    def advance(self, size: int, pixels: int) -> None:
        self.files += 1


def shares(count: int) -> list[Share]:
    tasks = (Task(Path("a"), Path("b"), "a", "a.vtc"),)
    return [Share(Shard(index + 1, count), (tasks,)) for index in range(count)]


def test_outcomes_are_summed() -> None:
    outcome, workers = Outcome(skipped=1), Script([Outcome(done=2, lowest_psnr=30.0)], [Outcome(done=3, lowest_psnr=20.0)])
    run_shares(workers, 2, shares(2), outcome, Silent())
    assert (outcome.done, outcome.skipped, outcome.lowest_psnr, workers.closed) == (5, 1, 20.0, [True])


def test_the_share_of_a_dead_worker_goes_to_a_new_one_and_no_file_counts_twice() -> None:
    one = (10, 100)
    workers = Script([Told((one, one)), Died("killed")], [Told((one,)), Told((one,)), Told((one,)), Outcome(done=3)])
    progress, outcome = Counting(), Outcome()
    run_shares(workers, 1, shares(1), outcome, progress)
    assert workers.given == [(0, Shard(1, 1)), (1, Shard(1, 1))]
    assert (outcome.done, progress.files) == (3, 3)


def test_a_share_that_kills_every_worker_is_given_up_and_the_others_are_done() -> None:
    workers, outcome = Script(*[[Died("exit code -9")]] * DEATHS, [Outcome(done=1)]), Outcome()
    with pytest.raises(VaetoolsError, match=r"shard 1/2 \(exit code -9\)"):
        run_shares(workers, 1, shares(2), outcome, Silent())
    assert outcome.done == 1


def test_what_a_worker_raises_ends_the_job() -> None:
    workers = Script([VaetoolsError("the disk is full")], [Outcome()])
    with pytest.raises(VaetoolsError, match="the disk is full"):
        run_shares(workers, 1, shares(2), Outcome(), Silent())
    assert workers.closed == [True]


def test_two_processes_write_what_one_does(album: Path, plain: Path, tmp_path: Path) -> None:
    outcome = run_on_engine(spec_of(album, tmp_path / "out"), "local", 2)
    assert (outcome.done, [Path(path).name for path, _ in outcome.failed]) == (IMAGES, ["broken.png"])
    assert tree(tmp_path / "out") == tree(plain)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_file()] == [MANIFEST]


def test_a_killed_process_changes_nothing(album: Path, plain: Path, tmp_path: Path) -> None:
    seen = iter((False, True))  # the first of them is the one that the workers are forked from
    killer = Killer(lambda line: "forkserver" in line and next(seen))
    spec = spec_of(album, tmp_path / "out", Selection("error"))
    outcome = run_on_engine(spec, "local", 2, progress=killer)
    assert killer.killed
    assert (outcome.done, len(outcome.failed), killer.files) == (IMAGES, 1, IMAGES + 1)
    assert tree(tmp_path / "out") == tree(plain)


def test_an_interrupted_job_goes_on(album: Path, plain: Path, tmp_path: Path) -> None:
    command = ["compress", str(album), "-o", str(tmp_path / "out"), "--device", "cpu", "--batch", "4", "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-m", "vaetools", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not list(tmp_path.rglob("*.vtc")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert b"goes on from there" in errors
    there = tree(tmp_path / "out")
    assert 0 < len(there) < IMAGES
    assert there.items() <= tree(plain).items()  # whole files, and nothing beside them
    CliRunner().invoke(main, command[:-2])
    assert tree(tmp_path / "out") == tree(plain)


def test_files_come_back_alike(plain: Path, tmp_path: Path) -> None:
    options = {"device": "cpu", "batch_size": 4}
    run_on_engine(DecompressSpec(source=plain, target=tmp_path / "two", **options), "local", 2)  # type: ignore[arg-type]
    CliRunner().invoke(main, ["decompress", str(plain), "-o", str(tmp_path / "one"), "--device", "cpu", "--batch", "4"])
    assert len(tree(tmp_path / "one")) == IMAGES
    assert tree(tmp_path / "two") == tree(tmp_path / "one")


def test_a_job_that_is_done_needs_no_workers(album: Path, plain: Path) -> None:
    before = tree(plain)
    outcome = run_on_engine(spec_of(album, plain, Selection(include=("0/*",))), "local", 2)
    assert (outcome.done, outcome.skipped) == (0, IMAGES // 3)
    assert tree(plain) == before


def test_without_ray_it_says_what_to_install(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'vaetools\[ray\]'"):
        run_on_engine(spec_of(album, tmp_path / "out"), "ray", 2)
    assert not (tmp_path / "out").exists()


def test_a_rate_that_fits_no_image_is_refused_before_anything_starts(album: Path, tmp_path: Path) -> None:
    spec = CompressSpec(source=album, target=tmp_path / "out", device="cpu", tile_size=100, rate=Rate())
    with pytest.raises(UsageError, match="tile size"):
        run_on_engine(spec, "local", 2)


def vaetools_on_ray(album: Path, target: Path, *options: str) -> subprocess.Popen[bytes]:
    common = ["--device", "cpu", "--batch", "4", "--engine", "ray", "--workers", "2", "--json"]
    command = [sys.executable, "-m", "vaetools", "compress", str(album), "-o", str(target), *common, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.ray
def test_ray_writes_what_one_process_does(album: Path, plain: Path, tmp_path: Path) -> None:
    process = vaetools_on_ray(album, tmp_path / "out")
    output, errors = process.communicate()
    assert process.returncode == 1, errors
    assert json.loads(output)["done"] == IMAGES
    assert tree(tmp_path / "out") == tree(plain)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_file()] == [MANIFEST]


@pytest.mark.ray
def test_a_killed_actor_changes_nothing(album: Path, plain: Path, tmp_path: Path) -> None:
    process = vaetools_on_ray(album, tmp_path / "out")
    while process.poll() is None and len(list(tmp_path.rglob("*.vtc"))) < 5:
        time.sleep(0.01)
    actors = [pid for pid, line in descendants(process.pid) if line.startswith("ray::_Actor")]
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    output, errors = process.communicate()
    assert process.returncode == 1, errors
    assert json.loads(output)["done"] == IMAGES
    assert tree(tmp_path / "out") == tree(plain)


@pytest.mark.parametrize(
    ("workers", "gpus", "device", "share"),
    [(2, 2, "auto", 1), (4, 2, "auto", 1 / 2), (5, 2, "cuda", 1 / 3), (4, 0, "auto", 0), (4, 2, "cpu", 0), (1, 8, "cuda:0", 1)],
)
def test_actors_share_the_gpus_that_there_are(workers: int, gpus: int, device: str, share: float) -> None:
    assert gpus_of_each(workers, gpus, device) == share
    assert not share or workers <= gpus * round(1 / share), "none waits for one"


def test_ray_without_gpus_is_asked_for_none() -> None:
    with pytest.raises(UsageError, match="'cuda' cannot be used: Ray knows of no GPU"):
        gpus_of_each(2, 0, "cuda")


def test_lanes_are_dealt_out_on_a_cpu() -> None:
    assert [lanes_of_each(Lanes(4, 1, 4), 2, kind).count for kind in ("cpu", "cuda")] == [2, 4]
