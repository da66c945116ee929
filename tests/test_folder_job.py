"""Folders in, folders out, from the command line."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner, Result
from PIL import Image

from vaetools.cli import main
from vaetools.codec.codec import Codec
from vaetools.codec.coded import Coded
from vaetools.codec.container import pack, unpack
from vaetools.folder.manifest import MANIFEST
from vaetools.folder.names import restored_name
from vaetools.images.picture import Picture
from vaetools.model.weights import PACKAGED


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
    """All files but the manifests."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def test_a_tree_of_photographs_goes_and_comes_back(album: Path, tmp_path: Path) -> None:
    done = run("compress", album, "-o", tmp_path / "small", "--quality", 70)
    assert done.exit_code == 0, done.output
    assert re.search(r"^3 images compressed: .* bpp, .* MP/s$", done.stdout, re.M)
    assert files_below(tmp_path / "small") == ["cats/Camera.PNG.vtc", "cats/small/chelsea.jpg.vtc", "flight.png.vtc"]
    done = run("decompress", tmp_path / "small", "-o", tmp_path / "back")
    assert done.exit_code == 0, done.output
    assert files_below(tmp_path / "back") == ["cats/Camera.PNG", "cats/small/chelsea.jpg.png", "flight.png"]
    with Image.open(tmp_path / "back/cats/Camera.PNG") as gray, Image.open(tmp_path / "back/flight.png") as colour:
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
    frames = [photograph("chelsea"), photograph("coffee")]
    frames[0].save(album / "film.gif", save_all=True, append_images=frames[1:])
    done = run("compress", album, "-o", tmp_path / "small", "--json")
    assert done.exit_code == 1
    outcome = json.loads(done.stdout)
    assert outcome["done"] == 3
    assert [Path(entry["path"]).name for entry in outcome["failed"]] == ["broken.png", "film.gif", "notes.jpg"]
    assert re.search(r"failed: .*film.gif: it has 2 frames", done.stderr)
    assert len(files_below(tmp_path / "small")) == 3


def test_alpha_and_metadata_come_back_and_pixels_stay_as_they_are_stored(album: Path, tmp_path: Path) -> None:
    window = photograph("chelsea").convert("RGBA")
    window.putalpha(Image.linear_gradient("L").resize(window.size))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a cat"  # turned by a quarter
    window.save(album / "window.png", exif=exif)
    assert run("compress", album, "-o", tmp_path / "small").exit_code == 0
    assert run("decompress", tmp_path / "small", "-o", tmp_path / "back").exit_code == 0
    with Image.open(tmp_path / "back" / "window.png") as restored:
        assert restored.size == window.size
        assert np.array_equal(restored.getchannel("A"), window.getchannel("A"))
        assert dict(restored.getexif()) == dict(exif)


def test_a_bad_file_is_one_line_and_the_others_are_restored(album: Path, tmp_path: Path) -> None:
    run("compress", album, "-o", tmp_path / "small")
    victim = tmp_path / "small" / "flight.png.vtc"
    data = bytearray(victim.read_bytes())
    data[-5] ^= 1
    victim.write_bytes(bytes(data))
    (tmp_path / "small" / "empty.vtc").write_bytes(b"")
    done = run("decompress", tmp_path / "small", "-o", tmp_path / "back")
    assert done.exit_code == 1
    assert re.search(r"failed: .*flight.png.vtc: the checksum of the payload does not match", done.stderr)
    assert "2 images restored, 2 failed" in done.stdout
    assert files_below(tmp_path / "back") == ["cats/Camera.PNG", "cats/small/chelsea.jpg.png"]


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
    before = sorted(tmp_path.rglob("*"))
    done = run(*(argument.format(**places) for argument in arguments))
    assert done.exit_code == 2
    assert words in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_model_names_the_installed_ones(album: Path, tmp_path: Path) -> None:
    done = run("compress", album, "-o", tmp_path / "out", "--model", "phot")
    assert done.exit_code == 1
    assert re.search(r"unknown model 'phot'.*photo-[0-9a-f]{16}", done.stderr)


@pytest.mark.parametrize(
    ("name", "format_name", "restored"),
    [
        ("a.png.vtc", "png", "a.png"),
        ("a.PNG.vtc", "png", "a.PNG"),
        ("a.jpg.vtc", "png", "a.jpg.png"),
        ("a.vtc", "png", "a.png"),
        ("a.b.webp.vtc", "png", "a.b.webp.png"),
        ("a.JPEG.vtc", "jpeg", "a.JPEG"),
        ("a.png.vtc", "jpeg", "a.png.jpg"),
        ("a.tif.vtc", "tiff", "a.tif"),
        ("a.png.vtc", "tiff", "a.png.tiff"),
        ("a.webp.vtc", "webp", "a.webp"),
        ("a.jpg.vtc", "original", "a.jpg"),
        ("a.gif.vtc", "original", "a.gif.png"),
        ("a.vtc", "original", "a.png"),
    ],
)
def test_a_restored_name_follows_from_one_name_alone(name: str, format_name: str, restored: str) -> None:
    assert restored_name(name, format_name) == restored


def test_two_files_of_one_restored_name_are_told(album: Path, tmp_path: Path) -> None:
    photograph("coffee").save(album / "a.jpg")
    photograph("rocket").save(album / "a.jpg.png")
    run("compress", album, "-o", tmp_path / "small")
    for _ in range(2):
        done = run("decompress", tmp_path / "small", "-o", tmp_path / "back")
        assert done.exit_code == 1
        assert re.search(r"failed: .*a\.jpg\.vtc: would be restored as a\.jpg\.png, like a\.jpg\.png\.vtc", done.stderr)
    compared = run("compare", album, tmp_path / "back")
    assert compared.exit_code == 1
    assert "another image's restoration, not that of a.jpg" in compared.stderr
    with Image.open(tmp_path / "back" / "a.jpg.png") as restored:
        difference = np.asarray(restored, float) - np.asarray(photograph("rocket"), float)
    assert np.sqrt((difference**2).mean()) < 12


def test_what_is_passed_over_is_told(album: Path, tmp_path: Path) -> None:
    (album / "notes.txt").write_text("a file of another kind")
    os.mkfifo(album / "pipe.png")
    (tmp_path / "elsewhere").mkdir()
    photograph("coffee").save(tmp_path / "elsewhere" / "coffee.png")
    (album / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    done = run("compress", album, "-o", tmp_path / "small", "--json")
    assert done.exit_code == 0
    outcome = json.loads(done.stdout)
    assert (outcome["done"], outcome["others"], outcome["linked"]) == (3, 2, [str(album / "link")])
    assert "link: a link to a folder" in done.stderr


def test_content_that_needs_a_helper_program_is_not_opened(album: Path, tmp_path: Path) -> None:
    (album / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    assert "script.png: cannot be read" in run("compress", album, "-o", tmp_path / "small").stderr


def test_an_image_that_memory_does_not_hold_is_one_line(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Codec.encode

    def starved(self: Codec, pictures: list[Picture], *arguments: Any, **options: Any) -> list[Coded]:
        if any(picture.height == 50 for picture in pictures) or len(pictures) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return encode(self, pictures, *arguments, **options)

    monkeypatch.setattr(Codec, "encode", starved)
    done = run("compress", album, "-o", tmp_path / "small")
    assert done.exit_code == 1
    assert "chelsea.jpg: not enough memory for 0.0 megapixels" in done.stderr
    assert "2 images compressed, 1 failed" in done.stdout


def test_a_file_of_an_unusable_model_is_one_line(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("compress", album, "-o", tmp_path / "small")
    (tmp_path / "models").mkdir()
    damaged = tmp_path / "models" / "photo-0011223344556677.safetensors"
    damaged.write_bytes(b"rubbish")
    monkeypatch.setenv("VAETOOLS_MODELS", str(tmp_path / "models"))
    file = unpack((tmp_path / "small/flight.png.vtc").read_bytes())
    tiles = [(payload, entry.symbols_crc) for payload, entry in zip(file.payloads, file.front.entries, strict=True)]
    foreign = pack(replace(file.header, model_hash=bytes.fromhex("0011223344556677")), file.front.boxes, tiles)
    (tmp_path / "small/flight.png.vtc").write_bytes(foreign)
    done = run("decompress", tmp_path / "small", "-o", tmp_path / "back", "--model", packaged("photo"))
    assert done.exit_code == 1
    assert "flight.png.vtc: the model that it was written with cannot be used" in done.stderr
    assert "2 images restored, 1 failed" in done.stdout


def packaged(name: str) -> Path:
    return next(PACKAGED.glob(f"{name}-*.safetensors"))


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_images_above_the_chosen_limit_are_refused(album: Path, tmp_path: Path, command: str) -> None:
    run("compress", album, "-o", tmp_path / "small")
    source = album if command == "compress" else tmp_path / "small"
    done = run(command, source, "-o", tmp_path / "out", "--max-megapixels", 0.005)
    assert "1 images" in done.stdout
    assert "96 x 80 pixels is above the limits" in done.stderr


def test_a_folder_named_like_the_model_does_not_matter(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo").mkdir()
    assert run("compress", album, "-o", "small").exit_code == 0


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
