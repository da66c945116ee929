"""`vaetools info` shows a small picture, in a terminal that can, and nowhere else."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner
from PIL import Image

from vaetools.cli import main
from vaetools.codec.container import EXIF, ICC, PREVIEW, read_front
from vaetools.desktop.thumbnail import small_picture
from vaetools.errors import Corrupt

from . import desktop_files as files
from .desktop_files import BLUE, RED
from .pillow_files import SRGB, saved

TRUE_COLOUR = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
CELL = re.compile(r"\x1b\[([0-9;]+)m(\u2580+)")
Pixel = tuple[int, int, int]


def bare_environment(**more: str) -> dict[str, str]:
    """Nothing that says of a terminal what it is not."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
    return {**kept, "PYTHONIOENCODING": "utf-8", **more}


def in_terminal(*arguments: str, columns: int = 80, **environment: str) -> tuple[str, int]:
    """What `vaetools info` prints to a terminal, and its exit code. Colours are true ones unless something else is said."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "vaetools", "info", *arguments]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=bare_environment(**(environment or TRUE_COLOUR))
    )
    os.close(theirs)
    out = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # as Linux has it where nobody writes any more
            break
        if not part:
            break
        out += part
    os.close(ours)
    return out.decode(), process.wait(timeout=60)


def picture_in(text: str) -> list[list[Pixel]]:
    """Rows of pixels, from the colours of half blocks: the upper one in front, the lower one behind."""
    rows: list[list[Pixel]] = []
    for line in text.splitlines():
        cells = CELL.findall(line)
        if not cells:
            continue
        upper: list[Pixel] = []
        lower: list[Pixel] = []
        for codes, blocks in cells:
            for kind, row in (("38", upper), ("48", lower)):
                if found := re.search(rf"(?:^|;){kind};2;(\d+);(\d+);(\d+)", codes):
                    row += [tuple(map(int, found.groups()))] * len(blocks)  # type: ignore[list-item]
        rows += [upper, lower] if lower else [upper]
    return rows


def shown(path: Path) -> list[list[Pixel]]:
    """The picture that is shown where one is asked for; without a process, which takes its time to start."""
    done = CliRunner().invoke(main, ["info", "--preview", str(path)], env={**TRUE_COLOUR, "FORCE_COLOR": "1", "NO_COLOR": ""})
    assert done.exit_code == 0, done.output
    return picture_in(done.output)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(files.put(tmp_path / "a.vtc", files.with_preview(files.webp(files.two_colours()))))


def test_the_preview_is_shown_in_a_terminal(path: str) -> None:
    text, code = in_terminal(path)
    rows = picture_in(text)
    assert code == 0
    assert "62.5" in text  # and so are the fields
    assert (len(rows), {len(row) for row in rows}) == (24, {40})
    assert {row[0] for row in rows} == {RED}
    assert {row[-1] for row in rows} == {BLUE}


def test_a_narrow_terminal_has_a_narrow_picture(path: str) -> None:
    assert {len(row) for row in picture_in(in_terminal(path, columns=20)[0])} == {20}


def test_256_colours(path: str) -> None:
    text, _ = in_terminal(path, TERM="xterm-256color")
    assert "38;5;" in text
    assert "38;2;" not in text


@pytest.mark.parametrize(
    "environment",
    [{**TRUE_COLOUR, "NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "xterm"}, {**TRUE_COLOUR, "PYTHONIOENCODING": "ascii"}],
    ids=["NO_COLOR", "dumb", "16 colours", "no half blocks"],
)
def test_terminals_that_can_not(path: str, environment: dict[str, str]) -> None:
    text, code = in_terminal(path, **environment)
    assert (code, "62.5" in text) == (0, True)
    assert "\u2580" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("option", ["--no-preview", "--json"])
def test_no_picture_where_none_is_wanted(path: str, option: str) -> None:
    text, code = in_terminal(option, path)
    assert (code, "\x1b" in text) == (0, False)


@pytest.mark.parametrize("force", ["", "1"])
def test_a_pipe_gets_no_picture(path: str, force: str) -> None:
    command = [sys.executable, "-m", "vaetools", "info", path]
    environment = bare_environment(**TRUE_COLOUR, **({"FORCE_COLOR": force} if force else {}))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "62.5" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_pipe_gets_a_picture_if_both_options_and_environment_say_so(path: str) -> None:
    command = [sys.executable, "-m", "vaetools", "info", "--preview", path]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", env=bare_environment(**TRUE_COLOUR, FORCE_COLOR="1"), check=True
    )
    assert len(picture_in(done.stdout)) == 24
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=bare_environment(**TRUE_COLOUR), check=True)
    assert "\u2580" not in done.stdout
    assert "no pictures: stdout is no terminal" in done.stderr


def test_json_and_a_picture_exclude_each_other(path: str) -> None:
    text, code = in_terminal("--json", "--preview", path)
    assert (code, "--json and --preview" in text) == (2, True)


def test_a_picture_stands_upright(tmp_path: Path) -> None:
    data = files.with_preview(files.webp(files.two_colours()), {EXIF: files.exif(6)})  # to be turned to the right
    rows = shown(files.put(tmp_path / "a.vtc", data))
    assert (len(rows), {len(row) for row in rows}) == (40, {24})
    assert (set(rows[0]), set(rows[-1])) == ({RED}, {BLUE})


def test_pixels_that_are_kept_without_loss_are_shown(tmp_path: Path) -> None:
    path = files.put(tmp_path / "a.vtc", files.lossless(np.asarray(files.two_colours(6, 3))))
    assert picture_in(in_terminal(str(path))[0]) == shown(path) == [[RED] * 3 + [BLUE] * 3] * 3  # and not enlarged


def test_what_is_transparent_is_on_checks(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 4), np.uint8)
    pixels[:, 8:] = (*RED, 255)
    rows = shown(files.put(tmp_path / "a.vtc", files.lossless(pixels)))
    assert {row[15] for row in rows} == {RED}
    assert (rows[0][0], rows[0][4], rows[4][0], rows[4][4]) == ((153,) * 3, (102,) * 3, (102,) * 3, (153,) * 3)


def test_16_bits_are_shown_over_the_range_that_occurs(tmp_path: Path) -> None:
    pixels = np.linspace(100, 4000, 16).astype(np.uint16)[None, :, None].repeat(4, 0)
    rows = shown(files.put(tmp_path / "a.vtc", files.lossless(pixels)))
    assert (rows[0][0], rows[0][15]) == ((0,) * 3, (255,) * 3)


def test_a_profile_is_applied(tmp_path: Path) -> None:
    plain = files.webp(files.two_colours())
    exchanged = SRGB.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")  # red light is blue
    for icc, expected in ((SRGB, RED), (exchanged, BLUE), (b"no profile", RED)):
        rows = shown(files.put(tmp_path / "a.vtc", files.with_preview(plain, {ICC: icc})))
        assert np.allclose(rows[0][0], expected, atol=6), icc[:8]


def test_files_without_a_preview_have_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    photograph = Image.fromarray(skimage.data.astronaut()[60:124, 180:276])
    path = files.put(tmp_path / "a.vtc", saved(photograph))
    assert picture_in(in_terminal(str(path))[0]) == []
    pixels = np.array(shown(path), np.uint8)
    expected = np.asarray(photograph.resize((40, 27)), float)
    assert pixels.shape == expected.shape
    assert abs(pixels - expected).mean() < 12


def test_a_picture_that_cannot_be_made_is_a_failure_if_it_was_asked_for(tmp_path: Path) -> None:
    path = str(files.put(tmp_path / "a.vtc", files.without_preview()))
    assert in_terminal(path)[1] == 0
    done = CliRunner().invoke(main, ["info", "--preview", path], env={**TRUE_COLOUR, "FORCE_COLOR": "1", "NO_COLOR": ""})
    assert (done.exit_code, "no picture of" in done.stderr, "not installed" in done.stderr) == (1, True, True)


@pytest.mark.parametrize(
    "preview",
    [
        b"RIFF",
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        files.webp(files.two_colours())[:-30],
        files.webp(files.two_colours(200, 40)),
        b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\xff\xff\xff\xff\xff",
    ],
    ids=["short", "PNG", "truncated", "too large", "16 million pixels a side"],
)
def test_a_broken_preview_is_refused(preview: bytes) -> None:
    data = files.with_preview(preview)
    with pytest.raises(Corrupt, match="the preview"):
        small_picture(read_front(data), 40)


def test_a_broken_preview_is_one_line_in_a_terminal(tmp_path: Path) -> None:
    text, code = in_terminal(str(files.put(tmp_path / "a.vtc", files.with_preview(b"RIFF"))))
    assert (code, text.count("no picture of"), "Traceback" in text) == (0, 1, False)
    assert "62.5" in text


def test_json_has_what_it_had(path: str) -> None:
    done = subprocess.run([sys.executable, "-m", "vaetools", "info", "--json", path], capture_output=True, check=True)
    (fields,) = json.loads(done.stdout)
    assert fields["box_bytes"].keys() == {PREVIEW.decode()}
