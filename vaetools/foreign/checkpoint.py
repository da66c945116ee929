"""A checkpoint of CompressAI's, which may hold anything, to a model that the codec can use.

file --torch.load(weights_only)--> state dict --names, shapes--> family, N, M --CompressAI's own model--> integer tables
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from .config import FACTORIZED, FAMILIES, MEAN_SCALE, SCALE, ForeignConfig
from .networks import PARTS, build
from .tables import MAX_REACH, MAX_SCALES, frequencies
from .weights import Parts

PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)+")  # of DataParallel and torch.compile
OLD_NAME = re.compile(r"^entropy_bottleneck\._?(matri|bias|factor)\w*?\.?(\d)$")  # each has had three names
NEW_NAMES = {"matri": "matrices", "bias": "biases", "factor": "factors"}
TABLES = ("_quantized_cdf", "_cdf_length", "_offset")
SEQUENTIAL = ("context_prediction.", "entropy_parameters.")


def import_checkpoint(path: Path, name: str) -> Parts:
    """What `weights.save_foreign` writes. Raises ModelError if the file cannot be read, or is no model of FAMILIES."""
    state = read_state(path)
    try:
        config = ForeignConfig(name, *recognise(state))
        return _parts(config, state)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, bare or as CompressAI's training script wraps it, by their names of today."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # the file is untrusted, and torch raises nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"{path}: no checkpoint of tensors alone, which is all that is loaded ({reason})") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(key, str) for key in state):
        raise ModelError(f"{path}: holds no state dict; save one with torch.save(net.state_dict(), PATH)")
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise ModelError(f"{path}: holds no state dict: {key!r} is no plain tensor")
        found[_renamed(key)] = value
    return found


def _renamed(key: str) -> str:
    key = PREFIXES.sub("", key)
    old = OLD_NAME.match(key)
    return f"entropy_bottleneck.{NEW_NAMES[old[1]]}.{old[2]}" if old else key


def recognise(state: Mapping[str, Tensor]) -> tuple[str, int, int]:
    """Family, N and M. Raises ModelError, which says why another kind of model is refused."""
    if any(key.startswith(SEQUENTIAL) for key in state):
        raise ModelError(
            "an autoregressive model (mbt2018, cheng2020-*): its context model needs every latent decoded before the next one's "
            "probabilities are known, one position after another, and in floats; models without a sequential context can be "
            f"imported: {', '.join(FAMILIES)}"
        )
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    inner, outer = shapes.get("g_a.2.weight", ()), shapes.get("g_a.6.weight", ())
    if len(inner) != 4 or len(outer) != 4 or "entropy_bottleneck.quantiles" not in shapes:
        raise ModelError(f"no model of the families that can be imported: {', '.join(FAMILIES)}")
    if "g_a.1.beta" not in shapes:
        raise ModelError("a variant without GDN, such as bmshj2018-factorized-relu: only the models with GDN can be imported")
    n, m = int(inner[0]), int(outer[0])
    if "h_s.4.weight" not in shapes:
        return FACTORIZED, n, m
    return MEAN_SCALE if shapes["h_s.4.weight"][0] == 2 * m else SCALE, n, m


def _parts(config: ForeignConfig, state: dict[str, Tensor]) -> Parts:
    net = build(config)
    _load(net, config, state)
    bottleneck = net.entropy_bottleneck
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _take_tables(net, "entropy_bottleneck", state)
        if config.has_hyperprior:
            _take_tables(net, "gaussian_conditional", state)
        net.update()  # only what has none yet
    first = _frequencies(bottleneck, config.hyper_channels or config.m)
    tensors = {key: value for key, value in net.state_dict().items() if key.startswith(tuple(f"{part}." for part in PARTS))}
    tensors["medians"] = bottleneck.quantiles[:, 0, 1]
    if not config.has_hyperprior:
        return Parts(config, tensors, first, np.ones((0, 2), np.uint32))
    conditional = net.gaussian_conditional
    scales = conditional.scale_table.double()
    if scales.ndim != 1 or not 1 <= len(scales) <= MAX_SCALES or not (scales.diff() > 0).all() or scales[0] <= 0:
        raise ModelError("its table of scales does not rise from above 0")
    tensors["scale_table"], tensors["scale_bound"] = scales, conditional.lower_bound_scale.bound.double().reshape(1)
    return Parts(config, tensors, _frequencies(conditional, len(scales)), first)


def _load(net: Any, config: ForeignConfig, state: Mapping[str, Tensor]) -> None:
    """All but the tables. Raises ModelError where a tensor is missing, too many, of another shape, or not finite."""
    table_names = {f"{module}.{name}" for module in ("entropy_bottleneck", "gaussian_conditional") for name in TABLES}
    table_names.add("gaussian_conditional.scale_table")
    parameters = dict(net.named_parameters())
    expected = {**parameters, **dict(net.named_buffers())}
    kind = f"a {config.family} with N = {config.n} and M = {config.m}"
    for key, value in state.items():
        if key not in expected:
            raise ModelError(f"it holds {key!r}, which is no part of {kind}: another kind of model")
        if key in table_names:
            continue
        if value.shape != expected[key].shape or not value.is_floating_point():
            shape = "x".join(map(str, value.shape)) or "one number"
            raise ModelError(f"{key!r} ({shape}) does not fit {kind}")
        if not value.isfinite().all():
            raise ModelError(f"some of {key!r} are not finite numbers")
    missing = sorted(parameters.keys() - state.keys())
    if missing:
        raise ModelError(f"it lacks {missing[0]!r}, a part of {kind}")
    with torch.no_grad():
        for key in state.keys() - table_names:
            expected[key].copy_(state[key])
    quantiles = net.entropy_bottleneck.quantiles
    if (quantiles.diff(dim=2) < 0).any() or quantiles.abs().max() > MAX_REACH / 2:
        raise ModelError("the quantiles of its entropy bottleneck are not those of a trained model")


def _take_tables(net: Any, module: str, state: Mapping[str, Tensor]) -> None:
    """Those that the checkpoint holds, if it holds them all; else they are made anew."""
    names = TABLES + (("scale_table",) if module == "gaussian_conditional" else ())
    given = {name: state[f"{module}.{name}"] for name in names if f"{module}.{name}" in state}
    if len(given) < len(names) or not all(tensor.numel() for tensor in given.values()):
        return
    for name, tensor in given.items():
        if tensor.is_floating_point() != (name == "scale_table") or tensor.numel() > 4 * MAX_SCALES * MAX_REACH * 2:
            raise ModelError(f"{module}.{name!r} is no such table")
        setattr(getattr(net, module), name, tensor.contiguous())


def _frequencies(model: Any, rows: int) -> np.ndarray:
    arrays = [getattr(model, name).cpu().numpy() for name in TABLES]
    if len(arrays[0]) != rows:
        raise ModelError(f"its tables of probabilities are {len(arrays[0])}, where {rows} belong")
    return frequencies(*arrays)
