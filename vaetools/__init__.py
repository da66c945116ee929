"""One variational autoencoder as an image codec and an image augmenter.

Once this is imported, Pillow opens and saves .vtc files: see docs/pillow.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors, pillow
from .errors import VaetoolsError

if TYPE_CHECKING:
    from .anomaly.detector import AnomalyDetector
    from .augment.augmenter import Augmenter
    from .augment.bank import LatentBank
    from .augment.transforms import BatchAugment, LatentTransform
    from .codec.codec import Codec
    from .denoising.denoiser import Denoiser
    from .embedding.embedder import Embedder
    from .generation.interpolation import interpolate
    from .generation.prior import FittedPrior
    from .generation.sampling import sample_images
    from .latents.augment import LatentAugment
    from .latents.batch import latent_collate
    from .latents.folder import LatentFolder

__version__ = "0.1.0"
__all__ = [
    "AnomalyDetector",
    "Augmenter",
    "BatchAugment",
    "Codec",
    "Denoiser",
    "Embedder",
    "FittedPrior",
    "LatentAugment",
    "LatentBank",
    "LatentFolder",
    "LatentTransform",
    "VaetoolsError",
    "__version__",
    "errors",
    "interpolate",
    "latent_collate",
    "pillow",
    "sample_images",
]

_MODULES = {
    "AnomalyDetector": "anomaly.detector",
    "Augmenter": "augment.augmenter",
    "BatchAugment": "augment.transforms",
    "Codec": "codec.codec",
    "Denoiser": "denoising.denoiser",
    "Embedder": "embedding.embedder",
    "FittedPrior": "generation.prior",
    "LatentAugment": "latents.augment",
    "LatentBank": "augment.bank",
    "LatentFolder": "latents.folder",
    "LatentTransform": "augment.transforms",
    "interpolate": "generation.interpolation",
    "latent_collate": "latents.batch",
    "sample_images": "generation.sampling",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: `vaetools --help` must not wait for it."""
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
