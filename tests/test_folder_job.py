"""Folders in, folders out, from the command line."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner, Result
from PIL import Image

from vaetools.cli import main
from vaetools.codec import folder as folder_module
from vaetools.codec.folder import restored_names


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def photograph(name: str, size: tuple[int, int] = (96, 80)) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)()).resize(size, Image.Resampling.LANCZOS)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three photographs, one of them gray, in a tree."""
    root = tmp_path / "album"
    (root / "cats" / "small").mkdir(parents=True)
    photograph("astronaut").save(root / "flight.png")
    photograph("chelsea", (70, 50)).save(root / "cats" / "small" / "chelsea.jpg", quality=95)
    photograph("camera").save(root / "cats" / "Camera.PNG")
    return root


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_tree_of_photographs_goes_and_comes_back(album: Path, tmp_path: Path) -> None:
    done = run("compress", album, "-o", tmp_path / "small", "--quality", 70)
    assert done.exit_code == 0, done.output
    assert re.search(r"^3 images compressed: .* bpp, .* MP/s$", done.stdout, re.M)
    assert files_below(tmp_path / "small") == ["cats/Camera.PNG.vtc", "cats/small/chelsea.jpg.vtc", "flight.png.vtc"]
    done = run("decompress", tmp_path / "small", "-o", tmp_path / "back")
    assert done.exit_code == 0, done.output
    assert files_below(tmp_path / "back") == ["cats/Camera.png", "cats/small/chelsea.png", "flight.png"]
    with Image.open(tmp_path / "back/cats/Camera.png") as gray, Image.open(tmp_path / "back/flight.png") as colour:
        assert (gray.mode, gray.size, colour.mode, colour.size) == ("L", (96, 80), "RGB", (96, 80))
        difference = np.asarray(colour, float) - np.asarray(photograph("astronaut"), float)
        assert np.sqrt((difference**2).mean()) < 12


def test_one_image_is_a_folder_of_one(album: Path, tmp_path: Path) -> None:
    assert run("compress", album / "flight.png", "-o", tmp_path / "small").exit_code == 0
    assert run("decompress", tmp_path / "small" / "flight.png.vtc", "-o", tmp_path / "back").exit_code == 0
    assert files_below(tmp_path / "back") == ["flight.png"]


def test_a_bad_image_is_one_line_and_the_others_are_done(album: Path, tmp_path: Path) -> None:
    (album / "broken.png").write_bytes((album / "flight.png").read_bytes()[:600])
    (album / "notes.jpg").write_text("not an image")
    photograph("chelsea").convert("RGBA").save(album / "window.png")
    done = run("compress", album, "-o", tmp_path / "small", "--json")
    assert done.exit_code == 1
    outcome = json.loads(done.stdout)
    assert outcome["done"] == 3
    assert sorted(Path(entry["path"]).name for entry in outcome["failed"]) == ["broken.png", "notes.jpg", "window.png"]
    assert re.search(r"failed: .*window.png: .*transparency", done.stderr)
    assert len(files_below(tmp_path / "small")) == 3


def test_a_bad_file_is_one_line_and_the_others_are_restored(album: Path, tmp_path: Path) -> None:
    run("compress", album, "-o", tmp_path / "small")
    victim = tmp_path / "small" / "flight.png.vtc"
    data = bytearray(victim.read_bytes())
    data[-5] ^= 1
    victim.write_bytes(bytes(data))
    (tmp_path / "small" / "empty.vtc").write_bytes(b"")
    done = run("decompress", tmp_path / "small", "-o", tmp_path / "back")
    assert done.exit_code == 1
    assert re.search(r"failed: .*flight.png.vtc: the checksum of the payload", done.stderr)
    assert "2 images restored, 2 failed" in done.stdout
    assert files_below(tmp_path / "back") == ["cats/Camera.png", "cats/small/chelsea.png"]


def test_the_same_command_again_skips_what_is_there(album: Path, tmp_path: Path) -> None:
    run("compress", album, "-o", tmp_path / "small")
    (tmp_path / "small" / "flight.png.vtc").unlink()
    before = (tmp_path / "small/cats/Camera.PNG.vtc").stat().st_mtime_ns
    done = run("compress", album, "-o", tmp_path / "small")
    assert "1 images compressed, 2 there already" in done.stdout
    assert (tmp_path / "small/cats/Camera.PNG.vtc").stat().st_mtime_ns == before


def test_existing_files_are_overwritten_or_refused_when_asked(album: Path, tmp_path: Path) -> None:
    run("compress", album, "-o", tmp_path / "small", "-q", 20)
    small = (tmp_path / "small/flight.png.vtc").stat().st_size
    refused = run("compress", album, "-o", tmp_path / "small", "-q", 95, "--on-exists", "error")
    assert refused.exit_code == 2
    assert "--on-exists" in refused.stderr
    assert (tmp_path / "small/flight.png.vtc").stat().st_size == small
    assert run("compress", album, "-o", tmp_path / "small", "-q", 95, "--on-exists", "overwrite").exit_code == 0
    assert (tmp_path / "small/flight.png.vtc").stat().st_size > small


@pytest.mark.parametrize("batch", [1, 8])
def test_batches_of_mixed_sizes_write_what_single_images_do(album: Path, tmp_path: Path, batch: int) -> None:
    for number, side in enumerate((40, 64, 65, 128, 40, 64)):
        photograph("coffee", (side, 40)).save(album / f"{number}.png")
    done = run("compress", album, "-o", tmp_path / "small", "--batch", batch)
    assert done.exit_code == 0, done.output
    assert run("decompress", tmp_path / "small", "-o", tmp_path / "back", "--batch", 9 - batch).exit_code == 0
    for path in sorted(album.glob("?.png")):
        with Image.open(path) as original, Image.open(tmp_path / "back" / path.name) as restored:
            assert original.size == restored.size


def test_a_full_disk_ends_the_job_and_it_can_go_on(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full(path: Path, data: bytes) -> None:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "replace_bytes", full)
        done = run("compress", album, "-o", tmp_path / "small", "--batch", 1)
    assert done.exit_code == 1
    assert "no space left; 1 files are done" in done.stderr
    assert "2 images compressed, 1 there already" in run("compress", album, "-o", tmp_path / "small").stdout


def test_no_half_written_file_is_left_behind(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", fail)
    done = run("compress", album, "-o", tmp_path / "small")
    assert done.exit_code == 1
    assert files_below(tmp_path / "small") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compress", "{album}/nowhere", "-o", "{out}"), "no such file or folder"),
        (("compress", "{empty}", "-o", "{out}"), "no image in it"),
        (("compress", "{album}", "-o", "{album}"), "must not be the input folder"),
        (("compress", "{album}", "-o", "{album}/flight.png"), "is a file"),
        (("compress", "{album}", "-o", "{out}", "-q", "101"), "0<=x<=100"),
        (("compress", "{album}", "-o", "{out}", "--device", "abacus"), "abacus"),
        (("decompress", "{album}", "-o", "{out}"), "looked for vtc"),
    ],
    ids=["missing", "empty", "in place", "onto a file", "quality", "device", "nothing to restore"],
)
def test_wrong_usage_is_told_and_writes_nothing(album: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "empty").mkdir()
    places = {"album": album, "empty": tmp_path / "empty", "out": tmp_path / "out"}
    before = files_below(tmp_path)
    done = run(*(argument.format(**places) for argument in arguments))
    assert done.exit_code == 2
    assert words in done.stderr
    assert files_below(tmp_path) == before


def test_an_unknown_model_names_the_installed_ones(album: Path, tmp_path: Path) -> None:
    done = run("compress", album, "-o", tmp_path / "out", "--model", "phot")
    assert done.exit_code == 1
    assert re.search(r"unknown model 'phot'.*photo-[0-9a-f]{16}", done.stderr)


def test_restored_names_never_collide() -> None:
    root = Path("x")
    paths = [root / name for name in ("a.jpg.vtc", "a.png.vtc", "a.webp.vtc", "b.jpg.vtc", "c/a.jpg.vtc", "plain.vtc")]
    names = [name.as_posix() for name in restored_names(paths, root)]
    assert names == ["a.jpg.png", "a.png", "a.webp.png", "b.png", "c/a.png", "plain.png"]


def test_compare_shows_sizes_and_closeness(album: Path, tmp_path: Path) -> None:
    run("compress", album, "-o", tmp_path / "small")
    run("decompress", tmp_path / "small", "-o", tmp_path / "back")
    done = run("compare", album, tmp_path / "back", "--compressed", tmp_path / "small")
    assert done.exit_code == 0, done.output
    assert "cats/small/chelsea.jpg" in done.stdout
    result = json.loads(run("compare", album, tmp_path / "back", "--compressed", tmp_path / "small", "--json").stdout)
    flight = next(row for row in result["images"] if row["image"] == "flight.png")
    assert flight["compressed_bytes"] == (tmp_path / "small/flight.png.vtc").stat().st_size
    assert flight["bpp"] == pytest.approx(8 * flight["compressed_bytes"] / (96 * 80))
    (tmp_path / "back/flight.png").unlink()
    done = run("compare", album, tmp_path / "back")
    assert done.exit_code == 1
    assert "flight.png: no such file" in done.stderr


def test_info_prints_the_header(album: Path, tmp_path: Path) -> None:
    run("compress", album, "-o", tmp_path / "small", "-q", 33.33)
    path = tmp_path / "small/flight.png.vtc"
    (fields,) = json.loads(run("info", path, "--json").stdout)
    assert (fields["width"], fields["height"], fields["quality"], fields["file_bytes"]) == (96, 80, 33.33, path.stat().st_size)
    assert fields["header_bytes"] + fields["payload_bytes"] == fields["file_bytes"]
    done = run("info", path, album / "flight.png")
    assert done.exit_code == 1
    assert "33.33" in done.stdout
    assert "flight.png: not a .vtc file" in done.stderr
