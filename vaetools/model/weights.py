"""Weights on disk: one safetensors file, named by the hash of its content, with its config beside it.

Float weights are stored in half precision, the integer network as int8 and int16, the probability tables as uint32.
The config is inside the file too, so that the hash covers it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import ModelError
from ..files import replace_bytes
from .config import ModelConfig
from .scales import BIAS_MAX, BIAS_UNIT, WEIGHT_MAX, WEIGHT_UNIT
from .tables import ProbabilityTables
from .vae import VAE

PACKAGED = Path(__file__).parent.parent / "weights"
SEARCH_VARIABLE = "VAETOOLS_MODELS"
HASH_BYTES = 8  # of the SHA-256, in a file's header and in the weights' name
INTEGER_PREFIX, TABLE_PREFIX = "scales.", "tables."


@dataclass(frozen=True)
class LoadedModel:
    vae: VAE
    tables: ProbabilityTables | None
    hash: bytes
    path: Path


def save_weights(vae: VAE, tables: ProbabilityTables | None, folder: Path) -> Path:
    """Write `NAME-HASH.safetensors` and `NAME-HASH.json` to `folder`. Returns the first's path."""
    tensors = {name: _to_storage(name, value) for name, value in vae.state_dict().items()}
    if tables is not None:
        tensors[TABLE_PREFIX + "y"], tensors[TABLE_PREFIX + "z"] = torch.from_numpy(tables.y), torch.from_numpy(tables.z)
    content = save(tensors, metadata={"config": vae.config.to_json()})
    stem = f"{vae.config.name}-{hashlib.sha256(content).hexdigest()[: 2 * HASH_BYTES]}"
    for suffix, data in ((".json", vae.config.to_json().encode()), (".safetensors", content)):
        replace_bytes(folder / (stem + suffix), data)
    return folder / f"{stem}.safetensors"


def _to_storage(name: str, value: Tensor) -> Tensor:
    value = value.detach().float().cpu().contiguous()
    if name.startswith(INTEGER_PREFIX):
        if name.endswith("weight"):
            return (value.clamp(-WEIGHT_MAX, WEIGHT_MAX) * WEIGHT_UNIT).round().to(torch.int8)
        return (value.clamp(-BIAS_MAX, BIAS_MAX) * BIAS_UNIT).round().to(torch.int16)
    return value.half() if value.ndim == 4 else value


def _from_storage(name: str, value: Tensor) -> Tensor:
    if name.startswith(INTEGER_PREFIX):
        return value.float() / (WEIGHT_UNIT if name.endswith("weight") else BIAS_UNIT)
    return value.float()


def load_weights(path: Path) -> LoadedModel:
    """In eval mode, float32. Raises ModelError if the file is missing, damaged or of an unknown kind."""
    try:
        content_hash = hashlib.sha256(path.read_bytes()).digest()[:HASH_BYTES]
        with safe_open(path, framework="pt") as file:
            config = (file.metadata() or {}).get("config")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from None
    if config is None:
        raise ModelError(f"{path}: no vaetools weights (it holds no config)")
    vae = VAE(ModelConfig.from_json(config)).eval().requires_grad_(False)
    tables = None
    if TABLE_PREFIX + "y" in tensors:
        y, z = (tensors.pop(TABLE_PREFIX + key).numpy().astype(np.uint32) for key in "yz")
        tables = ProbabilityTables(y, z)
    try:
        vae.load_state_dict({name: _from_storage(name, value) for name, value in tensors.items()})
    except RuntimeError as error:
        raise ModelError(f"{path}: the weights do not fit their config ({str(error).splitlines()[0]})") from None
    return LoadedModel(vae, tables, content_hash, path)


def search_folders() -> list[Path]:
    """Where models are looked for: the folders of VAETOOLS_MODELS, then the weights that are shipped."""
    extra = [Path(folder) for folder in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if folder]
    return [*extra, PACKAGED]


def installed() -> list[Path]:
    return [path for folder in search_folders() for path in sorted(folder.glob("*-*.safetensors"))]


def find_by_hash(content_hash: bytes) -> Path | None:
    """The installed weights of that hash, told by their name."""
    ending = f"-{content_hash.hex()}.safetensors"
    return next((path for path in installed() if path.name.endswith(ending)), None)


def find_by_name(model: str | os.PathLike[str]) -> Path:
    """A weights file, the newest weights in a folder (a training run), or installed weights by name or `name-hash`.

    Raises ModelError if there is none.
    """
    path = Path(model)
    if path.is_file():
        return path
    if path.is_dir():
        found = sorted(path.glob("*-*.safetensors"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise ModelError(f"{path}: no exported weights in this folder; finish the training or run `vaetools export {path}`")
        return found[-1]
    names = installed()
    for candidate in names:
        if str(model) in (candidate.stem, candidate.stem.rpartition("-")[0]):
            return candidate
    known = ", ".join(candidate.stem for candidate in names) or "none is installed"
    raise ModelError(f"unknown model {str(model)!r}: it is no file or folder, and of the installed models ({known}) none has that name")
