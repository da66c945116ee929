"""Embeddings with the paths and labels of their images, in memory and in files."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..files import replace_file

SUFFIXES = (".npz", ".parquet")
SCHEMA_KEY = b"vaetools"


@dataclass(frozen=True)
class About:
    """What embeddings were made with: name and hash of the model, quality 0..100, levels of latents, pooling, and the size
    of the images, WIDTHxHEIGHT in pixels or "original". Only embeddings of which all of it is the same can be compared."""

    model: str
    quality: float
    features: str
    pooling: str
    size: str


@dataclass(frozen=True)
class Embeddings:
    """embeddings: (N, D) float32. paths: (N,) relative to the folder, with `/`. labels: (N,) class names, "" for none."""

    embeddings: np.ndarray
    paths: np.ndarray
    labels: np.ndarray
    about: About

    def __len__(self) -> int:
        return len(self.embeddings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """To an .npz or a .parquet file, all of it or nothing; a file that is there is replaced.

        Raises UsageError on another suffix, or if pyarrow is missing for Parquet; OSError if the file cannot be written.
        """
        write = self._write_parquet if check_suffix(path) == ".parquet" else self._write_npz
        replace_file(Path(path), write)

    def _write_npz(self, path: Path) -> None:
        with path.open("wb") as file:  # of a name, numpy would make another
            np.savez(file, embeddings=self.embeddings, paths=self.paths, labels=self.labels, **asdict(self.about))

    def _write_parquet(self, path: Path) -> None:
        arrow, parquet = import_parquet()
        vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(self.embeddings.ravel()), self.embeddings.shape[1])
        columns = [arrow.array([_text(name) for name in names], arrow.string()) for names in (self.paths, self.labels)]
        table = arrow.table([*columns, vectors], names=["path", "label", "embedding"])
        parquet.write_table(table.replace_schema_metadata({SCHEMA_KEY: json.dumps(asdict(self.about))}), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embeddings:
        """What `save` has written. Raises UsageError if the file is missing or is no such file."""
        read = cls._read_parquet if check_suffix(path) == ".parquet" else cls._read_npz
        try:
            return read(Path(path))
        except Exception as error:  # zipfile, zlib, numpy and pyarrow raise whatever they please on damaged files
            raise UsageError(f"{path}: no file of embeddings ({error})") from None

    @classmethod
    def _read_npz(cls, path: Path) -> Embeddings:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            about = {key: file[key].item() for key in About.__dataclass_fields__}
            return cls(file["embeddings"], file["paths"], file["labels"], About(**about))

    @classmethod
    def _read_parquet(cls, path: Path) -> Embeddings:
        _, parquet = import_parquet()
        table = parquet.read_table(path)
        about = About(**json.loads((table.schema.metadata or {})[SCHEMA_KEY]))
        vectors = table["embedding"].combine_chunks()
        flat = vectors.flatten().to_numpy()
        paths, labels = (np.array(table[column].to_pylist(), np.str_) for column in ("path", "label"))
        return cls(flat.reshape(len(table), -1), paths, labels, about)


def check_suffix(path: str | os.PathLike[str]) -> str:
    """.npz or .parquet. Raises UsageError if it is neither, or if pyarrow is missing for Parquet."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: embeddings are written to a name that ends in .npz or .parquet")
    if suffix == ".parquet":
        import_parquet()
    return suffix


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raises UsageError where embeddings cannot, or are not to, be written."""
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path}: {'a folder' if path.is_dir() else 'there is no folder of that name'}; give a file in a folder")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: there already; give another name, or --overwrite to replace it")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: the folder {path.parent} cannot be written to")


def import_parquet() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises UsageError if they are not there."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"Parquet needs pyarrow, which cannot be imported ({error}): pip install 'vaetools[parquet]', or write .npz"
        ) from None
    return pyarrow, pyarrow.parquet


def _text(name: str) -> str:
    """Parquet holds text only: bytes of a file's name that are none stand as \\x.. in it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
