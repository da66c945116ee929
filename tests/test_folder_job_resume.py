"""A job that is stopped and started again, two jobs at once, and what is there already."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vaetools.errors import ImageError, UsageError, VaetoolsError
from vaetools.folder import job as folder_module
from vaetools.folder.manifest import MANIFEST, Manifest
from vaetools.images.picture import Picture

from .conftest import photograph
from .engine_folders import tree
from .fake_codec import FakeCodec, FakeCoded, compress


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Eleven images of two kinds of size, in two folders."""
    root = tmp_path / "album"
    for number in range(11):
        inside = root / ("a" if number < 6 else "b")
        inside.mkdir(parents=True, exist_ok=True)
        photograph("coffee", 40 + number, 100 if number % 3 == 0 else 50).save(inside / f"{number:02}.png")
    return root


@pytest.fixture
def undisturbed(album: Path, tmp_path: Path) -> dict[str, bytes]:
    compress(album, tmp_path / "undisturbed")
    return tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("missing", [["a/01.png"], ["a/00.png", "b/10.png"], ["b/06.png", "b/07.png", "b/08.png"]], ids=str)
def test_what_is_done_again_is_done_in_the_same_batches(
    album: Path, tmp_path: Path, undisturbed: dict[str, bytes], missing: list[str]
) -> None:
    target = tmp_path / "undisturbed"
    times = {path: path.stat().st_mtime_ns for path in target.rglob("*.vtc")}
    for name in missing:
        (target / f"{name}.vtc").unlink()
    outcome = compress(album, target)
    assert (outcome.done, outcome.skipped) == (len(missing), 11 - len(missing))
    assert tree(target) == undisturbed
    rewritten = [path.relative_to(target).as_posix() for path, time in times.items() if path.stat().st_mtime_ns != time]
    assert sorted(rewritten) == [f"{name}.vtc" for name in missing]


def test_without_a_manifest_the_batches_are_the_same_too(album: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    target = tmp_path / "undisturbed"
    (target / MANIFEST).unlink()
    (target / "a" / "02.png.vtc").unlink()
    compress(album, target)
    assert tree(target) == undisturbed


def test_batches_without_anything_to_do_are_not_computed(album: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    (tmp_path / "undisturbed" / "a" / "01.png.vtc").unlink()
    codec = FakeCodec()
    compress(album, tmp_path / "undisturbed", codec)
    assert codec.batches == 1


def test_files_that_are_done_are_not_opened_for_their_size(
    album: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    size_of = folder_module.size_of_image
    monkeypatch.setattr(folder_module, "size_of_image", lambda path: (opened.append(path.name), size_of(path))[1])
    (tmp_path / "undisturbed" / "a" / "01.png.vtc").unlink()
    photograph("coffee", 41, 50).save(album / "a" / "01.png", compress_level=0)  # another state of it
    compress(album, tmp_path / "undisturbed")
    assert opened == ["01.png"]


@pytest.mark.parametrize("stop_at", [0, 1, 2])
def test_a_job_that_breaks_off_goes_on_to_the_same_files(
    album: Path, tmp_path: Path, undisturbed: dict[str, bytes], stop_at: int
) -> None:
    def stop(number: int) -> None:
        if number == stop_at:
            raise KeyboardInterrupt

    target = tmp_path / "target"
    with pytest.raises(KeyboardInterrupt, match=r"^\d+ files are done; the same command goes on from there$") as caught:
        compress(album, target, FakeCodec(stop))
    there = tree(target)
    assert there.items() <= undisturbed.items()
    assert str(caught.value).startswith(f"{len(there)} files")
    assert compress(album, target).done == 11 - len(there)
    assert tree(target) == undisturbed


def test_a_line_in_the_manifest_without_its_file_is_not_enough(
    album: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / MANIFEST).write_bytes((tmp_path / "undisturbed" / MANIFEST).read_bytes())  # as if killed before any got its name
    assert compress(album, target).done == 11
    assert tree(target) == undisturbed


def test_every_file_is_in_the_manifest_before_it_has_its_name(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file = os.replace
    crc32s = {}

    def watched(source: Path, target: Path) -> None:
        name = Path(target).relative_to(tmp_path / "target").as_posix()
        entry = Manifest.read(tmp_path / "target").last(name.removesuffix(".vtc"), name)
        crc32s[name] = entry and entry.crc32
        assert not Path(target).exists()
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", watched)
    compress(album, tmp_path / "target")
    assert crc32s == {name: f"{zlib.crc32(data):08x}" for name, data in tree(tmp_path / "target").items()}


def test_what_killed_jobs_left_is_removed_and_nothing_else(album: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    left = [target / ".vaetools-4711-0.tmp", target / ".vaetools-4711-12.tmp"]
    kept = [target / ".vaetools-notes", target / "holiday.tmp"]
    for path in left + kept:
        path.write_bytes(b"?")
    compress(album, target)
    assert [path.exists() for path in left + kept] == [False, False, True, True]


def test_a_second_job_on_the_same_folder_is_refused_and_harms_nothing(album: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    refusals = []

    def second(number: int) -> None:
        temporary = target / ".vaetools-4711-0.tmp"
        temporary.write_bytes(b"of the first job")
        with pytest.raises(UsageError) as caught:
            compress(album, target)
        refusals.append(str(caught.value))
        assert temporary.exists()
        temporary.unlink()

    assert compress(album, target, FakeCodec(second)).done == 11
    assert set(refusals) == {f"{target}: another job is writing to this folder; wait for its end, or choose another folder"}


@pytest.mark.parametrize("change", ["source", "settings", "result"])
def test_what_is_out_of_date_is_left_and_told(album: Path, tmp_path: Path, undisturbed: dict[str, bytes], change: str) -> None:
    target, stale = tmp_path / "undisturbed", 11 if change == "settings" else 1
    if change == "source":
        os.utime(album / "a" / "01.png", ns=(0, 0))
    if change == "result":
        with (target / "a" / "01.png.vtc").open("ab") as file:
            file.write(b"more")
    before = tree(target)
    outcome = compress(album, target, rate=70.0 if change == "settings" else 60.0)
    assert (outcome.done, outcome.skipped, outcome.stale) == (0, 11, stale)
    assert tree(target) == before


def test_overwriting_makes_anew_what_is_out_of_date_and_leaves_the_rest(
    album: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    target = tmp_path / "undisturbed"
    damaged = bytearray(undisturbed["a/01.png.vtc"])
    damaged[5] ^= 1  # of the same length
    (target / "a" / "01.png.vtc").write_bytes(damaged)
    outcome = compress(album, target, on_exists="overwrite")
    assert (outcome.done, outcome.skipped, outcome.stale) == (1, 10, 0)
    assert tree(target) == undisturbed


def test_overwriting_with_other_settings_replaces_everything(album: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    assert compress(album, tmp_path / "undisturbed", rate=70.0, on_exists="overwrite").done == 11
    assert not tree(tmp_path / "undisturbed").items() & undisturbed.items()


def test_overwriting_what_no_manifest_knows_replaces_it(album: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    target = tmp_path / "undisturbed"
    (target / MANIFEST).unlink()
    assert compress(album, target, on_exists="overwrite").done == 11
    assert tree(target) == undisturbed


def test_an_overwriting_job_that_was_stopped_goes_on_where_it_was(album: Path, tmp_path: Path) -> None:
    def stop(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    target, fresh = tmp_path / "target", tmp_path / "fresh"
    compress(album, target)
    with pytest.raises(KeyboardInterrupt) as caught:
        compress(album, target, FakeCodec(stop), rate=70.0, on_exists="overwrite")
    done = int(str(caught.value).split()[0])
    assert 0 < done < 11
    assert compress(album, target, rate=70.0, on_exists="overwrite").done == 11 - done
    compress(album, fresh, rate=70.0)
    assert tree(target) == tree(fresh)


def test_only_what_failed_is_tried_again_when_asked(album: Path, tmp_path: Path) -> None:
    image = (album / "a" / "01.png").read_bytes()
    (album / "a" / "01.png").write_bytes(image[:300])
    target = tmp_path / "target"
    assert len(compress(album, target).failed) == 1
    (album / "a" / "01.png").write_bytes(image)
    photograph("rocket", 40, 40).save(album / "new.png")
    outcome = compress(album, target, retry_failed=True)
    assert (outcome.done, outcome.failed) == (1, [])
    assert "a/01.png.vtc" in tree(target)
    assert "new.png.vtc" not in tree(target)


def test_a_full_disk_ends_the_job_and_it_goes_on_to_the_same_files(
    album: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_new, written = folder_module.write_new, []

    def full(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) > 6:
            path.write_bytes(data[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_new(path, data)

    target = tmp_path / "target"
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "write_new", full)
        with pytest.raises(VaetoolsError, match=r"no space left on device; \d+ files are done: free some space") as caught:
            compress(album, target)
    there = tree(target)
    assert there.items() <= undisturbed.items()
    assert f"{len(there)} files are done" in str(caught.value)
    compress(album, target)
    assert tree(target) == undisturbed


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_a_disk_that_is_full_for_the_manifest_ends_the_job_too(
    album: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    write, calls, target = os.write, [], tmp_path / "target"

    def full(descriptor: int, data: memoryview) -> int:
        calls.append(descriptor)
        if len(calls) > lines:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(VaetoolsError, match=r"manifest.jsonl: disk quota exceeded; \d+ files are done: free some space"):
            compress(album, target)
    there = tree(target)
    assert there.items() <= undisturbed.items()
    assert {entry.output for entry in Manifest.read(target)} >= there.keys()
    compress(album, target)
    assert tree(target) == undisturbed


def test_a_job_that_fails_by_its_own_fault_leaves_nothing_half_done(
    album: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    def wrong(number: int) -> None:
        if number == 1:
            raise TypeError("a mistake in the program")

    target, threads = tmp_path / "target", threading.active_count()
    with pytest.raises(TypeError, match="a mistake in the program"):
        compress(album, target, FakeCodec(wrong))
    assert tree(target).items() <= undisturbed.items()
    assert threading.active_count() == threads
    compress(album, target)
    assert tree(target) == undisturbed


def test_ctrl_c_ends_the_command_with_130_and_leaves_no_temporary_files(album: Path, tmp_path: Path) -> None:
    for number in range(300):
        photograph("coffee", 64, 64).save(album / "a" / f"more-{number}.png")
    target = tmp_path / "target"
    command = [sys.executable, "-m", "vaetools", "compress", str(album), "-o", str(target), "--batch", "2", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(target.rglob("*.vtc")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    names = tree(target).keys()
    assert process.returncode == 130
    assert f"Interrupted: {len(names)} files are done; the same command goes on from there." in errors
    assert 0 < len(names) < 311
    assert all(name.endswith(".vtc") for name in names)
    assert names == {entry.output for entry in Manifest.read(target)}


def test_images_that_are_too_large_together_are_in_memory_one_after_another(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    read_picture = folder_module.read_picture

    def read(path: Path, **options: Any) -> Picture:
        events.append("read")
        return read_picture(path, **options)

    def code(self: FakeCoded) -> bytes:
        events.append("code")
        return self.data

    monkeypatch.setattr("vaetools.folder.pipeline.PIXELS_IN_FLIGHT", 3000)  # no two images
    monkeypatch.setattr(folder_module, "read_picture", read)
    monkeypatch.setattr(FakeCoded, "to_bytes", code)
    compress(album, tmp_path / "target", batch_size=1)
    assert events == ["read", "code"] * 11


def test_the_next_batch_is_read_while_one_is_worked_on(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    read_picture = folder_module.read_picture
    monkeypatch.setattr(folder_module, "read_picture", lambda path, **_: (reads.append(path), read_picture(path))[1])
    ahead = []

    def wait(number: int) -> None:
        deadline = time.monotonic() + 10
        while len(reads) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        ahead.append(len(reads))

    compress(album, tmp_path / "target", FakeCodec(wait))
    assert ahead[0] >= 8  # 4 of the first batch, 4 of the second


def test_an_error_of_one_image_is_told_and_the_rest_of_its_batch_is_done(album: Path, tmp_path: Path) -> None:
    class Choosy(FakeCodec):
        def encode(self, pictures: Sequence[Picture], *arguments: Any, **options: Any) -> list[FakeCoded]:
            if any(picture.width == 41 for picture in pictures):
                raise ImageError("41 is not to my taste")
            return super().encode(pictures, *arguments, **options)

    outcome = compress(album, tmp_path / "target", Choosy())
    assert outcome.failed == [(str(album / "a" / "01.png"), "41 is not to my taste")]
    assert outcome.done == 10
