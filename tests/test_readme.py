"""The README keeps its word: its commands run, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .docs_examples import PAGES, ROOT, Session, examples
from .docs_folders import prepare


@pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib.*")
def test_examples_run_in_the_order_they_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = prepare("README.md", tmp_path)
    session = Session(tmp_path, names)
    ran = [example for example in examples(ROOT / "README.md") if example.is_command and "not run" not in example.marks]
    assert sum(example.language == "console" for example in ran) >= 5
    assert sum(example.language == "python" for example in ran) >= 3
    for example in ran:
        session.run(example)
    augmented = ("larger/cat__v2.png", "preview/.vaetools-preview.html")
    applied = ("samples/.vaetools-grid.png", "strip.png", "clean/cat.jpg.png", "photos.npz", "small.png")
    for made in ("restored/trip/coffee.png", *augmented, *applied, "curves.png", "result.json", "runs/mine/metrics.csv"):
        assert (tmp_path / made).is_file()
    assert names["corner"].shape == (3, 64, 64)
    assert names["images"][0].shape == names["more"][0].shape == (3, 70, 90)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
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
