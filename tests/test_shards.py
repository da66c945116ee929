"""Shards of a folder job: together they are the whole, in any order, at the same time, and after any death."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from vaetools.cli import main
from vaetools.codec.codec import Codec
from vaetools.codec.rate import Rate
from vaetools.errors import UsageError
from vaetools.folder.job import compress_folder, compress_job, compress_tasks, decompress_folder
from vaetools.folder.ledger import Outcome
from vaetools.folder.manifest import FAILED, MANIFEST, Entry, Manifest
from vaetools.folder.plan import Selection
from vaetools.folder.shard import Shard
from vaetools.folder.target import LocalTarget

from .engine_folders import make_album, tree
from .fake_codec import FakeCodec


class Death(BaseException):
    """What no except clause of a job takes for its own."""


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_album(tmp_path_factory.mktemp("album"), 40)


@pytest.fixture(scope="module")
def whole(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("whole")
    compress(album, target)
    return target


def compress(source: Path, target: Path, shard: str = "", fake: FakeCodec | None = None, **options: Any) -> Outcome:
    """With a codec whose bytes tell with which other images one shared its batch."""
    part = Shard.parse(shard) if shard else None
    codec = cast(Codec, fake or FakeCodec())
    return compress_folder(source, target, codec, Rate("quality", 60), batch_size=4, shard=part, selection=Selection(**options))


def die_at(batch: int) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number == batch:
            raise Death

    return before


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3", "", "1.5/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Shard.parse(text)


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))), ids=str)
def test_shards_in_any_order_are_the_whole(album: Path, whole: Path, tmp_path: Path, order: tuple[int, ...]) -> None:
    outcomes = [compress(album, tmp_path / "out", f"{index}/3") for index in order]
    assert tree(tmp_path / "out") == tree(whole)
    assert sum(outcome.done for outcome in outcomes) == 40
    assert all(outcome.done for outcome in outcomes)


def test_what_cannot_be_read_is_told_once(album: Path, tmp_path: Path) -> None:
    outcomes = [compress(album, tmp_path / "out", f"{index}/3") for index in (1, 2, 3)]
    assert [path for outcome in outcomes for path, _ in outcome.failed] == [str(album / "broken.png")]


def test_more_shards_than_batches_leave_some_with_nothing(album: Path, whole: Path, tmp_path: Path) -> None:
    done = [compress(album, tmp_path / "out", f"{index}/30").done for index in range(1, 31)]
    assert tree(tmp_path / "out") == tree(whole)
    assert 0 in done


def test_what_is_done_elsewhere_does_not_move_the_batches(album: Path, whole: Path, tmp_path: Path) -> None:
    compress(album, tmp_path / "out", "1/2")
    first = tree(tmp_path / "out")
    again = compress(album, tmp_path / "out", "1/2")
    assert (again.done, again.skipped) == (0, len(first))
    compress(album, tmp_path / "out", "2/2")
    assert tree(tmp_path / "out") == tree(whole)


def test_a_shard_that_died_goes_on(album: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Death):
        compress(album, tmp_path / "out", "1/2", FakeCodec(die_at(2)))
    compress(album, tmp_path / "out", "2/2")
    compress(album, tmp_path / "out", "1/2")
    assert tree(tmp_path / "out") == tree(whole)


def test_shards_run_beside_each_other(album: Path, whole: Path, tmp_path: Path) -> None:
    """The second one runs in the middle of the first."""

    def other(number: int) -> None:
        if number == 1:
            compress(album, tmp_path / "out", "2/2")

    compress(album, tmp_path / "out", "1/2", FakeCodec(other))
    assert tree(tmp_path / "out") == tree(whole)


@pytest.mark.parametrize(
    ("running", "starting"), [("1/2", "1/2"), ("1/2", ""), ("", "1/2"), ("1/2", "3/3")], ids=["same", "whole", "shard", "count"]
)
def test_jobs_that_would_meet_exclude_each_other(album: Path, tmp_path: Path, running: str, starting: str) -> None:
    refused = []

    def other(number: int) -> None:
        if number == 0:
            with pytest.raises(UsageError, match="another job is writing"):
                compress(album, tmp_path / "out", starting)
            refused.append(number)

    compress(album, tmp_path / "out", running, FakeCodec(other))
    assert refused == [0]


def test_a_whole_job_afterwards_takes_the_manifests_over(album: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for index in (1, 2):
        compress(album, out, f"{index}/2")
    before = {entry.key: entry for entry in Manifest.read(out)}
    assert names(out) == [".vaetools-manifest.1-of-2.jsonl", ".vaetools-manifest.2-of-2.jsonl", MANIFEST, "broken.png.vtc"][:3]
    outcome = compress(album, out)
    assert (outcome.done, outcome.skipped, len(outcome.failed)) == (0, 40, 1)
    assert names(out) == [MANIFEST]
    after = {entry.key: entry for entry in Manifest.read(out)}
    assert after.keys() == before.keys() == {entry.key for entry in Manifest.read(whole)}
    assert {key: entry for key, entry in after.items() if entry.status != FAILED}.items() <= before.items()


def test_a_crash_while_they_are_taken_over_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in (1, 2):
        with Manifest.open_shard(tmp_path, Shard(index, 2)) as manifest:
            manifest.append([Entry("a", "a.vtc", output_bytes=index, turn=manifest.turn), Entry(f"{index}", "b")])
    unlink, left = Path.unlink, [1]

    def fail_soon(path: Path, missing_ok: bool = False) -> None:
        if not left[0]:
            raise Death
        left[0] -= 1
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail_soon)
        with pytest.raises(Death):
            Manifest.open(tmp_path)
    assert names(tmp_path) == [".vaetools-manifest.2-of-2.jsonl", MANIFEST]
    with Manifest.open(tmp_path) as manifest:
        manifest.append([Entry("a", "a.vtc", output_bytes=3, turn=manifest.turn)])
    found = {entry.path: entry.output_bytes for entry in Manifest.read(tmp_path)}
    assert found == {"1": 0, "2": 0, "a": 3}
    assert names(tmp_path) == [MANIFEST]


def test_of_two_shards_the_later_one_holds(tmp_path: Path) -> None:
    """Whatever their files are called, and in whatever order they are read."""
    for number, shard in enumerate((Shard(2, 2), Shard(1, 2), Shard(1, 3), Shard(1, 2)), 1):
        with Manifest.open_shard(tmp_path, shard) as manifest:
            manifest.append([Entry("a", "a.vtc", output_bytes=number, turn=manifest.turn)])
        assert [entry.output_bytes for entry in Manifest.read(tmp_path)] == [number]


def test_folders_without_shards_have_no_turns(whole: Path) -> None:
    assert b"turn" not in (whole / MANIFEST).read_bytes()


def test_what_other_shards_wrote_is_no_reason_to_refuse(album: Path, tmp_path: Path) -> None:
    compress(album, tmp_path / "out", "1/2", on_exists="error")
    compress(album, tmp_path / "out", "2/2", on_exists="error")
    with pytest.raises(UsageError, match="there already"):
        compress(album, tmp_path / "out", "2/2", on_exists="error")


def test_temporary_files_of_other_shards_are_left_alone(album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".vaetools-1234-0123abcd-5.tmp").write_bytes(b"being written elsewhere")
    compress(album, out, "1/2")
    assert (out / ".vaetools-1234-0123abcd-5.tmp").exists()
    compress(album, out)
    assert not (out / ".vaetools-1234-0123abcd-5.tmp").exists()


def test_a_share_that_is_done_again_has_the_same_outcome(album: Path, whole: Path, tmp_path: Path) -> None:
    """As an engine does where a worker died."""
    out = tmp_path / "out"
    out.mkdir()
    fake = FakeCodec(die_at(3))
    job = compress_job(cast(Codec, fake), Rate("quality", 60), batch_size=4)
    tasks = compress_tasks(album, out, Selection(), Outcome())
    share = job.plan(tasks, LocalTarget(out), Selection(), Manifest(out, None)).shares(1, job.settings, 7)[0]
    message = pickle.dumps(share)
    with pytest.raises(Death):
        job.run_share(pickle.loads(message), out)
    part = len(tree(out))
    assert 0 < part < 40
    fake.before = die_at(-1)
    outcome = job.run_share(pickle.loads(message), out)
    assert (outcome.done, outcome.skipped) == (40, 0)
    assert outcome.bytes_out == sum(len(data) for data in tree(out).values())
    assert tree(out) == tree(whole)


def vaetools(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_album(tmp_path_factory.mktemp("few"), 9)


def test_the_command_line_does_shards(few: Path, tmp_path: Path) -> None:
    common = ("--device", "cpu", "--batch", "2")
    assert vaetools("compress", few, "-o", tmp_path / "whole", *common).exit_code == 1
    planned, codes = [], []
    for index in (1, 2):
        forecast = vaetools("compress", few, "-o", tmp_path / "out", *common, "--shard", f"{index}/2", "--dry-run", "--json")
        planned += [file["source"] for file in json.loads(forecast.stdout)["files"] if file["todo"]]
        codes.append(vaetools("compress", few, "-o", tmp_path / "out", *common, "--shard", f"{index}/2").exit_code)
    assert sorted(codes) == [0, 1]
    assert len(planned) == len(set(planned)) == 10
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    for index in (2, 1):
        done = vaetools("decompress", tmp_path / "out", "-o", tmp_path / "back", *common, "--shard", f"{index}/2")
        assert done.exit_code == 0, done.output
    codec = Codec.load("photo", "cpu")
    decompress_folder(tmp_path / "whole", tmp_path / "expected", codec, batch_size=2)
    assert tree(tmp_path / "back") == tree(tmp_path / "expected")


@pytest.mark.parametrize(
    "options",
    [("--shard", "1/2", "--workers", "2"), ("--shard", "1/2", "--engine", "ray"), ("--shard", "x"), ("--address", "auto")],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(few: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert vaetools("compress", few, "-o", tmp_path / "out", "--device", "cpu", *options).exit_code == 2
    assert not (tmp_path / "out").exists()
