"""Headers, tables and boxes: what needs neither torch nor a model."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaetools import errors
from vaetools.codec import container
from vaetools.codec.container import (
    ALPHA,
    BOX,
    CHECKSUM,
    EXIF,
    FIELDS,
    HEADER_BYTES,
    ICC,
    MAGIC,
    NO_MODEL,
    PIXELS,
    PREFIX,
    TILE,
    Header,
    Limits,
    check_file,
    overhead,
    pack,
    read_front,
    read_header,
    unpack,
)

HEADER = Header(b"\x01\x02\x03\x04\x05\x06\x07\x08", 100, 40, 3, 8, 62.5, 64, 64, 2, 7)  # two tiles
BOXES = {ICC: b"profile", ALPHA: bytes(range(20)), b"note": b""}  # the last one is of a later version
TILES = [(bytes(range(16)), 0xDEADBEEF), (b"abcd", 7)]
FILE = pack(HEADER, BOXES, TILES)
AREA = sum(BOX.size + len(content) for content in BOXES.values())
BOXES_START = HEADER_BYTES + 2 * TILE.size + CHECKSUM.size


def sealed(fields: Mapping[str, int | bytes], rest: bytes = FILE[HEADER_BYTES:], version: tuple[int, int] = (1, 0)) -> bytes:
    """A file whose header holds `fields`, with a checksum that fits, before `rest`."""
    names = ("model", "width", "height", "channels", "depth", "quality", "tile_width", "tile_height", "format", "mode", "boxes")
    values = dict(zip(names, FIELDS.unpack_from(FILE, PREFIX.size), strict=True))
    packed = FIELDS.pack(*{**values, **fields}.values())
    return header_of(packed, version) + rest


def header_of(fields: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    head = PREFIX.pack(MAGIC, *version, len(fields)) + fields
    return head + CHECKSUM.pack(zlib.crc32(head))


def with_area(area: bytes) -> bytes:
    """The file with other bytes in the place of its boxes."""
    payloads = FILE[BOXES_START + AREA :]
    return sealed({"boxes": len(area)}, FILE[HEADER_BYTES:BOXES_START] + area + payloads)


def box(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    return BOX.pack(kind, len(content) if length is None else length, zlib.crc32(kind + content)) + content


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


# Good files.


@given(
    size=st.tuples(st.integers(1, 65_535), st.integers(1, 1_000)),
    channels=st.sampled_from((1, 3)),
    depth=st.sampled_from((8, 16)),
    quality=st.integers(0, 10_000),
    tile=st.sampled_from(((64, 64), (1024, 8), (8, 1024), (1024, 1024), (512, 4096))),
    source=st.tuples(st.integers(0, 255), st.integers(0, 255)),
)
def test_headers_come_back(
    size: tuple[int, int], channels: int, depth: int, quality: int, tile: tuple[int, int], source: tuple[int, int]
) -> None:
    header = Header(HEADER.model_hash, *size, channels, depth, quality / 100, *tile, *source)
    assert read_header(pack(header, {}, [])) == (header, HEADER_BYTES)


@given(
    boxes=st.dictionaries(st.from_regex(rb"\A[a-z ][a-zA-Z ]{3}\Z").filter(lambda kind: len(kind) == 4), st.binary(max_size=40)),
    payloads=st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 2**32 - 1)), min_size=1, max_size=5),
)
def test_boxes_and_tiles_come_back(boxes: dict[bytes, bytes], payloads: list[tuple[bytes, int]]) -> None:
    header = replace(HEADER, width=64 * len(payloads))
    contents = unpack(pack(header, boxes, payloads))
    assert contents.front.boxes == boxes
    assert list(contents.payloads) == [payload for payload, _ in payloads]
    assert [entry.symbols_crc for entry in contents.front.entries] == [crc for _, crc in payloads]
    assert contents.front.damage == ()


def test_the_header_says_where_the_payloads_begin() -> None:
    header, end = read_header(FILE)
    assert (end, header.boxes_start, header.payload_start) == (HEADER_BYTES, BOXES_START, BOXES_START + AREA)
    assert FILE[header.payload_start :] == b"".join(payload for payload, _ in TILES)


def test_a_header_is_read_without_the_rest() -> None:
    assert read_header(FILE[:HEADER_BYTES])[0].tiles == 2


def test_the_front_is_read_without_the_payloads() -> None:
    assert read_front(FILE[: BOXES_START + AREA]) == unpack(FILE).front


def test_overhead_of_one_tile_is_at_most_64_bytes() -> None:
    assert overhead({}, 1) == len(pack(replace(HEADER, width=64), {}, [(b"", 0)])) == 62


def test_overhead_is_what_is_no_payload() -> None:
    assert overhead(BOXES, 2) == len(FILE) - sum(len(payload) for payload, _ in TILES)


def test_pixels_in_a_box_need_no_tiles() -> None:
    contents = unpack(pack(replace(HEADER, model_hash=NO_MODEL, tile_width=0, tile_height=0), {PIXELS: b"a PNG"}, []))
    assert contents.header.lossless
    assert (contents.payloads, contents.front.boxes) == ((), {PIXELS: b"a PNG"})


def test_a_checked_file_gives_its_header() -> None:
    assert check_file(FILE) == read_header(FILE)[0]


def test_a_later_minor_version_may_have_longer_fields() -> None:
    fields = FILE[PREFIX.size : PREFIX.size + FIELDS.size] + b"later"
    contents = unpack(header_of(fields, (1, 1)) + FILE[HEADER_BYTES:])
    assert contents.header == replace(unpack(FILE).header, length=HEADER_BYTES + 5, version=(1, 1))
    assert contents.payloads == unpack(FILE).payloads


def test_a_box_that_a_decoder_may_do_without_is_kept() -> None:
    assert unpack(FILE).front.boxes[b"note"] == b""


# Damage.


@pytest.mark.parametrize("length", range(len(FILE)))
def test_every_truncation_is_told(length: int) -> None:
    with pytest.raises(errors.Truncated):
        unpack(FILE[:length])


def test_every_flipped_bit_is_told() -> None:
    for bit in range(8 * len(FILE)):
        with pytest.raises(errors.FormatError):
            unpack(flipped(FILE, bit))


@given(place=st.integers(0, len(FILE) - 1), content=st.binary(min_size=1, max_size=8))
def test_every_overwritten_byte_is_told(place: int, content: bytes) -> None:
    data = FILE[:place] + content + FILE[place + len(content) :]
    if data != FILE:
        with pytest.raises(errors.FormatError):
            unpack(data)


@given(data=st.binary(max_size=400))
def test_foreign_bytes_are_no_file_of_ours(data: bytes) -> None:
    with pytest.raises(errors.FormatError):
        unpack(data)


@given(data=st.binary(max_size=400))
def test_foreign_bytes_behind_a_magic_number_are_told(data: bytes) -> None:
    with pytest.raises(errors.FormatError):
        unpack(MAGIC + data)


def test_another_format_is_named() -> None:
    with pytest.raises(errors.NotThisFormat, match=r"not a \.vtc file"):
        unpack(b"\x89PNG\r\n\x1a\n" + FILE[8:])


def test_a_text_mode_transfer_is_named() -> None:
    with pytest.raises(errors.NotThisFormat, match="text mode"):
        unpack(FILE.replace(b"\r\n", b"\n"))


@pytest.mark.parametrize("major", [0, 2, 255])
def test_another_major_version_is_refused(major: int) -> None:
    with pytest.raises(errors.UnsupportedVersion, match=rf"format {major}\.3"):
        unpack(sealed({}, version=(major, 3)))


@pytest.mark.parametrize(
    ("fields", "version"),
    [(FIELDS.size - 1, (1, 0)), (FIELDS.size + 1, (1, 0)), (FIELDS.size - 1, (1, 1)), (0, (1, 1)), (1009, (1, 1))],
    ids=str,
)
def test_a_header_of_a_wrong_length_is_told(fields: int, version: tuple[int, int]) -> None:
    content = (FILE[PREFIX.size : PREFIX.size + FIELDS.size] + bytes(1009))[:fields]
    with pytest.raises(errors.Corrupt, match=f"{fields} bytes of fields"):
        unpack(header_of(content, version) + FILE[HEADER_BYTES:])


def test_trailing_bytes_are_told() -> None:
    with pytest.raises(errors.Corrupt, match="3 bytes follow"):
        unpack(FILE + b"abc")


# Headers that no encoder writes, with checksums that fit.


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 0},
        {"height": 0},
        {"channels": 0},
        {"channels": 2},
        {"channels": 4},
        {"depth": 12},
        {"quality": 10_001},
        {"tile_width": 0},
        {"tile_height": 0},
        {"tile_width": 65_535, "tile_height": 65_535},
        {"tile_width": 1024 // 8, "tile_height": 2056 // 8},
        {"width": 3000, "height": 3000, "tile_width": 1, "tile_height": 1},
    ],
    ids=str,
)
def test_impossible_headers_are_told(fields: dict[str, int]) -> None:
    with pytest.raises(errors.Corrupt, match="impossible header"):
        read_header(sealed(fields))


@pytest.mark.parametrize("limits", [Limits(max_pixels=3999), Limits(max_side=99)], ids=["pixels", "side"])
def test_sizes_above_the_limits_are_refused(limits: Limits) -> None:
    with pytest.raises(errors.LimitExceeded, match="100 x 40"):
        read_header(FILE, limits)


@pytest.mark.parametrize("limits", [Limits(max_pixels=4000), Limits(max_side=100)], ids=["pixels", "side"])
def test_sizes_at_the_limits_are_taken(limits: Limits) -> None:
    assert unpack(FILE, limits).header.pixels == 4000


@pytest.mark.parametrize("fields", [{"width": 65_536}, {"width": 65_535, "height": 65_535}, {"height": 2**32 - 1}], ids=str)
def test_huge_sizes_are_refused_by_default(fields: dict[str, int]) -> None:
    with pytest.raises(errors.LimitExceeded):
        unpack(sealed(fields))


def test_a_table_of_more_tiles_than_there_are_bytes_is_told() -> None:
    with pytest.raises(errors.Truncated, match="table of its 40000 tiles"):
        unpack(sealed({"width": 1600, "height": 1600, "tile_width": 1, "tile_height": 1}))


# Boxes that no encoder writes.


def test_an_unknown_box_that_must_be_known_is_refused() -> None:
    with pytest.raises(errors.UnsupportedVersion, match="box NEWS"):
        unpack(with_area(box(b"NEWS", b"content")))


def test_two_boxes_of_a_kind_are_told() -> None:
    with pytest.raises(errors.Corrupt, match="two boxes exif"):
        unpack(with_area(box(EXIF, b"one") + box(EXIF, b"two")))


@pytest.mark.parametrize(
    ("area", "words"),
    [
        (box(ICC, b"content", length=8), "longer than"),
        (box(ICC, b"content", length=2**32 - 1), "longer than"),
        (box(ICC, b"content") + bytes(5), "inside one of them"),
        (bytes(11), "inside one of them"),
        (box(ICC, b"content", length=3), "checksum"),
    ],
    ids=["too long", "much too long", "half a box behind", "half a box", "too short"],
)
def test_boxes_that_do_not_fill_their_place_are_told(area: bytes, words: str) -> None:
    with pytest.raises(errors.Corrupt, match=words):
        unpack(with_area(area))


@pytest.mark.parametrize("change", [-1, 1], ids=["shorter", "longer"])
def test_a_place_for_boxes_of_another_length_is_told(change: int) -> None:
    with pytest.raises(errors.Corrupt):
        unpack(sealed({"boxes": AREA + change}))


def test_names_of_boxes_are_shown_without_control_characters() -> None:
    with pytest.raises(errors.Corrupt, match=r"the box \\x1b\[2J does"):
        unpack(with_area(BOX.pack(b"\x1b[2J", 0, 1)))


# What is left of damaged files.


def damaged_payload(number: int) -> bytes:
    start = BOXES_START + AREA + sum(len(payload) for payload, _ in TILES[:number])
    return flipped(FILE, 8 * start)


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_payload_is_left_out_on_demand(number: int) -> None:
    with pytest.raises(errors.Corrupt, match=rf"tile {number} \(of 2\)"):
        unpack(damaged_payload(number))
    contents = unpack(damaged_payload(number), allow_partial=True)
    assert [payload is None for payload in contents.payloads] == [place == number for place in (0, 1)]
    assert len(contents.front.damage) == 1
    assert f"tile {number} (of 2)" in contents.front.damage[0]


@pytest.mark.parametrize(("missing", "left"), [(1, 1), (4, 1), (5, 0), (20, 0)])
def test_missing_payloads_are_left_out_on_demand(missing: int, left: int) -> None:
    contents = unpack(FILE[:-missing], allow_partial=True)
    assert list(contents.payloads) == [payload for payload, _ in TILES[:left]] + [None] * (2 - left)
    assert len(contents.front.damage) == 2 - left


def boxes_left(data: bytes) -> tuple[set[bytes], int]:
    """The names of the boxes that are left on demand, and how many things were lost."""
    contents = unpack(data, allow_partial=True)
    assert [payload for payload in contents.payloads if payload is not None] == [payload for payload, _ in TILES]
    return set(contents.front.boxes), len(contents.front.damage)


def test_of_boxes_only_the_damaged_one_is_left_out() -> None:
    assert boxes_left(flipped(FILE, 8 * (BOXES_START + BOX.size))) == ({ALPHA, b"note"}, 1)


def test_behind_a_box_of_an_impossible_length_nothing_is_looked_for() -> None:
    good, bad = box(ICC, b"profile"), box(EXIF, b"content", length=1000)
    assert boxes_left(with_area(good + bad + box(b"note", b""))) == ({ICC}, 1)


def test_of_two_boxes_of_a_kind_the_first_is_kept_on_demand() -> None:
    data = with_area(box(EXIF, b"one") + box(EXIF, b"two"))
    assert unpack(data, allow_partial=True).front.boxes == {EXIF: b"one"}


def test_boxes_cut_off_take_the_payloads_with_them() -> None:
    contents = unpack(FILE[: BOXES_START + BOX.size + len(BOXES[ICC]) + 3], allow_partial=True)
    assert contents.front.boxes == {ICC: BOXES[ICC]}
    assert contents.payloads == (None, None)


def test_trailing_bytes_are_left_out_on_demand() -> None:
    contents = unpack(FILE + b"abc", allow_partial=True)
    assert list(contents.payloads) == [payload for payload, _ in TILES]
    assert contents.front.damage == ("3 bytes follow the end of the image",)


@pytest.mark.parametrize("place", [3, 9, 20, HEADER_BYTES - 1, HEADER_BYTES, BOXES_START - 1])
def test_nothing_is_left_without_the_header_and_the_table(place: int) -> None:
    with pytest.raises(errors.FormatError):
        unpack(flipped(FILE, 8 * place), allow_partial=True)


@given(data=st.data())
def test_on_demand_no_damage_behind_the_table_is_an_error(data: st.DataObject) -> None:
    behind = bytearray(FILE[BOXES_START:])
    for place in data.draw(st.lists(st.integers(0, len(behind) - 1), max_size=4)):
        behind[place] ^= data.draw(st.integers(1, 255))
    damaged = FILE[:BOXES_START] + bytes(behind[: data.draw(st.integers(0, len(behind)))])
    assert bool(unpack(damaged, allow_partial=True).front.damage) == (damaged != FILE)


def test_a_header_is_read_without_torch_and_numpy() -> None:
    code = f"import sys, {container.__name__}; print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
