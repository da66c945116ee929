"""Training runs in trouble: unusable gradients, full disks."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
import torch

from vaetools.errors import TrainingError
from vaetools.training import loop, report
from vaetools.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from vaetools.training.loop import Trainer
from vaetools.training.ranks import Ranks

from .conftest import tiny
from .test_training import Steps, metrics, poison, same, settings, train


def test_step_without_a_finite_gradient_is_skipped_and_counted(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Steps(lambda trainer, step: poison(trainer) if step == 2 else None).install(monkeypatch)
    train(photo_folder, tmp_path / "run", tiny(), settings(1))
    assert metrics(tmp_path / "run")[0]["skipped"] == "1"
    assert "1 steps skipped" in capsys.readouterr().out
    saved = load_checkpoint(tmp_path / "run")
    assert all(value.isfinite().all() for value in saved["network"].values())


def test_skipped_step_leaves_the_weights_alone(photo_folder: Path) -> None:
    cache = loop.ImageCache.load(photo_folder, tiny(), 1 << 30)
    trainer = Trainer(tiny(), settings(), Ranks(0, 1, torch.device("cpu")))
    batch = loop.CropSampler(cache, 0).batch(0, 32, 2)
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    poison(trainer)
    assert trainer.step(batch, 1e-3) is None
    assert same(before, trainer.net.state_dict())
    assert trainer.step(batch, 1e-3) is not None
    assert not same(before, trainer.net.state_dict())


def test_exploding_gradient_is_skipped_once_norms_are_known(photo_folder: Path) -> None:
    cache = loop.ImageCache.load(photo_folder, tiny(), 1 << 30)
    trainer = Trainer(tiny(), settings(), Ranks(0, 1, torch.device("cpu")))
    trainer.progress.step, trainer.progress.typical_norm = 500, 1e-9
    assert trainer.step(loop.CropSampler(cache, 0).batch(0, 32, 2), 1e-3) is None
    assert trainer.progress.skipped == 1
    assert trainer.progress.typical_norm > 1e-9


def test_training_that_cannot_go_on_says_so(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Steps(lambda trainer, _: poison(trainer)).install(monkeypatch)
    monkeypatch.setattr(loop, "GIVE_UP_AFTER", 3)
    with pytest.raises(TrainingError, match="3 steps in a row had unusable gradients"):
        train(photo_folder, tmp_path / "run", tiny(), settings())


def test_full_disk_keeps_the_old_checkpoint_and_training_goes_on(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full after the second epoch and at the first two tries after the last, whose checkpoint must be written."""
    saved_steps, attempts = [], 0

    def full_for_a_while(run: Path, state: dict[str, dict[str, int]]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts in (2, 3, 4):
            saved_steps.append(("old", load_checkpoint(run)["progress"]["step"]))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_checkpoint(run, state)
        saved_steps.append(("new", state["progress"]["step"]))

    monkeypatch.setattr(loop, "save_checkpoint", full_for_a_while)
    monkeypatch.setattr(report, "RETRY_SECONDS", 0.01)
    weights = train(photo_folder, tmp_path / "run", tiny(), settings(3, steps=1))
    assert saved_steps == [("new", 1), ("old", 1), ("old", 1), ("old", 1), ("new", 3)]
    assert weights.exists()
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "training goes on; the last checkpoint is whole" in told
    assert "free some space" in told


def test_disk_that_stays_full_ends_the_training_with_an_error(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop, "save_checkpoint", full)
    monkeypatch.setattr(report, "RETRY_SECONDS", 0.0)
    with pytest.raises(TrainingError, match="the checkpoint could not be written"):
        train(photo_folder, tmp_path / "run", tiny(), settings(1, steps=1))


def test_checkpoint_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    """A real failure in the middle of the file: the system allows this process files of 100 kB."""
    save_checkpoint(tmp_path, {"weights": torch.ones(100)})
    before = (tmp_path / CHECKPOINT).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=CHECKPOINT):
            save_checkpoint(tmp_path, {"weights": torch.ones(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_weights_that_cannot_be_written_name_the_way_out(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vaetools.training.loop.save_weights", full)
    with pytest.raises(TrainingError, match=r"No space left.*vaetools export"):
        train(photo_folder, tmp_path / "run", tiny(), settings(1, steps=1))
    assert load_checkpoint(tmp_path / "run")["progress"]["step"] == 1
