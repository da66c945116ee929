"""One variational autoencoder as an image codec and an image augmenter.

Once this is imported, Pillow opens and saves .vtc files: see docs/pillow.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors, pillow
from .errors import VaetoolsError

if TYPE_CHECKING:
    from .codec.codec import Codec

__version__ = "0.1.0"
__all__ = ["Codec", "VaetoolsError", "__version__", "errors", "pillow"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: `vaetools --help` must not wait for it."""
    if name == "Codec":
        from .codec.codec import Codec

        return Codec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
