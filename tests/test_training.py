"""Training runs: what they write, that they go on exactly where they stopped, and what stops them."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from vaetools.errors import TrainingError, UsageError
from vaetools.model.config import ModelConfig, preset
from vaetools.model.weights import load_weights
from vaetools.training import loop, report
from vaetools.training.checkpoint import CHECKPOINT, load_checkpoint
from vaetools.training.loop import Trainer, export_run
from vaetools.training.settings import TrainingSettings

from .conftest import tiny

train = partial(loop.train, device="cpu")  # where a step is the same to the last bit, whatever the machine

PACKAGE_ROOT = Path(report.__file__).parents[2]
COLUMNS = [
    *("epoch", "step", "seconds", "loss", "reconstruction_loss", "kl_divergence"),
    *("mse", "psnr", "bpp", "learning_rate", "skipped"),
]


def settings(epochs: int = 2, *, steps: int = 4, **changes: object) -> TrainingSettings:
    values: dict[str, object] = {"epochs": epochs, "batch": 4, "crops": ((0.0, 32), (0.6, 48)), "steps_per_epoch": steps}
    return TrainingSettings(**{**values, **changes})  # type: ignore[arg-type]


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same(first: object, second: object) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return isinstance(second, dict) and first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return isinstance(second, list) and len(first) == len(second) and all(map(same, first, second))
    return first == second


@dataclass
class Steps:
    """Runs `before` with the trainer ahead of each step, and counts the steps of this process."""

    before: Callable[[Trainer, int], None]
    count: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        step = Trainer.step

        def counted(trainer: Trainer, *arguments: object) -> object:
            self.count += 1
            self.before(trainer, self.count)
            return step(trainer, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Trainer, "step", counted)


def poison(trainer: Trainer) -> None:
    """Make the next gradient not a number, through the one weight that a step reads first."""
    handle: list[object] = []

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        handle[0].remove()  # type: ignore[attr-defined]
        return gradient * math.nan

    handle.append(trainer.net.z_raw_scale.register_hook(spoil))


@dataclass(frozen=True)
class Finished:
    run: Path
    weights: Path
    printed: str


@pytest.fixture(scope="module", params=["uniform", "gaussian"])
def finished(request: pytest.FixtureRequest, photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two epochs of twelve steps."""
    run = tmp_path_factory.mktemp(request.param) / "run"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        weights = train(photo_folder, run, tiny(request.param), settings(steps=12))
    return Finished(run, weights, printed.getvalue())


# What a run writes.


def test_loss_falls(finished: Finished) -> None:
    losses = [float(row["loss"]) for row in metrics(finished.run)]
    assert losses[1] < 0.95 * losses[0]


def test_epoch_is_printed_as_a_textbook_does(finished: Finished) -> None:
    lines = finished.printed.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]
    for label in ("  Loss: ", "  Reconstruction Loss: ", "  KL Divergence: "):
        assert all(label in line for line in lines)


def test_metrics_have_one_row_per_epoch(finished: Finished) -> None:
    rows = metrics(finished.run)
    assert list(rows[0]) == COLUMNS
    assert [(row["epoch"], row["step"], row["skipped"]) for row in rows] == [("1", "12", "0"), ("2", "24", "0")]
    for row in rows:
        loss, reconstruction, divergence = (float(row[key]) for key in ("loss", "reconstruction_loss", "kl_divergence"))
        assert loss == pytest.approx(reconstruction + divergence, rel=1e-4)
        assert float(row["psnr"]) == pytest.approx(10 * math.log10(255**2 / float(row["mse"])), rel=1e-4)


def test_grids_are_drawn_each_epoch(finished: Finished) -> None:
    names = sorted(path.name for path in (finished.run / "grids").iterdir())
    assert names == [f"epoch-000{epoch}-{kind}.png" for epoch in (1, 2) for kind in ("reconstruction", "samples")]
    with Image.open(finished.run / "grids" / "epoch-0002-reconstruction.png") as grid:
        assert grid.size == (8 * 34 - 2, 4 * 34 - 2)
        assert len(grid.getcolors(1 << 20)) > 100
    with Image.open(finished.run / "grids" / "epoch-0002-samples.png") as grid:
        assert grid.size == (8 * 34 - 2, 3 * 34 - 2)


def test_exported_weights_load(finished: Finished) -> None:
    loaded = load_weights(finished.weights)
    average = load_checkpoint(finished.run)["average"]
    assert (loaded.tables is None) == (loaded.vae.config.posterior == "gaussian")
    for name in ("decoder_outer.1.weight", "linear_encoder.weight"):
        torch.testing.assert_close(loaded.vae.state_dict()[name], average[name], rtol=1e-3, atol=1e-6)


def test_export_of_a_run_gives_the_same_weights(finished: Finished, photo_folder: Path) -> None:
    assert export_run(finished.run, photo_folder).name == finished.weights.name


def test_nothing_else_is_left_in_the_run(finished: Finished) -> None:
    names = {path.name for path in finished.run.iterdir()}
    assert names == {CHECKPOINT, "metrics.csv", "grids", finished.weights.name, finished.weights.with_suffix(".json").name}


def test_gray_images_of_sixteen_bits_train(gray16_folder: Path, tmp_path: Path) -> None:
    config = tiny(name="gray16", image_channels=1, bit_depth=16)
    weights = train(gray16_folder, tmp_path / "run", config, settings(1, steps=2))
    assert load_weights(weights).vae.config == config
    with Image.open(tmp_path / "run" / "grids" / "epoch-0001-samples.png") as grid:
        assert grid.mode == "L"


# Going on.


@pytest.fixture(scope="module")
def uninterrupted(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of four steps in one go."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(photo_folder, run, tiny(), settings())
    return run


@pytest.mark.parametrize(
    ("stop_in_step", "number"),
    [(1, signal.SIGINT), (3, signal.SIGTERM), (4, signal.SIGINT), (8, signal.SIGINT)],
    ids=["first-step", "middle-of-epoch", "end-of-epoch", "last-step"],
)
def test_resumed_run_continues_exactly(
    photo_folder: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_in_step: int,
    number: signal.Signals,
) -> None:
    with monkeypatch.context() as patched:
        Steps(lambda _, step: signal.raise_signal(number) if step == stop_in_step else None).install(patched)
        with pytest.raises(KeyboardInterrupt, match=f"stopped at step {stop_in_step}; continue with --resume"):
            train(photo_folder, tmp_path / "run", tiny(), settings())
    assert load_checkpoint(tmp_path / "run")["progress"]["step"] == stop_in_step
    train(photo_folder, tmp_path / "run", tiny(), settings(), resume=True)
    resumed, whole = load_checkpoint(tmp_path / "run"), load_checkpoint(uninterrupted)
    for part in ("network", "average", "optimisers"):
        assert same(resumed[part], whole[part]), part
    for row, expected in zip(metrics(tmp_path / "run"), metrics(uninterrupted), strict=True):
        assert (row["epoch"], row["step"], row["skipped"]) == (expected["epoch"], expected["step"], expected["skipped"])
        for key in ("loss", "mse", "bpp"):
            assert float(row[key]) == pytest.approx(float(expected[key]), rel=1e-5), key
    assert sorted(path.name for path in (tmp_path / "run").glob("*.safetensors")) == [
        path.name for path in uninterrupted.glob("*.safetensors")
    ]


def test_second_ctrl_c_stops_at_once(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(_: Trainer, step: int) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    Steps(twice).install(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(photo_folder, tmp_path / "run", tiny(), settings())
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_signal_handlers_are_put_back(uninterrupted: Path) -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_metrics_of_epochs_that_are_trained_again_are_replaced(photo_folder: Path, tmp_path: Path) -> None:
    """The process was killed before the second epoch's checkpoint was written, in the middle of the third's row."""
    run = tmp_path / "run"
    train(photo_folder, run, tiny(), settings(1, steps=1))
    with (run / "metrics.csv").open("a", encoding="utf-8", newline="") as file:
        file.write("2,2,0.1,9,9,9,9,9,9,0.1,0\r\n3,3,0.")
    train(photo_folder, run, tiny(), settings(2, steps=1), resume=True)
    rows = metrics(run)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "1"), ("2", "2")]
    assert rows[1]["loss"] != "9"


def test_longer_budget_continues_a_finished_run(photo_folder: Path, tmp_path: Path) -> None:
    train(photo_folder, tmp_path / "run", tiny(), settings(1, steps=2))
    train(photo_folder, tmp_path / "run", tiny(), settings(3, steps=2), resume=True)
    assert [row["step"] for row in metrics(tmp_path / "run")] == ["2", "4", "6"]


def test_resume_keeps_the_config_and_the_seed_of_the_run(photo_folder: Path, tmp_path: Path) -> None:
    train(photo_folder, tmp_path / "run", tiny(), settings(1, steps=1, seed=5))
    train(photo_folder, tmp_path / "run", preset("small"), settings(2, steps=1, seed=0), resume=True)
    saved = load_checkpoint(tmp_path / "run")
    assert ModelConfig.from_json(saved["config"]) == tiny()
    assert saved["settings"]["seed"] == 5


def test_budget_in_minutes_counts_the_time_of_all_its_parts(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes, counter = 1.0 / 60, Steps(lambda _, __: None)
    counter.install(monkeypatch)
    train(photo_folder, tmp_path / "run", tiny(), settings(epochs=None, minutes=minutes, steps=3))  # type: ignore[arg-type]
    first = load_checkpoint(tmp_path / "run")["progress"]
    assert first["step"] == counter.count >= 1
    assert 1.0 <= first["seconds"] < 30

    counter.count = 0
    train(photo_folder, tmp_path / "run", tiny(), settings(epochs=None, minutes=minutes, steps=3), resume=True)  # type: ignore[arg-type]
    assert counter.count == 0, "the budget was spent already"

    longer = (first["seconds"] + 0.5) / 60
    train(photo_folder, tmp_path / "run", tiny(), settings(epochs=None, minutes=longer, steps=3), resume=True)  # type: ignore[arg-type]
    second = load_checkpoint(tmp_path / "run")["progress"]
    assert second["step"] == first["step"] + counter.count > first["step"]
    assert second["seconds"] >= first["seconds"] + 0.5


# Refusals.


def test_existing_run_is_not_overwritten(photo_folder: Path, uninterrupted: Path) -> None:
    before = (uninterrupted / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match="holds a training run already; continue it with --resume"):
        train(photo_folder, uninterrupted, tiny(), settings())
    assert (uninterrupted / CHECKPOINT).read_bytes() == before


def test_run_in_the_place_of_a_file_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(TrainingError, match="cannot be made"):
        train(photo_folder, tmp_path / "run", tiny(), settings())


def test_resume_without_a_checkpoint_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint of a training run"):
        train(photo_folder, tmp_path / "run", tiny(), settings(), resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:2000]), id="truncated"),
        pytest.param(lambda path: path.write_text("no checkpoint"), id="text"),
        pytest.param(lambda path: torch.save({"model": torch.ones(2)}, path), id="foreign"),
        pytest.param(lambda path: torch.save(torch.ones(2), path), id="tensor"),
    ],
)
def test_damaged_checkpoint_is_refused(
    photo_folder: Path, uninterrupted: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    (tmp_path / CHECKPOINT).write_bytes((uninterrupted / CHECKPOINT).read_bytes())
    damage(tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: (damaged|not the checkpoint)"):
        train(photo_folder, tmp_path, tiny(), settings(), resume=True)


@pytest.mark.parametrize("device", ["quantum", "cpu:x", "cuda:99", ""], ids=repr)
def test_unknown_device_is_a_usage_error(photo_folder: Path, tmp_path: Path, device: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        train(photo_folder, tmp_path / "run", tiny(), settings(), device=device)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("side", [8, 40])
def test_crop_that_the_network_cannot_take_is_a_usage_error(photo_folder: Path, tmp_path: Path, side: int) -> None:
    with pytest.raises(UsageError, match=f"crops of {side} pixels: .* multiples of 16"):
        train(photo_folder, tmp_path / "run", tiny(), settings(crops=((0.0, side),)))


def test_export_without_a_run_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such training run"):
        export_run(tmp_path / "none", photo_folder)
