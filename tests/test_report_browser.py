"""The report's page in Chromium: what a user sees, clicks and presses."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .browser import Browser, find_chromium
from .report_files import EVIL, compressed, make_photos, run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no chromium is installed"),
    pytest.mark.skipif(os.name != "posix", reason="the pipes to chromium are those of POSIX"),
]

NAMES = "[...document.querySelectorAll('#images tbody tr')].map((row) => row.cells[0].dataset.v)"
VALUES = "[...document.querySelectorAll('#images tbody tr')].map((row) => row.cells[{}].dataset.v)"
DECODED = "Promise.all([...document.querySelectorAll('#stage img[src]')].map((image) => image.decode())).then(() => true)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    compressed(make_photos(root / "photos"), root / "small")
    done = run("report", root / "small", "-o", root / "r.html", "--originals", root / "photos", "--crop", 128)
    assert done.exit_code == 0, done.output
    return root / "r.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, page: Path) -> Iterator[Browser]:
    """With the page, freshly loaded. At the end its console has said nothing, and nothing came from elsewhere."""
    chromium.errors.clear()
    chromium.requests.clear()
    chromium.resize(1200, 900)
    chromium.media("light")
    chromium.open(page)
    chromium.run(DECODED)
    yield chromium
    assert chromium.errors == []
    assert [address for address in chromium.requests if not address.startswith("data:")] == [page.resolve().as_uri()]


def value(browser: Browser) -> int:
    return int(browser.run("document.getElementById('handle').getAttribute('aria-valuenow')"))


def text(browser: Browser, name: str) -> str:
    return str(browser.run(f"document.getElementById('{name}').textContent"))


def pressed(browser: Browser, name: str) -> bool:
    return bool(browser.run(f"document.getElementById('{name}').getAttribute('aria-pressed') === 'true'"))


def centre(browser: Browser, selector: str) -> tuple[float, float]:
    browser.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{ block: 'center' }})")
    x, y = browser.run(
        f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect(); "
        "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    return x, y


def click(browser: Browser, selector: str) -> None:
    x, y = centre(browser, selector)
    for kind in ("mousePressed", "mouseReleased"):
        browser.mouse(kind, x, y, button="left", clickCount=1)


def stage(browser: Browser) -> np.ndarray:
    """(H, W, 3) of what the viewer shows, as it is painted."""
    browser.run("document.getElementById('stage').scrollIntoView()")
    browser.run(DECODED)
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
    box: list[float] = browser.run(
        "(() => { const r = document.getElementById('stage').getBoundingClientRect(); return [r.x, r.y, r.right, r.bottom]; })()"
    )
    with Image.open(io.BytesIO(browser.picture())) as image:
        return np.asarray(image.convert("RGB").crop(tuple(round(edge) for edge in box)), int)


def test_the_page_loads_without_a_complaint(browser: Browser) -> None:
    assert browser.run("document.title") == "vaetools report: small"
    assert text(browser, "position") == "1 of 7"
    assert EVIL in browser.run(NAMES)
    assert browser.run("document.querySelectorAll('#images tbody img').length") == 7


def test_the_worst_image_comes_first(browser: Browser) -> None:
    values = [float(each) for each in browser.run(VALUES.format(6))]
    assert values == sorted(values)
    assert text(browser, "name") == browser.run(NAMES)[0]


def test_a_heading_sorts_and_turns_the_order_round(browser: Browser) -> None:
    click(browser, "#images thead th:nth-child(4) button")
    values = [int(each) for each in browser.run(VALUES.format(3))]
    assert values == sorted(values, reverse=True)
    order = "[...document.querySelectorAll('#images thead th')].map((head) => head.getAttribute('aria-sort'))"
    assert browser.run(order).index("descending") == 3
    assert browser.run(order).count("none") == len(browser.run(order)) - 1
    click(browser, "#images thead th:nth-child(4) button")
    assert [int(each) for each in browser.run(VALUES.format(3))] == values[::-1]


def test_a_heading_sorts_by_enter_and_unknown_values_are_last(browser: Browser) -> None:
    browser.run("document.querySelector('#images thead th:nth-child(8) button').focus()")
    for _ in range(2):
        browser.press("Enter")
        values = browser.run(VALUES.format(7))
        assert values[0] != ""
        assert set(values[1:]) == {""}  # MS-SSIM of the one image that is large enough


def test_names_sort_by_letters(browser: Browser) -> None:
    click(browser, "#images thead th:nth-child(1) button")
    names = browser.run(NAMES)
    assert names[-2:] == ["trip/dither.png", "trip/turned.jpg"]
    assert names.index("astronaut.png") < names.index("camera.png") < names.index("deep.png")


def test_keys_move_the_slider(browser: Browser) -> None:
    browser.run("document.getElementById('handle').focus()")
    assert value(browser) == 50
    browser.press("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp")
    assert value(browser) == 54
    browser.press("Home")
    assert value(browser) == 0
    browser.press("ArrowLeft")
    assert value(browser) == 0
    browser.press("End")
    assert value(browser) == 100
    told = browser.run("document.getElementById('handle').getAttribute('aria-valuetext')")
    assert told == "100 % Original, the rest vaetools"


def test_the_slider_shows_one_picture_on_each_side(browser: Browser) -> None:
    while text(browser, "name") != "astronaut.png":
        browser.press("n")
    browser.run("document.getElementById('handle').focus()")
    browser.press("Home")
    ours = stage(browser)
    browser.press("End")
    theirs = stage(browser)
    rows, middle = slice(60, 300), ours.shape[1] // 2
    assert np.abs(ours[rows, middle - 100 : middle + 100] - theirs[rows, middle - 100 : middle + 100]).mean() > 0.5
    browser.press("Home", *["ArrowRight"] * 25)
    half = stage(browser)
    assert value(browser) == 50
    left, right = slice(middle - 100, middle - 30), slice(middle + 30, middle + 100)
    assert np.abs(half[rows, left] - theirs[rows, left]).max() <= 1
    assert np.abs(half[rows, right] - ours[rows, right]).max() <= 1


def test_the_pointer_drags_the_slider(browser: Browser) -> None:
    x, y = centre(browser, "#handle")
    browser.drag(x, y, x - 100, y)
    assert 0 < value(browser) < 45
    assert browser.run("document.activeElement.id") == "handle"


def test_touch_drags_the_slider(browser: Browser) -> None:
    browser.resize(360, 740, phone=True)
    x, y = centre(browser, "#handle")
    for kind, at in (("touchStart", x), ("touchMove", x + 30), ("touchMove", x + 70)):
        browser.send("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": at, "y": y}])
    browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert value(browser) > 60


def test_digits_choose_what_is_compared(browser: Browser) -> None:
    while text(browser, "name") != "astronaut.png":
        browser.press("n")
    tags = []
    for digit in "1234":
        browser.press(digit)
        tags.append(text(browser, "left-tag"))
    assert [tag.split()[0] for tag in tags] == ["Original", "JPEG", "WebP", "AVIF"]
    browser.press("9")  # there is none
    assert text(browser, "left-tag") == tags[-1]
    browser.press("p", "n")  # the choice is kept where the image has it
    assert text(browser, "left-tag").startswith("AVIF")


def test_next_and_previous_go_by_the_table(browser: Browser) -> None:
    click(browser, "#images thead th:nth-child(1) button")
    names = browser.run(NAMES)
    while not browser.run("document.getElementById('previous').disabled"):
        browser.press("p")
    seen = [text(browser, "name")]
    for _ in range(9):
        browser.press("n")
        seen.append(text(browser, "name"))
    assert seen == [*names, *[names[-1]] * 3]


def test_a_row_opens_its_image(browser: Browser) -> None:
    click(browser, "#images tbody tr:nth-child(3) .open")
    assert text(browser, "name") == browser.run(NAMES)[2]
    assert browser.run("document.activeElement.id") == "handle"
    assert browser.run("[...document.querySelectorAll('#images tbody tr')].findIndex((row) => row.className === 'current')") == 2


def test_flicker_shows_both_in_turns(browser: Browser) -> None:
    browser.press("f")
    assert pressed(browser, "flicker")
    changes = """new Promise((done) => { const seen = [], layer = document.getElementById('over-layer');
      const watch = new MutationObserver(() => { if (seen.at(-1) !== layer.hidden) seen.push(layer.hidden);
      if (seen.length === 3) { watch.disconnect(); done(seen); } }); watch.observe(layer, { attributes: true }); })"""
    first, second, third = browser.run(changes)
    assert first == third != second
    assert browser.run("document.getElementById('handle').hidden")
    browser.press("f")
    assert not pressed(browser, "flicker")
    assert not browser.run("document.getElementById('handle').hidden")


def test_the_difference_of_equal_pictures_is_black(browser: Browser) -> None:
    browser.press("d")
    assert pressed(browser, "difference")
    rows, columns = slice(60, 300), slice(500, 700)
    assert stage(browser)[rows, columns].mean() > 3
    while text(browser, "name") != "trip/dither.png":  # which lost nothing
        browser.press("n")
    assert stage(browser)[rows, columns].max() == 0


def test_the_map_of_bits_is_laid_over(browser: Browser) -> None:
    before = stage(browser)
    browser.press("m")
    assert np.abs(stage(browser) - before).mean() > 5
    while text(browser, "name") != "trip/dither.png":  # which has none
        browser.press("n")
    assert browser.run("document.getElementById('bits').disabled")
    assert not pressed(browser, "bits")


def test_zoom_and_pan(browser: Browser) -> None:
    def transform() -> Any:
        return browser.run("document.getElementById('under').style.transform")

    fit = transform()
    browser.press("+", "+")
    zoomed = transform()
    assert zoomed != fit
    assert browser.run("document.getElementById('over').style.transform") == zoomed
    x, y = centre(browser, "#stage")
    browser.drag(x + 200, y - 200, x + 120, y - 240)
    assert transform() != zoomed
    assert value(browser) == 50
    browser.run("document.getElementById('handle').focus()")
    panned = transform()
    browser.press("ArrowRight", shift=True)
    assert transform() != panned
    browser.press("0")
    assert transform() == fit
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-300)
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
    assert transform() != fit
    browser.press("-", "-", "-", "-", "-", "-")
    assert transform() == fit


def test_the_plot_goes_from_image_to_image_and_opens_one(browser: Browser) -> None:
    browser.run("document.getElementById('plot').focus()")
    told = {text(browser, "told")}
    for _ in range(6):
        browser.press("ArrowRight")
        told.add(text(browser, "told"))
    assert len(told) == 7
    browser.press("ArrowLeft")
    name = text(browser, "told").partition(": vaetools, ")[0]
    browser.press("Enter")
    assert text(browser, "name") == name
    dot = next(
        number for number in range(20) if browser.run(f"document.querySelectorAll('.dot')[{number}].dataset.picture") != "0"
    )
    browser.run(f"document.querySelectorAll('.dot')[{dot}].id = 'chosen'")
    click(browser, "#chosen")
    assert text(browser, "name") == browser.run(
        "document.getElementById('chosen').querySelector('title').textContent.split(': ')[0]"
    )


def test_everything_is_reached_by_the_keyboard(browser: Browser) -> None:
    seen = []
    browser.run("document.activeElement.blur()")
    for _ in range(60):
        browser.press("Tab")
        seen.append(
            browser.run("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")
        )
        if len(seen) > 1 and seen[-1] == "BODY":
            break
    for name in ("next", "flicker", "difference", "bits", "zoom-in", "handle", "plot", "scroll", "open"):
        assert name in seen
    unnamed = browser.run(
        "[...document.querySelectorAll('button')].filter((each) => !each.textContent.trim() && !each.ariaLabel).length"
    )
    assert unnamed == 0


@pytest.mark.parametrize("width", [360, 768])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_does_not_overflow(browser: Browser, width: int, scheme: str) -> None:
    browser.media(scheme)
    browser.resize(width, 740, phone=True)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("document.getElementById('stage').getBoundingClientRect().right") <= width
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_without_originals_there_is_a_picture_and_no_slider(chromium: Browser, page: Path, tmp_path: Path) -> None:
    assert run("report", page.parent / "small", "-o", tmp_path / "r.html", "--images", 2).exit_code == 0
    chromium.errors.clear()
    chromium.open(tmp_path / "r.html")
    chromium.press("f", "d", "1", "n", "+")
    assert text(chromium, "position") == "2 of 2"
    assert chromium.run("document.getElementById('handle').hidden")
    assert not pressed(chromium, "flicker")
    assert chromium.run("document.getElementById('under').naturalWidth") > 0
    assert chromium.errors == []


def test_a_script_in_the_page_that_is_not_its_own_does_not_run(chromium: Browser, page: Path, tmp_path: Path) -> None:
    copy = tmp_path / "r.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("<main>", "<main><script>window.bad = 1</script>"), encoding="utf-8")
    chromium.open(copy)
    assert chromium.run("window.bad === undefined")
    chromium.errors.clear()
