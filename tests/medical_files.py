"""Scans to test with: those that pydicom and nibabel bring along, and small ones of photographs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from .conftest import photograph

NIFTI = Path(nibabel.__file__).parent / "tests" / "data"
SECRET = "Secret^Name"


def packaged(name: str, folder: Path, new_name: str = "") -> Path:
    """A copy of a file of pydicom's or nibabel's in the folder."""
    source = NIFTI / name
    if not source.exists():
        source = Path(str(get_testdata_file(name, download=False)))
    return Path(shutil.copyfile(source, folder / (new_name or name)))


def slice_of(name: str, side: int = 96) -> np.ndarray:
    """(side, side) uint16 of 12 bits."""
    gray = np.asarray(photograph(name, side, side).convert("L")).astype(np.uint16)
    return gray * 15 + (np.arange(side, dtype=np.uint16) % 15)


def dicom(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    """A CT slice of these stored values, 12 bits unless `elements` says otherwise, with a patient's name in it."""
    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PatientName = SECRET
    data.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.HighBit = data.BitsStored - 1
    for keyword in ("PixelPaddingValue", "SmallestImagePixelValue", "LargestImagePixelValue"):
        if keyword in data:
            del data[keyword]
    data.save_as(path)
    return path


def nifti(path: Path, values: np.ndarray, *, affine: np.ndarray | None = None, slope: float = 1.0, inter: float = 0.0) -> Path:
    """A volume whose header holds a name, with these stored values."""
    image = nibabel.Nifti1Image(values, np.diag([-2.0, 3.0, 4.0, 1.0]) if affine is None else affine)
    image.header["descrip"] = SECRET.encode()
    image.header.set_xyzt_units("mm", "sec")
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", SECRET.encode()))
    nibabel.save(image, path)
    if slope != 1 or inter != 0:
        head = bytearray(path.read_bytes())
        head[112:120] = np.array([slope, inter], "<f4").tobytes()
        path.write_bytes(head)
    return path


def volume(depth: int = 5) -> np.ndarray:
    """(X, Y, Z) int16, with negative values."""
    values = np.stack([slice_of("camera", 40)[:32] + 40 * z for z in range(depth)], axis=2)
    return (values.astype(np.int32) - 1000).astype(np.int16).transpose(1, 0, 2)
