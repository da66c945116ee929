"""Which Python scripts/environment takes for .venv. The Pythons here are shell scripts that only say their version."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "environment"
FAKE = """#!{sh}
case "$1" in
    -c) echo {version} ;;
    -m) if [ "$2" = venv ]; then
            mkdir -p .venv/bin
            cp "$0" .venv/bin/python
            echo {name} > .venv/made-by
        fi ;;
esac
"""


class Project:
    """A folder with scripts/environment in it, and a PATH that has the Pythons of this test and no other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder / "project", folder / "bin"
        (self.folder / "scripts").mkdir(parents=True)
        self.programs.mkdir()
        shutil.copy(SCRIPT, self.folder / "scripts" / "environment")
        (self.folder / "pyproject.toml").touch()
        for tool in ("dirname", "mkdir", "cp", "touch", "rm"):
            (self.programs / tool).symlink_to(str(shutil.which(tool)))

    def python(self, name: str, version: str) -> Path:
        path = self.programs / name
        path.write_text(FAKE.format(sh=shutil.which("sh"), version=version, name=name))
        path.chmod(0o755)
        return path

    def run(self, named: object = None) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": str(self.programs)} | ({} if named is None else {"VAETOOLS_PYTHON": str(named)})
        command = [str(shutil.which("bash")), "-c", "set -euo pipefail; source scripts/environment test"]
        return subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)

    def made_by(self) -> str:
        return (self.folder / ".venv" / "made-by").read_text().strip()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3.11": "3.11", "python3.12": "3.12"}, "python3.11"),
        ({"python3.12": "3.12", "python3": "3.11"}, "python3.12"),
        ({"python3": "3.12"}, "python3"),
        ({"python3": "3.13", "python": "3.11"}, "python"),
    ],
    ids=["3.11 first", "3.12 by its name", "python3 that is 3.12", "not a python3 that is 3.13"],
)
def test_the_first_that_will_do_is_taken(project: Project, there: dict[str, str], taken: str) -> None:
    for name, version in there.items():
        project.python(name, version)
    done = project.run()
    assert done.returncode == 0, done.stderr
    assert project.made_by() == taken
    assert (project.folder / ".venv" / ".installed-test").exists()


def test_a_python_that_does_not_run_is_passed_over(project: Project) -> None:
    broken = project.python("python3.11", "3.11")
    broken.write_text(f"#!{shutil.which('sh')}\necho no such version >&2\nexit 127\n")
    project.python("python3.12", "3.12")
    assert project.run().returncode == 0
    assert project.made_by() == "python3.12"


def test_the_one_that_is_named_is_taken(project: Project) -> None:
    project.python("python3.11", "3.11")
    named = project.python("my python", "3.12")
    assert project.run(named).returncode == 0
    assert project.made_by() == "my python"


def test_without_one_the_message_says_which(project: Project) -> None:
    project.python("python3", "3.13")
    done = project.run()
    assert done.returncode == 1
    assert done.stderr == "vaetools needs Python 3.11 or 3.12, and neither is on the PATH; VAETOOLS_PYTHON can name one\n"


def test_a_named_one_that_will_not_do_is_refused(project: Project) -> None:
    project.python("python3.11", "3.11")
    done = project.run(project.python("python3.13", "3.13"))
    assert done.returncode == 1
    assert "python3.13, which is not Python 3.11 or 3.12" in done.stderr
    assert not (project.folder / ".venv").exists()


def test_an_environment_that_is_there_is_kept(project: Project) -> None:
    older = project.python("python3.12", "3.12")
    assert project.run().returncode == 0
    project.python("python3.11", "3.11")
    again = project.run()
    assert (again.returncode, again.stderr) == (0, "")
    assert project.run(older).returncode == 0
    assert project.made_by() == "python3.12"


def test_an_environment_of_another_python_is_not_taken_for_the_named_one(project: Project) -> None:
    project.python("python3.11", "3.11")
    assert project.run().returncode == 0
    done = project.run(project.python("python3.12", "3.12"))
    assert done.returncode == 1
    assert "but .venv has Python 3.11: remove .venv" in done.stderr
    assert project.made_by() == "python3.11"


def test_a_change_of_pyproject_installs_again(project: Project) -> None:
    project.python("python3.11", "3.11")
    assert "installing vaetools[test]" in project.run().stderr
    later = (project.folder / ".venv" / ".installed-test").stat().st_mtime + 5
    os.utime(project.folder / "pyproject.toml", (later, later))
    assert "installing vaetools[test]" in project.run().stderr
