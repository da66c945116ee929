"""How a job divides the files of a folder among the tars that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vaetools.errors import UsageError
from vaetools.folder.division import Division

from .engine_folders import make_album, tree
from .tar_files import content, picture
from .test_tar_jobs import compress, vaetools


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_album(tmp_path_factory.mktemp("album"), 20)


def test_a_folder_is_divided_in_the_order_of_its_names(album: Path, tmp_path: Path) -> None:
    outcome = compress(album, tmp_path, division=Division(samples=8))
    found = [content(tmp_path / f"shard-{number:06}.tar") for number in range(3)]
    paths = sorted(path.relative_to(album).as_posix() for path in album.rglob("*.png"))
    assert [name for part in found for name in part] == [f"{path}.vtc" for path in paths if path != "broken.png"]
    assert (outcome.done, len(outcome.failed)) == (20, 1)


def test_a_folder_is_divided_by_bytes(album: Path, tmp_path: Path) -> None:
    compress(album, tmp_path, division=Division(size=40_000))
    sizes = {f"{path.relative_to(album).as_posix()}.vtc": path.stat().st_size for path in album.rglob("*.png")}
    tars = sorted(tmp_path.glob("*.tar"))
    assert len(tars) > 2
    assert all(sum(sizes[name] for name in content(path)) <= 40_000 or len(content(path)) == 1 for path in tars)


def test_a_sample_is_not_divided(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.left.png", "a.right.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(picture(0))
    outcome = compress(tmp_path / "in", tmp_path / "out", division=Division(samples=1))
    assert list(content(tmp_path / "out" / "shard-000000.tar")) == ["a.left.png.vtc", "a.right.png.vtc"]
    assert [Path(path).name for path, _ in outcome.notes] == ["a.left.png", "a.right.png"], "and it is told"


def test_two_files_of_one_field_are_not_both_taken(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.PNG", "a.png"):
        (tmp_path / "in" / name).write_bytes(picture(0))
    assert "capital letters" in compress(tmp_path / "in", tmp_path / "out").failed[0][1]


def test_tars_of_two_divisions_are_not_mixed(album: Path, tmp_path: Path) -> None:
    compress(album, tmp_path, division=Division(samples=8))
    with pytest.raises(UsageError, match="holds other samples"):
        compress(album, tmp_path, division=Division(samples=7))
    with pytest.raises(UsageError, match="is beyond the 2 tars"):
        compress(album, tmp_path, division=Division(samples=20), on_exists="overwrite")


def test_shards_of_a_folder_are_the_whole(album: Path, tmp_path: Path) -> None:
    compress(album, tmp_path / "whole", division=Division(samples=6))
    outcomes = [compress(album, tmp_path / "out", shard=f"{i}/3", division=Division(samples=6)) for i in (2, 3, 1)]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert sum(len(outcome.failed) for outcome in outcomes) == 1


@pytest.mark.parametrize(("option", "tars"), [("--tar-samples=8", 3), ("--tar-bytes=40kB", 7)])
def test_options_divide_a_folder(album: Path, tmp_path: Path, option: str, tars: int) -> None:
    result = vaetools("compress", album, "-o", tmp_path / "out", "--tar", option, "--dry-run", "--json")
    targets = [Path(file["target"]).relative_to(tmp_path / "out").parts[0] for file in json.loads(result.stdout)["files"]]
    assert sorted(set(targets)) == [f"shard-{number:06}.tar" for number in range(tars)]


def test_a_division_before_the_last_one_is_another_one(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(4):
        (source / f"{number}.png").write_bytes(picture(number))
    compress(source, target, division=Division(2))
    (target / "shard-000001.tar").rename(tmp_path / "away.tar")
    compress(source, target, division=Division(4), on_exists="overwrite")
    with pytest.raises(UsageError, match="holds other samples"):
        compress(source, target, division=Division(2))
