"""Jobs on a real S3 server, which the tests start: moto's."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vaetools.cli import main
from vaetools.folder.manifest import MANIFEST
from vaetools.folder.remote import RemoteTarget
from vaetools.storage.url import Url

from .conftest import photograph
from .engine_folders import tree

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
ClientError = pytest.importorskip("botocore.exceptions").ClientError

PARTS = f"{MANIFEST.removesuffix('.jsonl')}.parts"


@pytest.fixture(scope="module")
def s3() -> Iterator[s3fs.S3FileSystem]:
    """A server with one empty bucket. The environment says where it is, as it would for a user."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir("bucket")
        yield files
    server.stop()


@pytest.fixture(scope="module")
def album(s3: s3fs.S3FileSystem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pieces of photographs, with names that need quoting; the same in the bucket."""
    folder = tmp_path_factory.mktemp("album")
    coffee = photograph("coffee", 128, 128)
    for number in range(12):
        path = folder / f"{number % 2} ü" / f"{number:02}+#%20&?.png"
        path.parent.mkdir(exist_ok=True)
        coffee.crop((number, 0, number + 40 + 24 * (number % 3), 64)).save(path)
        s3.pipe_file(f"bucket/in/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def undisturbed(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a local job makes of them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run("compress", album, "-o", folder, "--batch", 2)[0] == 0
    return folder


def stored(s3: s3fs.S3FileSystem, folder: str) -> dict[str, bytes]:
    """Everything but the manifest."""
    s3.invalidate_cache()
    files: dict[str, bytes] = {path[len(folder) + 1 :]: s3.cat_file(path) for path in s3.find(folder)}
    files.pop(MANIFEST, None)
    return files


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vaetools", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_there_and_back_again(s3: s3fs.S3FileSystem, album: Path, undisturbed: Path, tmp_path: Path) -> None:
    assert run("compress", album, "-o", "s3://bucket/up", "--batch", 2, "--verify")[0] == 0
    assert stored(s3, "bucket/up") == tree(undisturbed)
    code, out, _ = run("verify", "s3://bucket/up", "--quick", "--json")
    assert (code, json.loads(out)["checked"], json.loads(out)["manifest"]) == (0, 12, True)
    assert run("decompress", "s3://bucket/up", "-o", tmp_path / "down", "--batch", 2)[0] == 0
    assert run("decompress", undisturbed, "-o", tmp_path / "back", "--batch", 2)[0] == 0
    assert tree(tmp_path / "down") == tree(tmp_path / "back")
    code, out, _ = run("decompress", "s3://bucket/up", "-o", tmp_path / "down", "--batch", 2, "--json")
    assert (code, json.loads(out)["skipped"]) == (0, 12)


def test_two_shards_make_a_whole(s3: s3fs.S3FileSystem, album: Path, undisturbed: Path) -> None:
    for shard in ("2/2", "1/2"):
        assert run("compress", "s3://bucket/in", "-o", "s3://bucket/shards", "--batch", 2, "--shard", shard)[0] == 0
    assert {name: data for name, data in stored(s3, "bucket/shards").items() if name.endswith(".vtc")} == tree(undisturbed)
    code, out, _ = run("compress", "s3://bucket/in", "-o", "s3://bucket/shards", "--json")
    assert (code, json.loads(out)["skipped"], json.loads(out)["stale"]) == (0, 12, 0)
    assert stored(s3, "bucket/shards") == tree(undisturbed)


@pytest.mark.slow
def test_a_killed_process_and_the_same_command_again(s3: s3fs.S3FileSystem, album: Path, undisturbed: Path) -> None:
    command = ("compress", "s3://bucket/in", "-o", "s3://bucket/killed", "--batch", 2)
    process = start(*command)
    while process.poll() is None:
        s3.invalidate_cache()
        if any(name.endswith(".vtc") for name in s3.find("bucket/killed")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.03)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = stored(s3, "bucket/killed")
    assert any(name.startswith(PARTS) for name in left)
    assert {name: data for name, data in left.items() if name.endswith(".vtc")}.items() < tree(undisturbed).items()
    again = start(*command, "--json")
    out, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    there = sum(name.endswith(".vtc") for name in left)
    assert (json.loads(out)["done"], json.loads(out)["skipped"]) == (12 - there, there)
    assert stored(s3, "bucket/killed") == tree(undisturbed)


@pytest.mark.slow
def test_workers_open_the_store_themselves(s3: s3fs.S3FileSystem, album: Path, undisturbed: Path) -> None:
    process = start("compress", "s3://bucket/in", "-o", "s3://bucket/workers", "--batch", 2, "--workers", 2)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert stored(s3, "bucket/workers") == tree(undisturbed)


def test_names_that_a_store_cannot_have_fail_alone(s3: s3fs.S3FileSystem, tmp_path: Path) -> None:
    for name in (b"a.png", b"b\xff.png"):
        photograph("coffee", 40, 40).save(tmp_path / os.fsdecode(name))
    code, out, _ = run("compress", tmp_path, "-o", "s3://bucket/names", "--json")
    assert (code, json.loads(out)["done"], len(json.loads(out)["failed"])) == (1, 1, 1)
    refusal = ClientError({"Error": {"Code": "KeyTooLongError", "Message": "Your key is too long"}}, "PutObject")
    told = Url("s3://bucket/names")._as_os_error(s3fs.errors.translate_boto_error(refusal))
    assert not RemoteTarget(Url("s3://bucket/names")).ends_the_job(told)


def test_a_bucket_that_is_not_there_is_told(s3: s3fs.S3FileSystem, album: Path) -> None:
    code, _, errors = run("compress", "s3://no-such-bucket/in", "-o", "s3://bucket/out")
    assert (code, "s3://no-such-bucket/in: cannot be read (The specified bucket does not exist)" in errors) == (2, True)
    code, _, errors = run("compress", album, "-o", "s3://no-such-bucket/out")
    assert (code, "s3://no-such-bucket/out: cannot be listed (The specified bucket does not exist)" in errors) == (2, True)


@pytest.mark.parametrize("known", [True, False], ids=["with credentials", "without"])
def test_what_the_configuration_of_fsspec_says_holds(
    s3: s3fs.S3FileSystem, album: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: bool
) -> None:
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"])
    for name in ("AWS_ENDPOINT_URL", *(() if known else ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))):
        monkeypatch.delenv(name)
    process = start("compress", "s3://bucket/in", "-o", tmp_path, "--dry-run")
    out, errors = process.communicate(timeout=120)
    if known:
        assert (process.returncode, "12 images would be compressed" in out) == (0, True), errors
    else:
        assert (process.returncode, "Unable to locate credentials" in errors) == (2, True), errors
