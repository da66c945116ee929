"""`vaetools report`: what its options do, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import photograph
from .report_files import compressed, run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "photos").mkdir()
    for name in ("astronaut", "coffee", "chelsea"):
        photograph(name, 96, 80).save(folder / "photos" / f"{name}.png")
    compressed(folder / "photos", folder / "small")
    return folder


def test_a_page_is_written(root: Path, tmp_path: Path) -> None:
    done = run("report", root / "small", "-o", tmp_path / "r.html", "--originals", root / "photos", "--against", "jpeg")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert done.stdout == f"{tmp_path}/r.html: 3 images, 3 of them with pictures, 0 bad; {len(page.encode()):,} bytes\n"
    assert page.startswith("<!DOCTYPE html>")
    assert "Against JPEG, equal bytes" in page
    assert "WebP, equal bytes" not in page


def test_numbers_as_json(root: Path, tmp_path: Path) -> None:
    options = ("--originals", root / "photos", "--against", "webp", "--images", 1, "--json")
    done = run("report", root / "small", "-o", tmp_path / "r.html", *options)
    found = json.loads(done.stdout)
    assert found["bytes"] == (tmp_path / "r.html").stat().st_size
    assert [image["name"] for image in found["images"]] == ["astronaut.png", "chelsea.png", "coffee.png"]
    assert sum(len(image["peers"]) for image in found["images"]) == 1
    assert found["totals"]["worst"] == min(found["images"], key=lambda image: image["psnr"])["name"]
    assert found["totals"]["file_bytes"] == sum(image["file_bytes"] for image in found["images"])


def test_pictures_are_as_many_and_as_large_as_asked_for(root: Path, tmp_path: Path) -> None:
    base = ("report", root / "small", "-o", tmp_path / "r.html", "--originals", root / "photos", "--against", "none")
    assert "2 of them with pictures" in run(*base, "--images", 2, "--crop", 32).stdout
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '"place": [' in page
    assert all(f"pixels-{number}-original" in page for number in (0, 1))
    assert "pixels-2-" not in page
    cut = json.loads(page.partition('id="shots">')[2].partition("</script>")[0])
    assert [shot["place"][2:] for shot in cut] == [[32, 32], [32, 32]]
    assert "0 of them with pictures" in run(*base, "--images", 0, "--overwrite").stdout


def test_a_page_that_is_there_is_kept_unless_told_otherwise(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    page.write_text("mine")
    done = run("report", root / "small", "-o", page)
    assert (done.exit_code, "is there already; choose another name, or --overwrite" in done.stderr) == (2, True)
    assert page.read_text() == "mine"
    assert run("report", root / "small", "-o", page, "--overwrite", "--images", 0).exit_code == 0
    assert page.read_text(encoding="utf-8") != "mine"


def test_a_bad_file_is_told_and_the_page_is_written(root: Path, tmp_path: Path) -> None:
    compressed(root / "photos", tmp_path / "small")
    (tmp_path / "small" / "coffee.png.vtc").write_bytes(b"rubbish")
    done = run("report", tmp_path / "small", "-o", tmp_path / "r.html", "--images", 0)
    assert done.exit_code == 1
    assert "bad: coffee.png: " in done.stderr
    assert "1 image: keep the original" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_images_above_the_limit_are_bad(root: Path, tmp_path: Path) -> None:
    done = run("report", root / "small", "-o", tmp_path / "r.html", "--max-megapixels", 0.001)
    assert (done.exit_code, "above the limits" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{root}/small", "-o", "{tmp}/r.png"), "give it a name that ends in .html"),
        (("{root}/small", "-o", "{tmp}/no/r.html"), "no folder"),
        (("{root}/nowhere", "-o", "{tmp}/r.html"), "nowhere: no such folder"),
        (("{root}/photos", "-o", "{tmp}/r.html"), "looked for vtc"),
        (("{root}/small", "-o", "{tmp}/r.html", "--originals", "{root}/small"), "is the compressed folder itself"),
        (("{root}/small", "-o", "{tmp}/r.html", "--originals", "{root}/no"), "no: no such folder"),
        (("{root}/small", "-o", "{tmp}/r.html", "--against", "bpg"), "unknown codec 'bpg'"),
        (("{root}/small", "-o", "{tmp}/r.html", "--crop", "8"), "--crop"),
        (("{root}/small",), "--output"),
    ],
)
def test_wrong_usage(root: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run("report", *(argument.format(root=root, tmp=tmp_path) for argument in arguments))
    assert (done.exit_code, message in done.stderr) == (2, True), done.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_page(root: Path, tmp_path: Path) -> None:
    (tmp_path / "r.html").mkdir()
    done = run("report", root / "small", "-o", tmp_path / "r.html", "--overwrite")
    assert (done.exit_code, "is a folder" in done.stderr) == (2, True)


def test_help_needs_no_torch() -> None:
    code = "import sys; from vaetools.cli import main; main(['report', '--help'], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--originals" in done.stdout
