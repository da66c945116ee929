"""The README keeps its word: its commands run, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import skimage.data
import torch
from click.testing import CliRunner
from PIL import Image

from vaetools.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the README speaks of, in the current directory."""
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    Image.fromarray(skimage.data.chelsea()).resize((180, 120)).save(folder / "cat.jpg", quality=95)
    Image.fromarray(skimage.data.coffee()).resize((170, 165)).save(folder / "trip" / "coffee.png")
    monkeypatch.chdir(tmp_path)
    return folder


def commands() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", README, re.S)
    return [shlex.split(line[2:]) for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib.*")
def test_commands_run_in_the_order_they_stand_in(photos: Path) -> None:
    assert len(commands()) >= 7
    for program, *arguments in commands():
        assert program == "vaetools"
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, (arguments, done.output)
    augmented = ("larger/cat__v2.png", "preview/.vaetools-preview.html")
    applied = ("samples/.vaetools-grid.png", "strip.png", "clean/cat.jpg.png", "photos.npz")
    for made in ("restored/trip/coffee.png", *augmented, *applied, "curves.png", "result.json", "runs/mine/metrics.csv"):
        assert (photos.parent / made).is_file()


def test_python_examples_run(photos: Path) -> None:
    first, second, third = re.findall(r"```python\n(.*?)```", README, re.S)
    names = {"images": [torch.from_numpy(skimage.data.chelsea()[:70, :90].copy()).permute(2, 0, 1)]}
    exec(first, names)
    assert names["images"][0].shape == (3, 70, 90)
    assert names["corner"].shape == (3, 64, 64)
    exec(second, {})
    with Image.open("small.png") as small:
        assert small.size == (64, 64)
    exec(third, names)
    assert names["more"][0].shape == names["images"][0].shape


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_format_page_has_the_header_that_is_written() -> None:
    from vaetools.codec.container import CHECKSUM, FIELDS, PREFIX

    page = (ROOT / "FORMAT.md").read_text(encoding="utf-8").partition("## Header")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ", page, re.M)
    assert sum(int(size) for _, size in rows) == PREFIX.size + FIELDS.size
    assert f"length of the fields, {FIELDS.size}" in page
    assert CHECKSUM.size == 4
