"""The examples of the documentation: how they are found in Markdown, and how they are run.

Blocks of ```console and ```python run in the order that they stand in, in a folder prepared for the page. In a console block,
`$ ` is before a command, and lines after it are what it prints (`...` is anything; numbers may differ by 5 percent). What stands
after `#` behind a `print(...)` is its output. Comments above a block say what else is to be known of it:

    <!-- not run: takes an hour -->                         the only thing allowed for ```bash
    <!-- slow: takes a minute -->                           run with -m slow only
    <!-- in tests: train --epochs 1 -->                     what is added to every command that begins with `vaetools train`
    <!-- ends with 1 -->                                    exit code of the last command
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from vaetools.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"(?P<above>(?:^<!--[^\n]*-->\n+)*)^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)$", re.M | re.S
)
MARK = re.compile(r"<!-- (?P<kind>not run|slow|in tests|ends with):? (?P<said>.*?) -->")
PROGRAMS = ("vaetools", "./scripts/", "scripts/", ".venv/", "pip ", "torchrun", "python ", "sbatch")
PROGRESS = re.compile(r"^[\d,]+ of [\d,]+ files, .* MP/s.*\n", re.M)  # what a job says now and then, if it takes long
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Example:
    """A block of a page; line: of its fence. marks: by kind."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str]

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_command(self) -> bool:
        """Whether a reader would type it."""
        return self.language in ("console", "bash", "sh", "python") or self.text.startswith(PROGRAMS)


def examples(page: Path) -> list[Example]:
    text = page.read_text(encoding="utf-8")
    found = []
    for block in FENCE.finditer(text):
        marks = {mark["kind"]: mark["said"] for mark in MARK.finditer(block["above"])}
        line = text.count("\n", 0, block.start("fence")) + 1
        found.append(Example(page, line, block["language"], block["text"], marks))
    return found


@dataclass
class Session:
    """Runs the examples of one page in `folder`, the current directory. names: of its Python."""

    folder: Path
    names: dict[str, Any]

    def run(self, example: Example) -> None:
        if example.language == "python":
            self.run_python(example)
        else:
            self.run_console(example)

    def run_python(self, example: Example) -> None:
        name = re.match(r"# (\w+\.py)\n", example.text)
        if name:  # a file to be imported by what follows
            (self.folder / name[1]).write_text(example.text)
            return
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * example.line + example.text, example.place, "exec"), self.names)
        expected = re.findall(r"^ *print\(.*\)  # (.*)$", example.text, re.M)
        assert agrees("\n".join(["...", *expected, "..."]), printed.getvalue()), f"{example.place} prints\n{printed.getvalue()}"

    def run_console(self, example: Example) -> None:
        commands = list(typed(example.text))
        for number, (command, expected) in enumerate(commands, 1):
            code, printed = self.execute(with_options(command, example.marks.get("in tests", "")))
            wanted = int(example.marks.get("ends with", "0")) if number == len(commands) else 0
            assert code == wanted, f"{example.place}: {command} ends with {code}\n{printed}"
            if expected:
                assert agrees(expected, printed), f"{example.place}: {command} prints\n{printed}\nand not\n{expected}"

    def execute(self, command: str) -> tuple[int, str]:
        """Exit code, and what is on stdout and stderr."""
        words = shlex.split(command, comments=True)
        if words[0] == "vaetools" and not set(words) & {"&&", "|", ">", ";"}:
            done = CliRunner().invoke(main, words[1:])
            if done.exception is not None and not isinstance(done.exception, SystemExit):
                raise done.exception
            return done.exit_code, PROGRESS.sub("", done.output)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        shell = ["bash", "-c", command]
        ran = subprocess.run(shell, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return ran.returncode, PROGRESS.sub("", ran.stdout)


def typed(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the lines that it is said to print."""
    found: list[tuple[str, str]] = []
    for line in re.sub(r"\\\n *", "", text).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found:
            command, printed = found[-1]
            found[-1] = (command, f"{printed}{line}\n")
    return found


def with_options(command: str, said: str) -> str:
    for addition in filter(None, said.split("; ")):
        name, _, options = addition.partition(" --")
        if command.startswith(f"vaetools {name} "):
            command += f" --{options}"
    return command


def agrees(expected: str, printed: str) -> bool:
    """Whether it is what was to be printed, but for spaces, small differences of numbers, and what `...` stands for."""
    parts = [" ".join(part.split()) for part in expected.split("...")]
    pattern = ".*?".join(NUMBER.sub(r"(\\d[\\d,]*(?:\\.\\d+)?)", escape(part)) for part in parts)
    found = re.fullmatch(pattern.replace(" ", r"\s*"), " ".join(printed.split()), re.S)
    if not found:
        return False
    numbers = NUMBER.findall(expected)
    return all(is_near(as_number(a), as_number(b)) for a, b in zip(numbers, found.groups(), strict=True))


def escape(text: str) -> str:
    return re.sub(r"[^\w\s]", lambda sign: sign[0] if sign[0] in ",." else "\\" + sign[0], text)


def as_number(text: str) -> float:
    return float(text.replace(",", "").rstrip(".") or "0")


def is_near(a: float, b: float) -> bool:
    return abs(a - b) <= 0.05 * max(abs(a), abs(b))
