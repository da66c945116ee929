"""Folder jobs from stores to stores. The codec's bytes tell which images shared a batch: they are those of local jobs."""

from __future__ import annotations

import errno
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from vaetools.cli import main
from vaetools.errors import UsageError, VaetoolsError
from vaetools.files import temporary_path
from vaetools.folder.job import foresee_compression
from vaetools.folder.manifest import DONE, FAILED, MANIFEST, Entry
from vaetools.folder.plan import Selection
from vaetools.folder.shard import Shard
from vaetools.folder.target import target_of
from vaetools.storage import url as url_module
from vaetools.storage.url import Url

from .conftest import photograph
from .engine_folders import tree
from .fake_codec import FakeCodec, compress

IN, OUT = "memory://bucket/in", "memory://bucket/out"
NAMES = [f"{'ab'[number > 5]}/{number:02} ü#%20?.png" for number in range(11)]
Store = MemoryFileSystem


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """Empty. Nothing is left in the folder for temporary files, either."""
    monkeypatch.setattr(Store, "store", {})
    monkeypatch.setattr(Store, "pseudo_dirs", [""])
    monkeypatch.setattr(url_module, "WAITS", (0.0, 0.0))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return Store()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images of two kinds of size, in two folders."""
    folder = tmp_path_factory.mktemp("album")
    coffee = photograph("coffee", 60, 100)
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(exist_ok=True)
        coffee.crop((0, 0, 40 + number, 100 if number % 3 == 0 else 50)).save(folder / name)
    return folder


@pytest.fixture
def album(store: Store, images: Path) -> Path:
    """The folder of the images, which are in the store, too."""
    for name in NAMES:
        store.pipe_file(f"/bucket/in/{name}", (images / name).read_bytes())
    return images


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a local job makes of them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    compress(images, folder)
    return tree(folder)


def stored(store: Store, folder: str = "/bucket/out") -> dict[str, bytes]:
    """Everything but the manifest."""
    files = {path[len(folder) + 1 :]: store.cat_file(path) for path in store.find(folder)}
    files.pop(MANIFEST, None)
    return files


def entries(place: str = OUT) -> dict[str, Entry]:
    with target_of(Url(place)) as target:
        return {entry.path: entry for entry in target.read_manifest()}


def wrap(monkeypatch: pytest.MonkeyPatch, name: str, before: Callable[[str], object]) -> None:
    """Have `before(path)` called before a method of the store."""
    method = getattr(Store, name)

    def wrapped(files: Store, path: str, *arguments: Any, **options: Any) -> Any:
        before(path)
        return method(files, path, *arguments, **options)

    monkeypatch.setattr(Store, name, wrapped)


def test_files_are_those_of_a_local_job(store: Store, album: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    assert compress(Url(IN), Url(OUT)).done == 11
    assert stored(store) == undisturbed
    assert set(entries()) == set(NAMES)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("way", ["up", "down"])
def test_either_end_may_be_a_folder(store: Store, album: Path, undisturbed: dict[str, bytes], tmp_path: Path, way: str) -> None:
    if way == "up":
        compress(album, OUT)
        assert stored(store) == undisturbed
    else:
        compress(IN, tmp_path / "out")
        assert tree(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("stop_at", [0, 1, 2])
def test_a_job_that_breaks_off_goes_on_to_the_same_files(
    store: Store, album: Path, undisturbed: dict[str, bytes], stop_at: int
) -> None:
    def stop(number: int) -> None:
        if number == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="files are done"):
        compress(IN, OUT, FakeCodec(stop))
    there = {name for name in stored(store) if name.endswith(".vtc")}
    assert compress(IN, OUT).done == 11 - len(there)
    assert stored(store) == undisturbed


@pytest.mark.parametrize("again", [False, True], ids=["at first", "when it goes on"])
def test_a_kill_between_any_two_requests_does_no_harm(
    store: Store, album: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """The store is kept as it was before each request that changed it, and the same command goes on from there."""

    def stop(number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    if again:
        with pytest.raises(KeyboardInterrupt):
            compress(IN, OUT, FakeCodec(stop))
    states: list[dict[str, bytes]] = []
    lock = threading.Lock()

    def keep(_: str) -> None:
        with lock:
            states.append({path: file.getvalue() for path, file in list(Store.store.items())})

    with monkeypatch.context() as patch:
        wrap(patch, "pipe_file", keep)
        wrap(patch, "rm_file", keep)
        compress(IN, OUT)
    assert len(states) > 11
    for state in states:
        Store.store.clear()
        for path, data in state.items():
            store.pipe_file(path, data)
        there = sum(path.endswith(".vtc") for path in state)
        assert compress(IN, OUT).done == 11 - there
        assert stored(store) == undisturbed
        assert {(entry.status, entry.output) for entry in entries().values()} == {(DONE, name) for name in undisturbed}


def test_lines_are_in_the_store_before_names(
    store: Store, album: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {}

    def look(path: str) -> None:
        if path.endswith(".vtc"):
            name = path.removeprefix("/bucket/out/")
            known[name] = name.removesuffix(".vtc") in entries()

    wrap(monkeypatch, "pipe_file", look)
    compress(IN, OUT)
    assert known == dict.fromkeys(undisturbed, True)


def test_files_are_put_at_the_same_time(store: Store, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(3, timeout=10)

    def meet(path: str) -> None:
        if path.endswith(("/a/01 ü#%20?.png.vtc", "/a/02 ü#%20?.png.vtc", "/a/04 ü#%20?.png.vtc")):
            meeting.wait()  # breaks if they come one after another

    wrap(monkeypatch, "pipe_file", meet)
    assert compress(IN, OUT).done == 11


def test_what_is_there_is_left_and_what_is_stale_is_told(store: Store, album: Path) -> None:
    compress(IN, OUT)
    store.pipe_file(f"/bucket/in/{NAMES[1]}", (album / NAMES[2]).read_bytes())
    outcome = compress(IN, OUT)
    assert (outcome.done, outcome.skipped, outcome.stale) == (0, 11, 1)


def test_overwrite_makes_only_what_is_not_as_it_should_be(store: Store, album: Path, undisturbed: dict[str, bytes]) -> None:
    compress(IN, OUT)
    name = sorted(undisturbed)[3]
    store.pipe_file(f"/bucket/out/{name}", b"?" * len(undisturbed[name]))
    assert compress(IN, OUT, on_exists="overwrite").done == 1
    assert stored(store) == undisturbed


def test_error_refuses_before_anything_is_written(store: Store, album: Path) -> None:
    store.pipe_file(f"/bucket/out/{NAMES[0]}.vtc", b"mine")
    with pytest.raises(UsageError, match="there already: memory://bucket/out/a/00"):
        compress(IN, OUT, on_exists="error")
    assert stored(store) == {f"{NAMES[0]}.vtc": b"mine"}


def test_a_dry_run_writes_nothing(store: Store, album: Path) -> None:
    store.pipe_file(f"/bucket/out/{NAMES[0]}.vtc", b"mine")
    forecast = foresee_compression(IN, OUT)
    assert [task.todo for task in forecast.tasks] == [False] + 10 * [True]
    assert forecast.tasks[0].destination == f"{OUT}/{NAMES[0]}.vtc"
    assert stored(store) == {f"{NAMES[0]}.vtc": b"mine"}


def test_an_object_that_cannot_be_read_is_one_line(store: Store, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        if path.endswith(NAMES[4]):
            raise PermissionError("Access Denied")

    with monkeypatch.context() as patch:
        wrap(patch, "cat_file", refuse)
        outcome = compress(IN, OUT)
    assert (outcome.done, outcome.failed) == (10, [(f"{IN}/{NAMES[4]}", "Access Denied")])
    assert entries()[NAMES[4]].status == FAILED
    assert compress(IN, OUT, retry_failed=True).done == 1


def test_a_full_store_ends_the_job_with_advice_and_the_same_call_goes_on(
    store: Store, album: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: str) -> None:
        if "/b/" in path:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        wrap(patch, "pipe_file", fill)
        with pytest.raises(VaetoolsError, match=r"memory://bucket/out/b/.*no space left .* free some space"):
            compress(IN, OUT)
    assert not any(name.startswith("b/") for name in stored(store))
    compress(IN, OUT)
    assert stored(store) == undisturbed


def test_a_store_that_is_gone_ends_the_job_and_not_file_by_file(
    store: Store, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: str) -> None:
        if path.endswith(".vtc"):
            raise RuntimeError("Could not connect to the endpoint URL")

    wrap(monkeypatch, "pipe_file", gone)
    with pytest.raises(VaetoolsError, match="see that it can be reached and run the same command again"):
        compress(IN, OUT)


def test_a_place_that_refuses_writes_is_told_before_the_work(store: Store, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError("Access Denied")

    wrap(monkeypatch, "pipe_file", refuse)
    with pytest.raises(UsageError, match="cannot be written"):
        compress(IN, OUT, FakeCodec(lambda number: pytest.fail("it worked on something")))


def test_one_name_that_the_store_refuses_fails_one_file(store: Store, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        if path.endswith(f"{NAMES[2]}.vtc"):
            raise OSError(errno.ENAMETOOLONG, "Your key is too long")

    wrap(monkeypatch, "pipe_file", refuse)
    outcome = compress(IN, OUT)
    assert (outcome.done, outcome.failed) == (10, [(f"{IN}/{NAMES[2]}", "Your key is too long")])


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_write_what_a_whole_job_writes(
    store: Store, album: Path, undisturbed: dict[str, bytes], order: tuple[int, ...]
) -> None:
    assert sum(compress(IN, OUT, shard=Shard(index, 3)).done for index in order) == 11
    assert {name: data for name, data in stored(store).items() if name.endswith(".vtc")} == undisturbed
    assert compress(IN, OUT).skipped == 11
    assert stored(store) == undisturbed  # their manifests are folded
    assert set(entries()) == set(NAMES)


def test_a_shard_leaves_one_object_of_its_lines(store: Store, album: Path) -> None:
    for _ in range(2):
        compress(IN, OUT, shard=Shard(1, 2), on_exists="overwrite")
        names = [name for name in stored(store) if not name.endswith(".vtc")]
        assert len(names) == 1
        assert names[0].startswith(".vaetools-manifest.parts/1-of-2.")


def test_a_shard_that_broke_off_goes_on(store: Store, album: Path, undisturbed: dict[str, bytes]) -> None:
    def stop(number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(IN, OUT, FakeCodec(stop), shard=Shard(1, 2))
    compress(IN, OUT, shard=Shard(1, 2))
    compress(IN, OUT, shard=Shard(2, 2))
    assert {name: data for name, data in stored(store).items() if name.endswith(".vtc")} == undisturbed


def test_an_output_folder_inside_the_source_is_left_out(store: Store, album: Path) -> None:
    place = "memory://bucket"
    store.pipe_file("/bucket/out/old.png", b"?")
    outcome = compress(place, OUT)
    assert (outcome.done, outcome.own_output) == (11, OUT)


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (IN, IN, "must not be the input folder"),
        ("memory://nothing", OUT, "nothing is there"),
        (IN, "https://127.0.0.1:1/out", "can be read, but not written to"),
        (IN, f"{IN}/{NAMES[0]}", "is a file, not a folder"),
    ],
)
def test_places_that_cannot_be_worked_with_are_refused(store: Store, album: Path, source: str, target: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        compress(source, target)


def test_a_folder_where_the_result_would_go_fails_one_file(store: Store, album: Path) -> None:
    store.pipe_file(f"/bucket/out/{NAMES[0]}.vtc/mine.txt", b"mine")
    outcome = compress(IN, OUT)
    assert outcome.done == 10
    assert "is a folder, where the result would go" in outcome.failed[0][1]


class Disk(LocalFileSystem):
    """Has folders, as sftp has."""

    protocol = "disk"

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).removeprefix("disk://")))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    fsspec.register_implementation("disk", Disk, clobber=True)
    yield f"disk://{tmp_path}/far"
    del _registry["disk"]


def test_where_there_are_folders_they_are_made_and_files_moved_to_their_names(
    store: Store, album: Path, undisturbed: dict[str, bytes], disk: str, tmp_path: Path
) -> None:
    left = tmp_path / "far" / temporary_path(Path()).name
    left.parent.mkdir()
    left.write_bytes(b"of a job that was killed")
    assert compress(album, disk).done == 11
    assert tree(tmp_path / "far") == undisturbed
    assert compress(album, disk).skipped == 11


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def small(store: Store, tmp_path: Path) -> Path:
    """Three images that are quickly compressed, in the store and beside."""
    for number, name in enumerate(("a/1.png", "a/2.png", "b.png")):
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph("chelsea", 64, 64 + number).save(path)
        store.pipe_file(f"/bucket/in/{name}", path.read_bytes())
    return tmp_path / "small"


def test_the_commands_go_there_and_back(store: Store, small: Path, tmp_path: Path) -> None:
    assert run("compress", small, "-o", tmp_path / "vtc", "--verify")[0] == 0
    code, out, _ = run("compress", IN, "-o", OUT, "--verify", "--json")
    assert (code, json.loads(out)["verified"]) == (0, 3)
    assert stored(store) == tree(tmp_path / "vtc")
    code, out, _ = run("verify", OUT, "--against", IN)
    assert (code, "3 files checked, 0 bad" in out) == (0, True)
    assert run("decompress", OUT, "-o", "memory://bucket/back")[0] == 0
    assert run("decompress", tmp_path / "vtc", "-o", tmp_path / "back")[0] == 0
    assert stored(store, "/bucket/back") == tree(tmp_path / "back")
    code, out, _ = run("info", f"{OUT}/b.png.vtc", "--json")
    assert (code, json.loads(out)[0]["file"]) == (0, f"{OUT}/b.png.vtc")


def test_verify_finds_what_is_missing_and_what_was_replaced(store: Store, small: Path) -> None:
    assert run("compress", IN, "-o", OUT)[0] == 0
    store.rm_file("/bucket/out/a/1.png.vtc")
    store.pipe_file("/bucket/out/b.png.vtc", store.cat_file("/bucket/out/a/2.png.vtc"))
    code, _, errors = run("verify", OUT, "--quick")
    assert code == 1
    assert "a/1.png.vtc: is missing" in errors
    assert "b.png.vtc: whole, but not the file that the manifest tells of" in errors


def test_a_dry_run_of_the_command_shows_urls(store: Store, small: Path) -> None:
    code, out, _ = run("compress", IN, "-o", OUT, "--dry-run")
    assert (code, out.splitlines()[0]) == (0, f"{IN}/a/1.png -> {OUT}/a/1.png.vtc")


def test_workers_cannot_share_the_memory_of_one_process(store: Store, small: Path) -> None:
    code, _, errors = run("compress", IN, "-o", OUT, "--workers", 2)
    assert (code, "lives in one process" in errors) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", OUT, "-o", "report.html"),
        ("compare", IN, OUT),
        ("augment", IN, "-o", "out"),
        ("denoise", "folder", "-o", OUT),
        ("embed", IN, "-o", "out.npz"),
        ("eval", "https://me:secret@host/kodak"),
        ("fit-prior", IN),
    ],
    ids=lambda arguments: arguments[0],
)
def test_other_commands_say_that_they_take_no_urls(arguments: tuple[str, ...]) -> None:
    code, _, errors = run(*arguments)
    assert code == 2
    assert f"`vaetools {arguments[0]}` takes files and folders of this machine" in errors
    assert "secret" not in errors


def test_a_file_url_is_a_path_everywhere(store: Store, small: Path, tmp_path: Path) -> None:
    assert run("compress", small.as_uri(), "-o", (tmp_path / "vtc").as_uri())[0] == 0
    code, _, _ = run("compare", small.as_uri(), small.as_uri())
    assert (code, len(tree(tmp_path / "vtc"))) == (0, 3)


def test_no_password_is_in_a_message_or_the_manifest(store: Store, small: Path) -> None:
    code, out, errors = run("compress", "https://me:secret@127.0.0.1:1/album", "-o", OUT)
    assert (code, "secret" in out + errors) == (2, False)
    assert "https://me:***@127.0.0.1:1/album" in errors


def test_a_selection_is_the_same_everywhere(store: Store, album: Path) -> None:
    outcome = compress(IN, OUT, selection=Selection(include=("b/*",), exclude=("*10*",)))
    assert (outcome.done, outcome.filtered) == (4, 7)


def test_results_below_their_originals_are_no_originals(store: Store, small: Path) -> None:
    inside = f"{IN}/compressed"
    assert run("compress", IN, "-o", inside)[0] == 0
    code, out, err = run("verify", inside, "--against", IN, "--quick")
    assert (code, "3 files checked" in out, "not looked at" in out + err) == (0, True, False)
