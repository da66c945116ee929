"""The documentation keeps its word: its examples run, and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .docs_examples import PAGES, PROGRESS, ROOT, Example, Session, agrees, examples
from .docs_folders import PREPARED, prepare

RUN = {page.relative_to(ROOT).as_posix(): [example for example in examples(page) if example.is_command] for page in PAGES}
KINDS = {"console", "python"}


def to_run(page: str, *, slow: bool) -> list[Example]:
    runnable = [example for example in RUN[page] if "not run" not in example.marks]
    return [example for example in runnable if slow or "slow" not in example.marks]


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, slow: bool) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.syspath_prepend(str(folder))
    session = Session(folder, {"__name__": "__main__", **prepare(page, folder)})
    for example in to_run(page, slow=slow):
        session.run(example)


PAGES_TO_RUN = [page for page in RUN if to_run(page, slow=False) and page != "README.md"]  # tests/test_readme.py has that
SLOW_PAGES = [page for page in RUN if any("slow" in example.marks for example in RUN[page])]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib.*")
@pytest.mark.parametrize("page", PAGES_TO_RUN)
def test_examples_run_in_the_order_they_stand_in(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW_PAGES)
def test_slow_examples_run_too(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch, slow=True)


@pytest.mark.parametrize("page", RUN)
def test_every_example_runs_or_says_why_not(page: str) -> None:
    for example in RUN[page]:
        silent = example.language not in KINDS and not example.marks.get("not run")
        assert not silent, f"{example.place}: make it ```console, or put `<!-- not run: why -->` above it"
        assert example.language != "console" or example.text.startswith("$ "), f"{example.place} has no command after `$ `"


def test_marks_above_examples_are_known() -> None:
    """A comment above a block with a typing mistake in it would do nothing."""
    for page in PAGES:
        for comment in re.findall(r"^(<!-- .*-->)\n+```", page.read_text(encoding="utf-8"), re.M):
            assert re.match(r"<!-- (not run|slow|in tests): \S|<!-- ends with \d+ -->", comment), (page.name, comment)


def test_what_is_prepared_is_for_pages_that_are_there() -> None:
    assert set(PREPARED) <= set(RUN)


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("8 files, 0 bad\n", "8 files,  0 bad\n", True),
        ("8 files, 0 bad\n", "8 files, 1 bad\n", False),
        ("8 files, ...\n", "8 files, 0.3 s\n", True),
        ("...\n8 files\n...\n", "a\n8 files\nb\n", True),
        ("...\n9 files\n...\n", "a\n8 files\nb\n", False),
        ("1,000 bytes (x)\n", "1,020 bytes (x)\n", True),
        ("1,000 bytes (x)\n", "1,100 bytes (x)\n", False),
        ("torch.Size([2, 256])\n", "torch.Size([2, 256])\n", True),
        ("torch.Size([2, 256])\n", "torch.Size([2])\n", False),
        ("8 files\n", "8 files\nand more\n", False),
    ],
)
def test_what_is_printed_is_compared(expected: str, printed: str, same: bool) -> None:
    assert agrees(expected, printed) is same


def test_what_a_slow_machine_says_meanwhile_is_passed_over() -> None:
    printed = "7 of 8 files, 0.23 MP/s, about 0:00:01 left\n8 images compressed: 2.7 megapixels, 0.23 MP/s\n"
    assert PROGRESS.sub("", printed) == "8 images compressed: 2.7 megapixels, 0.23 MP/s\n"
