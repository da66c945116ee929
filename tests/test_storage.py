"""Places in stores, and the objects in them."""

from __future__ import annotations

import errno
import http.server
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from vaetools.errors import UsageError
from vaetools.folder.sizes import size_of_image
from vaetools.images.folder import SUFFIXES
from vaetools.images.read import probe, read_picture
from vaetools.storage import head as head_module
from vaetools.storage import url as url_module
from vaetools.storage.head import HEAD
from vaetools.storage.place import parse_folder, parse_source, parse_sources
from vaetools.storage.shards import TarShards
from vaetools.storage.url import RemoteBlob, Url

from .conftest import photograph
from .tar_files import make_tar, picture

ROOT = "/store"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> MemoryFileSystem:
    """Empty, and with no pauses between requests."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(url_module, "WAITS", (0.0, 0.0))
    return MemoryFileSystem()


def listed(text: str) -> list[str]:
    return [inside for inside, _ in Url(text).list(SUFFIXES).files]


def test_a_url_is_a_url_and_a_path_a_path() -> None:
    assert isinstance(parse_source("memory://bucket/a"), Url)
    assert parse_source("memory:/bucket") == Path("memory:/bucket")
    assert parse_source("file:///a/b%20c") == Path("/a/b c")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nothing://a", "is no protocol"),
        ("gs://bucket", "pip install gcsfs"),
        ("file://a/b", "three slashes"),
        ("file:///a/b#1", "%23 for #"),
        ("file:///a/b?", "%3F for ?"),
    ],
)
def test_what_cannot_be_opened_is_told_before_anything_is_done(text: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        parse_source(text)


def test_a_missing_package_of_s3_is_named_as_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(UsageError, match=r"pip install 'vaetools\[s3\]'"):
        parse_source("s3://bucket")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host/album/", "https://me:***@host/album"),
        ("https://secret@host/album", "https://***@host/album"),
        ("https://host/a.png?signature=secret", "https://host/a.png"),
        ("memory://bucket/a@b.png", "memory://bucket/a@b.png"),
    ],
)
def test_passwords_and_tokens_are_not_shown(text: str, shown: str) -> None:
    place = Url(text)
    assert str(place) == shown
    assert "secret" not in repr(place)
    assert "secret" not in str(place._as_os_error(ValueError(f"no answer from {text}")))


@pytest.mark.parametrize("text", ["s3://[x/y", "memory://[x/y"])
def test_what_no_parser_of_urls_takes_is_a_place(text: str) -> None:
    assert (str(parse_folder(text)), str(parse_source(text))) == (text, text)


@pytest.mark.parametrize(
    "texts",
    [
        ["http://me:secret@host/a", "http://me:secret@host/b"],
        ["https://me:secret@127.0.0.1:1/a.tar.gz"],
        ["https://me:secret@127.0.0.1:1/a.tar.gz?token=secret"],
        ["HTTPS://127.0.0.1:1/a?token=secret", "a.tar"],
    ],
)
def test_passwords_of_refused_sources_are_not_shown(texts: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        parse_sources(texts)
    assert "secret" not in str(raised.value)


def test_patterns_of_tars_are_shown_without_passwords(memory: MemoryFileSystem) -> None:
    memory.pipe("/me:secret@host/a-0.tar", b"")
    assert str(parse_source("memory://me:secret@host/a-{0..0}.tar")) == "memory://me:***@host/a-{0..0}.tar"


def test_an_object_is_fetched_in_parts_of_bounded_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the headers of a tar are read, which lie all over it."""
    asked: list[int] = []

    def read_range(blob: RemoteBlob, start: int, length: int) -> bytes:
        asked.append(length)
        return bytes(min(length, 512))

    monkeypatch.setattr(RemoteBlob, "read_range", read_range)
    with Url("memory://tars").blob("a.tar", 10 << 30).open() as file:
        for number in range(64):
            file.seek(number * (160 << 20))
            file.read(512)
    assert max(asked) == head_module.LARGEST


def test_a_place_can_be_sent_to_another_process(memory: MemoryFileSystem) -> None:
    memory.pipe_file(f"{ROOT}/a.png", b"abc")
    place = pickle.loads(pickle.dumps(Url("memory://store")))
    blob = pickle.loads(pickle.dumps(place.list(SUFFIXES).files[0][1]))
    assert (place, blob.read_bytes(), str(blob)) == (Url("memory://store"), b"abc", "memory://store/a.png")


def test_names_are_kept_as_they_are(memory: MemoryFileSystem) -> None:
    names = ["a b/c.png", "a#1?.png", "ü%20.PNG", "a.b/c.png"]
    for name in names:
        memory.pipe_file(f"{ROOT}/{name}", b"x")
    assert sorted(listed("memory://store")) == sorted(names)


def test_the_order_is_that_of_a_folder(memory: MemoryFileSystem, tmp_path: Path) -> None:
    for name in ("a/1.png", "a-b/1.png", "a.png", "a b/1.png", "B.png"):
        memory.pipe_file(f"{ROOT}/{name}", b"x")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert listed("memory://store") == [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.png"))]


def test_hidden_ones_are_left_out_and_own_ones_not_counted(memory: MemoryFileSystem) -> None:
    for name in ("a.png", ".b.png", ".hidden/c.png", "notes.txt", ".vaetools-manifest.jsonl"):
        memory.pipe_file(f"{ROOT}/{name}", b"x")
    contents = Url("memory://store").list(SUFFIXES)
    assert [inside for inside, _ in contents.files] == ["a.png"]
    assert contents.others == 2


def test_a_name_that_no_file_can_have_is_refused(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file(f"{ROOT}/a.png", b"x")
    found = memory.find(ROOT, detail=True)
    odd = {f"{ROOT}/b//c.png": found[f"{ROOT}/a.png"]}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda self, path, **_: found | odd)
    contents = Url("memory://store").list(SUFFIXES)
    assert [path for path, _ in contents.refused] == ["memory://store/b//c.png"]
    assert [inside for inside, _ in contents.files] == ["a.png"]


def test_one_object_is_a_source_too(memory: MemoryFileSystem) -> None:
    memory.pipe_file(f"{ROOT}/a/b.png", b"x")
    ((inside, blob),) = Url("memory://store/a/b.png").list(SUFFIXES).files
    assert (inside, str(blob)) == ("b.png", "memory://store/a/b.png")


def test_a_question_mark_is_part_of_the_name_of_one_object(memory: MemoryFileSystem) -> None:
    memory.pipe_file(f"{ROOT}/a?b.png", b"x")
    assert listed("memory://store/a?b.png") == ["a?b.png"]


@pytest.mark.parametrize(("text", "told"), [("memory://nothing", "nothing is there"), ("memory://store", "no image in it")])
def test_a_place_without_images_is_refused(memory: MemoryFileSystem, text: str, told: str) -> None:
    memory.pipe_file(f"{ROOT}/notes.txt", b"x")
    with pytest.raises(UsageError, match=told):
        Url(text).list(SUFFIXES)


def test_a_listing_is_one_request_and_sizes_come_with_it(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        memory.pipe_file(f"{ROOT}/{number}.png", bytes(number))
    monkeypatch.setattr(MemoryFileSystem, "info", None)
    assert sum(blob.size for _, blob in Url("memory://store").list(SUFFIXES).files) == sum(range(20))


def test_another_content_is_another_state(memory: MemoryFileSystem) -> None:
    states = []
    for data in (b"a", b"b"):
        memory.pipe_file(f"{ROOT}/a.png", data)
        states.append(Url("memory://store").list(SUFFIXES).files[0][1].stat().st_mtime_ns)
    assert 0 < states[0] != states[1]


class Counting:
    """Counts the bytes of parts of objects that are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts: list[int] = []
        cat_file = MemoryFileSystem.cat_file

        def counted(files: MemoryFileSystem, path: str, start: int | None = None, end: int | None = None) -> bytes:
            data: bytes = cat_file(files, path, start, end)
            self.parts.append(len(data))
            return data

        monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)


@pytest.mark.parametrize(
    ("ending", "lossless", "extended"),
    [(".png", 0, 0), (".jpg", 0, 0), (".bmp", 0, 0), (".webp", 0, 0), (".webp", 1, 0), (".webp", 0, 1)],
)
def test_a_size_takes_the_head_of_an_object(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str, lossless: int, extended: int
) -> None:
    photograph("astronaut", 900, 700).save(tmp_path / f"a{ending}", quality=95, lossless=lossless, exif=b"Exif\0\0" * extended)
    data = (tmp_path / f"a{ending}").read_bytes()
    memory.pipe_file(f"{ROOT}/a{ending}", data)
    ((_, blob),) = Url("memory://store").list(SUFFIXES).files
    counting = Counting(monkeypatch)
    assert size_of_image(blob) == (700, 900)
    assert len(counting.parts) == 1
    assert counting.parts[0] <= HEAD < len(data)


def test_an_image_is_read_by_one_request(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photograph("astronaut", 400, 300).save(tmp_path / "a.png")
    memory.pipe_file(f"{ROOT}/a.png", (tmp_path / "a.png").read_bytes())
    ((_, blob),) = Url("memory://store").list(SUFFIXES).files
    counting = Counting(monkeypatch)
    assert (read_picture(blob).pixels == read_picture(tmp_path / "a.png").pixels).all()
    assert len(counting.parts) == 1


@pytest.mark.parametrize(("room", "requests"), [(1 << 20, 3), (1000, 6)])
def test_small_objects_are_fetched_once_for_head_and_all_while_there_is_room(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: int, requests: int
) -> None:
    monkeypatch.setattr(head_module, "KEPT", room)
    for number in range(3):
        photograph("astronaut", 40 + number, 30).save(tmp_path / f"{number}.png")
        memory.pipe_file(f"{ROOT}/{number}.png", (tmp_path / f"{number}.png").read_bytes())
    blobs = [blob for _, blob in Url("memory://store").list(SUFFIXES).files]
    counting = Counting(monkeypatch)
    assert [size_of_image(blob)[1] for blob in blobs] == [40, 41, 42]
    assert [read_picture(blob).pixels.shape[1] for blob in blobs] == [40, 41, 42]
    assert len(counting.parts) == requests


def test_an_object_reads_as_a_file_does(memory: MemoryFileSystem, tmp_path: Path) -> None:
    data = bytes(range(256)) * 2000
    memory.pipe_file(f"{ROOT}/a.png", data)
    (tmp_path / "a.png").write_bytes(data)
    ((_, blob),) = Url("memory://store").list(SUFFIXES).files
    with blob.open("rb") as there, (tmp_path / "a.png").open("rb") as here:
        for place, whence, count in (
            (5, 0, 10),
            (70_000, 0, 10),
            (-100, 2, 200),
            (3, 0, 66_000),
            (9, 1, 0),
            (600_000, 0, 5),
            (0, 0, -1),
        ):
            assert there.seek(place, whence) == here.seek(place, whence)
            assert there.read(count) == here.read(count)
            assert there.tell() == here.tell()


def test_whatever_a_store_raises_is_an_os_error(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file(f"{ROOT}/a.png", b"x")
    blob = Url("memory://store").list(SUFFIXES).files[0][1]

    class ClientError(Exception):
        pass

    def refuse(*_: object, **__: object) -> bytes:
        raise ClientError("An error occurred (SlowDown)\nand more")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(OSError, match="SlowDown") as told:
        blob.read_bytes()
    assert "more" not in str(told.value)


def test_a_request_is_made_again_where_the_reason_may_pass(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file(f"{ROOT}/a.png", b"abc")
    blob = Url("memory://store").list(SUFFIXES).files[0][1]
    cat_file, calls = MemoryFileSystem.cat_file, []

    def busy(*arguments: object, **options: object) -> bytes:
        calls.append(1)
        if len(calls) < 3:
            raise OSError(errno.EBUSY, "Slow down")
        data: bytes = cat_file(*arguments, **options)
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", busy)
    assert blob.read_bytes() == b"abc"
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: (_ for _ in ()).throw(PermissionError("Access Denied")))
    with pytest.raises(PermissionError, match="Access Denied"):
        blob.read_bytes()


@pytest.fixture
def website(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder that a web server of the standard library lists, and its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "site"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_a_tar_of_a_web_server_may_have_a_signature(website: tuple[str, Path]) -> None:
    address, folder = website
    make_tar(folder / "a.tar", [("0.png", picture(0))])
    source = parse_source(f"{address}/a.tar?signature=secret")
    ((inside, member),) = source.list(SUFFIXES).files if isinstance(source, TarShards) else []
    assert (inside, member.read_bytes(), "secret" in str(member)) == ("0.png", picture(0), False)


def test_the_folders_of_a_web_server_are_places(website: tuple[str, Path]) -> None:
    address, folder = website
    for name in ("album/a b.png", "album/deeper/c#.png", "album/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4)).save(folder / name, "PNG")
    large = photograph("astronaut", 400, 300)
    large.save(folder / "large.png")
    ((_, blob),) = Url(f"{address}/large.png").list(SUFFIXES).files
    assert blob.size > HEAD  # and this server knows no ranges
    assert (size_of_image(blob), read_picture(blob).pixels.shape) == ((300, 400), (300, 400, 3))
    assert blob.read_range(70_000, 10) == (folder / "large.png").read_bytes()[70_000:70_010]
    contents = Url(f"{address}/album").list(SUFFIXES)
    assert [inside for inside, _ in contents.files] == ["a b.png", "deeper/c#.png"]
    assert [blob.size for _, blob in contents.files] == [(folder / "album/a b.png").stat().st_size] * 2
    assert probe(contents.files[1][1]).width == 5
    ((inside, blob),) = Url(f"{address}/album/a%20b.png").list(SUFFIXES).files
    assert (inside, read_picture(blob).pixels.shape) == ("a b.png", (4, 5, 3))
