"""Models, devices and processes behind the Pillow plug-in, and what builds on Pillow."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader
from torchvision.datasets import DatasetFolder, ImageFolder
from torchvision.transforms import PILToTensor

from vaetools import Codec, pillow
from vaetools.codec.container import unpack
from vaetools.codec.loaded import LoadedCodecs
from vaetools.model.weights import find_by_name, load_weights, save_weights

from .pillow_files import opened, run, saved


@pytest.fixture(scope="module")
def data() -> bytes:
    return saved()


@pytest.fixture
def path(data: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photograph.vtc"
    path.write_bytes(data)
    return path


# Models and devices.


@pytest.fixture
def another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The hash of a model named `other`, which is installed for this test."""
    photo = load_weights(find_by_name("photo"))
    photo.vae.config = replace(photo.vae.config, name="other")
    folder = tmp_path / "models"
    folder.mkdir()
    path = save_weights(photo.vae, photo.tables, folder)
    monkeypatch.setenv("VAETOOLS_MODELS", str(folder))
    return load_weights(path).hash


@pytest.fixture
def loaded_models(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is loaded from now on, as if nothing had been yet."""
    monkeypatch.setattr(pillow, "_codecs", LoadedCodecs())
    load: Callable[..., Codec] = Codec.load
    loaded: list[object] = []

    def counted(model: object, *arguments: object, **options: object) -> Codec:
        loaded.append(model)
        return load(model, *arguments, **options)

    monkeypatch.setattr(Codec, "load", counted)
    return loaded


def test_the_model_can_be_chosen(another_model: bytes) -> None:
    assert unpack(saved(model="other")).header.model_hash == another_model


def test_the_model_that_wrote_a_file_is_found(another_model: bytes) -> None:
    assert np.array_equal(np.asarray(opened(saved(model="other"))), np.asarray(opened(saved())))


def test_no_model_is_loaded_but_that_of_the_file(another_model: bytes, loaded_models: list[object]) -> None:
    opened(saved(model="other")).load()
    assert len(loaded_models) == 1


def test_an_unknown_model_is_an_os_error() -> None:
    with pytest.raises(OSError, match="unknown model 'nosuch'"):
        saved(model="nosuch")


def test_the_device_is_that_of_the_environment(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pillow.DEVICE_VARIABLE, "nosuch")
    with pytest.raises(OSError, match="device 'nosuch' cannot be used"):
        opened(data).load()


def test_threads_share_one_codec(data: bytes, loaded_models: list[object]) -> None:
    pixels: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: pixels.append(np.asarray(opened(data)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded_models) == 1
    assert len(pixels) == 4
    assert all(np.array_equal(one, pixels[0]) for one in pixels)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("lock_is_held", [False, True], ids=["at rest", "another thread loads"])
def test_a_forked_process_can_load_after_its_parent(path: Path, lock_is_held: bool) -> None:
    program = f"""
import os, signal, time, vaetools.pillow
from PIL import Image
def corner():
    with Image.open({str(path)!r}) as image:
        return image.getpixel((0, 0))
expected = corner()
if {lock_is_held}:
    vaetools.pillow._codecs._lock.acquire()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if corner() == expected else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(program, OMP_NUM_THREADS="2") == "0"


# What builds on Pillow.

LOADER = """
import vaetools
from PIL import Image

def load(path):
    with Image.open(path) as image:
        return image.convert("RGB")
"""


@pytest.fixture
def class_folder(data: bytes, tmp_path: Path) -> Path:
    """Two classes of two files each."""
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "images" / name / f"{number}.vtc").write_bytes(data)
    return tmp_path / "images"


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")], ids=["no workers", "fork", "spawn"])
def test_data_loader_reads_a_dataset_folder(
    class_folder: Path, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, start: str | None
) -> None:
    (tmp_path / "vtc_loader.py").write_text(LOADER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vtc_loader", raising=False)
    import vtc_loader  # type: ignore[import-not-found]

    pixels = PILToTensor()(opened(data))  # loads the codec in this process, before any other is forked
    folder = DatasetFolder(class_folder, vtc_loader.load, extensions=(".vtc",), transform=PILToTensor())
    batches = list(DataLoader(folder, batch_size=2, num_workers=workers, multiprocessing_context=start))
    assert [labels.tolist() for _, labels in batches] == [[0, 0], [1, 1]]
    assert all((image == pixels).all() for images, _ in batches for image in images)


def test_image_folder_takes_the_files(class_folder: Path) -> None:
    folder = ImageFolder(class_folder, is_valid_file=lambda path: path.endswith(".vtc"))
    image, label = folder[3]
    assert (image.size, label) == ((96, 64), 1)


def test_imageio_reads_through_pillow(path: Path, data: bytes) -> None:
    imageio = pytest.importorskip("imageio.v3")
    np.testing.assert_array_equal(imageio.imread(path, plugin="pillow"), np.asarray(opened(data)))
