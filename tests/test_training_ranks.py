"""Training runs of several processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import tiny
from .test_training import PACKAGE_ROOT, metrics, settings, train

TORCHRUN_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.conftest import tiny
from vaetools.model import precision
from vaetools.training.loop import train
from vaetools.training.settings import TrainingSettings

precision.has_bfloat16 = lambda device: False
settings = TrainingSettings(epochs=2, batch=4, crops=((0.0, 32),), steps_per_epoch=4)
train(Path({folder!r}), Path({run!r}), tiny(), settings, device="cpu")
"""


def test_two_processes_compute_what_one_does_with_the_whole_batch(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32: bfloat16 rounds differently in batches of another size."""
    monkeypatch.setattr("vaetools.model.precision.has_bfloat16", lambda device: False)
    train(photo_folder, tmp_path / "one", tiny(), settings(batch=8, crops=((0.0, 32),)))
    script = tmp_path / "train.py"
    script.write_text(
        TORCHRUN_SCRIPT.format(root=str(Path(__file__).parents[1]), folder=str(photo_folder), run=str(tmp_path / "two"))
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    search = os.pathsep.join([str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")])
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    done = subprocess.run(
        [sys.executable, *launch, str(script)],
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Epoch 1/2") == 1, "only the first process reports"
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        for key in ("loss", "reconstruction_loss", "kl_divergence", "mse", "bpp"):
            assert float(two[key]) == pytest.approx(float(one[key]), rel=1e-3), key
