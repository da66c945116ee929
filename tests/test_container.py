"""The header and the checks that need neither torch nor a model."""

from __future__ import annotations

import subprocess
import sys
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaetools import errors
from vaetools.codec import container
from vaetools.codec.container import Header, Limits, pack, read_header, unpack

HEADER = Header(b"\x01\x02\x03\x04\x05\x06\x07\x08", 640, 427, 3, 8, 62.5, 0, 0, 0xDEADBEEF)
PAYLOAD = bytes(range(200))


@given(
    width=st.integers(1, 65_535),
    height=st.integers(1, 1_000),
    channels=st.sampled_from((1, 3)),
    depth=st.sampled_from((8, 16)),
    quality=st.integers(0, 10_000),
    payload=st.binary(max_size=300),
)
def test_header_and_payload_come_back(width: int, height: int, channels: int, depth: int, quality: int, payload: bytes) -> None:
    header = replace(HEADER, width=width, height=height, channels=channels, bit_depth=depth, quality=quality / 100)
    restored, data = unpack(pack(header, payload))
    assert data == payload
    assert restored == replace(header, payload_length=len(payload), payload_crc=zlib.crc32(payload))


def test_overhead_is_at_most_64_bytes() -> None:
    assert len(pack(HEADER, b"")) == 48


@pytest.mark.parametrize("length", range(len(pack(HEADER, PAYLOAD))))
def test_every_truncation_is_told(length: int) -> None:
    with pytest.raises(errors.Truncated if length else errors.FormatError):
        unpack(pack(HEADER, PAYLOAD)[:length])


@pytest.mark.parametrize("bit", range(8 * 48))
def test_every_flipped_bit_of_the_header_is_told(bit: int) -> None:
    data = bytearray(pack(HEADER, PAYLOAD))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(errors.FormatError):
        unpack(bytes(data))


@given(position=st.integers(48, 247), value=st.integers(1, 255))
def test_every_changed_payload_byte_is_told(position: int, value: int) -> None:
    data = bytearray(pack(HEADER, PAYLOAD))
    data[position] ^= value
    with pytest.raises(errors.Corrupt, match="payload"):
        unpack(bytes(data))


@given(data=st.binary(max_size=400))
def test_foreign_bytes_are_no_file_of_ours(data: bytes) -> None:
    with pytest.raises(errors.FormatError):
        unpack(data)


def test_trailing_bytes_are_told() -> None:
    with pytest.raises(errors.Corrupt, match="3 bytes follow"):
        unpack(pack(HEADER, PAYLOAD) + b"abc")


def test_a_text_mode_transfer_is_named() -> None:
    with pytest.raises(errors.NotThisFormat, match="text mode"):
        unpack(pack(HEADER, PAYLOAD).replace(b"\r\n", b"\n"))


@pytest.mark.parametrize("version", [(container.VERSION[0] + 1, 0), (container.VERSION[0], container.VERSION[1] + 1)], ids=str)
def test_another_version_is_named(version: tuple[int, int]) -> None:
    data = bytearray(pack(HEADER, PAYLOAD))
    data[8:10] = bytes(version)
    with pytest.raises(errors.UnsupportedVersion, match=rf"format {version[0]}\.{version[1]}"):
        unpack(bytes(data))


def resealed(**fields: int) -> bytes:
    """A file whose header says `fields`, with a checksum that matches."""
    return pack(replace(HEADER, **fields), PAYLOAD)


@pytest.mark.parametrize("fields", [{"width": 0}, {"height": 0}, {"channels": 2}, {"bit_depth": 12}, {"quality": 200}])
def test_impossible_fields_are_told(fields: dict[str, int]) -> None:
    with pytest.raises(errors.Corrupt, match="impossible"):
        unpack(resealed(**fields))


@pytest.mark.parametrize("limits", [Limits(max_pixels=640 * 427 - 1), Limits(max_side=639)], ids=["pixels", "side"])
def test_sizes_above_the_limits_are_refused_before_any_allocation(limits: Limits) -> None:
    with pytest.raises(errors.LimitExceeded, match="640 x 427"):
        read_header(pack(HEADER, PAYLOAD), limits)


def test_reading_a_header_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, vaetools.codec.container; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
