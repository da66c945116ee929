"""What the options of `compress` and `decompress` choose."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaetools.codec.codec import Codec
from vaetools.codec.container import check_file, read_header, unpack
from vaetools.errors import Desync, UsageError
from vaetools.files import read_from_disk
from vaetools.folder.manifest import Manifest
from vaetools.folder.plan import Selection

from .conftest import photograph
from .medical_files import dicom, slice_of
from .test_folder_job import files_below, run


@pytest.fixture
def album(tmp_path: Path) -> Path:
    root = tmp_path / "album"
    (root / "cats" / "private").mkdir(parents=True)
    photograph("astronaut", 96, 80).save(root / "flight.png")
    photograph("chelsea", 70, 50).save(root / "cats" / "chelsea.jpg", quality=95)
    photograph("chelsea", 64, 64).save(root / "cats" / "private" / "Me.PNG")
    return root


@pytest.fixture
def small(album: Path, tmp_path: Path) -> Path:
    """The album, compressed."""
    assert run("compress", album, "-o", tmp_path / "small").exit_code == 0
    return tmp_path / "small"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--include", "*.png"), ["flight.png"]),
        (("--include", "*.png", "--include", "*.jpg"), ["cats/chelsea.jpg", "flight.png"]),
        (("--include", "cats/*"), ["cats/chelsea.jpg", "cats/private/Me.PNG"]),
        (("--exclude", "cats/private/*"), ["cats/chelsea.jpg", "flight.png"]),
        (("--exclude", "chelsea.*", "--exclude", "*.PNG"), ["flight.png"]),
        (("--include", "cats/*", "--exclude", "Me.*"), ["cats/chelsea.jpg"]),
    ],
    ids=" ".join,
)
def test_patterns_choose_files(album: Path, tmp_path: Path, options: tuple[str, ...], names: list[str]) -> None:
    done = run("compress", album, "-o", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    assert files_below(tmp_path / "out") == [f"{name}.vtc" for name in names]
    assert f"left out: {3 - len(names)} files by --include and --exclude" in done.stderr


def test_patterns_that_leave_nothing_are_wrong_usage(album: Path, tmp_path: Path) -> None:
    done = run("compress", album, "-o", tmp_path / "out", "--include", "*.tiff")
    assert done.exit_code == 2
    assert "none of its 3 files is left by --include and --exclude" in done.stderr


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(album: Path, tmp_path: Path) -> None:
    run("compress", album, "-o", tmp_path / "out", "--include", "flight.png")
    (album / "broken.png").write_bytes((album / "flight.png").read_bytes()[:40])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = run("compress", album, "-o", tmp_path / "out", "--dry-run")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"{album}/broken.png -> {tmp_path}/out/broken.png.vtc  (fails: cannot be read (not an image Pillow can read))",
        f"{album}/cats/chelsea.jpg -> {tmp_path}/out/cats/chelsea.jpg.vtc",
        f"{album}/cats/private/Me.PNG -> {tmp_path}/out/cats/private/Me.PNG.vtc",
        f"{album}/flight.png -> {tmp_path}/out/flight.png.vtc  (there already)",
        "2 images would be compressed, 1 there already, 1 would fail",
    ]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "todo", "stale"),
    [
        ((), 0, 0),
        (("-q", "50"), 0, 3),
        (("--tile-size", "512"), 0, 3),
        (("--preview",), 0, 3),
        (("--on-exists", "overwrite"), 0, 0),
        (("-q", "50", "--on-exists", "overwrite"), 3, 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_dry_run_knows_what_is_out_of_date(album: Path, small: Path, options: tuple[str, ...], todo: int, stale: int) -> None:
    done = run("compress", album, "-o", small, "--dry-run", "--json", *options)
    found = json.loads(done.stdout)
    assert (found["todo"], found["skipped"], found["stale"]) == (todo, 3 - todo, stale)
    assert [file["todo"] for file in found["files"]] == 3 * [todo > 0]


def test_a_dry_run_foresees_places_that_cannot_be_written(album: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "cats").mkdir(parents=True)
    (tmp_path / "out" / "cats" / "private").write_text("a file, where a folder is needed")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "cats").symlink_to(tmp_path / "elsewhere")
    assert "Me.PNG.vtc  (fails: " in run("compress", album, "-o", tmp_path / "out", "--dry-run").stdout
    done = run("compress", album, "-o", tmp_path / "linked", "--dry-run")
    assert "chelsea.jpg.vtc  (fails: " in done.stdout
    assert "is a link, and nothing is written through links" in done.stdout


def test_a_dry_run_the_other_way(small: Path, tmp_path: Path) -> None:
    (small / "flight.png.vtc").write_bytes(b"rubbish")
    done = run("decompress", small, "-o", tmp_path / "back", "--format", "jpeg", "--dry-run")
    assert done.exit_code == 1
    assert f"{small}/cats/chelsea.jpg.vtc -> {tmp_path}/back/cats/chelsea.jpg\n" in done.stdout
    assert "flight.png.jpg  (fails: not a .vtc file)" in done.stdout
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_dry_run_needs_neither_torch_nor_a_model(album: Path, small: Path, tmp_path: Path, command: str) -> None:
    source = album if command == "compress" else small
    arguments = [command, str(source), "-o", str(tmp_path / "out"), "--dry-run", "--model", "nowhere"]
    probe = f"import sys; from vaetools.cli import main; main({arguments}, standalone_mode=False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    verb = {"compress": "compressed", "decompress": "restored"}[command]
    assert done.stdout.splitlines()[-2:] == [f"3 images would be {verb}", "False"]


def test_files_keep_to_a_size(album: Path, tmp_path: Path) -> None:
    assert run("compress", album, "-o", tmp_path / "out", "--target-size", "0.9kB").exit_code == 0
    sizes = [path.stat().st_size for path in (tmp_path / "out").rglob("*.vtc")]
    assert all(860 < size <= 900 for size in sizes)


def test_files_keep_to_bits_per_pixel(album: Path, tmp_path: Path) -> None:
    assert run("compress", album, "-o", tmp_path / "out", "--target-bpp", 1.5).exit_code == 0
    bpp = [entry.bpp for entry in Manifest.read(tmp_path / "out")]
    assert len(bpp) == 3
    assert all(1.4 < value <= 1.5 for value in bpp)


def test_files_keep_to_a_psnr(album: Path, tmp_path: Path) -> None:
    assert run("compress", album, "-o", tmp_path / "out", "--target-psnr", 28, "--verify").exit_code == 0
    assert all(27.9 < (entry.psnr or 0) < 28.5 for entry in Manifest.read(tmp_path / "out"))


def test_a_target_that_is_out_of_reach_is_noted(album: Path, tmp_path: Path) -> None:
    done = run("compress", album, "-o", tmp_path / "out", "--target-psnr", 70, "--json")
    assert done.exit_code == 0
    notes = json.loads(done.stdout)["notes"]
    assert [Path(note["path"]).name for note in notes] == ["chelsea.jpg", "Me.PNG", "flight.png"]
    assert "the target of 70 dB is out of reach" in notes[0]["notes"][0]
    assert "note: 3 files: the target of 70 dB is out of reach" in done.stderr
    assert all("out of reach" in entry.notes[0] for entry in Manifest.read(tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--quality", "50", "--target-bpp", "1"), "--quality and --target-bpp exclude each other"),
        (("--target-psnr", "40", "--target-size", "1MB"), "--target-size and --target-psnr exclude each other"),
        (("--target-size", "much"), "'much' is no size"),
        (("--target-size", "0"), "'0' is no size"),
        (("--target-size", "5 apples"), "is no size"),
        (("--target-bpp", "0"), "x>0"),
        (("--tile-size", "100"), "the tile size must be a multiple of 64"),
        (("--batch", "0"), "x>=1"),
        (("--on-exists", "ask"), "'ask' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_options_are_told_and_write_nothing(album: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    done = run("compress", album, "-o", tmp_path / "out", *options)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("700", 700), ("2kB", 2000), ("2KB", 2000), ("2k", 2000), ("2KiB", 2048), ("0.0015MB", 1500), ("0.001 MiB", 1049)],
)
def test_sizes_have_units(album: Path, tmp_path: Path, text: str, size: int) -> None:
    run("compress", album / "flight.png", "-o", tmp_path / "out", "--target-size", text)
    (entry,) = Manifest.read(tmp_path / "out")
    assert f"size {float(size)}," in entry.settings
    assert entry.output_bytes <= size


def test_the_tile_size_and_the_preview_are_passed_on(album: Path, tmp_path: Path) -> None:
    assert run("compress", album / "flight.png", "-o", tmp_path / "out", "--tile-size", 64, "--preview").exit_code == 0
    contents = unpack((tmp_path / "out" / "flight.png.vtc").read_bytes())
    assert b"prev" in contents.front.boxes
    photograph("rocket", 256, 192).save(album / "large.png")
    run("compress", album / "large.png", "-o", tmp_path / "out", "--tile-size", 64)
    assert check_file((tmp_path / "out" / "large.png.vtc").read_bytes()).tiles == 12


def test_verified_files_have_their_psnr_in_the_manifest(album: Path, tmp_path: Path) -> None:
    done = run("compress", album, "-o", tmp_path / "out", "--verify", "--json")
    outcome = json.loads(done.stdout)
    values = {entry.path: entry.psnr for entry in Manifest.read(tmp_path / "out")}
    assert outcome["verified"] == len(values) == 3
    assert outcome["lowest_psnr"] == pytest.approx(min(values.values()), abs=1e-3)
    run("decompress", tmp_path / "out", "-o", tmp_path / "back")
    with Image.open(tmp_path / "back" / "flight.png") as restored, Image.open(album / "flight.png") as original:
        error = np.mean((np.asarray(restored, float) - np.asarray(original, float)) ** 2)
    assert values["flight.png"] == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)


def test_a_file_that_does_not_verify_gets_no_name(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = Codec.check

    def strict(self: Codec, data: bytes, picture: Any) -> float:
        if picture.width == 96:
            raise Desync("it decodes to something else")
        return check(self, data, picture)

    monkeypatch.setattr(Codec, "check", strict)
    done = run("compress", album, "-o", tmp_path / "out", "--verify")
    assert done.exit_code == 1
    assert "flight.png: it decodes to something else" in done.stderr
    assert files_below(tmp_path / "out") == ["cats/chelsea.jpg.vtc", "cats/private/Me.PNG.vtc"]


def test_a_file_that_the_disk_does_not_give_back_gets_no_name(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decayed(path: Path) -> bytes:
        data = bytearray(read_from_disk(path))
        data[len(data) // 2] ^= 8 * (read_header(bytes(data))[0].width == 96)
        return bytes(data)

    monkeypatch.setattr("vaetools.folder.job.read_from_disk", decayed)
    done = run("compress", album, "-o", tmp_path / "out", "--verify")
    assert "flight.png: what the disk gives back is not what was written to it" in done.stderr
    assert "2 images compressed, 1 failed" in done.stdout
    assert files_below(tmp_path / "out") == ["cats/chelsea.jpg.vtc", "cats/private/Me.PNG.vtc"]


@pytest.mark.parametrize(
    ("format_name", "names", "formats"),
    [
        ("png", ["cats/chelsea.jpg.png", "cats/private/Me.PNG", "flight.png"], ["PNG", "PNG", "PNG"]),
        ("jpeg", ["cats/chelsea.jpg", "cats/private/Me.PNG.jpg", "flight.png.jpg"], ["JPEG", "JPEG", "JPEG"]),
        ("webp", ["cats/chelsea.jpg.webp", "cats/private/Me.PNG.webp", "flight.png.webp"], ["WEBP", "WEBP", "WEBP"]),
        ("tiff", ["cats/chelsea.jpg.tiff", "cats/private/Me.PNG.tiff", "flight.png.tiff"], ["TIFF", "TIFF", "TIFF"]),
        ("original", ["cats/chelsea.jpg", "cats/private/Me.PNG", "flight.png"], ["JPEG", "PNG", "PNG"]),
    ],
)
def test_images_are_restored_in_the_format_that_was_asked_for(
    small: Path, tmp_path: Path, format_name: str, names: list[str], formats: list[str]
) -> None:
    done = run("decompress", small, "-o", tmp_path / "back", "--format", format_name)
    assert done.exit_code == 0, done.output
    assert files_below(tmp_path / "back") == names
    for name, expected in zip(names, formats, strict=True):
        with Image.open(tmp_path / "back" / name) as image:
            assert image.format == expected


def test_what_a_format_does_not_hold_is_one_line(album: Path, tmp_path: Path) -> None:
    window = photograph("coffee", 64, 64).convert("RGBA")
    window.putalpha(100)
    window.save(album / "window.png")
    run("compress", album, "-o", tmp_path / "small")
    done = run("decompress", tmp_path / "small", "-o", tmp_path / "back", "--format", "jpeg")
    assert done.exit_code == 1
    assert "window.png.vtc: jpeg holds no alpha channel" in done.stderr
    assert "3 images restored, 1 failed" in done.stdout


@pytest.fixture
def damaged(album: Path, tmp_path: Path) -> Path:
    """The album, compressed in tiles, one of which is damaged in a file of twelve."""
    photograph("rocket", 256, 192).save(album / "large.png")
    run("compress", album, "-o", tmp_path / "small", "--tile-size", 64)
    path = tmp_path / "small" / "large.png.vtc"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    return tmp_path / "small"


def test_a_damaged_file_is_not_restored_in_part_unless_asked(damaged: Path, tmp_path: Path) -> None:
    assert run("decompress", damaged, "-o", tmp_path / "back").exit_code == 1
    assert not (tmp_path / "back" / "large.png").exists()


def test_a_damaged_file_is_restored_as_far_as_it_goes_and_counts_as_failed(damaged: Path, tmp_path: Path) -> None:
    done = run("decompress", damaged, "-o", tmp_path / "back", "--allow-partial")
    assert done.exit_code == 1
    assert "large.png.vtc: the checksum of the payload of tile 11 (of 12) does not match" in done.stderr
    assert "3 images restored, 1 failed" in done.stdout
    with Image.open(tmp_path / "back" / "large.png") as image:
        restored = np.asarray(image, float)
    kept = np.abs(restored - np.asarray(photograph("rocket", 256, 192), float))
    assert kept[:128].mean() < 12
    assert np.ptp(restored[150:, 210:]) == 0  # gray


def test_a_file_that_was_restored_in_part_stays_failed(damaged: Path, tmp_path: Path) -> None:
    run("decompress", damaged, "-o", tmp_path / "back", "--allow-partial")
    before = (tmp_path / "back" / "large.png").stat().st_mtime_ns
    for _ in range(2):
        done = run("decompress", damaged, "-o", tmp_path / "back", "--allow-partial")
        assert done.exit_code == 1
        assert "large.png.vtc: restored in part only: the checksum of the payload of tile 11" in done.stderr
        assert (tmp_path / "back" / "large.png").stat().st_mtime_ns == before


def test_a_good_file_in_place_of_a_damaged_one_is_no_failure_of_before(album: Path, damaged: Path, tmp_path: Path) -> None:
    run("decompress", damaged, "-o", tmp_path / "back", "--allow-partial")
    run("compress", album, "-o", tmp_path / "again", "--tile-size", 64)
    (tmp_path / "again" / "large.png.vtc").replace(damaged / "large.png.vtc")
    done = run("decompress", damaged, "-o", tmp_path / "back", "--allow-partial")
    assert done.exit_code == 0, done.output
    assert "restored in part" not in done.stderr
    assert "out of date" in done.stdout + done.stderr


def test_a_file_that_was_restored_in_part_is_replaced_when_its_failure_is_retried(
    album: Path, damaged: Path, tmp_path: Path
) -> None:
    run("decompress", damaged, "-o", tmp_path / "back", "--allow-partial")
    run("compress", album, "-o", tmp_path / "again", "--tile-size", 64)
    (tmp_path / "again" / "large.png.vtc").replace(damaged / "large.png.vtc")
    done = run("decompress", damaged, "-o", tmp_path / "back", "--retry-failed")
    assert done.exit_code == 0, done.output
    assert "1 images restored" in done.stdout
    with Image.open(tmp_path / "back" / "large.png") as image:
        assert np.ptp(np.asarray(image)[150:, 210:]) > 0


def test_conversions_are_counted_and_told_for_each_file(album: Path, tmp_path: Path) -> None:
    photograph("coffee", 64, 64).convert("CMYK").save(album / "ink.jpg")
    photograph("rocket", 64, 64).convert("CMYK").save(album / "ink.tif")
    done = run("compress", album, "-o", tmp_path / "out", "--json")
    notes = {Path(note["path"]).name: note["notes"] for note in json.loads(done.stdout)["notes"]}
    assert sorted(notes) == ["ink.jpg", "ink.tif"]
    assert "note: 2 files: CMYK was converted to RGB" in done.stderr
    noted = {entry.path: list(entry.notes) for entry in Manifest.read(tmp_path / "out") if entry.notes}
    assert noted == notes


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UsageError, match="on_exists must be one of skip, overwrite, error, not 'ask'"):
        Selection(on_exists="ask")


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaetools.cli.progress.LINE_SECONDS", 0.0)
    done = run("compress", album, "-o", tmp_path / "out")
    lines = [
        line for line in done.stderr.splitlines() if re.fullmatch(r"\d of 3 files, \d+\.\d\d MP/s, about 0:00:\d\d left", line)
    ]
    assert [line[0] for line in lines] == ["1", "2", "3"]


def test_settings_that_begin_like_others_are_not_those(tmp_path: Path) -> None:
    source, target = tmp_path / "scans", tmp_path / "back"
    source.mkdir()
    dicom(source / "a.dcm", slice_of("camera", 64))
    run("compress", source, "-o", tmp_path / "small")
    run("decompress", tmp_path / "small", "-o", target, "--format", "png", "--window")
    assert np.asarray(Image.open(target / "a.dcm.png")).dtype == np.uint8
    done = run("decompress", tmp_path / "small", "-o", target, "--format", "png", "--on-exists", "overwrite")
    assert done.exit_code == 0, done.output
    assert np.asarray(Image.open(target / "a.dcm.png")).max() > 255
