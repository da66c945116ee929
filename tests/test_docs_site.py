"""The documentation as a site: it is built without a warning, every link leads somewhere, and nothing comes from elsewhere."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import click
import pytest

import vaetools
from vaetools.cli import main

from .browser import Browser, find_chromium
from .docs_examples import PAGES, ROOT

SITE = ROOT / "docs" / "site"
FETCHED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as scripts/docs does. Strict: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(SITE / "mkdocs.yml"), "--site-dir"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


@dataclass
class Page(HTMLParser):
    """What a page names: fetched by the browser, linked to, and the places in it that can be linked to."""

    fetched: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.places |= {known[name] or "" for name in ("id", "name") if name in known}
        if tag == "a" and known.get("href"):
            self.links.append(known["href"] or "")
        if known.get(FETCHED.get(tag, "")) and known.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(known[FETCHED[tag]] or "")


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = {}
    for path in sorted(site.rglob("*.html")):
        found[path] = Page()
        found[path].feed(path.read_text(encoding="utf-8"))
    return found


def address_of(page: Path) -> str:
    """Of a Markdown file, in the site."""
    path = page.relative_to(ROOT)
    inside = path.relative_to("docs") if path.parts[0] == "docs" else Path(path.name.lower())
    return "index.html" if path.name == "README.md" else inside.with_suffix(".html").as_posix()


def test_every_page_is_in_the_navigation(site: Path, pages: dict[Path, Page]) -> None:
    linked = {link.partition("#")[0] for link in pages[site / "index.html"].links}
    assert {address_of(page) for page in PAGES} <= linked | {"index.html"}


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the root of a server
            continue
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme in ("https", "mailto", "data"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            known = target in pages and (not place or place in pages[target].places or place.startswith("__"))
            if not (known or (target.is_file() and target.suffix != ".html")):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert [address for address in page.fetched if urlsplit(address).scheme or address.startswith("//")] == [], path
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert [address for address in re.findall(r"(?:url\(|@import )['\"]?(\w+:)", text) if address != "data:"] == [], sheet


def test_pictures_of_the_pages_are_there(site: Path, pages: dict[Path, Page]) -> None:
    shown = {Path(address).name for page in pages.values() for address in page.fetched if address.endswith(".png")}
    assert {"qualities.png", "kodak.png", "report.png", "anomaly.png"} <= shown
    assert all((site / "assets" / name).is_file() for name in shown)


def test_reference_has_every_public_name(pages: dict[Path, Page], site: Path) -> None:
    places = {place for path, page in pages.items() if path.parent == site / "api" for place in page.places}
    assert {f"vaetools.{name}" for name in vaetools.__all__} - {"vaetools.__version__"} <= places | aliases(places)


def aliases(places: set[str]) -> set[str]:
    """A name of the package is in the reference too if what it stands for is, or what is in it."""
    stands_for = {f"vaetools.{name}": f"vaetools.{path}.{name}" for name, path in vaetools._MODULES.items()}
    modules = {place.rpartition(".")[0] for place in places}
    return {name for name, path in stands_for.items() if path in places} | modules | {"vaetools.VaetoolsError"}


def commands(group: click.Group, context: click.Context, path: str) -> dict[str, click.Command]:
    found = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, context, f"{path}-{name}")
        found[f"{path}-{name}"] = command
    return found


def test_reference_has_every_command_and_option(site: Path, pages: dict[Path, Page]) -> None:
    text = (site / "commands.html").read_text(encoding="utf-8")
    found = commands(main, click.Context(main), "vaetools")
    assert set(found) <= pages[site / "commands.html"].places
    for place, command in found.items():
        part = text[text.index(f'id="{place}"') :]
        part = part[: part.find("<h2 ", 1)]
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) and not parameter.hidden else ():
                assert option in part, (place, option)


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site_docstrings", SITE / "docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_prose_of_a_docstring_becomes_sections(docstrings: ModuleType) -> None:
    prose = inspect.cleandoc("""One file per image.

    images: a batch, or
        a list. quality: 0 to 100. low, high: a range.
    Raises UsageError on a wrong type, ImageError for no image, and OSError if it
    cannot be written. What is there stays.

    >>> compress(images)
    """)
    assert docstrings.sections(prose, {"images", "quality", "low", "high"}).text("Parameters").splitlines() == [
        "One file per image.",
        "",
        "What is there stays.",
        "",
        "Parameters:",
        "    images: a batch, or a list.",
        "    quality: 0 to 100.",
        "    low: a range.",
        "    high: a range.",
        "",
        "Raises:",
        "    UsageError: On a wrong type.",
        "    ImageError: For no image.",
        "    OSError: If it cannot be written.",
        "",
        "Examples:",
        "    >>> compress(images)",
    ]


def test_prose_without_names_stays(docstrings: ModuleType) -> None:
    prose = "Note: this is no argument. Raises what went wrong."
    assert docstrings.sections(prose, {"path"}).text("Parameters") == prose


IN_A_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no chromium is installed"),
    pytest.mark.skipif(os.name != "posix", reason="the pipes to chromium are those of POSIX"),
]


def in_a_browser(test: Callable[..., None]) -> Callable[..., None]:
    """The pages are opened as files: neither a server nor a network."""
    for mark in IN_A_BROWSER:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@in_a_browser
def test_search_works_without_a_server(browser: Browser, site: Path) -> None:
    browser.send("Page.navigate", url=f"{(site / 'index.html').as_uri()}?q=desync")
    deadline, found = time.monotonic() + 30, ""
    while "errors.html" not in found and time.monotonic() < deadline:
        time.sleep(0.1)
        found = str(browser.run("document.querySelector('.md-search-result')?.innerHTML"))
    assert "errors.html" in found
    assert [address for address in browser.requests if not address.startswith(("file:", "data:", "about:"))] == []


@in_a_browser
@pytest.mark.parametrize("page", ["index.html", "conventions.html", "commands.html", "api/codec.html", "anomaly.html"])
def test_a_phone_scrolls_in_one_direction(browser: Browser, site: Path, page: str) -> None:
    browser.resize(390, 800, phone=True)
    browser.open(site / page)
    width = browser.run("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0
