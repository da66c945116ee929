"""Weights on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vaetools.errors import ModelError
from vaetools.model.config import ModelConfig
from vaetools.model.distributions import Noise
from vaetools.model.scales import LEVELS
from vaetools.model.tables import TOTAL, Y_REACH, Z_REACH, ProbabilityTables, reaches_of
from vaetools.model.vae import VAE
from vaetools.model.weights import find_by_hash, find_by_name, load_weights, save_weights

from .conftest import tiny


def fitted_tables(channels: int) -> ProbabilityTables:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 50, (LEVELS, 2 * Y_REACH + 2))
    y[0] = 0
    return ProbabilityTables.fit(y, np.zeros((channels, 2 * Z_REACH + 2)), np.linspace(0.2, 3, channels))


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(1)
    return VAE(tiny(name="tiny")).eval()


@pytest.fixture(scope="module")
def saved(vae: VAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(vae, fitted_tables(vae.config.hyper_channels), tmp_path_factory.mktemp("weights"))


def test_name_is_the_hash_of_the_content(saved: Path) -> None:
    content_hash = hashlib.sha256(saved.read_bytes()).digest()[:8]
    assert saved.name == f"tiny-{content_hash.hex()}.safetensors"
    assert load_weights(saved).hash == content_hash


def test_config_lies_beside(saved: Path, vae: VAE) -> None:
    assert ModelConfig.from_json(saved.with_suffix(".json").read_text(encoding="utf-8")) == vae.config
    assert sorted(path.suffix for path in saved.parent.iterdir()) == [".json", ".safetensors"]


def test_same_weights_give_the_same_file(saved: Path, vae: VAE, tmp_path: Path) -> None:
    assert save_weights(vae, fitted_tables(vae.config.hyper_channels), tmp_path).read_bytes() == saved.read_bytes()


def test_integer_network_comes_back_exactly(saved: Path, vae: VAE) -> None:
    loaded = load_weights(saved).vae
    z, residuals = torch.randn(2, 4, 3, 3).mul(8).round(), torch.randn(2, 8, 12, 12).mul(2).round()
    with torch.no_grad():
        assert torch.equal(loaded.scales.from_hyper_latents(z), vae.scales.from_hyper_latents(z))
        assert torch.equal(loaded.scales.from_residuals(residuals), vae.scales.from_residuals(residuals))


def test_float_weights_come_back_to_half_precision(saved: Path, vae: VAE) -> None:
    loaded = dict(load_weights(saved).vae.named_parameters())
    for name, weight in vae.named_parameters():
        if not name.startswith("scales."):
            torch.testing.assert_close(loaded[name], weight.detach(), rtol=2**-10, atol=1e-7)
            assert loaded[name].dtype == torch.float32


def test_loaded_network_is_ready_to_use(saved: Path, vae: VAE) -> None:
    loaded = load_weights(saved).vae
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    images, quality, seed = torch.rand(1, 3, 32, 32), torch.tensor([0.5]), torch.Generator
    with torch.no_grad():
        expected = vae(images, quality, Noise(seed().manual_seed(0)))
        outcome = loaded(images, quality, Noise(seed().manual_seed(0)))
    torch.testing.assert_close(outcome.kl, expected.kl, rtol=0.02, atol=1)


def test_tables_come_back_exactly(saved: Path, vae: VAE) -> None:
    tables, expected = load_weights(saved).tables, fitted_tables(vae.config.hyper_channels)
    assert tables is not None
    np.testing.assert_array_equal(tables.y, expected.y)
    np.testing.assert_array_equal(tables.z, expected.z)
    assert tables.y.dtype == tables.z.dtype == np.uint32
    assert tables.rare == expected.rare > 0


def test_weights_of_before_have_no_rare_tables(saved: Path, tmp_path: Path) -> None:
    tables = load_weights(resaved(saved, tmp_path, lambda tensors: tensors.pop("tables.rare"))).tables
    assert tables is not None
    assert tables.rare == 0


def test_tables_are_probabilities() -> None:
    tables = fitted_tables(4)
    for table in (tables.y, tables.z):
        assert reaches_of(table) is not None
        np.testing.assert_allclose(table.sum(1) / TOTAL, 1, atol=1e-3)


def test_weights_without_tables_load(vae: VAE, tmp_path: Path) -> None:
    assert load_weights(save_weights(vae, None, tmp_path)).tables is None


# Files that cannot be used.


def resaved(saved: Path, folder: Path, change: object = None, metadata: dict[str, str] | None = None) -> Path:
    """The tensors of `saved`, changed, under a name without a hash."""
    tensors = load_file(saved)
    if callable(change):
        change(tensors)
    config = saved.with_suffix(".json").read_text(encoding="utf-8")
    save_file(tensors, folder / "changed.safetensors", metadata={"config": config} if metadata is None else metadata)
    return folder / "changed.safetensors"


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.safetensors: cannot be read"):
        load_weights(tmp_path / "none.safetensors")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1], ids="{} bytes".format)
def test_truncated_file_is_refused(saved: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_weights(path)


def test_one_flipped_bit_is_noticed(saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-100] ^= 1
    (tmp_path / saved.name).write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        load_weights(tmp_path / saved.name)


def test_renamed_file_is_still_good(saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved, tmp_path / "mine.safetensors")
    assert load_weights(tmp_path / "mine.safetensors").hash == load_weights(saved).hash


def test_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.safetensors").write_text("these are no weights at all")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_weights(tmp_path / "notes.safetensors")


def test_weights_of_another_program_are_refused(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no vaetools weights"):
        load_weights(tmp_path / "other.safetensors")


def test_config_of_another_size_is_refused(saved: Path, tmp_path: Path) -> None:
    larger = json.dumps({**json.loads(saved.with_suffix(".json").read_text()), "width": 8192, "inner_width": 8192})
    with pytest.raises(ModelError, match="do not fit their config"):
        load_weights(resaved(saved, tmp_path, metadata={"config": larger}))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda tensors: tensors.pop("z_raw_scale"), id="missing-tensor"),
        pytest.param(lambda tensors: tensors.update(extra=torch.zeros(1)), id="unknown-tensor"),
        pytest.param(lambda tensors: tensors.update(z_raw_scale=torch.zeros(9)), id="wrong-shape"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(saved: Path, tmp_path: Path, change: object) -> None:
    with pytest.raises(ModelError, match="do not fit their config"):
        load_weights(resaved(saved, tmp_path, change))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda tensors: tensors.pop("tables.z"), id="one-missing"),
        pytest.param(lambda tensors: tensors.update({"tables.y": tensors["tables.y"][:5].clone()}), id="wrong-shape"),
        pytest.param(lambda tensors: tensors.update({"tables.y": tensors["tables.y"].float()}), id="wrong-type"),
        pytest.param(
            lambda tensors: tensors.update({"tables.z": torch.zeros_like(tensors["tables.z"])}), id="impossible-symbols"
        ),
        pytest.param(lambda tensors: tensors.update({"tables.rare": torch.tensor([65], dtype=torch.uint32)}), id="too-many-rare"),
        pytest.param(lambda tensors: tensors.update({"tables.rare": torch.ones(1)}), id="rare-of-wrong-type"),
    ],
)
def test_tables_that_do_not_fit_are_refused(saved: Path, tmp_path: Path, change: object) -> None:
    with pytest.raises(ModelError, match="probability tables"):
        load_weights(resaved(saved, tmp_path, change))


# Finding them.


def test_file_is_found_by_its_path(saved: Path) -> None:
    assert find_by_name(saved) == saved


def test_newest_weights_of_a_run_are_found_by_its_folder(saved: Path, tmp_path: Path) -> None:
    for seconds, name in ((100, "tiny-0000000000000001"), (200, "tiny-0000000000000000")):
        shutil.copy(saved, tmp_path / f"{name}.safetensors")
        os.utime(tmp_path / f"{name}.safetensors", (seconds, seconds))
    assert find_by_name(tmp_path).stem == "tiny-0000000000000000"


def test_folder_without_weights_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vaetools export"):
        find_by_name(tmp_path)


def test_installed_weights_are_found_by_name_and_by_hash(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VAETOOLS_MODELS", os.pathsep.join([str(tmp_path / "missing"), str(saved.parent)]))
    assert find_by_name("tiny") == saved
    assert find_by_name(saved.stem) == saved
    assert find_by_hash(load_weights(saved).hash) == saved
    assert find_by_hash(bytes(8)) is None


def test_unknown_name_lists_the_known(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAETOOLS_MODELS", str(saved.parent))
    with pytest.raises(ModelError, match=f"unknown model 'huge'.*{saved.stem}"):
        find_by_name("huge")


def copies(saved: Path, *places: Path) -> None:
    for place in places:
        place.parent.mkdir(exist_ok=True)
        shutil.copy(saved, place)


def test_a_name_of_several_models_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copies(saved, tmp_path / "a" / saved.name, tmp_path / "b" / saved.name)
    monkeypatch.setenv("VAETOOLS_MODELS", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert find_by_name("tiny").name == saved.name, "one model, installed twice"
    copies(saved, tmp_path / "b" / "tiny-0000000000000000.safetensors")
    with pytest.raises(
        ModelError, match=f"several installed models .* 'tiny': choose one of tiny-0000000000000000, {saved.stem}"
    ):
        find_by_name("tiny")
    assert find_by_name(saved.stem).name == saved.name


def test_photo_is_what_is_shipped(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = find_by_name("photo")
    copies(saved, tmp_path / "photo-0000000000000000.safetensors")
    monkeypatch.setenv("VAETOOLS_MODELS", str(tmp_path))
    assert find_by_name("photo") == shipped
