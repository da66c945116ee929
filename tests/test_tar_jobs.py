"""Jobs from tars, and to tars: what becomes of members, and deaths at any moment."""

from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import fsspec
import pytest
from click.testing import CliRunner, Result

from vaetools.cli import main
from vaetools.codec.codec import Codec
from vaetools.codec.rate import Rate
from vaetools.errors import UsageError
from vaetools.folder import tars
from vaetools.folder.division import Division
from vaetools.folder.job import compress_folder
from vaetools.folder.ledger import Outcome
from vaetools.folder.manifest import DONE, Manifest
from vaetools.folder.plan import Selection
from vaetools.folder.shard import Shard
from vaetools.folder.spec import CompressSpec
from vaetools.folder.tars import run_tars
from vaetools.storage.place import parse_source

from .engine_folders import tree
from .fake_codec import FakeCodec
from .tar_files import broken_shards, content, make_shards, make_tar, picture, samples


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    target = tmp_path_factory.mktemp("whole")
    compress(shards, target)
    return tree(target)


def compress(
    source: Path | str,
    target: Path,
    fake: FakeCodec | None = None,
    *,
    shard: str = "",
    division: Division = Division(),
    rate: float = 60.0,
    **selection: Any,
) -> Outcome:
    """To tars, with a codec whose bytes tell with which other images one shared its batch."""
    spec = CompressSpec(
        source=parse_source(str(source)),
        target=target,
        rate=Rate("quality", rate),
        batch_size=4,
        selection=Selection(**selection),
    )
    part = Shard.parse(shard) if shard else None
    return run_tars(spec, cast(Codec, fake or FakeCodec()), division, shard=part)


def vaetools(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# To files.


def test_files_are_those_of_a_folder_job(shards: Path, tmp_path: Path) -> None:
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            tar.extractall(tmp_path / "extracted" / path.stem, filter="data")
    source = parse_source(str(shards / "*.tar"))
    outcome = compress_folder(source, tmp_path / "a", cast(Codec, FakeCodec()), batch_size=4)
    compress_folder(tmp_path / "extracted", tmp_path / "b", cast(Codec, FakeCodec()), batch_size=4)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert (outcome.done, outcome.others) == (18, 36)


@pytest.mark.parametrize("to_tars", [False, True], ids=["files", "tars"])
def test_nothing_is_written_outside_of_the_output(tmp_path: Path, to_tars: bool) -> None:
    (tmp_path / "deep").mkdir()
    outside = tmp_path / "absolute.png"
    names = ["../out.png", str(outside), "a/../../out.png", "in.png"]
    source = make_tar(tmp_path / "deep" / "in.tar", [(name, picture(0)) for name in names])
    target, before = tmp_path / "deep" / "out", set(tmp_path.rglob("*"))
    if to_tars:
        outcome = compress(source, target)
    else:
        outcome = compress_folder(parse_source(str(source)), target, cast(Codec, FakeCodec()))
    assert (outcome.done, len(outcome.failed)) == (1, 1)
    assert set(tmp_path.rglob("*")) - {target, *target.rglob("*")} == before


def test_a_job_from_tars_goes_on(shards: Path, tmp_path: Path) -> None:
    source = parse_source(str(shards))
    compress_folder(source, tmp_path, cast(Codec, FakeCodec()), selection=Selection(include=("photos-001/*",)))
    outcome = compress_folder(source, tmp_path, cast(Codec, FakeCodec()))
    assert (outcome.done, outcome.skipped) == (12, 6)


def test_the_output_is_not_the_folder_of_the_tars(shards: Path) -> None:
    for tar in (False, True):
        result = vaetools("compress", shards / "photos-000.tar", "-o", shards, *["--tar"] * tar)
        assert (result.exit_code, "must not be the input folder" in result.stderr) == (2, True)


def test_nor_is_it_in_a_store(shards: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/shop/shards/photos-000.tar", (shards / "photos-000.tar").read_bytes())
    result = vaetools("compress", "memory://shop/shards/photos-000.tar", "-o", "memory://shop/shards")
    assert (result.exit_code, "must not be the input folder" in result.stderr) == (2, True)
    assert vaetools("compress", "memory://shop/shards/photos-000.tar", "-o", "memory://shop/small").exit_code == 0
    store.rm("/shop", recursive=True)


# To tars, from tars.


def test_members_that_are_no_images_keep_their_places(shards: Path, tmp_path: Path) -> None:
    compress(shards, tmp_path)
    before, after = content(shards / "photos-001.tar"), content(tmp_path / "photos-001.tar")
    assert list(after) == [f"{name}.vtc" if name.endswith(".jpg") else name for name in before]
    assert all(after[name] == data for name, data in before.items() if not name.endswith(".jpg"))


def test_bytes_are_the_same_each_time(shards: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    for path in make_shards(tmp_path / "copy").glob("*.tar"):
        os.utime(path, (1, 1))
    compress(tmp_path / "copy", tmp_path / "out")
    assert tree(tmp_path / "out") == whole


def test_headers_tell_nothing_of_when_and_by_whom(shards: Path, tmp_path: Path) -> None:
    compress(shards, tmp_path)
    with tarfile.open(tmp_path / "photos-000.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)
            assert info.pax_headers == {}


def test_names_that_ustar_has_no_room_for_come_back(tmp_path: Path) -> None:
    names = [f"{'folder/' * 40}a.png", "写真.png", os.fsdecode(b"\xff.png")]
    make_tar(tmp_path / "a.tar", [(name, picture(number)) for number, name in enumerate(names)])
    compress(tmp_path / "a.tar", tmp_path / "out")
    assert list(content(tmp_path / "out" / "a.tar")) == [f"{name}.vtc" for name in names]


def test_what_is_whole_is_left(shards: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    compress(shards, tmp_path)
    fake = FakeCodec()
    outcome = compress(shards, tmp_path, fake)
    assert (outcome.done, outcome.skipped, fake.batches) == (0, 18, 0)


def test_nothing_is_left_beside_the_tars(shards: Path, tmp_path: Path) -> None:
    compress(shards, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".vaetools-manifest.jsonl",
        *(f"photos-{number:03}.tar" for number in range(3)),
    ]


def test_the_manifest_tells_of_images_and_of_tars(shards: Path, tmp_path: Path) -> None:
    compress(shards, tmp_path)
    manifest = Manifest.read(tmp_path)
    image = manifest.last("photos-001/0007.jpg", "photos-001.tar/0007.jpg.vtc")
    tar = manifest.last("photos-001.tar", "photos-001.tar")
    assert image is not None
    assert tar is not None
    assert (image.status, image.output_bytes) == (DONE, len(content(tmp_path / "photos-001.tar")["0007.jpg.vtc"]))
    assert (tar.status, tar.size, tar.output_bytes) == (
        DONE,
        (shards / "photos-001.tar").stat().st_size,
        (tmp_path / "photos-001.tar").stat().st_size,
    )


def test_a_tar_whose_source_has_changed_is_told_and_made_anew_on_demand(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "in")
    compress(shards, tmp_path / "out")
    make_tar(shards / "photos-001.tar", samples(range(20, 23)))
    outcome = compress(shards, tmp_path / "out")
    assert (outcome.stale, outcome.done) == (1, 0)
    outcome = compress(shards, tmp_path / "out", on_exists="overwrite")
    assert (outcome.done, outcome.skipped) == (3, 12)
    assert "0020.jpg.vtc" in content(tmp_path / "out" / "photos-001.tar")


def test_other_settings_make_all_anew_on_demand(shards: Path, tmp_path: Path) -> None:
    compress(shards, tmp_path)
    assert compress(shards, tmp_path, rate=30).stale == 3
    assert compress(shards, tmp_path, rate=30, on_exists="overwrite").done == 18


def test_a_damaged_tar_is_made_anew_on_demand(shards: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    compress(shards, tmp_path)
    data = bytearray((tmp_path / "photos-002.tar").read_bytes())
    data[600] ^= 1
    (tmp_path / "photos-002.tar").write_bytes(data)
    assert compress(shards, tmp_path, on_exists="overwrite").done == 6
    assert tree(tmp_path) == whole


def test_what_is_there_may_be_an_error(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "photos-001.tar").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"photos-001.tar; on_exists"):
        compress(shards, tmp_path, on_exists="error")
    compress(shards, tmp_path)
    assert (tmp_path / "photos-001.tar").read_bytes() == b"mine"


def test_a_choice_of_images_takes_their_samples(shards: Path, tmp_path: Path) -> None:
    outcome = compress(shards, tmp_path, include=("0001.jpg", "0008.jpg"))
    assert (outcome.done, outcome.filtered) == (2, 16)
    assert {path.name: list(content(path)) for path in tmp_path.glob("*.tar")} == {
        "photos-000.tar": ["0001.cls", "0001.jpg.vtc", "0001.json"],
        "photos-001.tar": ["0008.cls", "0008.jpg.vtc", "0008.json"],
    }


# Deaths.


def killed(shards: Path, target: Path, prepare: Callable[[], FakeCodec]) -> None:
    """A process does the job, and is killed where `prepare` has arranged it."""
    child = os.fork()
    if child == 0:
        try:
            compress(shards, target, prepare())
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it was not killed"


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at_batch(number: int) -> Callable[[], FakeCodec]:
    return lambda: FakeCodec(lambda batch: die() if batch == number else None)


def dying_in(call: str) -> Callable[[], FakeCodec]:
    def prepare() -> FakeCodec:
        place = tars.os if call == "replace" else tars
        if call == "replace":  # of the tar, and not of the files
            real = os.replace
            tars.os.replace = lambda one, other: die() if str(other).endswith(".tar") else real(one, other)  # type: ignore[assignment]
        else:
            setattr(place, call, die)
        return FakeCodec()

    return prepare


@pytest.mark.parametrize(
    "prepare",
    [
        dying_at_batch(0),
        dying_at_batch(3),
        *map(dying_in, ("write_tar", "sync_file", "replace", "make_names_durable", "_remove_spool")),
    ],
    ids=["first batch", "fourth batch", "packing", "syncing", "naming", "named", "tidying"],
)
def test_a_killed_job_goes_on_to_the_same_bytes(
    shards: Path, whole: dict[str, bytes], tmp_path: Path, prepare: Callable[[], FakeCodec]
) -> None:
    killed(shards, tmp_path, prepare)
    for path in tmp_path.glob("*.tar"):
        assert path.read_bytes() == whole[path.name], "a tar under its name is whole"
    outcome = compress(shards, tmp_path)
    assert (tree(tmp_path), outcome.failed) == (whole, [])
    assert not list(tmp_path.glob(".vaetools-spool-*"))


def test_what_a_killed_job_has_done_is_not_done_again(shards: Path, tmp_path: Path) -> None:
    killed(shards, tmp_path, dying_in("write_tar"))
    fake = FakeCodec()
    outcome = compress(shards, tmp_path, fake)
    assert (outcome.done, outcome.skipped) == (12, 6)


def test_an_interrupted_job_tells_how_far_it_is_and_goes_on(shards: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    def interrupt(batch: int) -> None:
        if batch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="files are done; the same command goes on from there"):
        compress(shards, tmp_path, FakeCodec(interrupt))
    compress(shards, tmp_path)
    assert tree(tmp_path) == whole


# Shards.


def test_shards_of_a_job_are_whole_tars(shards: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    assert compress(shards, tmp_path, shard="2/2").done == 6
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["photos-001.tar"]
    assert compress(shards, tmp_path, shard="1/2").done == 12
    assert tree(tmp_path) == whole


def test_shards_are_folded_by_the_next_job(shards: Path, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        compress(shards, tmp_path, shard=shard)
    outcome = compress(shards, tmp_path)
    assert (outcome.done, outcome.skipped) == (0, 18)
    assert [path.name for path in tmp_path.glob(".vaetools-*")] == [".vaetools-manifest.jsonl"]


# Commands, with a model.


def test_there_and_back(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "in", count=2, each=2)
    result = vaetools("compress", *sorted(shards.glob("*.tar")), "-o", tmp_path / "small", "--tar", "--verify", "--json")
    assert (result.exit_code, json.loads(result.stdout)["done"]) == (0, 4), result.stderr
    result = vaetools("decompress", tmp_path / "small", "-o", tmp_path / "back", "--tar", "--json")
    assert (result.exit_code, json.loads(result.stdout)["done"]) == (0, 4), result.stderr
    assert list(content(tmp_path / "back" / "photos-001.tar"))[:3] == ["0002.cls", "0002.jpg.png", "0002.json"]


def test_tars_are_verified(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "in", count=2, each=2)
    vaetools("compress", shards, "-o", tmp_path / "small", "--tar")
    result = vaetools("verify", tmp_path / "small", "--json")
    assert (result.exit_code, json.loads(result.stdout)["checked"]) == (0, 4)
    path = tmp_path / "small" / "photos-001.tar"
    path.write_bytes(path.read_bytes().replace(b'{"number": 3}', b'{"number": 4}'))
    result = vaetools("verify", tmp_path / "small", "--quick", "--json")
    assert json.loads(result.stdout)["bad"] == [
        {"path": "photos-001.tar", "problem": "is not the tar that the manifest tells of: it was replaced or damaged since"}
    ]


@pytest.mark.slow
def test_workers_take_members(tmp_path: Path) -> None:
    """To files: members go to other processes as they are."""
    shards = make_shards(tmp_path / "in", count=2, each=2)
    assert vaetools("compress", shards, "-o", tmp_path / "one").exit_code == 0
    result = vaetools("compress", shards, "-o", tmp_path / "two", "--workers", 2)
    assert result.exit_code == 0, result.stderr
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_dry_run_tells_what_would_be_in_the_tars(tmp_path: Path) -> None:
    shards = broken_shards(tmp_path / "in")
    result = vaetools("compress", shards, "-o", tmp_path / "out", "--tar", "--dry-run", "--json", "--shard", "2/2")
    outcome = json.loads(result.stdout)
    assert [Path(file["target"]).relative_to(tmp_path / "out").as_posix() for file in outcome["files"]] == [
        f"photos-001.tar/{number:04}.jpg.vtc" for number in range(6, 10)
    ]
    assert (outcome["todo"], result.exit_code) == (3, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [["--tar", "--workers", "2"], ["--tar", "--engine", "ray"], ["--tar-samples", "5"], ["--tar", "--tar-bytes", "1MB"]],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_refused(shards: Path, tmp_path: Path, options: list[str]) -> None:
    result = vaetools("compress", shards, "-o", tmp_path / "out", *options)
    assert (result.exit_code, (tmp_path / "out").exists()) == (2, False)


def test_a_tar_that_was_made_anew_without_a_member_is_good(tmp_path: Path) -> None:
    target = tmp_path / "small"
    for count in (2, 1):
        source = make_tar(tmp_path / "a.tar", samples(range(count)))
        assert vaetools("compress", source, "-o", target, "--tar", "--on-exists", "overwrite").exit_code == 0
    result = vaetools("verify", target, "--quick", "--json")
    assert (result.exit_code, json.loads(result.stdout)["checked"]) == (0, 1)


def test_of_two_files_of_one_result_none_is_in_the_tar_twice(tmp_path: Path) -> None:
    make_tar(tmp_path / "in.tar", [("a.png", picture(0)), ("b.png", picture(1))])
    assert vaetools("compress", tmp_path / "in.tar", "-o", tmp_path / "files").exit_code == 0
    data = (tmp_path / "files" / "a.png.vtc").read_bytes()
    make_tar(tmp_path / "small.tar", [(f"{name}.vtc", data) for name in ("a.jpg", "a.jpg.png", "b.jpg")])
    assert vaetools("decompress", tmp_path / "small.tar", "-o", tmp_path / "out", "--tar").exit_code == 1
    with tarfile.open(tmp_path / "out" / "small.tar") as tar:
        assert tar.getnames() == ["b.jpg.png"]


def test_a_tar_that_is_not_there_is_not_told_to_be(shards: Path, tmp_path: Path) -> None:
    assert compress(shards, tmp_path, retry_failed=True).skipped == 0
