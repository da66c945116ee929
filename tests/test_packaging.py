"""What a wheel and a source archive have in them, and what they say of themselves. scripts/check-dist installs them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import vaetools

ROOT = Path(__file__).parents[1]
BUILD = (
    "import sys; from setuptools import build_meta; _, out, *hooks = sys.argv; [getattr(build_meta, hook)(out) for hook in hooks]"
)
LARGE = 1_000_000  # bytes: only weights have more


class Built(NamedTuple):
    source: Path
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def dist() -> ModuleType:
    """scripts/check-dist, which knows what has to be in them."""
    loader = importlib.machinery.SourceFileLoader("check_dist_script", str(ROOT / "scripts" / "check-dist"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_dist_script", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


def build(source: Path, out: Path, *hooks: str) -> list[Path]:
    """What the setuptools that is installed makes of the source: a *.tar.gz, a *.whl, or both in this order."""
    out.mkdir()
    done = subprocess.run([sys.executable, "-c", BUILD, out, *hooks], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.iterdir(), key=lambda path: path.suffix)


@pytest.fixture(scope="module")
def built(dist: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Made of a copy of the source, with the weights cut short: what is in them makes no difference, but seconds."""
    folder = tmp_path_factory.mktemp("packaging")
    dist.copy_source(ROOT, folder / "source")
    for path in (folder / "source" / "vaetools" / "weights").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:1000])
    return Built(folder / "source", *build(folder / "source", folder / "made", "build_sdist", "build_wheel"))


def test_the_wheel_has_every_file_of_the_package_and_no_other(dist: ModuleType, built: Built) -> None:
    assert dist.package_problems(built.wheel, built.source) == []
    assert {"vaetools/py.typed", "vaetools/report/page.css"} < dist.wheel_files(built.wheel).keys()


def test_the_source_archive_has_what_building_and_testing_need(dist: ModuleType, built: Built) -> None:
    assert dist.sdist_problems(built.sdist, built.source) == []
    assert {"tests/golden/photo.vtc", "scripts/check-dist", "FORMAT.md"} < dist.sdist_files(built.sdist)


def test_the_wheel_from_the_source_archive_is_the_same(dist: ModuleType, built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    (again,) = build(unpacked, tmp_path / "made", "build_wheel")
    assert dist.differences(built.wheel, again) == []


def test_what_is_lacking_is_told(dist: ModuleType, built: Built, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(built.source, source)
    (source / "vaetools" / "report" / "page.woff").write_bytes(b"a font")
    (source / "vaetools" / "py.typed").write_bytes(b"partial\n")
    (source / "vaetools" / "report" / "page.js").unlink()
    assert dist.package_problems(built.wheel, source) == [
        "vaetools/report/page.woff is not in the wheel",
        "vaetools/report/page.js is in the wheel, but not in the source",
        "vaetools/py.typed differs",
    ]


def test_only_weights_are_large() -> None:
    # in the checkout, since the weights of the copy are cut short
    folders = [ROOT / name for name in ("vaetools", "tests", "scripts", "docs", "assets")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.stat().st_size > LARGE]
    assert {path.parent for path in files} <= {ROOT / "vaetools" / "weights"}


def test_it_claims_the_versions_of_python_that_are_tested_and_no_other(dist: ModuleType, built: Built) -> None:
    metadata = dist.wheel_metadata(built.wheel)
    allowed = SpecifierSet(metadata["Requires-Python"])
    assert [minor for minor in range(40) if f"3.{minor}.5" in allowed] == [11, 12]
    assert "4.0" not in allowed
    named = re.findall(r"Python :: 3\.(\d+)", "\n".join(metadata.get_all("Classifier")))
    assert named == ["11", "12"]


def test_the_licence_is_an_expression_with_its_file(dist: ModuleType, built: Built) -> None:
    metadata = dist.wheel_metadata(built.wheel)
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert not any("License ::" in classifier for classifier in metadata.get_all("Classifier"))
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in dist.wheel_files(built.wheel))


def test_it_is_named_and_described(dist: ModuleType, built: Built) -> None:
    metadata = dist.wheel_metadata(built.wheel)
    assert (metadata["Name"], metadata["Version"]) == ("vaetools", vaetools.__version__)
    assert built.wheel.name == f"vaetools-{vaetools.__version__}-py3-none-any.whl"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# vaetools")
    assert "Typing :: Typed" in metadata.get_all("Classifier")


def test_extras_ask_for_nothing_that_is_not_theirs(dist: ModuleType, built: Built) -> None:
    metadata = dist.wheel_metadata(built.wheel)
    extras = set(metadata.get_all("Provides-Extra"))
    for requirement in map(Requirement, metadata.get_all("Requires-Dist")):
        assert requirement.url is None  # nothing from an address: an index could not take it
        if requirement.name == "vaetools":
            assert requirement.extras <= extras
