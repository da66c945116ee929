"""A picture after the network: what is left to do is the entropy coder's, in any thread."""

from __future__ import annotations

from collections.abc import Callable

from ..images.picture import Picture
from ..images.png import png_bytes
from .boxes import boxes_of, source_codes
from .container import HOST, NO_MODEL, PIXELS, Header, pack
from .encoder import Encoding
from .symbols import TileCoder

# Above so many bits per pixel and channel, a PNG is worth a try. Photographs stay far below at every quality.
LOSSLESS_FROM = 2.0


class Coded:
    """quality: what was chosen for it. notes: in words, what the caller did not ask for.

    host: of a model whose files may not decode everywhere, for their box. check: raises Desync for a file that does not decode
    here, and is asked before such a file is given out.
    """

    def __init__(
        self,
        model_hash: bytes,
        coder: TileCoder,
        encoding: Encoding,
        *,
        host: str = "",
        check: Callable[[bytes], None] | None = None,
    ) -> None:
        self.model_hash, self.coder, self._encoding = model_hash, coder, encoding
        self.host, self.check = host, check
        self.quality = encoding.quality
        picture, rate = encoding.picture, encoding.rate
        if picture.exact or encoding.lost:
            reason = "its few values look like labels" if picture.exact else "the model would lose parts of this image"
            target = f", whatever the target of {rate.value:g} {rate.unit}" if rate.kind in ("bpp", "size") else ""
            note = f"kept lossless as a PNG{target}: {reason}"
        else:
            note = rate.shortfall(self.quality, encoding.reached, picture.width * picture.height)
        self.notes = (note,) if note else ()

    def code_length(self) -> float:
        """Bits that an ideal coder would write for the latents."""
        return sum(self.coder.code_length(tile) for tile in self._encoding.symbols)

    def to_bytes(self) -> bytes:
        """The file. Raises Desync where the model's files may not decode everywhere, and this one does not even here."""
        encoding, picture = self._encoding, self._encoding.picture
        boxes = encoding.boxes
        if boxes is None:
            boxes = boxes_of(picture, encoding.levels, preview=encoding.preview, errors=encoding.errors)
        if encoding.lost or picture.exact:
            return self._lossless(picture, boxes, png_bytes(picture.pixels))
        if self.host:
            boxes = {**boxes, HOST: self.host.encode()}
        tiles = [(self.coder.encode(tile), tile.crc) for tile in encoding.symbols]
        data = pack(self._header(picture), boxes, tiles)
        if 8 * sum(len(payload) for payload, _ in tiles) > LOSSLESS_FROM * picture.colour.size * picture.bit_depth / 8:
            lossless = self._lossless(picture, boxes, png_bytes(picture.pixels))
            if len(lossless) <= len(data):
                return lossless
        if self.check is not None:
            self.check(data)
        return data

    def _lossless(self, picture: Picture, boxes: dict[bytes, bytes], png: bytes) -> bytes:
        kept = {kind: data for kind, data in boxes.items() if kind[:1].islower()}
        return pack(self._header(picture, lossless=True), {**kept, PIXELS: png}, [])

    def _header(self, picture: Picture, *, lossless: bool = False) -> Header:
        grid = self._encoding.grid
        return Header(
            NO_MODEL if lossless else self.model_hash,
            picture.width,
            picture.height,
            picture.colour.shape[2],
            picture.bit_depth,
            100.0 if lossless else self.quality,
            0 if lossless else grid.tile_width,
            0 if lossless else grid.tile_height,
            *source_codes(picture),
        )
