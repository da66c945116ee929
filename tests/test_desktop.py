"""Thumbnails, and the files by which a desktop knows .vtc files."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageOps

import vaetools.pillow
from vaetools.cli import main
from vaetools.codec.container import EXIF, MAGIC, SCAN
from vaetools.desktop import integration, thumbnail
from vaetools.desktop.integration import MARK, Integration, thumbnailer_entry, types_xml
from vaetools.medical.scan import DICOM, Scan

from . import desktop_files as files
from .desktop_files import BLUE, RED

TYPES, THUMBNAILER = "mime/packages/vaetools.xml", "thumbnailers/vaetools.thumbnailer"
needs_gio = pytest.mark.skipif(
    not (shutil.which("gio") and shutil.which("update-mime-database")), reason="needs gio and update-mime-database"
)


def call(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), env=environment)


def preview_file(folder: Path, **boxes: bytes) -> Path:
    more = {name.encode(): content for name, content in boxes.items()}
    return files.put(folder / "a.vtc", files.with_preview(files.webp(files.two_colours()), more))


# Thumbnails.


def test_a_thumbnail_is_the_preview(tmp_path: Path) -> None:
    done = call("thumbnail", preview_file(tmp_path), tmp_path / "a.png", "--size", 256)
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "a.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (80, 48))  # never enlarged
        assert (image.getpixel((2, 20)), image.getpixel((77, 20))) == (RED, BLUE)


@pytest.mark.parametrize(("size", "expected"), [(40, (40, 24)), (79, (79, 47)), (1, (1, 1))])
def test_a_thumbnail_keeps_the_shape(tmp_path: Path, size: int, expected: tuple[int, int]) -> None:
    call("thumbnail", preview_file(tmp_path), tmp_path / "a.png", "-s", size)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_stands_upright(tmp_path: Path, orientation: int) -> None:
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[:10, :20] = RED
    path = files.put(tmp_path / "a.vtc", files.lossless(pixels, {EXIF: files.exif(orientation)}))
    call("thumbnail", path, tmp_path / "a.png")
    # What Pillow makes of the same tag.
    expected = Image.fromarray(pixels)
    buffer = io.BytesIO()
    expected.save(buffer, "PNG", exif=files.exif(orientation))
    with Image.open(tmp_path / "a.png") as image, Image.open(buffer) as turned:
        assert np.array_equal(np.asarray(image), np.asarray(ImageOps.exif_transpose(turned)))
        assert not image.getexif()


@pytest.mark.parametrize(("channels", "mode"), [(1, "RGB"), (2, "RGBA"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_thumbnail_of_pixels_that_are_kept_without_loss(tmp_path: Path, channels: int, mode: str, kind: type) -> None:
    pixels = np.zeros((20, 300, channels), kind)
    pixels[:, 150:] = np.iinfo(kind).max
    path = files.put(tmp_path / "a.vtc", files.lossless(pixels))
    call("thumbnail", path, tmp_path / "a.png", "--size", 128)
    with Image.open(tmp_path / "a.png") as image:
        assert (image.mode, image.size) == (mode, (128, 9))
        assert image.getpixel((120, 4)) == (255,) * len(mode)
        assert image.getpixel((4, 4)) == (0,) * len(mode)


def test_a_scan_is_shown_through_its_window(tmp_path: Path) -> None:
    scan = Scan(DICOM, 12, centre=500.5, width=201.0)  # from 400 to 600
    pixels = np.array([[0, 400, 500, 600, 4000]], np.uint16)[:, :, None].repeat(5, 0)
    call("thumbnail", files.put(tmp_path / "a.vtc", files.lossless(pixels, {SCAN: scan.pack()})), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image)[2, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_no_more_than_the_boxes_are_read(tmp_path: Path) -> None:
    path = preview_file(tmp_path)
    path.write_bytes(path.read_bytes()[: -len(b"payload.")])
    assert call("thumbnail", path, tmp_path / "a.png").exit_code == 0


def test_large_pixels_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail.small_picture, "__kwdefaults__", {"max_pixels": 99})
    path = files.put(tmp_path / "a.vtc", files.lossless(np.zeros((10, 10, 3), np.uint8)))
    done = call("thumbnail", path, tmp_path / "a.png")
    assert (done.exit_code, "holds no preview" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (files.without_preview(), "it holds no preview: compress it with --preview"),
        (files.with_preview(b"RIFF"), "the preview is no WebP image"),
        (b"GIF89a", "not a .vtc file"),
        (files.with_preview(b"RIFF")[:40], "the file ends after 40 bytes"),
        (None, "No such file"),
    ],
    ids=["no preview", "broken preview", "another format", "truncated", "missing"],
)
def test_files_without_a_thumbnail(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "a.vtc"
    if data is not None:
        path.write_bytes(data)
    done = call("thumbnail", path, tmp_path / "a.png")
    assert (done.exit_code, message in done.stderr, str(path) in done.stderr) == (1, True, True), done.stderr
    assert not (tmp_path / "a.png").exists()


def test_a_file_that_is_there_is_left_alone_unless_it_is_said(tmp_path: Path) -> None:
    path, target = preview_file(tmp_path), tmp_path / "a.png"
    target.write_bytes(b"mine")
    done = call("thumbnail", path, target)
    assert (done.exit_code, target.read_bytes()) == (2, b"mine")
    assert "--overwrite" in done.stderr
    assert call("thumbnail", "--overwrite", path, target).exit_code == 0
    assert target.read_bytes().startswith(b"\x89PNG")


def test_an_empty_file_is_written_in_its_place(tmp_path: Path) -> None:
    """Thunar's daemon makes one, which only its user may read, and goes on reading the one that it has open."""
    target = tmp_path / "a.png"
    with target.open("w+b") as file:
        target.chmod(0o600)
        assert call("thumbnail", preview_file(tmp_path), target).exit_code == 0
        assert file.read(4) == b"\x89PNG"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_folder_and_the_file_itself_are_no_places_for_a_thumbnail(tmp_path: Path) -> None:
    path = preview_file(tmp_path)
    before = path.read_bytes()
    for target in (tmp_path, path):
        done = call("thumbnail", "--overwrite", path, target)
        assert (done.exit_code, "no place for a thumbnail" in done.stderr) == (2, True)
    assert path.read_bytes() == before


def test_a_thumbnail_takes_no_torch_and_little_time(tmp_path: Path) -> None:
    path = preview_file(tmp_path)
    probe = f"""
import sys
from vaetools.cli import main
main(["thumbnail", {str(path)!r}, {str(tmp_path / "a.png")!r}, "--overwrite"], standalone_mode=False)
print(sorted({{"torch", "numpy", "cv2"}} & set(sys.modules)))
"""

    def seconds() -> float:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.8


# The type and the thumbnailer.


def test_the_type_is_that_of_pillow_and_of_the_format() -> None:
    space = "{http://www.freedesktop.org/standards/shared-mime-info}"
    (declared,) = ElementTree.fromstring(types_xml())
    assert declared.get("type") == vaetools.pillow.MIME_TYPE == Image.MIME["VTC"]
    glob, match = declared.find(f"{space}glob"), declared.find(f"{space}magic/{space}match")
    assert glob is not None
    assert match is not None
    assert glob.get("pattern") == "*.vtc"
    assert (match.get("value") or "").encode().decode("unicode_escape").encode("latin-1") == MAGIC


def test_install_says_what_it_writes_and_uninstall_takes_it_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration.shutil, "which", lambda name: None)
    done = call("desktop", "install", XDG_DATA_HOME=str(tmp_path))
    assert done.exit_code == 0, done.output
    assert sorted(files_below(tmp_path)) == [TYPES, THUMBNAILER]
    assert all(f"wrote {tmp_path / name}" in done.output for name in (TYPES, THUMBNAILER))
    assert "update-mime-database is not installed" in done.output
    done = call("desktop", "uninstall", XDG_DATA_HOME=str(tmp_path))
    assert files_below(tmp_path) == []
    assert all(f"removed {tmp_path / name}" in done.output for name in (TYPES, THUMBNAILER))
    assert "nothing of vaetools" in call("desktop", "uninstall", XDG_DATA_HOME=str(tmp_path)).output


def test_install_tells_of_a_sandbox_that_does_not_show_vaetools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration.shutil, "which", lambda name: None)
    for place, told in ((tmp_path, True), (Path(sys.prefix).resolve(), False)):
        monkeypatch.setattr(integration, "SANDBOX", place)
        done = call("desktop", "install", XDG_DATA_HOME=str(tmp_path))
        assert ("GNOME Files shows no thumbnails" in done.output) == told


def test_install_again_renews_what_is_there(tmp_path: Path) -> None:
    place = Integration(tmp_path)
    place.install(lambda line: None)
    (tmp_path / THUMBNAILER).write_text(f"# {MARK}\nold")
    place.install(lambda line: None)
    assert (tmp_path / THUMBNAILER).read_text() == thumbnailer_entry(sys.executable)


@pytest.mark.parametrize("name", [TYPES, THUMBNAILER])
@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, name: str, action: str) -> None:
    place = tmp_path / name
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    done = call("desktop", action, XDG_DATA_HOME=str(tmp_path))
    assert (done.exit_code, files_below(tmp_path), place.read_text()) == (2, [name], "mine")
    assert str(place) in done.stderr


def test_the_data_folder_is_that_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, expected in (("", ".local/share"), ("relative", ".local/share"), (str(tmp_path / "x"), "x")):
        monkeypatch.setenv("XDG_DATA_HOME", given)
        assert integration.data_home() == tmp_path / expected


@pytest.mark.parametrize("python", ["/usr/bin/python3", "/home/me/My Tools/100%/bin/python", "/a\"b$c'd/python"])
def test_the_entry_names_a_command_as_a_shell_takes_it(python: str) -> None:
    entry = dict(line.split("=", 1) for line in thumbnailer_entry(python).splitlines()[2:])
    assert shlex.split(entry["Exec"].replace("%%", "%")) == [
        *(python, "-P", "-m", "vaetools", "thumbnail", "--overwrite", "--size", "%s", "%i", "%o")
    ]
    assert (entry["TryExec"], entry["MimeType"]) == (python, "image/x-vaetools;")


def test_the_command_of_the_entry_makes_a_thumbnail(tmp_path: Path) -> None:
    entry = thumbnailer_entry(sys.executable)
    command = next(line for line in entry.splitlines() if line.startswith("Exec=")).removeprefix("Exec=").split(" ")
    values = {"%s": "64", "%i": str(preview_file(tmp_path)), "%o": str(tmp_path / "a.png")}
    subprocess.run([values.get(word, word) for word in command], check=True, cwd=tmp_path)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (64, 38)


@needs_gio
def test_a_desktop_knows_the_type(tmp_path: Path) -> None:
    data, home = tmp_path / "data", tmp_path / "files"
    home.mkdir()
    environment = {**os.environ, "XDG_DATA_HOME": str(data)}
    named = preview_file(home)
    bare = files.put(home / "bare", named.read_bytes())  # by its magic number
    other = files.put(home / "other.png", b"\x89PNG\r\n\x1a\n" + bytes(20))

    def types() -> list[str]:
        names = [str(path) for path in (named, bare, other)]
        command = ["gio", "info", "-a", "standard::content-type", *names]
        lines = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.splitlines()
        return [line.rpartition(" ")[2] for line in lines if "standard::content-type:" in line]

    assert "image/x-vaetools" not in types()
    assert "ran update-mime-database" in call("desktop", "install", XDG_DATA_HOME=str(data)).output
    assert types() == ["image/x-vaetools", "image/x-vaetools", "image/png"]
    call("desktop", "uninstall", XDG_DATA_HOME=str(data))
    assert "image/x-vaetools" not in types()


@needs_gio
def test_a_database_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "mime" / "packages").mkdir(parents=True)
    (tmp_path / "mime" / "packages" / "broken.xml").write_text("no XML")
    (tmp_path / "mime" / "mime.cache.new").mkdir()
    done = call("desktop", "install", XDG_DATA_HOME=str(tmp_path))
    assert (done.exit_code, "update-mime-database" in done.stderr) == (1, True)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
