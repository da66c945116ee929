"""`vaetools import-compressai`: what it takes, and why it refuses the rest."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vaetools.cli import main
from vaetools.errors import ModelError
from vaetools.foreign.checkpoint import import_checkpoint
from vaetools.foreign.config import FACTORIZED, FAMILIES, MEAN_SCALE, SCALE
from vaetools.foreign.weights import ForeignModel, load_model, save_foreign

from .compressai_models import M, N, imported, models, saved, small

State = dict[str, Any]
every_family = pytest.mark.parametrize("family", FAMILIES)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["import-compressai", *(str(argument) for argument in arguments)])


def checkpoint(state: object, folder: Path) -> Path:
    torch.save(state, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


# What is taken.


@every_family
def test_a_checkpoint_becomes_a_weights_file(family: str, tmp_path: Path) -> None:
    done = run(saved(family, tmp_path), "--name", "mine", "-o", tmp_path / "models", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert {key: said[key] for key in ("name", "family", "n", "m")} == {"name": "mine", "family": family, "n": N, "m": M}
    model = load_model(Path(said["weights"]))
    assert isinstance(model, ForeignModel)
    assert Path(said["weights"]).name == f"mine-{model.hash.hex()}.safetensors"
    for part, module in model.parts.items():
        for key, value in getattr(small(family), part).state_dict().items():
            torch.testing.assert_close(module.state_dict()[key], value, rtol=0, atol=0)


def wrapped(state: State) -> State:
    return {"state_dict": state, "epoch": 1}


def with_prefix(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def with_old_names(state: State) -> State:
    names = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}
    return {next((key.replace(new, old) for new, old in names.items() if new in key), key): state[key] for key in state}


def with_tables(state: State) -> State:
    net = small(SCALE)
    net.update()
    return dict(net.state_dict())


def without_tables(state: State) -> State:
    return {key: value for key, value in state.items() if not key.endswith(("_offset", "_cdf", "_cdf_length", "scale_table"))}


@pytest.mark.parametrize("change", [wrapped, with_prefix, with_old_names, with_tables, without_tables])
def test_every_way_of_writing_it_gives_the_same_weights(change: Callable[[State], State], tmp_path: Path) -> None:
    path = checkpoint(change(dict(small(SCALE).state_dict())), tmp_path)
    assert save_foreign(import_checkpoint(path, "hyperprior"), tmp_path).name == imported(SCALE, tmp_path).name


def test_the_tables_of_the_checkpoint_are_kept(tmp_path: Path) -> None:
    net = small(MEAN_SCALE)
    net.update(scale_table=torch.linspace(0.2, 20, 7).tolist())
    model = load_model(save_foreign(import_checkpoint(checkpoint(net.state_dict(), tmp_path), "seven"), tmp_path))
    assert isinstance(model, ForeignModel)
    torch.testing.assert_close(model.scales, torch.linspace(0.2, 20, 7).double(), rtol=1e-6, atol=0)
    assert len(model.tables.y) == 7


def test_a_table_has_the_frequencies_of_compressai(tmp_path: Path) -> None:
    net = small(SCALE)
    net.update()
    table = import_checkpoint(checkpoint(net.state_dict(), tmp_path), "hyperprior").y
    conditional, row = net.gaussian_conditional, 20
    steps = conditional.quantized_cdf[row, : conditional.cdf_length[row]].diff()
    reach, offset = table.shape[1] // 2 - 1, int(conditional.offset[row])
    assert table[row, reach + offset : reach + offset + len(steps) - 1].tolist() == (steps[:-1] << 14).tolist()
    assert table[row, -1] == int(steps[-1]) << 14
    assert table[row, reach + offset - 1] == 1  # what CompressAI escapes


# What is refused.


@pytest.mark.parametrize("model", ["JointAutoregressiveHierarchicalPriors", "Cheng2020Anchor", "Cheng2020Attention"])
def test_autoregressive_models_are_refused(model: str, tmp_path: Path) -> None:
    net = getattr(models, model)(**({"N": 8, "M": 8} if model.startswith("Joint") else {"N": 8}))
    done = run(checkpoint(net.state_dict(), tmp_path), "--name", "mine", "-o", tmp_path / "models")
    assert (done.exit_code, "an autoregressive model" in done.stderr) == (1, True), done.output
    assert "one position after another" in done.stderr
    assert not (tmp_path / "models").exists()


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model of the families that can be imported: bmshj2018-factorized, "):
        import_checkpoint(checkpoint(nn.Conv2d(3, 3, 1).state_dict(), tmp_path), "mine")
    with pytest.raises(ModelError, match="without GDN"):
        import_checkpoint(checkpoint(models.FactorizedPriorReLU(8, 8).state_dict(), tmp_path), "mine")


def changed(key: str, value: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, key: value(state[key])}


CDF = "entropy_bottleneck._quantized_cdf"
DAMAGE = {
    "missing": (lambda state: {key: state[key] for key in state if key != "h_s.0.bias"}, "it lacks 'h_s.0.bias'"),
    "too many": (lambda state: {**state, "gain.weight": torch.ones(3)}, "it holds 'gain.weight', which is no part of"),
    "another shape": (changed("g_s.6.weight", lambda x: x[:, :2]), "'g_s.6.weight' .8x2x5x5. does not fit"),
    "integers": (changed("g_s.0.weight", lambda x: x.int()), "'g_s.0.weight' .* does not fit"),
    "not finite": (changed("h_a.2.bias", lambda x: x / 0), "some of 'h_a.2.bias' are not finite"),
    "huge quantiles": (changed("entropy_bottleneck.quantiles", lambda x: x * 1e6), "quantiles"),
    "huge": (changed("g_a.2.weight", lambda x: torch.zeros(1, 1, 1, 1).expand(1 << 20, 1, 5, 5)), "n must be .* 1 to 640"),
    "tables that fall": (changed(CDF, lambda x: x.flip(1)), "no cumulative distributions"),
    "tables of floats": (changed(CDF, lambda x: x.float()), "is no such table"),
    "too few tables": (changed(CDF, lambda x: x[:3]), "its tables of probabilities are 3, where 8 belong"),
    "lengths": (changed("entropy_bottleneck._cdf_length", lambda x: x + 99), "impossible lengths"),
    "offsets": (changed("gaussian_conditional._offset", lambda x: x - 99999), "reach to"),
    "overflowing": (changed("gaussian_conditional._offset", lambda x: x * 0 + 2**31 - 1), "reach to"),
    "scales that fall": (changed("gaussian_conditional.scale_table", lambda x: x.flip(0)), "does not rise"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_fit_is_told(damage: str, tmp_path: Path) -> None:
    change, reason = DAMAGE[damage]
    net = small(SCALE)
    net.update()
    with pytest.raises(ModelError, match=reason) as caught:
        import_checkpoint(checkpoint(change(dict(net.state_dict())), tmp_path), "mine")
    assert str(tmp_path / "checkpoint.pth") in str(caught.value)


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path("touched"),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "content",
    [b"", b"no checkpoint", pickle.dumps(Hostile()), pickle.dumps({"state_dict": Hostile()})],
    ids=["empty", "text", "code", "code in a dict"],
)
def test_no_checkpoint_is_told_and_no_code_is_run(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint.pth").write_bytes(content)
    done = run(tmp_path / "checkpoint.pth", "--name", "mine")
    assert (done.exit_code, "no checkpoint of tensors alone" in done.stderr) == (1, True), done.output
    assert not Path("touched").exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {}, {"a": 1.5}, {"state_dict": {1: torch.ones(1)}}])
def test_a_checkpoint_without_a_state_dict_is_told(content: object, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no state dict"):
        import_checkpoint(checkpoint(content, tmp_path), "mine")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    done = run(tmp_path / "none.pth", "--name", "mine")
    assert (done.exit_code, "none.pth: cannot be read" in done.stderr) == (1, True)


@pytest.mark.parametrize("name", ["photo", "a/b", ""])
def test_names_are_checked(name: str, tmp_path: Path) -> None:
    done = run(saved(FACTORIZED, tmp_path), "--name", name, "-o", tmp_path / "models")
    assert (done.exit_code, "--name" in done.stderr) == (2, True)
    assert not (tmp_path / "models").exists()


# Weights that were imported.


def resaved(path: Path, change: Callable[[State], State], config: str | None = None) -> Path:
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(change(tensors), path.parent / "changed.safetensors", {"compressai": config or metadata["compressai"]})
    return path.parent / "changed.safetensors"


def config(**changes: object) -> str:
    return json.dumps({"name": "mine", "family": SCALE, "n": N, "m": M, **changes})


WEIGHT_DAMAGE = {
    "missing": (lambda state: {key: state[key] for key in state if key != "h_s.0.bias"}, None, "do not fit"),
    "no medians": (lambda state: {key: state[key] for key in state if key != "medians"}, None, "medians"),
    "too many": (lambda state: {**state, "more": torch.ones(3)}, None, "do not fit"),
    "half": (changed("g_s.0.weight", lambda x: x.half()), None, "do not fit"),
    "not finite": (changed("g_a.1.beta", lambda x: x / 0), None, "not finite"),
    "tables": (changed("tables.y", lambda x: x[:, :-1].contiguous()), None, "tables do not fit"),
    "a symbol of none": (changed("tables.z", lambda x: torch.zeros_like(x)), None, "tables do not fit"),
    "fewer tables": (changed("tables.y", lambda x: x[:9].contiguous()), None, "tables do not fit"),
    "scales": (changed("scale_table", lambda x: x.flip(0)), None, "scales do not fit"),
    "many scales": (changed("scale_table", lambda x: torch.arange(1, 258, dtype=x.dtype)), None, "scales do not fit"),
    "larger": (lambda state: state, config(n=16), "do not fit"),
    "huge": (lambda state: state, config(n=1 << 20), "n must be"),
    "family": (lambda state: state, config(family="elic"), "family must be"),
    "newer": (lambda state: state, config(depth=3), "newer vaetools"),
    "no JSON": (lambda state: state, "{", "not JSON"),
}


@pytest.mark.parametrize("damage", WEIGHT_DAMAGE)
def test_damaged_weights_are_told(damage: str, tmp_path: Path) -> None:
    change, text, reason = WEIGHT_DAMAGE[damage]
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(resaved(imported(SCALE, tmp_path), change, text))
    assert "changed.safetensors" in str(caught.value)


def test_weights_that_were_altered_are_told(tmp_path: Path) -> None:
    path = imported(SCALE, tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelError, match="damaged"):
        load_model(path)
