"""What goes wrong with single files, and places that are in the way."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from vaetools.codec.codec import Codec
from vaetools.folder import job as folder_module
from vaetools.folder.manifest import MANIFEST, Manifest
from vaetools.images.picture import Picture

from .conftest import photograph
from .test_folder_job import files_below, run

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def album(tmp_path: Path) -> Path:
    root = tmp_path / "album"
    (root / "cats").mkdir(parents=True)
    photograph("astronaut", 96, 80).save(root / "flight.png")
    photograph("chelsea", 70, 50).save(root / "cats" / "chelsea.png")
    photograph("camera", 70, 50).save(root / "cats" / "camera.png")
    return root


def failing_write(error: int, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let giving a file a name that contains `part` fail."""
    replace_file = os.replace

    def fail(source: Path, target: Path) -> None:
        if part in str(target):
            raise OSError(error, os.strerror(error))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", fail)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ENAMETOOLONG, errno.EROFS], ids=errno.errorcode.get)
def test_a_name_that_cannot_be_written_is_one_line(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    failing_write(error, "chelsea", monkeypatch)
    done = run("compress", album, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert f"chelsea.png: {os.strerror(error)}" in done.stderr
    assert files_below(tmp_path / "out") == ["cats/camera.png.vtc", "flight.png.vtc"]
    status = {entry.path: entry.status for entry in Manifest.read(tmp_path / "out")}
    assert status == {"cats/camera.png": "done", "cats/chelsea.png": "failed", "flight.png": "done"}


def test_a_file_that_failed_for_its_place_is_done_by_the_same_command_later(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing_write(errno.EACCES, "chelsea", patch)
        run("compress", album, "-o", tmp_path / "out")
    done = run("compress", album, "-o", tmp_path / "out")
    assert "1 images compressed, 2 there already" in done.stdout


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOENT], ids=errno.errorcode.get)
def test_an_output_folder_that_is_no_longer_writable_ends_the_job(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    write_new, written = folder_module.write_new, []

    def fail(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) > 1:
            raise OSError(error, os.strerror(error))
        write_new(path, data)

    monkeypatch.setattr(folder_module, "write_new", fail)
    done = run("compress", album, "-o", tmp_path / "out", "--batch", 1)
    assert done.exit_code == 1
    assert f"{tmp_path}/out: {os.strerror(error).lower()}; 1 files are done: make it writable" in done.stderr
    assert files_below(tmp_path / "out") == ["cats/camera.png.vtc"]


def test_a_disk_that_becomes_full_when_names_are_given_ends_the_job(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_write(errno.ENOSPC, "flight", monkeypatch)
    done = run("compress", album, "-o", tmp_path / "out", "--batch", 1)
    assert done.exit_code == 1
    assert "flight.png.vtc: no space left on device; 2 files are done: free some space" in done.stderr
    assert files_below(tmp_path / "out") == ["cats/camera.png.vtc", "cats/chelsea.png.vtc"]


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
@pytest.mark.parametrize("inside", ["", "cats"])
def test_folders_that_are_read_only_are_told(album: Path, tmp_path: Path, inside: str) -> None:
    closed = tmp_path / "out" / inside
    closed.mkdir(parents=True)
    closed.chmod(0o555)
    try:
        done = run("compress", album, "-o", tmp_path / "out")
    finally:
        closed.chmod(0o755)
    assert done.exit_code == (1 if inside else 2)
    assert ("Permission denied" if inside else "not writable") in done.stderr


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_an_image_that_may_not_be_read_is_one_line(album: Path, tmp_path: Path) -> None:
    (album / "flight.png").chmod(0)
    done = run("compress", album, "-o", tmp_path / "out")
    assert "flight.png: " in done.stderr
    assert "2 images compressed, 1 failed" in done.stdout


def test_a_file_in_the_place_of_a_folder_is_left_and_told(album: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cats").write_text("precious")
    done = run("compress", album, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert f"chelsea.png: {tmp_path}/out/cats is a file, where a folder is needed" in done.stderr
    assert "1 images compressed, 2 failed" in done.stdout
    assert (tmp_path / "out" / "cats").read_text() == "precious"


@pytest.mark.parametrize("policy", ["skip", "overwrite"])
def test_a_folder_in_the_place_of_a_file_is_left_and_told(album: Path, tmp_path: Path, policy: str) -> None:
    (tmp_path / "out" / "flight.png.vtc").mkdir(parents=True)
    done = run("compress", album, "-o", tmp_path / "out", "--on-exists", policy)
    assert done.exit_code == 1
    assert "flight.png.vtc is a folder, where the result would go" in done.stderr
    assert "2 images compressed, 1 failed" in done.stdout


def test_nothing_is_written_through_a_link_to_a_folder(album: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "cats").symlink_to(tmp_path / "elsewhere")
    done = run("compress", album, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "cats is a link, and nothing is written through links" in done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(("policy", "replaced"), [("skip", False), ("overwrite", True)])
def test_nothing_is_written_through_a_link_to_a_file(album: Path, tmp_path: Path, policy: str, replaced: bool) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me")
    link = tmp_path / "out" / "flight.png.vtc"
    link.parent.mkdir()
    link.symlink_to(precious)
    assert run("compress", album, "-o", tmp_path / "out", "--on-exists", policy).exit_code == 0
    assert precious.read_bytes() == b"keep me"
    assert link.is_symlink() != replaced


def test_images_behind_links_are_read(album: Path, tmp_path: Path) -> None:
    photograph("rocket", 64, 64).save(tmp_path / "rocket.png")
    (album / "rocket.png").symlink_to(tmp_path / "rocket.png")
    assert run("compress", album, "-o", tmp_path / "out").exit_code == 0
    assert "rocket.png.vtc" in files_below(tmp_path / "out")


def test_an_image_that_vanishes_while_the_job_runs_is_one_line(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_picture = folder_module.read_picture

    def vanish(path: Path, **options: Any) -> Picture:
        (album / "flight.png").unlink(missing_ok=True)
        return read_picture(path, **options)

    monkeypatch.setattr(folder_module, "read_picture", vanish)
    done = run("compress", album, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "flight.png: no such file" in done.stderr
    assert "2 images compressed, 1 failed" in done.stdout


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (MemoryError(), "not enough memory"),
        (ValueError("of a kind that nobody has seen"), "ValueError: of a kind that nobody has seen"),
        (IndexError("beyond"), "IndexError: beyond"),
    ],
    ids=["disk", "memory", "value", "index"],
)
def test_whatever_reading_one_image_raises_is_one_line(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    read_picture = folder_module.read_picture

    def crash(path: Path, **options: Any) -> Picture:
        if path.name == "flight.png":
            raise error
        return read_picture(path, **options)

    monkeypatch.setattr(folder_module, "read_picture", crash)
    done = run("compress", album, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert f"flight.png: {words}" in done.stderr
    assert "2 images compressed, 1 failed" in done.stdout


def test_an_error_of_the_device_that_no_image_causes_is_not_hidden(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Codec, pictures: list[Picture], *_: Any, **__: Any) -> list[Any]:
        if pictures:
            raise RuntimeError("an illegal memory access was encountered")
        return []

    monkeypatch.setattr(Codec, "encode", broken)
    done = run("compress", album, "-o", tmp_path / "out")
    assert isinstance(done.exception, RuntimeError)
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize("name", [b"caf\xe9 \xff.png", "line\nbreak\u2028.png".encode(), "\U0001f408.png".encode()], ids=repr)
@pytest.mark.parametrize("content", ["image", "rubbish"])
def test_any_name_goes_through(tmp_path: Path, name: bytes, content: str) -> None:
    path = tmp_path / "album" / os.fsdecode(name)
    path.parent.mkdir()
    path.write_bytes(b"rubbish")
    if content == "image":
        photograph("coffee", 64, 64).save(path)
    dry = run("compress", path.parent, "-o", tmp_path / "out", "--dry-run")
    done = run("compress", path.parent, "-o", tmp_path / "out")
    assert len(dry.stdout.splitlines()) == 2
    (entry,) = Manifest.read(tmp_path / "out")
    assert os.fsencode(entry.path) == name
    if content == "image":
        assert run("decompress", tmp_path / "out", "-o", tmp_path / "back").exit_code == 0
        assert (tmp_path / "back" / path.name).exists()
        outcome = json.loads(run("compress", path.parent, "-o", tmp_path / "out", "--json").stdout)
        assert outcome["skipped"] == 1
    else:
        assert len(done.stderr.splitlines()) == 1
        assert "cannot be read" in done.stderr


def test_a_name_too_long_for_the_added_ending_is_one_line(album: Path, tmp_path: Path) -> None:
    photograph("coffee", 64, 64).save(album / ("n" * 250 + ".png"))
    done = run("compress", album, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "nnn.png: File name too long" in done.stderr
    assert "3 images compressed, 1 failed" in done.stdout


def test_output_inside_the_input_does_not_feed_on_itself(album: Path) -> None:
    small, back = album / "small", album / "small" / "back"
    assert run("compress", album, "-o", small).exit_code == 0
    names = files_below(small)
    assert run("decompress", small, "-o", back).exit_code == 0
    for _ in range(2):
        done = run("compress", album, "-o", small)
        assert f"left out: {small}: the output folder" in done.stderr
        assert "0 images compressed, 3 there already" in done.stdout
        done = run("decompress", small, "-o", back)
        assert f"left out: {back}: the output folder" in done.stderr
        assert "0 images restored, 3 there already" in done.stdout
    assert [name for name in files_below(small) if not name.startswith("back/")] == names


def test_input_inside_the_output_is_left_as_it_is(album: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in album.rglob("*.png")}
    for _ in range(2):
        assert run("compress", album, "-o", tmp_path).exit_code == 0
    assert {path: path.read_bytes() for path in album.rglob("*.png")} == before
    assert files_below(tmp_path) == [
        "album/cats/camera.png",
        "album/cats/chelsea.png",
        "album/flight.png",
        "cats/camera.png.vtc",
        "cats/chelsea.png.vtc",
        "flight.png.vtc",
    ]


def test_the_manifest_is_not_counted_among_the_files_that_are_left_out(album: Path, tmp_path: Path) -> None:
    run("compress", album, "-o", tmp_path / "out")
    assert (tmp_path / "out" / MANIFEST).exists()
    assert "left out" not in run("decompress", tmp_path / "out", "-o", tmp_path / "back").stderr


def test_a_manifest_that_cannot_be_written_stops_the_job_before_it_starts(album: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / MANIFEST).mkdir(parents=True)
    done = run("compress", album, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert f"{MANIFEST}: cannot be written (Is a directory)" in done.stderr


def test_many_failures_are_counted_and_all_are_in_the_json(tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    for number in range(25):
        (tmp_path / "album" / f"{number:02}.png").write_bytes(b"rubbish")
    done = run("compress", tmp_path / "album", "-o", tmp_path / "out", "--json")
    assert len(json.loads(done.stdout)["failed"]) == 25
    assert done.stderr.count("failed: ") == 21
    assert "failed: 5 more" in done.stderr
