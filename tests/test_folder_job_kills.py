"""A folder job that is killed at random moments ends as if nothing had happened: scripts/check-resume."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check-resume"


def check_resume(*options: object) -> dict[str, int]:
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    return result


def test_two_kills_do_no_harm() -> None:
    result = check_resume("--kills", 2, "--images", 60, "--seed", 3)
    assert (result["kills"], result["problems"], result["files"]) == (2, 0, 60)


@pytest.mark.slow
def test_thirty_kills_do_no_harm() -> None:
    result = check_resume("--kills", 30)
    assert (result["kills"], result["problems"]) == (30, 0)
    assert result["partly"] > 5  # killed in the middle of it, and not before or after
