"""What holds for the command line as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from vaetools.cli import COMMANDS, main
from vaetools.codec.container import Header, pack

PROBE = """
import sys
from vaetools.cli import main
main({arguments}, standalone_mode=False)
print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["info", "--help"]], ids=" ".join)
def test_help_and_info_do_not_import_torch(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE.format(arguments=arguments)], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_info_on_a_file_needs_neither_torch_nor_numpy(tmp_path: Path) -> None:
    path = tmp_path / "a.vtc"
    path.write_bytes(pack(Header(b"hashhash", 640, 427, 3, 8, 62.5, 640, 448, 1, 7), {b"xmp ": b"<x/>"}, [(b"payload.", 0)]))
    probe = (
        PROBE.format(arguments=["info", str(path)])
        .replace('"torch" in', 'not {"torch", "numpy"}.isdisjoint')
        .replace("isdisjoint sys.modules", "isdisjoint(sys.modules)")
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    for shown in ("62.5", "PNG", "RGB", "xmp 16"):
        assert shown in done.stdout
    assert done.stderr.strip() == "False"


def test_help_is_there_in_half_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "vaetools", "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(main, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["compres"]).exit_code == 2


def test_an_error_of_the_system_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    done = CliRunner().invoke(main, ["compress", str(tmp_path), "-o", "out"])
    assert (done.exit_code, done.stderr) == (1, f"Error: {tmp_path}: Permission denied\n")


def test_info_on_a_large_file_of_an_odd_name(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.vtc")
    header = Header(b"hashhash", 20_000, 10_000, 3, 8, 62.5, 1024, 1024, 1, 7)
    try:
        path.write_bytes(pack(header, {}, [(b"payload.", 0)] * 200))
    except OSError:
        pytest.skip("such names cannot be here")
    done = CliRunner().invoke(main, ["info", str(path)])
    assert done.exit_code == 0, done.output
    assert "20000" in done.stdout
    assert "caf\\udce9.vtc" in done.stdout


@pytest.mark.parametrize("command", ["compress", "denoise"])
def test_limits_without_an_end_are_refused(tmp_path: Path, command: str) -> None:
    done = CliRunner().invoke(main, [command, str(tmp_path), "-o", str(tmp_path / "out"), "--max-megapixels", "inf"])
    assert done.exit_code == 2
    assert "--max-megapixels" in done.stderr
