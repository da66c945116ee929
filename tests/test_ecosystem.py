"""Libraries that build on Pillow read and write .vtc files, as docs/ecosystem.md says."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from vaetools.codec.container import unpack

from .docs_examples import ROOT, Session, examples
from .docs_folders import prepare
from .pillow_files import opened, orientation, photograph, run, saved

PAGE = "docs/ecosystem.md"
PIXELS = np.asarray(photograph())


@pytest.fixture(scope="module")
def data() -> bytes:
    return saved()


@pytest.fixture
def path(data: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photograph.vtc"
    path.write_bytes(data)
    return path


# imageio.


def test_imageio_reads_a_name_a_file_and_bytes(path: Path, data: bytes) -> None:
    expected = np.asarray(opened(data))
    for source in (path, str(path), data, io.BytesIO(data)):
        np.testing.assert_array_equal(iio.imread(source), expected)


def test_imageio_writes_by_the_name(path: Path, data: bytes) -> None:
    target = path.with_name("new.vtc")
    iio.imwrite(target, PIXELS)
    assert target.read_bytes() == data
    iio.imwrite(target, PIXELS, quality=90)
    assert unpack(target.read_bytes()).header.quality == 90


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_imageio_keeps_the_kind_of_pixels(tmp_path: Path, mode: str) -> None:
    pixels = np.asarray(photograph(mode))
    iio.imwrite(tmp_path / "a.vtc", pixels)
    again = iio.imread(tmp_path / "a.vtc")
    assert (again.shape, again.dtype) == (pixels.shape, pixels.dtype)
    assert abs(again / np.iinfo(pixels.dtype).max - pixels / np.iinfo(pixels.dtype).max).mean() < 0.05


def test_imageio_writes_bytes(data: bytes) -> None:
    assert iio.imwrite("<bytes>", PIXELS, extension=".vtc", plugin="pillow") == data


def test_imageio_tells_size_and_metadata_without_a_model(tmp_path: Path) -> None:
    from . import desktop_files as files

    path = files.put(tmp_path / "a.vtc", files.without_preview())
    assert iio.improps(path).shape == (384, 640, 3)
    assert iio.immeta(path)["quality"] == 62.5


def test_imageio_turns_an_image_if_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "a.vtc").write_bytes(saved(exif=orientation(6)))
    assert iio.imread(tmp_path / "a.vtc").shape == (64, 96, 3)
    assert iio.imread(tmp_path / "a.vtc", rotate=True).shape == (96, 64, 3)


def test_imageio_refuses_what_a_file_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot write 2 frames as VTC"):
        iio.imwrite(tmp_path / "a.vtc", np.stack([PIXELS, PIXELS]))
    with pytest.raises(TypeError):
        iio.imwrite(tmp_path / "a.vtc", PIXELS.astype(float))


def test_imageio_needs_the_import_and_nothing_more(path: Path) -> None:
    program = f"""
import imageio.v3 as iio
try:
    iio.improps({str(path)!r})
except OSError as error:
    print("cannot")
import vaetools
print(iio.improps({str(path)!r}).shape)
"""
    assert run(program).split("\n") == ["cannot", "(64, 96, 3)"]


def test_vaetools_does_not_import_imageio() -> None:
    assert run("import sys, vaetools; print('imageio' in sys.modules)") == "False"


# matplotlib and scikit-image.


@pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib.*")
def test_matplotlib_reads_and_writes(path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import image as plt

    np.testing.assert_array_equal(plt.imread(path), np.asarray(opened(data)))
    plt.imsave(path.with_name("new.vtc"), PIXELS)
    assert abs(plt.imread(path.with_name("new.vtc"))[:, :, :3].astype(float) - PIXELS).mean() < 8


def test_scikit_image_reads_and_writes(path: Path, data: bytes) -> None:
    import skimage.io

    np.testing.assert_array_equal(skimage.io.imread(path), np.asarray(opened(data)))
    skimage.io.imsave(path.with_name("new.vtc"), PIXELS, check_contrast=False)
    assert path.with_name("new.vtc").read_bytes() == data
    assert len(skimage.io.imread_collection(str(path.with_name("*.vtc")))) == 2


# torchvision.


def test_image_folder_passes_the_files_over_if_nothing_is_said(path: Path) -> None:
    assert ".vtc" not in IMG_EXTENSIONS
    with pytest.raises(FileNotFoundError, match="no valid file"):
        ImageFolder(path.parent.parent)


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated:DeprecationWarning")
def test_torchvisions_own_decoder_does_not_know_the_format(data: bytes) -> None:
    import torch
    from torchvision.io import decode_image

    with pytest.raises(RuntimeError):
        decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8))


# Hugging Face's datasets.


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is asked of any server, no bar is drawn, nothing is kept."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "1")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_datasets_keeps_the_files_as_they_are(offline: None, path: Path, data: bytes) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"image": [str(path)]}).cast_column("image", datasets.Image())
    assert np.array_equal(np.asarray(table[0]["image"]), np.asarray(opened(data)))
    from datasets.table import embed_table_storage

    whole = table.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
    assert [row["bytes"] for row in whole.cast_column("image", datasets.Image(decode=False))["image"]] == [data]


@pytest.mark.filterwarnings("ignore")
def test_datasets_passes_files_without_metadata_over(offline: None, path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(ValueError, match="no data"):
        datasets.load_dataset("imagefolder", data_dir=str(path.parent), cache_dir=str(path.parent / "cache"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_the_examples_of_the_page_run_with_datasets(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the tests of the documentation leave out, and what they need of the others."""
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    session = Session(tmp_path, {"__name__": "__main__", **prepare(PAGE, tmp_path)})
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    chosen = [
        example
        for example in examples(ROOT / PAGE)
        if "needs datasets" in example.marks.get("not run", "") or ("flowers" in example.text and example.language == "console")
    ]
    assert len(chosen) == 6
    for example in chosen:
        session.run(example)
    import pyarrow.parquet

    images = pyarrow.parquet.read_table("classes.parquet")["image"].to_pylist()
    assert [image["bytes"] for image in images] == [path.read_bytes() for path in sorted(Path("classes").rglob("*.vtc"))]
