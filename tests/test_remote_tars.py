"""Tars in stores."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import fsspec
import pytest
from click.testing import CliRunner

from vaetools.cli import main
from vaetools.codec.codec import Codec
from vaetools.errors import UsageError
from vaetools.folder.job import compress_folder
from vaetools.folder.spec import CompressSpec
from vaetools.folder.tars import run_tars
from vaetools.storage.place import parse_folder, parse_source

from .engine_folders import tree
from .fake_codec import FakeCodec
from .tar_files import make_shards


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Two tars on this machine, which are also memory://tars/photos-000.tar and -001.tar."""
    files = fsspec.filesystem("memory")
    for path in make_shards(tmp_path / "in", count=2).glob("*.tar"):
        files.pipe(f"/tars/{path.name}", path.read_bytes())
    return tmp_path / "in"


def test_tars_in_a_store_are_read_as_those_of_a_folder(stored: Path, tmp_path: Path) -> None:
    for name, source in (("a", str(stored)), ("b", "memory://tars/photos-{000..001}.tar")):
        compress_folder(parse_source(source), tmp_path / name, cast(Codec, FakeCodec()))
        run_tars(CompressSpec(source=parse_source(source), target=tmp_path / f"{name}-tars"), cast(Codec, FakeCodec()))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert tree(tmp_path / "a-tars") == tree(tmp_path / "b-tars")


def test_a_star_in_a_url_is_told_to_be_no_pattern(stored: Path) -> None:
    with pytest.raises(UsageError, match="only braces make a pattern"):
        parse_source("memory://tars/photos-*.tar")


def test_tars_are_not_written_to_a_store(stored: Path) -> None:
    spec = CompressSpec(source=parse_source(str(stored)), target=parse_folder("memory://out"))
    with pytest.raises(UsageError, match="tars are written to folders of this machine"):
        run_tars(spec, cast(Codec, FakeCodec()))


def test_a_compressed_tar_in_a_store_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["compress", "memory://tars/a.tar.gz", "-o", str(tmp_path / "out")])
    assert (result.exit_code, "unpack it to a plain .tar" in result.stderr) == (2, True)
