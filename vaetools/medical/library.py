"""pydicom and nibabel, which the extra `medical` installs; nothing else of vaetools needs them."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import ImageError

NEEDED_FOR = {"pydicom": "DICOM", "nibabel": "NIfTI"}


def library(name: str) -> Any:
    """The module `name`, or one inside it. Raises ImageError that says what to install."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ImageError(f"{NEEDED_FOR[package]} files take {package}: pip install 'vaetools[medical]'") from None
