"""Pictures on a disk that fills up, and what reading and writing them must not do."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vaetools.errors import ImageError
from vaetools.images.picture import Metadata, Picture
from vaetools.images.read import probe
from vaetools.images.write import FORMATS, save_picture

from .conftest import photograph


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_disk_that_fills_up_is_an_error_in_every_format(tmp_path: Path) -> None:
    """The last write that fits in part must not pass for all of it."""
    formats = [name for name in FORMATS if name not in ("dicom", "nifti")]
    script = f"""
import resource, signal
from pathlib import Path
import numpy as np
from vaetools.images.picture import Picture
from vaetools.images.write import save_picture

pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for format in {formats}:
    try:
        save_picture(Path({str(tmp_path)!r}, format), Picture(pixels), format)
    except OSError as error:
        print(format, error.errno)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"{name} {errno.EFBIG}" for name in formats], done.stderr


def test_the_size_of_a_png_is_known_without_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    photograph("chelsea", 60, 40).save(path)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded"))
    assert (probe(path).height, probe(path).width) == (40, 60)


def test_broken_exif_data_does_not_end_a_job(tmp_path: Path) -> None:
    picture = Picture(np.zeros((16, 16, 3), np.uint8), metadata=Metadata(exif=b"II*\0"))
    with pytest.raises(ImageError, match="cannot be written as avif"):
        save_picture(tmp_path / "a.avif", picture, "avif")
