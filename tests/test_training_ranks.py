"""Training runs of several processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vaetools.model.weights import load_weights
from vaetools.training.ranks import Ranks

from .conftest import tiny
from .test_training import PACKAGE_ROOT, metrics, settings, train

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.conftest import tiny
from vaetools.model import precision
from vaetools.model.weights import load_weights
from vaetools.training.loop import train
from vaetools.training.narrowing import Narrowing
from vaetools.training.settings import TrainingSettings

precision.has_bfloat16 = lambda device: False
settings = TrainingSettings(epochs=2, batch=4, crops=((0.0, 32),), steps_per_epoch=4)
{call}
"""


def run_on_two(call: str, folder: Path) -> str:
    """What two processes that make the call print."""
    script = folder / "train.py"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parents[1]), call=call))
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
    return done.stdout


def test_two_processes_compute_what_one_does_with_the_whole_batch(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32: bfloat16 rounds differently in batches of another size."""
    monkeypatch.setattr("vaetools.model.precision.has_bfloat16", lambda device: False)
    train(photo_folder, tmp_path / "one", tiny(), settings(batch=8, crops=((0.0, 32),)))
    run = tmp_path / "two"
    told = run_on_two(f'train(Path({str(photo_folder)!r}), Path({str(run)!r}), tiny(), settings, device="cpu")', tmp_path)
    assert told.count("Epoch 1/2") == 1, "only the first process reports"
    for one, two in zip(metrics(tmp_path / "one"), metrics(run), strict=True):
        for key in ("loss", "reconstruction_loss", "kl_divergence", "mse", "bpp"):
            assert float(two[key]) == pytest.approx(float(one[key]), rel=1e-3), key


def test_two_processes_start_from_the_same_narrower_model(photo_folder: Path, tmp_path: Path) -> None:
    config = tiny(width=32)
    weights = train(photo_folder, tmp_path / "one", config, settings(epochs=1, batch=4, crops=((0.0, 32),)))
    assert weights is not None
    run = tmp_path / "two"
    call = (
        f"start = load_weights(Path({str(weights)!r}))\n"
        f"train(Path({str(photo_folder)!r}), Path({str(run)!r}), start.vae.config, settings, "
        'device="cpu", start=start, narrowing=Narrowing(0.2))'
    )
    run_on_two(call, tmp_path)
    narrowed = load_weights(next(run.glob("*.safetensors"))).vae
    assert sum(p.numel() for p in narrowed.parameters()) < sum(p.numel() for p in load_weights(weights).vae.parameters())


@pytest.mark.usefixtures("gpus")
def test_one_process_trains_on_the_first_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("auto", "cuda", "cuda:1"):
        with Ranks.start(name) as ranks:
            assert ranks.device == chosen[-1]
    assert [device.index for device in chosen] == [0, 0, 1], "torch takes no device without a number"
