"""From the bytes of a tile to its whole numbers, without any float network: what a data loader's worker does.

    payload --entropy coder--> z --IntegerScales--> indexes --entropy coder--> r1 --IntegerScales--> indexes --entropy coder--> r2

Which table codes which residual follows from decoded integers alone (model/scales.py), so the means of the latents, which take a
float network, can be left to whoever makes the pixels.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..codec.symbols import TileCoder, TileReader, TileSymbols
from ..errors import ModelError
from ..model.weights import LoadedModel, find_by_name, load_weights

Array = NDArray[Any]


class SymbolReader:
    """The integer network and the probability tables of one model; of its other weights nothing is kept.

    Raises ModelError if the model has no codec.
    """

    def __init__(self, model: LoadedModel) -> None:
        config = model.vae.config
        if config.posterior != "uniform" or model.tables is None:
            raise ModelError(f"{model.path}: a model with a {config.posterior} posterior has no codec, so no file is of it")
        self.config, self.model_hash, self.scales = config, model.hash, model.vae.scales
        self.coder = TileCoder(config, model.tables)

    @classmethod
    def load(cls, model: str | os.PathLike[str]) -> SymbolReader:
        """`model`: an installed model's name, a weights file, or the folder of a training run. Raises ModelError."""
        return cls(load_weights(find_by_name(model)))

    def read_tile(self, payload: bytes, height: int, width: int, symbols_crc: int) -> tuple[Array, Array]:
        """z (Z, h/4, w/4) and residuals (M, h, w), int16, of a tile of so many pixels. Raises FormatError."""
        tile = self.read_symbols(payload, height, width, symbols_crc)
        return tile.z, tile.residuals

    @torch.inference_mode()
    def read_symbols(self, payload: bytes, height: int, width: int, symbols_crc: int, *, number: int = 0) -> TileSymbols:
        """The same, with the table that each residual was coded in. `number`: of the tile. Raises FormatError."""
        reader = TileReader(self.coder, payload, height, width)
        u = self.scales.from_hyper_latents(_batch_of_one(reader.z))
        index = self._tables(u)
        reader.read_pass(0, index)
        # The first pass has left zeros where the second one's will be, as `from_residuals` asks for.
        v = self.scales.from_residuals(_batch_of_one(reader.residuals))
        second = self._tables(u + v)
        reader.read_pass(1, second)
        reader.finish(symbols_crc)
        places = reader.places[1]
        np.put(index, places, second.ravel()[places])
        return TileSymbols(number, height, width, reader.z, reader.residuals, index)

    def _tables(self, u: Tensor) -> Array:
        tables: Array = self.scales.index(u)[0].to(torch.uint8).numpy()
        return tables


def _batch_of_one(symbols: Array) -> Tensor:
    return torch.from_numpy(symbols.astype(np.float32))[None]
