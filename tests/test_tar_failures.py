"""Jobs to tars of which something fails: what is left out, what is told, and what is made again."""

from __future__ import annotations

import os
from pathlib import Path

from vaetools.folder.manifest import FAILED, Manifest

from .fake_codec import FakeCodec
from .tar_files import broken_shards, content, make_shards, make_tar, picture, samples
from .test_tar_jobs import compress, dying_in, killed


def test_a_sample_whose_image_fails_is_left_out(tmp_path: Path) -> None:
    outcome = compress(broken_shards(tmp_path / "in"), tmp_path / "out")
    assert [path for path, _ in outcome.failed] == [f"{tmp_path / 'in' / 'photos-001.tar'}/0007.jpg"]
    assert sorted(path.rpartition("/")[2] for path, _ in outcome.notes) == ["0007.cls", "0007.json"]
    names = list(content(tmp_path / "out" / "photos-001.tar"))
    assert len(names) == 9
    assert not any(name.startswith("0007") for name in names)
    entry = Manifest.read(tmp_path / "out").last("photos-001/0007.jpg", "photos-001.tar/0007.jpg.vtc")
    assert entry is not None
    assert entry.status == FAILED


def test_failures_are_told_again(tmp_path: Path) -> None:
    shards = broken_shards(tmp_path / "in")
    compress(shards, tmp_path / "out")
    outcome = compress(shards, tmp_path / "out")
    assert outcome.failed == [
        (str(tmp_path / "out" / "photos-001.tar"), "1 of what belongs into it failed; --retry-failed makes it again")
    ]


def test_a_tar_with_failures_is_made_again_on_demand(tmp_path: Path) -> None:
    shards = broken_shards(tmp_path / "in")
    compress(shards, tmp_path / "out")
    make_tar(shards / "photos-001.tar", samples(range(6, 10)))
    fake = FakeCodec()
    outcome = compress(shards, tmp_path / "out", fake, retry_failed=True)
    assert (outcome.done, outcome.failed) == (4, [])
    assert "0007.jpg.vtc" in content(tmp_path / "out" / "photos-001.tar")


def test_a_damaged_tar_becomes_what_is_left_of_it(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "in")
    os.truncate(shards / "photos-001.tar", (shards / "photos-001.tar").stat().st_size * 2 // 3)
    (shards / "photos-002.tar").write_bytes(b"no tar")
    outcome = compress(shards, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["photos-000.tar", "photos-001.tar"]
    assert [Path(path).name for path, _ in outcome.failed] == ["photos-001.tar", "photos-002.tar"]
    assert 0 < outcome.done < 12


def test_what_was_made_before_a_failure_does_not_stand_for_it(tmp_path: Path) -> None:
    """A file in the hidden folder, of a source that was whole then."""
    shards = make_shards(tmp_path / "in", count=1)
    killed(shards, tmp_path / "out", dying_in("write_tar"))
    make_tar(shards / "photos-000.tar", [(n, d[:100] if n == "0002.jpg" else d) for n, d in samples(range(6))])
    outcome = compress(shards, tmp_path / "out")
    assert len(outcome.failed) == 1
    assert "0002.jpg.vtc" not in content(tmp_path / "out" / "photos-000.tar")


def test_an_image_that_would_take_the_place_of_a_member_fails(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", [("a.png", picture(0)), ("a.png.vtc", b"there"), ("b.png", picture(1))])
    outcome = compress(tmp_path / "a.tar", tmp_path / "out")
    assert "is in the tar already" in outcome.failed[0][1]
    assert list(content(tmp_path / "out" / "a.tar")) == ["b.png.vtc"]


def test_where_all_images_of_a_tar_fail_nothing_stays_beside_the_tars(tmp_path: Path) -> None:
    make_shards(tmp_path / "in", count=1)
    make_tar(tmp_path / "in" / "photos-001.tar", [(name, data[:100]) for name, data in samples(range(6, 8))])
    outcome = compress(tmp_path / "in", tmp_path / "out", shard="2/2")
    assert (outcome.done, len(outcome.failed)) == (0, 2)
    assert not list((tmp_path / "out").glob(".vaetools-spool-*"))
    assert len(compress(tmp_path / "in", tmp_path / "out", shard="2/2").failed) == 2
