"""`vaetools verify`: what it finds in a folder of compressed files."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaetools.codec.container import CHECKSUM, HEADER_BYTES, TILE, check_file
from vaetools.folder.manifest import MANIFEST
from vaetools.images import folder
from vaetools.images.folder import Listing

from .conftest import photograph
from .test_folder_job import run


@pytest.fixture
def album(tmp_path: Path) -> Path:
    root = tmp_path / "album"
    (root / "cats").mkdir(parents=True)
    photograph("astronaut", 96, 80).save(root / "flight.png")
    photograph("chelsea", 70, 50).save(root / "cats" / "chelsea.jpg", quality=95)
    photograph("coffee", 96, 80).save(root / "coffee.png")
    return root


@pytest.fixture
def small(album: Path, tmp_path: Path) -> Path:
    run("compress", album, "-o", tmp_path / "small")
    return tmp_path / "small"


def found(*arguments: object, code: int = 0) -> dict[str, Any]:
    done = run("verify", *arguments, "--json")
    assert done.exit_code == code, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def bad(*arguments: object) -> dict[str, str]:
    return {entry["path"]: entry["problem"] for entry in found(*arguments, code=1)["bad"]}


QUICK_OR_NOT = pytest.mark.parametrize("options", [(), ("--quick",)], ids=["", "quick"])


@QUICK_OR_NOT
def test_a_good_folder_is_good(small: Path, options: tuple[str, ...]) -> None:
    result = found(small, *options)
    assert result == {"checked": 3, "bad": [], "unknown": [], "manifest": True, "psnr": {}, "others": 0}
    assert run("verify", small, *options).stdout.startswith("3 files checked")


@QUICK_OR_NOT
@pytest.mark.parametrize("position", [0, 20, 60, -1], ids=["magic", "header", "middle", "end"])
def test_one_wrong_bit_is_found(small: Path, options: tuple[str, ...], position: int) -> None:
    data = bytearray((small / "flight.png.vtc").read_bytes())
    data[position] ^= 1
    (small / "flight.png.vtc").write_bytes(data)
    assert list(bad(small, *options)) == ["flight.png.vtc"]


@QUICK_OR_NOT
def test_a_file_cut_short_is_found(small: Path, options: tuple[str, ...]) -> None:
    path = small / "cats" / "chelsea.jpg.vtc"
    path.write_bytes(path.read_bytes()[:-10])
    assert "10 bytes of the payload are missing" in bad(small, *options)["cats/chelsea.jpg.vtc"]


@QUICK_OR_NOT
def test_a_missing_file_is_found(small: Path, options: tuple[str, ...]) -> None:
    (small / "flight.png.vtc").unlink()
    assert bad(small, *options) == {"flight.png.vtc": "is missing: the manifest says that it was written"}


def test_a_folder_of_which_only_the_manifest_is_left_is_bad(small: Path) -> None:
    for path in small.rglob("*.vtc"):
        path.unlink()
    assert len(bad(small)) == 3


@QUICK_OR_NOT
def test_a_good_file_that_is_another_one_is_found(small: Path, options: tuple[str, ...]) -> None:
    (small / "flight.png.vtc").write_bytes((small / "coffee.png.vtc").read_bytes())
    assert "not the file that the manifest tells of" in bad(small, *options)["flight.png.vtc"]


def test_a_file_that_decodes_to_other_symbols_is_found_by_decoding_alone(small: Path) -> None:
    path = small / "flight.png.vtc"
    data = bytearray(path.read_bytes())
    table = slice(HEADER_BYTES, HEADER_BYTES + TILE.size)
    length, payload_crc, symbols_crc = TILE.unpack(data[table])
    data[table] = TILE.pack(length, payload_crc, symbols_crc ^ 1)
    CHECKSUM.pack_into(data, table.stop, zlib.crc32(data[table]))
    path.write_bytes(data)
    check_file(bytes(data))
    (small / MANIFEST).unlink()
    assert found(small, "--quick")["bad"] == []
    assert "symbols" in bad(small)["flight.png.vtc"]


def test_a_file_that_the_manifest_does_not_know_is_told_and_not_bad(small: Path) -> None:
    (small / "copy.vtc").write_bytes((small / "coffee.png.vtc").read_bytes())
    assert found(small)["unknown"] == ["copy.vtc"]
    assert "unknown to the manifest: 1 files, such as copy.vtc" in run("verify", small).stderr


def test_a_folder_without_a_manifest_is_checked_by_itself(small: Path) -> None:
    (small / MANIFEST).unlink()
    assert found(small)["manifest"] is False
    assert "has no manifest: whether files are missing cannot be told" in run("verify", small).stderr


def test_what_failed_when_it_was_compressed_is_told(album: Path, tmp_path: Path) -> None:
    (album / "notes.png").write_text("not an image")
    run("compress", album, "-o", tmp_path / "small")
    assert bad(tmp_path / "small") == {"notes.png": "was not compressed: cannot be read (not an image Pillow can read)"}
    (album / "notes.png").unlink()
    found(tmp_path / "small", "--against", album)  # no longer an original, so nothing is lost


def test_the_psnr_of_each_file_is_that_of_its_restoration(album: Path, small: Path, tmp_path: Path) -> None:
    psnr = found(small, "--against", album)["psnr"]
    assert list(psnr) == ["cats/chelsea.jpg.vtc", "coffee.png.vtc", "flight.png.vtc"]
    run("decompress", small, "-o", tmp_path / "back")
    with Image.open(album / "coffee.png") as original, Image.open(tmp_path / "back" / "coffee.png") as restored:
        error = np.mean((np.asarray(original, float) - np.asarray(restored, float)) ** 2)
    assert psnr["coffee.png.vtc"] == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)
    assert f"{psnr['coffee.png.vtc']:6.2f} dB  coffee.png.vtc" in run("verify", small, "--against", album).stdout


@QUICK_OR_NOT
def test_an_original_without_a_file_is_found(album: Path, small: Path, options: tuple[str, ...]) -> None:
    photograph("rocket", 64, 64).save(album / "cats" / "new.png")
    assert bad(small, "--against", album, *options) == {"cats/new.png": "has no compressed file"}


def test_a_file_of_another_image_is_found(album: Path, small: Path) -> None:
    photograph("rocket", 96, 80).rotate(180).save(album / "flight.png")
    assert "decodes to another image" in bad(small, "--against", album)["flight.png.vtc"]


def test_a_file_of_another_size_is_found(album: Path, small: Path) -> None:
    photograph("astronaut", 80, 96).save(album / "flight.png")
    assert "decodes to pixels of shape" in bad(small, "--against", album)["flight.png.vtc"]


def test_an_original_that_cannot_be_read_is_told(album: Path, small: Path) -> None:
    (album / "flight.png").write_bytes(b"rubbish")
    assert "cannot be read" in bad(small, "--against", album)["flight.png.vtc"]


def test_files_without_their_originals_are_still_decoded(album: Path, small: Path) -> None:
    (album / "flight.png").unlink()
    result = found(small, "--against", album)
    assert (result["checked"], list(result["psnr"])) == (3, ["cats/chelsea.jpg.vtc", "coffee.png.vtc"])


def test_originals_around_the_folder_are_not_mistaken(album: Path) -> None:
    run("compress", album, "-o", album / "small")
    run("decompress", album / "small", "-o", album / "small" / "back")
    assert len(found(album / "small", "--against", album)["psnr"]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{tmp}/nowhere",), "no such folder"),
        (("{tmp}/album",), "looked for vtc"),
        (("{tmp}/small", "--against", "{tmp}/no"), "no: no such folder"),
    ],
    ids=["missing", "empty", "no originals"],
)
def test_wrong_usage_is_told(small: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run("verify", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_quick_check_needs_neither_torch_nor_a_model(small: Path) -> None:
    arguments = ["verify", str(small), "--quick", "--model", "nowhere"]
    probe = f"import sys; from vaetools.cli import main; main({arguments}, standalone_mode=False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["3 files checked by their checksums, 0 bad", "False"]


def test_an_original_that_changed_since_is_found(album: Path, small: Path) -> None:
    """Of the same shape, and near enough in PSNR: the manifest knows its size."""
    with Image.open(album / "flight.png") as image:
        image.point(lambda value: min(255, value + 8)).save(album / "flight.png")
    assert "original has changed since" in bad(small, "--against", album)["flight.png.vtc"]


def test_files_beside_the_originals_that_no_archive_has_are_told(album: Path, small: Path) -> None:
    """Who deletes the folder next would lose them."""
    (album / "captions.txt").write_text("a cat")
    done = run("verify", small, "--against", album, "--quick")
    assert (done.exit_code, done.stderr) == (0, f"not looked at: 1 files of other kinds in {album}: compress leaves them out\n")
    assert run("verify", small, "--quick").stderr == ""


def tars_of(album: Path, target: Path, *options: object) -> Path:
    assert run("compress", album, "-o", target, "--tar", "--tar-samples", 2, *options).exit_code in (0, 1)
    return target


def test_tars_of_another_division_are_good(album: Path, tmp_path: Path) -> None:
    small = tars_of(album, tmp_path / "tars")
    (album / "00.png").write_bytes((album / "coffee.png").read_bytes())
    assert found(tars_of(album, small, "--on-exists", "overwrite"), "--quick")["checked"] == 4


def test_what_was_left_out_of_its_tar_is_told(album: Path, tmp_path: Path) -> None:
    (album / "coffee.jpg").write_bytes(b"broken")
    problems = bad(tars_of(album, tmp_path / "tars"), "--quick")
    assert sorted(problems) == ["coffee.jpg", "coffee.png"]
    assert "left out of its tar" in problems["coffee.png"]


def test_a_tar_that_is_missing_is_found(album: Path, tmp_path: Path) -> None:
    small = tars_of(album, tmp_path / "tars")
    (small / "shard-000001.tar").unlink()
    assert list(bad(small, "--quick")) == ["shard-000001.tar/flight.png.vtc"]


def test_an_edited_original_of_the_same_size_is_found(tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    photo = np.asarray(photograph("coffee", 96, 80)).copy()
    Image.fromarray(photo).save(tmp_path / "album" / "a.bmp")
    Image.fromarray(photo // 64 * 85).convert("P", colors=4).save(tmp_path / "album" / "labels.png")
    run("compress", tmp_path / "album", "-o", tmp_path / "small", "--verify")
    assert found(tmp_path / "small", "--against", tmp_path / "album")["bad"] == []
    photo[20:60, 20:60] = photo[20:60, 20:60] // 2 + 60
    Image.fromarray(photo).save(tmp_path / "album" / "a.bmp")
    assert "its original has changed since: " in bad(tmp_path / "small", "--against", tmp_path / "album")["a.bmp.vtc"]


def test_originals_that_cannot_be_listed_are_told(album: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(root: Path, *arguments: Any, **options: Any) -> Listing:
        listing = folder.walk(root, *arguments, **options)
        listing.unreadable.append((album / "locked", "Permission denied"))
        return listing

    monkeypatch.setattr("vaetools.folder.verify.walk", walk)
    assert bad(small, "--against", album) == {str(album / "locked"): "originals that cannot be listed: Permission denied"}
