"""What a report says of a compressed folder, and how its page is built."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaetools import Codec
from vaetools.codec.container import unpack
from vaetools.codec.tiles import Rect
from vaetools.errors import UsageError
from vaetools.evaluation.peers import PEERS, find_peers
from vaetools.evaluation.quality import psnr
from vaetools.images.exif import turned
from vaetools.images.picture import Picture
from vaetools.images.read import read_picture
from vaetools.report.crops import best_place, lossless_webp, seen_place, shown, squared_error
from vaetools.report.equal import at_equal_bytes
from vaetools.report.heatmap import BitCounter, coloured, enlarged
from vaetools.report.job import Options, Report, build_report, choose
from vaetools.report.page import page_html
from vaetools.report.plot import plot_svg
from vaetools.report.rows import AtEqualBytes, Row, totals_of
from vaetools.report.text import printable, size_text

from .conftest import photograph
from .report_files import EVIL, compressed, make_photos

OPTIONS = Options(find_peers(("jpeg", "webp", "avif")), crop=64)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load("photo", "cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("report") / "photos")


@pytest.fixture(scope="module")
def small(photos: Path) -> Path:
    return compressed(photos, photos.parent / "small", "--verify")


@pytest.fixture(scope="module")
def report(photos: Path, small: Path, codec: Codec) -> Report:
    return build_report(small, codec, OPTIONS, originals=photos)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return page_html(report).decode()


def row_of(report: Report, name: str) -> Row:
    return next(row for row in report.rows if row.name == name)


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


# Where the bits are.


@pytest.mark.parametrize("tile_size", [1024, 64], ids=["one tile", "tiles"])
def test_the_map_of_bits_is_as_much_as_the_payload(codec: Codec, tile_size: int) -> None:
    image = photograph("astronaut", 256, 192)
    contents = unpack(codec.compress([pixels(image)], tile_size=tile_size)[0])
    found = BitCounter(codec.model).bits(contents)
    assert found is not None
    bits, stride = found
    assert bits.shape == (192 // stride, 256 // stride)
    payload = sum(len(each or b"") for each in contents.payloads)
    assert bits.sum() * stride**2 / 8 == pytest.approx(payload, rel=0.02, abs=4 * len(contents.payloads))


def test_bits_are_where_detail_is(codec: Codec) -> None:
    image = Image.new("RGB", (256, 128), (90, 120, 60))
    image.paste(photograph("coffee", 128, 128), (128, 0))
    found = BitCounter(codec.model).bits(unpack(codec.compress([pixels(image)])[0]))
    assert found is not None
    left, right = np.array_split(found[0], 2, axis=1)
    assert right.mean() > 5 * left.mean()


def test_the_map_covers_an_image_that_is_no_multiple_of_anything(codec: Codec) -> None:
    found = BitCounter(codec.model).bits(unpack(codec.compress([pixels(photograph("coffee", 71, 53))])[0]))
    assert found is not None
    assert enlarged(*found, Rect(0, 0, 53, 71)).shape == (53, 71)


def test_one_scale_makes_colours_of_bits() -> None:
    with Image.open(io.BytesIO(coloured(np.array([[0.0, 1.0, 2.0, 9.0]]), 2.0))) as image:
        colours = np.asarray(image.convert("RGB"), int)[0].sum(1)
    assert colours[0] < colours[1] < colours[2] == colours[3]


# What is shown of an image.


def test_the_part_with_the_largest_error_is_shown() -> None:
    first = np.zeros((160, 240, 3), np.uint8)
    second = first.copy()
    second[100:120, 200:220] = 40
    place = best_place(160, 240, 64 * 64, squared_error(first, second))
    assert (place.height, place.width) == (64, 64)
    assert Rect(100, 200, 120, 220).within(place) == Rect(100, 200, 120, 220)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(60, 60, Rect(0, 0, 60, 60)), (16, 4000, Rect(0, 1872, 16, 2128)), (400, 400, Rect(160, 160, 224, 224))],
    ids=["all of it", "narrow", "middle"],
)
def test_the_part_that_is_shown_is_bounded(height: int, width: int, expected: Rect) -> None:
    place = best_place(height, width, 64 * 64, None)
    assert place.height * place.width <= 1.2 * 64 * 64
    assert abs(place.left - expected.left) <= 16
    assert (place.height, place.width) == (expected.height, expected.width)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_place_is_turned_as_its_pixels_are(orientation: int) -> None:
    stored, place = np.arange(6 * 9).reshape(6, 9, 1), Rect(1, 2, 4, 8)
    seen = seen_place(place, 6, 9, orientation)
    assert np.array_equal(turned(stored, orientation)[seen.slices], turned(stored[place.slices], orientation))


def test_sixteen_bits_are_shown_on_the_scale_of_the_original() -> None:
    original = Picture(np.array([[[1000], [2000], [3000]]], np.uint16))
    restored = Picture(np.array([[[1500], [2000], [9000]]], np.uint16))
    assert shown(original, original)[0, :, 0].tolist() == [0, 128, 255]
    assert shown(restored, original)[0, :, 0].tolist() == [64, 128, 255]


def test_pictures_are_exact() -> None:
    image = np.asarray(photograph("coffee", 50, 40))
    with Image.open(io.BytesIO(lossless_webp(image))) as back:
        assert np.array_equal(np.asarray(back), image)


# Other codecs at equal bytes.


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_the_nearest_setting_is_found(name: str) -> None:
    rgb = np.asarray(photograph("coffee", 96, 80))
    peer = PEERS[name]
    setting, data = at_equal_bytes(peer, rgb, 2000)
    assert data == peer.encode(rgb, setting)
    best = min(abs(math.log(len(peer.encode(rgb, other)) / 2000)) for other in (setting - 1, setting, setting + 1))
    assert abs(math.log(len(data) / 2000)) <= max(best, 0.01)


@pytest.mark.parametrize(("size", "setting"), [(1, 1), (10**9, 100)], ids=["too small", "too large"])
def test_a_size_out_of_reach_takes_the_last_setting(size: int, setting: int) -> None:
    assert at_equal_bytes(PEERS["jpeg"], np.asarray(photograph("coffee", 40, 40)), size)[0] == setting


# Rows and totals.


def test_totals_are_sums_and_means() -> None:
    peers = (AtEqualBytes("jpeg", 50, 110, 27.0, math.nan),)
    rows = [
        Row("a", 10, 20, 1000, 100, 100, 60, psnr=30.0, ms_ssim=0.9, peers=peers),
        Row("b", 10, 10, 500, 50, 40, psnr=math.inf, lossless=True),
        Row("c", problem="has no compressed file"),
    ]
    totals = totals_of(rows)
    assert (totals.images, totals.problems, totals.lossless, totals.pixels) == (2, 1, 1, 300)
    assert (totals.original_bytes, totals.file_bytes, totals.bpp) == (1500, 150, 4.0)
    assert (totals.mean_psnr, totals.measured, totals.mean_ms_ssim) == (30.0, 2, 0.9)
    assert totals.worst is rows[0]
    (peer,) = totals.peers
    assert (peer.images, peer.file_bytes, peer.own_bytes, peer.psnr, peer.own_psnr) == (1, 110, 100, 27.0, 30.0)
    assert rows[0].gain("jpeg") == 3.0
    assert rows[0].gain("webp") is None
    assert json.loads(json.dumps(rows[1].to_dict(), allow_nan=False))["psnr"] == "inf"
    assert totals_of([*rows, Row("d", 1, 1, None, 5)]).original_bytes is None


def test_the_worst_are_shown_and_others_evenly() -> None:
    rows = [Row(str(number), 8, 8, file_bytes=9, psnr=30.0 + number % 7) for number in range(70)]
    chosen = choose(rows, 10)
    assert len(set(chosen)) == 10
    assert chosen == sorted(chosen)
    assert {0, 7, 14, 21, 28} <= set(chosen)
    rest = [number for number in chosen if number % 7]
    assert max(np.diff([0, *rest, 70])) <= 20
    assert choose(rows[:4], 10) == [0, 1, 2, 3]
    assert choose([*rows[:3], Row("bad", problem="damaged")], 10) == [0, 1, 2]


def test_without_psnr_images_are_shown_evenly() -> None:
    assert choose([Row(str(number), 8, 8, file_bytes=9) for number in range(100)], 4) == [12, 37, 62, 87]


def test_what_is_measured_is_what_decompress_gives(report: Report, photos: Path, small: Path, codec: Codec) -> None:
    (restored,) = codec.decompress([(small / "astronaut.png.vtc").read_bytes()])
    with Image.open(photos / "astronaut.png") as image:
        original = np.asarray(image)
    row = row_of(report, "astronaut.png")
    assert row.psnr == pytest.approx(psnr(original, restored.permute(1, 2, 0).numpy()))
    assert row.ms_ssim is not None
    assert 0.9 < row.ms_ssim < 1
    assert (row.width, row.height, row.quality) == (192, 176, 60)
    assert row.original_bytes == (photos / "astronaut.png").stat().st_size
    assert row.file_bytes == (small / "astronaut.png.vtc").stat().st_size


def test_sixteen_bits_are_measured_over_their_range(report: Report, photos: Path, small: Path, codec: Codec) -> None:
    original = read_picture(photos / "deep.png").colour.astype(float)
    (restored,) = codec.decompress([(small / "deep.png.vtc").read_bytes()])
    error = np.mean((original[:, :, 0] - restored[0].numpy()) ** 2)
    expected = 10 * math.log10((original.max() - original.min()) ** 2 / error)
    assert row_of(report, "deep.png").psnr == pytest.approx(expected)


def test_every_kind_of_image_has_its_row(report: Report) -> None:
    assert [row.name for row in report.rows] == sorted(
        (EVIL, "astronaut.png", "camera.png", "clear.png", "deep.png", "trip/dither.png", "trip/turned.jpg")
    )
    assert not any(row.problem for row in report.rows)
    assert all(row.picture is not None for row in report.rows)
    dither = row_of(report, "trip/dither.png")
    assert (dither.lossless, dither.psnr, dither.quality) == (True, math.inf, None)
    assert row_of(report, "deep.png").peers == ()  # which hold 8 bits


def test_metadata_and_alpha_do_not_count_for_the_peers(report: Report, small: Path) -> None:
    clear = row_of(report, "clear.png")
    header = unpack((small / "clear.png.vtc").read_bytes()).header
    assert clear.pixel_bytes == (clear.file_bytes or 0) - header.boxes_length < (clear.file_bytes or 0)
    assert [peer.codec for peer in clear.peers] == ["jpeg", "webp", "avif"]
    camera = row_of(report, "camera.png")
    assert camera.pixel_bytes is not None
    assert all(0.8 < peer.file_bytes / camera.pixel_bytes < 1.25 for peer in camera.peers if peer.codec == "jpeg")


def test_a_turned_photograph_is_shown_upright(report: Report, photos: Path) -> None:
    row = row_of(report, "trip/turned.jpg")
    assert row.picture is not None
    shot = report.shots[row.picture]
    assert (row.width, row.height, shot.width, shot.height) == (96, 64, 64, 96)
    stored = turned(read_picture(photos / "trip" / "turned.jpg").pixels, 6)
    with Image.open(io.BytesIO(shot.views["original"])) as image:
        assert np.array_equal(np.asarray(image), stored[shot.place.slices])
    assert shot.bits is not None
    assert shot.bits.shape == (shot.place.height, shot.place.width)


def test_fewer_pictures_change_no_number(report: Report, photos: Path, small: Path, codec: Codec) -> None:
    few = build_report(small, codec, Options(crop=64, images=2), originals=photos)
    assert len(few.shots) == 2
    assert [row.psnr for row in few.rows] == pytest.approx([row.psnr for row in report.rows], abs=0.05)
    worst = min(few.rows, key=lambda row: row.psnr or 0)
    assert worst.picture is not None


@pytest.mark.parametrize("value", [math.nan, 1e6, -math.inf])
def test_a_psnr_that_cannot_be_is_not_known(small: Path, codec: Codec, tmp_path: Path, value: float) -> None:
    shutil.copytree(small, tmp_path / "copy")
    manifest = tmp_path / "copy/.vaetools-manifest.jsonl"
    lines = [{**json.loads(line), "psnr": value, "range_psnr": None} for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = build_report(tmp_path / "copy", codec, Options(images=0))
    assert {row.psnr for row in found.rows} == {None}
    assert b"PSNR is not known" in page_html(found)


def test_without_originals_psnr_is_that_of_the_manifest(small: Path, codec: Codec) -> None:
    found = build_report(small, codec, Options(images=1))
    assert len(found.shots) == 1
    assert set(found.shots[0].views) == {"vaetools"}
    assert row_of(found, "camera.png").psnr is not None
    assert row_of(found, "camera.png").ms_ssim is None


# Trouble.


@pytest.fixture
def troubled(tmp_path: Path, photos: Path, small: Path) -> Path:
    """Copies of both folders."""
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(small, tmp_path / "small")
    return tmp_path


def problems(root: Path, codec: Codec) -> dict[str, str]:
    found = build_report(root / "small", codec, Options(images=1, crop=32), originals=root / "photos")
    return {row.name: row.problem for row in found.rows if row.problem}


def test_bad_files_are_rows_with_a_problem(troubled: Path, codec: Codec) -> None:
    photos, small = troubled / "photos", troubled / "small"
    data = bytearray((small / "astronaut.png.vtc").read_bytes())
    data[-1] ^= 1
    (small / "astronaut.png.vtc").write_bytes(data)
    (small / "camera.png.vtc").unlink()
    shutil.copy(small / "clear.png.vtc", small / f"{EVIL}.vtc")
    (photos / "deep.png").write_bytes(b"rubbish")
    photograph("rocket", 64, 64).save(photos / "new.png")
    photograph("rocket", 60, 60).save(photos / "trip" / "dither.png")
    found = problems(troubled, codec)
    assert "checksum of the payload" in found["astronaut.png"]
    assert "is missing: the manifest says" in found["camera.png"]
    assert "not the file that the manifest tells of" in found[EVIL]
    assert found["deep.png"] == "its original cannot be read (not an image Pillow can read)"
    assert found["new.png"] == "has no compressed file"
    assert "it was changed since" in found["trip/dither.png"]
    assert len(found) == 6


@pytest.mark.parametrize("name", ["astronaut.png", "clear.png"])
def test_an_original_of_the_same_size_in_pixels_is_not_taken_for_another(troubled: Path, codec: Codec, name: str) -> None:
    place = troubled / "photos" / name
    with Image.open(place) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(place)
    found = problems(troubled, codec)
    assert list(found) == [name]
    assert (
        "its original is not what this file was made from (it decodes to another image" in found[name] or "alpha" in found[name]
    )


def test_an_original_that_is_gone_is_a_note(troubled: Path, codec: Codec) -> None:
    (troubled / "photos" / "camera.png").unlink()
    found = build_report(troubled / "small", codec, Options(images=1, crop=32), originals=troubled / "photos")
    row = row_of(found, "camera.png")
    assert (row.problem, row.notes) == ("", ("its original is not there",))
    assert row.psnr is not None  # as `compress --verify` measured it


def test_what_failed_when_it_was_compressed_is_told(tmp_path: Path, codec: Codec) -> None:
    (tmp_path / "photos").mkdir()
    photograph("coffee", 64, 64).save(tmp_path / "photos" / "coffee.png")
    (tmp_path / "photos" / "notes.png").write_text("no image")
    with pytest.raises(AssertionError, match="1 failed"):
        compressed(tmp_path / "photos", tmp_path / "small")
    assert "was not compressed: cannot be read" in problems(tmp_path, codec)["notes.png"]


def test_a_folder_of_which_nothing_can_be_read_is_refused(tmp_path: Path, codec: Codec) -> None:
    (tmp_path / "a.png.vtc").write_bytes(b"rubbish")
    with pytest.raises(UsageError, match=r"not one of its files can be read; the first: a\.png: not a \.vtc file"):
        build_report(tmp_path, codec)


# The page.


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def test_names_are_text_and_nothing_else(page: str) -> None:
    elements = Elements(page).found
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert f"<span>{html.escape(EVIL)}</span>" in page
    assert EVIL not in page
    assert all("src" not in attributes or (attributes["src"] or "").startswith("data:") for _, attributes in elements)


def test_nothing_comes_from_elsewhere(page: str) -> None:
    elements = Elements(page).found
    assert not [tag for tag, attributes in elements if tag in ("link", "iframe", "object") or "href" in attributes]
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp", page)
    (policy,) = (attributes["content"] or "" for tag, attributes in elements if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; img-src data:; script-src 'sha256-")
    assert "unsafe" not in policy
    for tag, kind in (("script", "script"), ("style", "style")):
        text = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert len(text) == 1
        digest = base64.b64encode(hashlib.sha256(text[0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_pictures_on_the_page_are_the_pixels(page: str, report: Report, small: Path, codec: Codec) -> None:
    row = row_of(report, "astronaut.png")
    block = re.search(rf'<script type="text/plain" id="pixels-{row.picture}-vaetools">(.*?)</script>', page)
    assert block is not None
    assert row.picture is not None
    place = report.shots[row.picture].place
    assert (place.width, place.height) == (64, 64)
    (restored,) = codec.decompress([(small / "astronaut.png.vtc").read_bytes()])
    with Image.open(io.BytesIO(base64.b64decode(block[1]))) as image:
        assert np.array_equal(np.asarray(image), restored.permute(1, 2, 0).numpy()[place.slices])


def test_the_same_report_is_the_same_page(report: Report, page: str) -> None:
    assert page_html(report).decode() == page


def test_every_image_and_every_peer_is_in_the_plot(report: Report) -> None:
    svg = plot_svg(report.rows)
    assert svg.count("series-0") == len(report.rows)
    assert svg.count("series-3") == sum(bool(row.peers) for row in report.rows)
    assert "trip/dither.png: vaetools, " in svg
    assert "without loss" in svg


def test_without_any_psnr_there_is_no_plot(photos: Path, tmp_path: Path, codec: Codec) -> None:
    compressed(photos / "trip", tmp_path / "small")
    found = page_html(build_report(tmp_path / "small", codec, Options(images=0))).decode()
    assert 'id="plot"' not in found
    assert "give the folder of the originals" in found
    assert 'id="viewer"' not in found


def test_a_name_of_any_bytes_is_written(photos: Path, tmp_path: Path, codec: Codec) -> None:
    (tmp_path / "photos").mkdir()
    name = os.fsdecode(b"a\xff\n\xe2\x80\xae.png")
    shutil.copy(photos / "camera.png", tmp_path / "photos" / name)
    compressed(tmp_path / "photos", tmp_path / "small")
    found = page_html(build_report(tmp_path / "small", codec, Options(images=1))).decode()
    assert "a\\udcff\\n\\u202e.png" in found


def test_texts() -> None:
    assert [size_text(size) for size in (None, 999, 1000, 52_146, 999_600, 3 * 10**9)] == [
        "\u2013",
        "999 bytes",
        "1 kB",
        "52.1 kB",
        "1,000 kB",
        "3 GB",
    ]
    assert printable("a\tb\u2028") == "a\\tb\\u2028"
