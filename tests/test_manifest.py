"""The manifest of a folder job: what survives, what counts, and who may write."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest

from vaetools.errors import UsageError
from vaetools.folder.manifest import FAILED, MANIFEST, Entry, Manifest

FULL = Entry(
    path="cats/a.png",
    output="cats/a.png.vtc",
    size=5000,
    mtime_ns=1_700_000_000_123_456_789,
    height=80,
    width=96,
    settings="vtc 1.0, quality 60",
    output_bytes=812,
    crc32="00c0ffee",
    bpp=0.8458,
    quality=60.0,
    psnr=33.25,
    ms=12.5,
    notes=("CMYK was converted",),
)


def entries_in(folder: Path) -> list[Entry]:
    return list(Manifest.read(folder))


def add(folder: Path, *entries: Entry) -> None:
    with Manifest.open(folder) as manifest:
        manifest.append(entries)


@pytest.mark.parametrize(
    "entry",
    [
        FULL,
        Entry("a.png", "a.png.vtc"),
        Entry("a.png", "a.png.vtc", status=FAILED, error="cannot be read"),
        Entry(os.fsdecode(b"caf\xe9/\xff.png"), os.fsdecode(b"caf\xe9/\xff.png.vtc")),
        Entry("line\nbreak \u2028 \U0001f408.png", "b"),
        Entry("a", "b", psnr=math.inf),
        Entry("a", "b", psnr=0.0, quality=0.0),
    ],
    ids=["full", "bare", "failed", "not UTF-8", "line breaks", "lossless", "zeros"],
)
def test_an_entry_comes_back(tmp_path: Path, entry: Entry) -> None:
    add(tmp_path, entry)
    assert entries_in(tmp_path) == [entry]


def test_the_last_line_about_a_file_holds(tmp_path: Path) -> None:
    failed, done, other = Entry("a", "a.vtc", status=FAILED), Entry("a", "a.vtc"), Entry("b", "b.vtc")
    add(tmp_path, failed, other)
    add(tmp_path, done)
    assert entries_in(tmp_path) == [other, done]
    assert len((tmp_path / MANIFEST).read_bytes().splitlines()) == 3


def test_one_file_may_have_two_results(tmp_path: Path) -> None:
    png, jpeg = Entry("a.vtc", "a.png"), Entry("a.vtc", "a.jpg")
    add(tmp_path, png, jpeg)
    manifest = Manifest.read(tmp_path)
    assert (manifest.last("a.vtc", "a.png"), manifest.last("a.vtc", "a.jpg")) == (png, jpeg)


@pytest.mark.parametrize("cut", range(1, len(FULL.to_line()), 20))
def test_a_torn_line_is_no_line_and_spoils_none_after_it(tmp_path: Path, cut: int) -> None:
    first, last = Entry("first", "b"), Entry("last", "b")
    add(tmp_path, first, FULL)
    path = tmp_path / MANIFEST
    path.write_bytes(path.read_bytes()[: -1 - cut])
    assert entries_in(tmp_path) == [first]
    add(tmp_path, last)
    assert entries_in(tmp_path) == [first, last]


def test_a_line_that_lacks_nothing_but_its_end_counts(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(FULL.to_line())
    add(tmp_path, Entry("last", "b"))
    assert entries_in(tmp_path) == [FULL, Entry("last", "b")]


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 300,
        b"{}",
        b"[1, 2]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"path": 1, "output": "b", "status": "done"}',
        b'{"path": "a", "output": "b", "status": "perhaps"}',
        b'{"path": "a", "output": "b", "status": "done", "psnr": "high"}',
        b'{"path": "a", "output": "b", "status": "done", "size": "5"}',
        b'{"path": "a", "output": "b", "status": "done", "notes": 7}',
        b'{"path": "a", "output": "b", "status": "done", "settings": []}',
    ],
    ids=["zeros", "empty", "list", "null", "no text", "deep", "path", "status", "psnr", "size", "notes", "settings"],
)
def test_what_is_no_entry_is_passed_over(tmp_path: Path, line: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(line + b"\n" + FULL.to_line() + b"\n")
    assert entries_in(tmp_path) == [FULL]


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b'{"path": "a", "output": "b", "status": "done", "colour": "blue"}\n')
    assert entries_in(tmp_path) == [Entry("a", "b")]


def test_two_jobs_cannot_have_it_at_once(tmp_path: Path) -> None:
    with Manifest.open(tmp_path):
        with pytest.raises(UsageError, match="another job is writing to this folder"):
            Manifest.open(tmp_path)
        add_later = Manifest.read(tmp_path)
    assert len(add_later) == 0
    add(tmp_path, FULL)
    assert entries_in(tmp_path) == [FULL]


def test_reading_makes_no_file_and_adds_nothing(tmp_path: Path) -> None:
    manifest = Manifest.read(tmp_path)
    with pytest.raises(UsageError, match="for reading only"):
        manifest.append([FULL])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me")
    (tmp_path / MANIFEST).symlink_to(precious)
    with pytest.raises(UsageError, match="it is a link"):
        Manifest.open(tmp_path)
    assert precious.read_bytes() == b"keep me"


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = os.write, [30]

    def nearly_full(descriptor: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: left[0]])
        left[0] -= written
        return written

    with Manifest.open(tmp_path) as manifest:
        manifest.append([FULL])
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", nearly_full)
            with pytest.raises(OSError, match="No space left"):
                manifest.append([Entry("b", "b.vtc")])
        assert manifest.last("b", "b.vtc") is None
        manifest.append([Entry("c", "c.vtc")])
    assert (tmp_path / MANIFEST).read_bytes().splitlines() == [FULL.to_line(), Entry("c", "c.vtc").to_line()]
