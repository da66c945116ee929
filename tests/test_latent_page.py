"""docs/latent-training.md and scripts/bench-latents keep their word."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from vaetools.cli import main

from .conftest import photograph

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "latent-training.md").read_text(encoding="utf-8")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the page speaks of, in the current directory."""
    for label, name in (("cats", "chelsea"), ("cups", "coffee")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        photograph(name, 80, 64).save(tmp_path / "photos" / label / "1.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_the_page_runs(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = re.findall(r"^\$ vaetools (.*)$", PAGE, re.M)
    done = CliRunner().invoke(main, shlex.split(command))
    assert done.exit_code == 0, done.output
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(example.replace("crop=224", "crop=48"), {})
    assert capsys.readouterr().out.count("torch.Size([2, 3, 48, 48])") == 2


@pytest.mark.slow
def test_the_benchmark_measures_both_kinds_of_files(photos: Path, tmp_path: Path) -> None:
    options = ["--crop", "32", "--workers", "0", "--repeats", "1", "--device", "cpu", "--json", str(tmp_path / "r.json")]
    command = [sys.executable, str(ROOT / "scripts" / "bench-latents"), str(photos), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert abs(report["psnr"]["latents"] - report["psnr"]["jpeg"]) < 1
    assert {row["pipeline"] for row in report["results"]} == {"jpeg", "latents", "latents, jitter"}
    assert report["crop_difference"]["largest"] <= 3
