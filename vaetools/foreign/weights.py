"""Weights of models that CompressAI trained, as files of this package: one safetensors file, named by the hash of its content.

Weights stay in the precision that they were trained in, the probability tables are uint32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from ..model.tables import ProbabilityTables
from ..model.weights import FOREIGN_KEY, TABLE_PREFIX, LoadedModel, WeightsFile, load_weights, read_weights, write_weights
from .config import ForeignConfig
from .networks import PARTS, build
from .tables import MAX_REACH, MAX_SCALES


@dataclass(frozen=True)
class Parts:
    """What of a model is stored. tensors: the networks, the medians, and the scales and their lower bound if it has any.

    y: a table for each scale or, without a hyperprior, for each channel of y. z: one for each channel of z, if there is any.
    """

    config: ForeignConfig
    tensors: Mapping[str, Tensor]
    y: np.ndarray
    z: np.ndarray


@dataclass(frozen=True)
class ForeignModel:
    """parts: CompressAI's modules by name, float32, in eval mode. medians (1, C, 1, 1): of z or, without a hyperprior, of y.

    scales (S,) float64, rising: a scale s has the table of the first that is at least s, after `scale_bound` as the least.
    """

    config: ForeignConfig
    parts: Mapping[str, Any]
    medians: Tensor
    scales: Tensor
    scale_bound: float
    tables: ProbabilityTables
    hash: bytes
    path: Path


def save_foreign(model: Parts, folder: Path) -> Path:
    """Write `NAME-HASH.safetensors` and `NAME-HASH.json` to `folder`. Returns the first's path."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.tensors.items()}
    tensors[TABLE_PREFIX + "y"], tensors[TABLE_PREFIX + "z"] = torch.from_numpy(model.y), torch.from_numpy(model.z)
    return write_weights(tensors, FOREIGN_KEY, model.config.name, model.config.to_json(), folder)


def load_model(path: Path) -> LoadedModel | ForeignModel:
    """Of either kind. Raises ModelError if the file is missing, damaged or of an unknown kind."""
    file = read_weights(path)
    return load_weights(path, file) if FOREIGN_KEY not in file.metadata else _load_foreign(file)


def _load_foreign(file: WeightsFile) -> ForeignModel:
    try:
        config = ForeignConfig.from_json(file.metadata[FOREIGN_KEY])
        return _checked(file, config)
    except ModelError as error:
        raise ModelError(f"{file.path}: {error}") from None


def _checked(file: WeightsFile, config: ForeignConfig) -> ForeignModel:
    tensors, net = dict(file.tensors), build(config)
    medians = _numbers(tensors, "medians").float()
    scales, bound = torch.zeros(1, dtype=torch.float64), 0.0
    if config.has_hyperprior:
        scales, bound = _numbers(tensors, "scale_table").double(), float(_numbers(tensors, "scale_bound").double()[0])
    if len(medians) != (config.hyper_channels or config.m) or not (scales.diff() > 0).all() or len(scales) > MAX_SCALES:
        raise ModelError("its medians or its scales do not fit the config")
    rows = {"y": len(scales) if config.has_hyperprior else config.m, "z": config.hyper_channels}
    y, z = (_table(tensors, key, count) for key, count in rows.items())
    parts = {part: getattr(net, part) for part in PARTS if hasattr(net, part)}
    wanted = {f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}
    for key in sorted(wanted.keys() | tensors.keys()):
        found, expected = tensors.get(key), wanted.get(key)
        if found is None or expected is None or found.shape != expected.shape or found.dtype != expected.dtype:
            raise ModelError(f"the weights do not fit their config ({key!r})")
        if not found.isfinite().all():
            raise ModelError("some of its weights are not finite numbers")
        expected.copy_(found)
    return ForeignModel(config, parts, medians[None, :, None, None], scales, bound, ProbabilityTables(y, z), file.hash, file.path)


def _numbers(tensors: dict[str, Tensor], key: str) -> Tensor:
    value = tensors.pop(key, None)
    if value is None or value.ndim != 1 or not len(value) or not value.is_floating_point() or not value.isfinite().all():
        raise ModelError(f"it has no {key} that could be used")
    return value


def _table(tensors: dict[str, Tensor], key: str, rows: int) -> np.ndarray:
    value = tensors.pop(TABLE_PREFIX + key, None)
    if value is None or value.dtype != torch.uint32 or value.ndim != 2:
        raise ModelError("it has no probability tables")
    table = value.numpy()
    if len(table) != rows or table.shape[1] % 2 or not 2 <= table.shape[1] <= 2 * MAX_REACH + 2 or not table.all():
        raise ModelError("its probability tables do not fit the config")
    return table
