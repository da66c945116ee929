"""Weights on disk: one safetensors file, named by the hash of its content, with its config beside it.

Float weights are stored in half precision, the integer network as int8 and int16, the probability tables as uint32.
The config is inside the file too, so that the hash covers it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import ModelError
from ..files import replace_bytes
from .config import ModelConfig
from .scales import BIAS_MAX, BIAS_UNIT, LEVELS, WEIGHT_MAX, WEIGHT_UNIT
from .tables import Y_REACH, Z_REACH, ProbabilityTables, reaches_of
from .vae import VAE

PACKAGED = Path(__file__).parent.parent / "weights"
SEARCH_VARIABLE = "VAETOOLS_MODELS"
HASH_BYTES = 8  # of the SHA-256, in a file's header and in the weights' name
HASH_IN_NAME = re.compile(rf"-([0-9a-f]{{{2 * HASH_BYTES}}})\.safetensors$")
INTEGER_PREFIX, TABLE_PREFIX, RARE_KEY = "scales.", "tables.", "tables.rare"
OWN_KEY, FOREIGN_KEY = "config", "compressai"  # of the metadata: whose config it is


@dataclass(frozen=True)
class LoadedModel:
    """A network that was read from a weights file.

    vae: in eval mode, float32, on the CPU. tables: of the entropy coder; None if the file has none, as of a denoiser. hash: the
    first 8 bytes of the file's SHA-256, which `.vtc` files name their model by. path: of the file.
    """

    vae: VAE
    tables: ProbabilityTables | None
    hash: bytes
    path: Path


def save_weights(vae: VAE, tables: ProbabilityTables | None, folder: Path) -> Path:
    """Write `NAME-HASH.safetensors` and `NAME-HASH.json` to `folder`. Returns the first's path."""
    tensors = {name: _to_storage(name, value) for name, value in vae.state_dict().items()}
    if tables is not None:
        tensors[TABLE_PREFIX + "y"], tensors[TABLE_PREFIX + "z"] = torch.from_numpy(tables.y), torch.from_numpy(tables.z)
        if tables.rare:
            tensors[RARE_KEY] = torch.tensor([tables.rare], dtype=torch.uint32)
    return write_weights(tensors, OWN_KEY, vae.config.name, vae.config.to_json(), folder)


def write_weights(tensors: Mapping[str, Tensor], key: str, name: str, config: str, folder: Path) -> Path:
    """The two files of any kind of model, whose config goes into the metadata under `key`."""
    content = save(dict(tensors), metadata={key: config})
    stem = f"{name}-{hashlib.sha256(content).hexdigest()[: 2 * HASH_BYTES]}"
    for suffix, data in ((".json", config.encode()), (".safetensors", content)):
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


@dataclass(frozen=True)
class WeightsFile:
    """One that is whole. metadata: in one of its keys, OWN_KEY or FOREIGN_KEY, the config."""

    path: Path
    hash: bytes
    metadata: Mapping[str, str]
    tensors: dict[str, Tensor]


def read_weights(path: Path) -> WeightsFile:
    """Of any kind of model. Raises ModelError if the file is missing or damaged.

    A name that ends in a hash, as `save_weights` gives, must be that of the content.
    """
    try:
        content_hash = hashlib.sha256(path.read_bytes()).digest()[:HASH_BYTES]
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from None
    named = HASH_IN_NAME.search(path.name)
    if named and named[1] != content_hash.hex():
        raise ModelError(f"{path}: damaged (its content has the hash {content_hash.hex()}); copy it again")
    return WeightsFile(path, content_hash, metadata, tensors)


def load_weights(path: Path, file: WeightsFile | None = None) -> LoadedModel:
    """In eval mode, float32. Raises ModelError if the file is missing, damaged or of an unknown kind.

    file: what `read_weights` gave for the path, if it was read already.
    """
    file = file or read_weights(path)
    config, tensors = file.metadata.get(OWN_KEY), file.tensors
    if FOREIGN_KEY in file.metadata:
        raise ModelError(
            f"{path}: a model imported from CompressAI, which compresses and restores images and does nothing else: this needs a "
            "model of vaetools, such as `photo` or one of `vaetools train`"
        )
    if config is None:
        raise ModelError(f"{path}: no vaetools weights (it holds no config)")
    with torch.device("meta"):  # takes no memory until the tensors are known to fit
        vae = VAE(ModelConfig.from_json(config)).eval().requires_grad_(False)
    tables = _take_tables(path, tensors, vae.config)
    try:
        vae.load_state_dict({name: _from_storage(name, value) for name, value in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{path}: the weights do not fit their config ({' '.join(str(error).split())[:200]})") from None
    if not all(bool(parameter.isfinite().all()) for parameter in vae.parameters()):
        raise ModelError(f"{path}: some of its weights are not finite numbers")
    return LoadedModel(vae, tables, file.hash, path)


def _take_tables(path: Path, tensors: dict[str, Tensor], config: ModelConfig) -> ProbabilityTables | None:
    """The tables out of `tensors`, which keeps the rest. Raises ModelError if they have another shape than the config's."""
    stored = {key: tensors.pop(TABLE_PREFIX + key) for key in "yz" if TABLE_PREFIX + key in tensors}
    rare = tensors.pop(RARE_KEY, torch.zeros(1, dtype=torch.uint32))
    found = {key: table.numpy() for key, table in stored.items() if table.dtype == torch.uint32}
    if not stored:
        return None
    shapes = {"y": (LEVELS, 2 * Y_REACH + 2), "z": (config.hyper_channels, 2 * Z_REACH + 2)}
    for key, shape in shapes.items():
        if key not in found or found[key].shape != shape or reaches_of(found[key]) is None:
            raise ModelError(f"{path}: its probability tables do not fit the config")
    if rare.dtype != torch.uint32 or rare.shape != (1,) or not 0 <= rare.item() <= LEVELS:
        raise ModelError(f"{path}: its probability tables do not fit the config")
    return ProbabilityTables(found["y"], found["z"], int(rare.item()))


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
    """Installed weights by `name` or `name-hash`, a weights file, or the newest weights in a folder (a training run).

    A bare name is looked up among the installed ones first: write `./photo` for a folder of that name. Names of models that are
    shipped mean those, whatever else is installed. Raises ModelError if there is none, or several have the name.
    """
    names, path = installed(), Path(model)
    fitting = [one for one in names if str(model) in (one.stem, one.stem.rpartition("-")[0])]
    shipped = [one for one in fitting if one.parent == PACKAGED]
    if len({one.stem for one in shipped or fitting}) > 1:
        stems = ", ".join(sorted({one.stem for one in fitting}))
        raise ModelError(f"several installed models have the name {str(model)!r}: choose one of {stems}")
    if fitting:
        return (shipped or fitting)[0]
    if path.is_file():
        return path
    if path.is_dir():
        found = sorted(path.glob("*-*.safetensors"), key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1]
        raise ModelError(
            f"{path}: no weights in this folder; if it is a training run that was stopped, write them with "
            f"`vaetools export {path} IMAGES`, where IMAGES is the folder it was trained on"
        )
    known = ", ".join(candidate.stem for candidate in names) or "none is installed"
    raise ModelError(
        f"unknown model {str(model)!r}: it is no file or folder, and of the installed models ({known}) none has that name"
    )
