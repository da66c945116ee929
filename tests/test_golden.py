"""Files of format 1.0 that every version decodes: see scripts/make-golden for what they are, and why they stay as they are."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaetools import Codec
from vaetools.codec.boxes import source_names
from vaetools.codec.container import unpack
from vaetools.errors import FormatError, ModelMissing
from vaetools.images.picture import Metadata, Picture

FOLDER = Path(__file__).parent / "golden"
FACTS: dict[str, dict[str, Any]] = json.loads((FOLDER / "golden.json").read_text())
ARITHMETICS = {"float32": False, "bfloat16": True}

# The largest difference to the golden pixels, of a range of 1. Pixels are the one thing that floats decide. In float32 another
# chip adds up in another order: 1e-6 or so, which rounding to 8 bits makes one level, or none. bfloat16 has 8 bits for each
# value between the layers: 2 levels of 255 were the most on the chip that wrote the files, and another one may add up otherwise.
TOLERANCE = {("float32", 8): 1 / 255, ("float32", 16): 1e-4, ("bfloat16", 8): 5 / 255, ("bfloat16", 16): 5 / 255}


def golden(name: str) -> bytes:
    return (FOLDER / f"{name}.vtc").read_bytes()


@pytest.fixture(scope="module")
def pixels() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "pixels.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def codecs() -> dict[str, Codec]:
    """One of another model than most files: it finds theirs by the hash."""
    return {name: Codec.load("photo", "cpu", bfloat16=bfloat16) for name, bfloat16 in ARITHMETICS.items()}


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAETOOLS_MODELS", str(FOLDER))


def decode(name: str, codec: Codec) -> Picture:
    """Symbols other than those that were encoded would be a Desync."""
    (restored,) = codec.decode([golden(name)])
    assert restored.lost == ()
    return restored.picture


every_file = pytest.mark.parametrize("name", FACTS)


def test_the_files_are_those_that_were_written() -> None:
    assert {path.stem for path in FOLDER.glob("*.vtc")} == set(FACTS)
    assert {name: hashlib.sha256(golden(name)).hexdigest() for name in FACTS} == {
        name: facts["sha256"] for name, facts in FACTS.items()
    }


@every_file
def test_headers_and_boxes_are_read(name: str) -> None:
    front, facts = unpack(golden(name)).front, FACTS[name]
    header = front.header
    assert [header.width, header.height] == facts["size"]
    assert (header.model_hash.hex(), header.bit_depth, header.quality) == (facts["model"], facts["bit_depth"], facts["quality"])
    assert source_names(header) == (facts["format"], facts["mode"])
    assert {kind.decode(): len(content) for kind, content in front.boxes.items()} == facts["boxes"]
    assert [f"{entry.symbols_crc:08x}" for entry in front.entries] == facts["symbols"]


@every_file
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.usefixtures("weights")
def test_pixels_come_back(name: str, arithmetic: str, codecs: dict[str, Codec], pixels: dict[str, np.ndarray]) -> None:
    picture, expected = decode(name, codecs[arithmetic]), pixels[name]
    assert picture.pixels.dtype == expected.dtype
    assert picture.pixels.shape == expected.shape == (*FACTS[name]["size"][::-1], FACTS[name]["channels"])
    difference = np.abs(picture.pixels.astype(np.float64) - expected).max() / np.iinfo(expected.dtype).max
    assert difference <= (TOLERANCE[arithmetic, picture.bit_depth] if FACTS[name]["symbols"] else 0)


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if facts["channels"] in (2, 4)])
@pytest.mark.usefixtures("weights")
def test_alpha_comes_back_exactly(name: str, codecs: dict[str, Codec], pixels: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(decode(name, codecs["bfloat16"]).alpha, pixels[name][:, :, -1])


@every_file
@pytest.mark.usefixtures("weights")
def test_metadata_come_back_exactly(name: str, codecs: dict[str, Codec]) -> None:
    picture = decode(name, codecs["bfloat16"])
    hashes = {kind: hashlib.sha256(getattr(picture.metadata, kind)).hexdigest() for kind in FACTS[name]["metadata"]}
    assert hashes == FACTS[name]["metadata"]
    assert (picture.format, picture.mode) == (FACTS[name]["format"], FACTS[name]["mode"])


def test_metadata_are_in_some_of_the_files() -> None:
    nothing = hashlib.sha256(b"").hexdigest()
    for kind in Metadata.__dataclass_fields__:
        assert any(facts["metadata"].get(kind, nothing) != nothing for facts in FACTS.values())


def test_without_their_weights_files_say_which_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAETOOLS_MODELS", raising=False)
    with pytest.raises(ModelMissing, match=FACTS["rgb"]["model"]):
        Codec.load("photo", "cpu", bfloat16=False).decode([golden("rgb")])


@pytest.mark.usefixtures("weights")
def test_every_truncation_is_an_error(codecs: dict[str, Codec]) -> None:
    data = golden("tiles")
    for length in range(len(data)):
        with pytest.raises(FormatError):
            codecs["float32"].decode([data[:length]])


@pytest.mark.usefixtures("weights")
def test_every_flipped_bit_before_the_payloads_is_an_error(codecs: dict[str, Codec]) -> None:
    data = golden("tiles")
    for bit in range(8 * unpack(data).header.payload_start):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            codecs["float32"].decode([bytes(flipped)])


def test_golden_files_are_not_made_again() -> None:
    script = Path(__file__).parents[1] / "scripts" / "make-golden"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "never made again" in done.stderr
    assert hashlib.sha256(golden("rgb")).hexdigest() == FACTS["rgb"]["sha256"]


def test_golden_files_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 400_000
