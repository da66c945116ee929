"""A codec that is fast, and whose bytes tell how a job has used it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from vaetools.codec.codec import Codec
from vaetools.codec.container import Limits
from vaetools.codec.rate import Rate
from vaetools.folder.job import compress_folder
from vaetools.folder.ledger import Outcome
from vaetools.folder.plan import Selection
from vaetools.images.picture import Picture
from vaetools.model.threads import Lanes


@dataclass
class FakeCoded:
    data: bytes
    quality: float = 60.0
    notes: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        return self.data


class FakeCodec:
    """Its bytes tell with which other images an image went through the network, in which order."""

    limits = Limits()
    model = SimpleNamespace(hash=b"fakefake")
    lanes = Lanes()

    def __init__(self, before: Callable[[int], None] = lambda number: None) -> None:
        self.before, self.batches = before, 0

    def plan_key(self, height: int, width: int, tile_size: int = 1024) -> tuple[int, ...]:
        return -(-height // 64), -(-width // 64)

    def batch_limit(self, key: tuple[int, ...], batch_size: int) -> int:
        return batch_size

    def encode(self, pictures: Sequence[Picture], rate: Rate, batch_size: int, **_: object) -> list[FakeCoded]:
        if not pictures:
            return []
        self.before(self.batches)
        self.batches += 1
        names = [f"{zlib.crc32(picture.pixels.tobytes()):08x}" for picture in pictures]
        return [FakeCoded(f"{name} of {names} at {rate}".encode(), rate.value) for name in names]


def compress(source: Path, target: Path, fake: FakeCodec | None = None, rate: float = 60.0, **options: Any) -> Outcome:
    selection = {name: options.pop(name) for name in ("on_exists", "retry_failed") if name in options}
    codec = cast(Codec, fake or FakeCodec())
    options = {"batch_size": 4, "selection": Selection(**selection), **options}
    return compress_folder(source, target, codec, Rate("quality", rate), **options)
