"""Members of tars as files: what is found in them, what is refused, and what is left of damaged ones."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaetools.errors import UsageError
from vaetools.images.folder import SUFFIXES
from vaetools.images.read import probe, read_picture
from vaetools.storage.blob import Blob
from vaetools.storage.place import parse_source, parse_sources
from vaetools.storage.shards import TarShards, expanded
from vaetools.storage.tar import TarListing, TarMember, key_of, list_members

from .tar_files import add, make_shards, make_tar, picture, samples


def names(listing: TarListing) -> list[str]:
    return [member.inside for member in listing.members]


def listed(path: Path, members: list[tuple[str, bytes]], **options: int) -> TarListing:
    return list_members(make_tar(path, members, **options))


def of_header(path: Path, info: tarfile.TarInfo, name: str) -> TarListing:
    """A tar of one such header, which may be of a kind that has no content, and of a file after it."""
    info.name = name
    with tarfile.open(path, "w") as tar:
        tar.addfile(info)
        add(tar, "after.png", b"12345")
    return list_members(path)


# Members.


def test_members_are_read_where_they_lie(tmp_path: Path) -> None:
    members = samples(range(3))
    listing = listed(tmp_path / "a.tar", members)
    assert [(member.inside, member.read_bytes()) for member in listing.members] == members
    assert listing.problems == []


def test_part_of_a_member_is_read(tmp_path: Path) -> None:
    member = listed(tmp_path / "a.tar", [("a.txt", b"0123456789"), ("b.txt", b"abcdefghij")]).members[1]
    assert member.read_range(2, 3) == b"cde"
    assert member.read_range(8, 100) == b"ij", "and nothing of what follows"


def test_a_member_is_sought_in_as_a_file(tmp_path: Path) -> None:
    member = listed(tmp_path / "a.tar", [("a.txt", b"0123456789"), ("b.txt", b"abcdefghij")]).members[0]
    with member.open() as file:
        assert (file.read(3), file.seek(-2, os.SEEK_END), file.read(), file.seek(1), file.read(1)) == (b"012", 8, b"89", 1, b"1")


def test_images_in_tars_are_those_of_files(tmp_path: Path) -> None:
    data = picture(1, "jpeg")
    (tmp_path / "a.jpg").write_bytes(data)
    member = listed(tmp_path / "a.tar", [("a.jpg", data)]).members[0]
    assert np.array_equal(read_picture(member).pixels, read_picture(tmp_path / "a.jpg").pixels)
    assert probe(member) == probe(tmp_path / "a.jpg")


def test_members_of_a_tar_that_is_no_file_of_this_machine(tmp_path: Path) -> None:
    class Stored(Blob):
        def __init__(self, data: bytes) -> None:
            self.data, self.size, self.mtime_ns, self.asked = data, len(data), 1, 0

        def __str__(self) -> str:
            return "store://photos.tar"

        def read_bytes(self) -> bytes:
            return self.data

        def read_range(self, start: int, length: int) -> bytes:
            self.asked += length
            return self.data[start : start + length]

    stored = Stored(make_tar(tmp_path / "a.tar", samples(range(3))).read_bytes())
    member = list_members(stored).members[1]
    assert (member.inside, read_picture(member).format, str(member)) == ("0000.jpg", "JPEG", "store://photos.tar/0000.jpg")
    assert stored.asked <= 2 * member.size


def test_a_tar_that_has_changed_fails_its_members(tmp_path: Path) -> None:
    member = listed(tmp_path / "a.tar", [("a.png", picture(0))]).members[0]
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(OSError, match="was changed since it was listed"):
        member.read_bytes()


def test_members_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    member = listed(tmp_path / "a.tar", [("a.png", b"12345")]).members[0]
    assert pickle.loads(pickle.dumps(member)) == member


# Names.


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_long_names_and_those_of_other_alphabets(tmp_path: Path, format: int) -> None:
    found = [f"{'folder/' * 40}{'x' * 120}.png", "写真/ä.png"]
    assert names(listed(tmp_path / "a.tar", [(name, b"1") for name in found], format=format)) == found


def test_names_are_brought_to_one_form(tmp_path: Path) -> None:
    assert names(listed(tmp_path / "a.tar", [("./a/b.png", b"1"), ("a//./c.png", b"2")])) == ["a/b.png", "a/c.png"]


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "a/../../b.png", "a/.."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    listing = listed(tmp_path / "a.tar", [(name, b"1"), ("good.png", b"2")])
    assert names(listing) == ["good.png"]
    assert "1 members have names that lead out of a folder" in listing.problems[0][1]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_passed_over(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, "/etc/passwd"
    listing = of_header(tmp_path / "a.tar", info, "link.png")
    assert (names(listing), listing.passed) == (["after.png"], 1)


def test_files_with_holes_are_passed_over(tmp_path: Path) -> None:
    info = tarfile.TarInfo()
    info.type = tarfile.GNUTYPE_SPARSE
    listing = of_header(tmp_path / "a.tar", info, "sparse.png")
    assert (names(listing), listing.passed) == (["after.png"], 1)


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    listing = listed(tmp_path / "a.tar", [("._0001.jpg", b"1"), (".hidden/a.jpg", b"2"), ("0001.jpg", b"3")])
    assert (names(listing), listing.passed) == (["0001.jpg"], 2)


def test_of_two_files_of_one_name_the_later_fails(tmp_path: Path) -> None:
    listing = listed(tmp_path / "a.tar", [("a.png", b"first"), ("./a.png", b"second")])
    assert [member.read_bytes() for member in listing.members] == [b"first"]
    assert listing.problems[0][0] == f"{tmp_path / 'a.tar'}/a.png"


def test_keys_are_those_of_webdataset() -> None:
    assert [key_of(name) for name in ("a.b/0001.left.jpg", "0001.jpg", "name")] == ["a.b/0001", "0001", "name"]


# Damage.


def test_of_a_tar_that_is_cut_short_the_rest_is_used(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "a.tar", samples(range(4))).read_bytes()
    last = list_members(tmp_path / "a.tar").members[-2]  # an image
    (tmp_path / "a.tar").write_bytes(whole[: last.offset + last.size // 2])
    listing = list_members(tmp_path / "a.tar")
    assert len(listing.members) == 10
    assert [reason for _, reason in listing.problems] == ["it ends within 0003.jpg; the 10 files before that are used"]


def test_a_tar_without_an_end_is_told(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", [("a.png", b"1" * 512)])
    os.truncate(tmp_path / "a.tar", 1024)
    listing = list_members(tmp_path / "a.tar")
    assert names(listing) == ["a.png"]
    assert "cut short" in listing.problems[0][1]


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", [("a.png", b"1"), ("b.png", b"2"), ("c.png", b"3")])
    with path.open("r+b") as file:
        file.seek(1024)
        file.write(b"?" * 512)
    listing = list_members(path)
    assert names(listing) == ["a.png"]
    assert "damaged after byte 1,024" in listing.problems[0][1]


def test_what_is_no_tar_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(picture(0))
    assert "it is no tar" in list_members(tmp_path / "a.tar").problems[0][1]


def test_a_compressed_tar_under_a_plain_name_is_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        add(tar, "a.png", b"1")
    assert "it is compressed (gzip)" in list_members(tmp_path / "a.tar").problems[0][1]


@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 4096))
def test_no_damage_ends_the_listing_with_another_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], length: int
) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "a.png", b"1" * 600)
        add(tar, "ä" * 60 + ".png", b"2" * 10)
    data = bytearray(file.getvalue())
    for place, value in changes:
        data[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(data[:length])
    listing = list_members(path)
    assert all(0 <= member.offset <= member.offset + member.size <= length for member in listing.members)
    assert listing.members or listing.problems or listing.passed or not any(data[:512])


# Places.


def test_patterns_stand_for_tars(tmp_path: Path) -> None:
    folder = make_shards(tmp_path)
    for pattern in ("photos-{000..002}.tar", "photos-{000,001,002}.tar", "photos-*.tar", "p*-00[0-2].tar"):
        source = parse_source(str(folder / pattern))
        assert isinstance(source, TarShards)
        assert [Path(str(tar)).name for tar in source.tars] == ["photos-000.tar", "photos-001.tar", "photos-002.tar"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("a-{8..10}", ["a-8", "a-9", "a-10"]),
        ("a-{08..10}", ["a-08", "a-09", "a-10"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("a-{2..0}", ["a-2", "a-1", "a-0"]),
        ("a{b}c{}", ["a{b}c{}"]),
    ],
)
def test_braces_stand_for_what_a_shell_makes_of_them(pattern: str, words: list[str]) -> None:
    assert list(expanded(pattern)) == words


def test_paths_start_with_the_name_of_the_tar(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, count=2, each=2)
    found = [path for path, _ in TarShards.of(str(folder / "*.tar")).list(SUFFIXES).files]
    assert found == ["photos-000/0000.jpg", "photos-000/0001.jpg", "photos-001/0002.jpg", "photos-001/0003.jpg"]
    assert [path for path, _ in TarShards.of(str(folder / "photos-001.tar")).list(SUFFIXES).files] == ["0002.jpg", "0003.jpg"]


def test_a_folder_of_tars_is_one(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, count=2)
    (folder / "00000_stats.json").write_text("{}")
    assert isinstance(parse_source(str(folder)), TarShards)
    (folder / "photograph.png").write_bytes(picture(0))
    assert parse_source(str(folder)) == folder, "with images in it, it is a folder of images"


def test_a_folder_with_folders_is_none(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, count=1)
    (folder / "cats").mkdir()
    assert parse_source(str(folder)) == folder


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["{}/a.tar.gz"], "unpack it to a plain .tar"),
        (["{}/a.tgz"], "unpack it to a plain .tar"),
        (["{}/photos-{{000..005}}.tar"], "photos-002.tar: no such file, of"),
        (["{}/x*.tar"], "no tar is of this pattern"),
        (["{}/photos-000.tar", "{}"], "only tars can be taken several at once"),
        (["{}/photos-000.tar", "{}/photos-000.tar"], "have one name"),
        (["{}/photos-000.tar", "{}/photos-000.TAR"], "have one name"),
        (["{}/photos-000.tar", "{}/.tar"], "no folder can be named like that"),
        (["{}/photos-000.tar", "{}/...tar"], "no folder can be named like that"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, texts: list[str], reason: str) -> None:
    folder = make_shards(tmp_path, count=2)
    for name in ("photos-000.TAR", ".tar", "...tar"):
        (folder / name).write_bytes((folder / "photos-000.tar").read_bytes())
    with pytest.raises(UsageError, match=reason):
        parse_sources([text.format(folder) for text in texts])


def test_tars_without_an_image_are_refused(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", [("a.txt", b"1")])
    with pytest.raises(UsageError, match="no file to work on in 1 tars"):
        TarShards.of(str(tmp_path / "a.tar")).list(SUFFIXES)


def test_a_link_that_is_a_tar_is_one(tmp_path: Path) -> None:
    make_shards(tmp_path / "there", count=1)
    (tmp_path / "here.tar").symlink_to(tmp_path / "there" / "photos-000.tar")
    source = parse_source(str(tmp_path / "here.tar"))
    assert isinstance(source, TarShards)
    assert isinstance(source.list(SUFFIXES).files[0][1], TarMember)
