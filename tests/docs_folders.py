"""What the examples of each page find in the current directory, and the names that their Python knows."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vaetools.cli import main

from .anomaly_files import bad_images, good_images
from .conftest import photograph
from .docs_examples import ROOT

Names = dict[str, Any]
PREPARED: dict[str, Callable[[Path], Names]] = {}


def prepares(*pages: str) -> Callable[[Callable[[Path], Names]], Callable[[Path], Names]]:
    def register(function: Callable[[Path], Names]) -> Callable[[Path], Names]:
        PREPARED.update(dict.fromkeys(pages, function))
        return function

    return register


def prepare(page: str, folder: Path) -> Names:
    return PREPARED[page](folder) if page in PREPARED else {}


def pixels(name: str, width: int, height: int) -> torch.Tensor:
    """(3, height, width) uint8."""
    return torch.from_numpy(np.asarray(photograph(name, width, height).convert("RGB")).copy()).permute(2, 0, 1)


@prepares("README.md", "docs/report.md", "docs/embeddings.md", "docs/augmentation.md", "docs/denoising.md")
def two_photographs(folder: Path) -> Names:
    (folder / "photos" / "trip").mkdir(parents=True)
    photograph("chelsea", 180, 120).save(folder / "photos" / "cat.jpg", quality=95)
    photograph("coffee", 170, 165).save(folder / "photos" / "trip" / "coffee.png")
    image = pixels("chelsea", 90, 70)
    return {"images": [image], "image": image}


@prepares("docs/quickstart.md")
def the_repository(folder: Path) -> Names:
    (folder / "scripts").symlink_to(ROOT / "scripts")
    return {}


@prepares("docs/guides/archive.md", "docs/guides/train-compressed.md", "docs/guides/scale-out.md")
def photographs_of_the_quickstart(folder: Path) -> Names:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["demo-photographs", str(folder / "photos")])
        runpy.run_path(str(ROOT / "scripts" / "demo-photographs"))
    return {}


@prepares("docs/latent-training.md")
def two_classes(folder: Path) -> Names:
    for name in ("chelsea", "coffee"):
        (folder / "photos" / name).mkdir(parents=True)
        photograph(name, 240, 200).save(folder / "photos" / name / "a.jpg")
    return {}


@prepares("docs/loaders.md")
def images_to_load(folder: Path) -> Names:
    for name in ("chelsea", "coffee"):
        (folder / "train" / name).mkdir(parents=True)
        for side in (128, 140):
            photograph(name, side, side).save(folder / "train" / name / f"{side}.png")
    return {}


@prepares("docs/pillow.md")
def a_cat(folder: Path) -> Names:
    photograph("chelsea", 90, 70).save(folder / "cat.png")
    (folder / "photos" / "cats").mkdir(parents=True)
    with pytest.raises(SystemExit, match="0"):
        main(["compress", str(folder / "cat.png"), "-o", str(folder / "photos" / "cats")])
    return {}


@prepares("docs/anomaly.md")
def good_and_bad(folder: Path) -> Names:
    for name, images in (("good", good_images(30)), ("new/good", good_images(2)), ("new/bad", bad_images(2))):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image[0].numpy()).save(folder / name / f"{number}.png")
    return {}


@prepares("docs/generation.md")
def clothes(folder: Path) -> Names:
    random = np.random.default_rng(0)
    for name in ("astronaut", "coffee"):
        (folder / "fashion" / "train" / name).mkdir(parents=True)
        gray = np.asarray(photograph(name, 28, 28).convert("L"), np.float64)
        for number in range(12):
            noisy = (gray + random.normal(0, 10, gray.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / "fashion" / "train" / name / f"{number}.png")
    for name, chosen in (("a", "chelsea"), ("b", "coffee")):
        photograph(chosen, 32, 32).save(folder / f"{name}.png")
    return {}


@prepares("docs/medical.md")
def a_scan(folder: Path) -> Names:
    from .medical_files import dicom, slice_of

    (folder / "scans").mkdir()
    dicom(folder / "scans" / "slice.dcm", slice_of("camera"))
    return {}


@prepares("docs/ecosystem.md")
def for_other_programs(folder: Path) -> Names:
    from .huggingface_files import captions

    names = two_photographs(folder)
    for name, chosen in (("cats", "chelsea"), ("dogs", "coffee")):
        photograph(chosen, 90, 70).save(folder / f"{name}.png")
        with pytest.raises(SystemExit, match="0"):
            main(["compress", str(folder / f"{name}.png"), "-o", str(folder / "classes" / name)])
    captions(folder / "flowers", train=2, validation=1)
    return names
