"""The scripts that measure and check, on small folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from click.testing import CliRunner
from PIL import Image

from vaetools.cli import main

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run_script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(skimage.data.astronaut()[:128, 100:228]).save(folder / "a.png")
    Image.fromarray(skimage.data.coffee()[100:228, 100:228]).save(folder / "b.png")
    return folder


def test_the_codec_keeps_its_promises_on_a_folder(photos: Path, tmp_path: Path) -> None:
    done = run_script("verify-codec", photos, "--qualities", "20,80", "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["failures"] == []
    assert report["files_decoded"] >= 2 * 2 * len(report["ways"])
    assert all(
        abs(row["payload_bits"] - row["estimated_bits"]) < 0.01 * row["estimated_bits"] + 2 * 64 for row in report["agreement"]
    )


def test_the_demo_has_photographs(tmp_path: Path) -> None:
    done = run_script("demo-photographs", tmp_path / "photographs")
    assert done.returncode == 0, done.stderr
    assert len([path for path in (tmp_path / "photographs").rglob("*") if path.is_file()]) == 8


def test_eval_takes_anchors_and_qualities(photos: Path, tmp_path: Path) -> None:
    anchors = {"dataset": "these two", "codecs": {"published": {"bpp": [0.1, 1.0, 10.0], "psnr": [20, 32, 60]}}}
    (tmp_path / "anchors.json").write_text(json.dumps(anchors))
    options = [
        "--against",
        "jpeg",
        "--qualities",
        "10,50,90",
        "--anchors",
        tmp_path / "anchors.json",
        "--json",
        tmp_path / "r.json",
    ]
    done = CliRunner().invoke(main, [str(part) for part in ("eval", photos, *options)])
    assert done.exit_code == 0, done.output
    assert "published" in done.stdout
    result = json.loads((tmp_path / "r.json").read_text())
    assert {row["setting"] for row in result["averages"] if row["codec"] == "vaetools"} == {10.0, 50.0, 90.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--against", "jpg"), "jpg"),
        (("--qualities", "low"), "--qualities"),
        (("--qualities", "0,200"), "from 0 to 100"),
        (("--json", "nowhere/r.json"), "nowhere"),
        (("--plot", "nowhere/r.png"), "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_options_of_eval_are_told_before_it_measures(photos: Path, options: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(main, ["eval", str(photos), *options])
    assert done.exit_code == 2
    assert words in done.stderr
    assert "1 of 2" not in done.stderr
