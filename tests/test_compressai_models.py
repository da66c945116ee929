"""Models that CompressAI trained, behind this package's container."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from vaetools import Augmenter, Codec
from vaetools.cli import main
from vaetools.codec import container
from vaetools.codec.container import HOST, NO_MODEL, PIXELS, Header, host_in, pack, read_front, unpack
from vaetools.codec.rate import Rate
from vaetools.denoising.denoiser import Denoiser
from vaetools.embedding.embedder import Embedder
from vaetools.errors import Corrupt, Desync, FormatError, ModelError, ModelMissing, UnsupportedVersion, UsageError
from vaetools.foreign.config import FACTORIZED, FAMILIES, MEAN_SCALE, SCALE
from vaetools.foreign.network import ForeignNetwork
from vaetools.images.picture import Metadata, Picture
from vaetools.latents.reader import SymbolReader

from .compressai_models import CLASSES, imported, own_bytes_and_pixels, small
from .conftest import photograph

every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: imported(family, tmp_path_factory.mktemp("weights")) for family in FAMILIES}


@pytest.fixture(scope="module")
def codecs(weights: dict[str, Path]) -> dict[str, Codec]:
    return {family: Codec.load(path, "cpu") for family, path in weights.items()}


def pixels(name: str, width: int, height: int) -> Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(photograph(name, width, height))).permute(2, 0, 1)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, none of them farther from gray than `--verify` allows."""
    folder = tmp_path_factory.mktemp("album")
    for name in ("chelsea", "coffee", "rocket"):
        photograph(name, 192, 160).save(folder / f"{name}.png")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# The same as CompressAI itself.


@every_family
def test_pixels_and_bytes_are_those_of_compressai(family: str, codecs: dict[str, Codec]) -> None:
    image = pixels("astronaut", 256, 192)
    data = codecs[family].compress([image])[0]
    length, expected = own_bytes_and_pixels(small(family), image)
    assert (codecs[family].decompress(data).int() - expected.int()).abs().max() <= 1
    payload = sum(entry.length for entry in unpack(data).front.entries)
    assert payload == pytest.approx(length, rel=0.01, abs=32)
    assert len(data) - payload <= 160
    assert length > 1000  # latents that are not all zero


@every_family
def test_the_estimate_is_the_length_of_the_file(family: str, codecs: dict[str, Codec]) -> None:
    image = pixels("coffee", 128, 128)
    payload = unpack(codecs[family].compress([image])[0]).front.entries[0].length
    assert codecs[family].estimate([image])[0] == pytest.approx(8 * payload, rel=0.01, abs=64)


@pytest.mark.parametrize("family", [SCALE, MEAN_SCALE])
def test_padding_far_from_the_image_is_not_coded(family: str, codecs: dict[str, Codec]) -> None:
    image = pixels("coffee", 128, 128)
    padded = image[:, :80, :80].clone()
    padded = torch.nn.functional.pad(padded.float(), (0, 48, 0, 48), mode="replicate").to(torch.uint8)
    data, whole = codecs[family].compress([image[:, :80, :80], padded])
    assert len(data) < 0.9 * len(whole)
    difference = codecs[family].decompress(data).int() - codecs[family].decompress(whole)[:, :80, :80].int()
    assert difference[:, :64, :64].abs().max() <= 1  # farther from what is left out than the synthesis sees


# Every image.


@every_family
@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 3), (100, 75), (64, 129)])
def test_any_size_comes_back(family: str, width: int, height: int, codecs: dict[str, Codec]) -> None:
    image = pixels("rocket", width, height)
    assert codecs[family].decompress(codecs[family].compress([image])[0]).shape == image.shape


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_gray_alpha_and_16_bits(channels: int, dtype: torch.dtype, codecs: dict[str, Codec]) -> None:
    colours = pixels("chelsea", 40, 50)
    image = torch.cat([colours, colours[:1]])[[0, 3] if channels == 2 else list(range(channels))].to(torch.int32)
    image = (image * (1 if dtype == torch.uint8 else 257)).to(dtype)
    back = codecs[SCALE].decompress(codecs[SCALE].compress([image])[0])
    assert (back.shape, back.dtype) == (image.shape, dtype)
    if channels in (2, 4):
        assert torch.equal(back[-1], image[-1])


def test_metadata_come_back(codecs: dict[str, Codec]) -> None:
    array = np.array(photograph("coffee", 70, 40))
    picture = Picture(array, "PNG", "RGB", Metadata(icc=b"profile", xmp=b"packet"))
    (coded,) = codecs[MEAN_SCALE].encode([picture])
    assert codecs[MEAN_SCALE].decode([coded.to_bytes()])[0].picture.metadata == picture.metadata


@pytest.mark.parametrize("family", [FACTORIZED, MEAN_SCALE])
def test_tiles_decode_alone_and_show_no_seam(family: str, codecs: dict[str, Codec]) -> None:
    codec, image = codecs[family], pixels("coffee", 200, 150)
    whole = codec.compress([image])[0]
    tiles = codec.compress([image], tile_size=64)[0]
    assert (len(unpack(whole).payloads), len(unpack(tiles).payloads)) == (1, 12)
    full = codec.decompress(tiles)
    assert torch.equal(codec.decompress(tiles, region=(50, 60, 70, 20)), full[:, 60:80, 50:120])
    if family == FACTORIZED:  # nothing there depends on the rest of a tile
        assert (full.int() - codec.decompress(whole).int()).abs().max() <= 1


def test_a_damaged_tile_is_one_gray_tile(codecs: dict[str, Codec]) -> None:
    image = pixels("coffee", 200, 150)
    data = bytearray(codecs[SCALE].compress([image], tile_size=64)[0])
    data[-1] ^= 1
    with pytest.raises(FormatError, match="tile 11"):
        codecs[SCALE].decompress(bytes(data))
    back = codecs[SCALE].decompress(bytes(data), allow_partial=True)
    assert (back[:, 140:, 195:] == 128).all()
    assert not (back[:, :64, :64] == 128).all()


def test_what_a_file_cannot_hold_is_kept_without_loss(weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ForeignNetwork, "is_lost", lambda *_: True)
    codec = Codec.load(weights[SCALE], "cpu")
    codec.network.analysis[-1].weight.mul_(1e6)  # type: ignore[attr-defined]
    image = pixels("rocket", 64, 64)
    assert torch.equal(codec.decompress(codec.compress([image])[0]), image)


# One rate.


@pytest.mark.parametrize("rate", [{"quality": 60}, {"quality": [70.0]}, {"rate": Rate("bpp", 0.5)}, {"rate": Rate("psnr", 30)}])
def test_no_quality_and_no_target_is_taken(rate: dict[str, Any], codecs: dict[str, Codec]) -> None:
    with pytest.raises(UsageError, match="the model mbt2018-mean has one rate"):
        codecs[MEAN_SCALE].compress([pixels("rocket", 64, 64)], **rate)


@pytest.mark.parametrize("option", [("--quality", 60), ("--target-bpp", 1), ("--target-psnr", 30), ("--target-size", "9kB")])
def test_options_of_the_rate_are_wrong_usage(
    option: tuple[str, object], weights: dict[str, Path], photo_folder: Path, tmp_path: Path
) -> None:
    done = run("compress", photo_folder, "-o", tmp_path / "out", "--model", weights[SCALE], "--device", "cpu", *option)
    assert (done.exit_code, "has one rate" in done.stderr) == (2, True), done.output


# Machines that differ.


def other_tables(step: int, place: int) -> Callable[..., Any]:
    """A `_predict` whose index is off at one place, as on a machine that rounds otherwise."""
    predict = ForeignNetwork._predict

    def changed(self: ForeignNetwork, z: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        index, mean = predict(self, z, shape)
        index = index.clone()
        index.view(-1)[place] += step
        return index, mean

    return changed


@pytest.mark.parametrize("family", [SCALE, MEAN_SCALE])
@pytest.mark.parametrize("place", [0, 5, 200])
def test_other_tables_are_told_and_never_painted(
    family: str, place: int, codecs: dict[str, Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = codecs[family].compress([pixels("astronaut", 128, 128)])[0]
    monkeypatch.setattr(ForeignNetwork, "_predict", other_tables(1, place))
    host = codecs[family].network.host
    with pytest.raises(Desync, match=f"chooses other probability tables here .* than where the file was written .{host[:9]}"):
        codecs[family].decompress(data)


def test_a_file_that_does_not_decode_here_is_not_written(
    weights: dict[str, Path], photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = ForeignNetwork._predict, []

    def moody(self: ForeignNetwork, z: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        calls.append(shape)
        return (other_tables(1, 0) if len(calls) == 2 else honest)(self, z, shape)

    monkeypatch.setattr(ForeignNetwork, "_predict", moody)
    options = ("--model", weights[SCALE], "--device", "cpu", "--batch", 1)
    done = run("compress", photo_folder, "-o", tmp_path / "out", *options)
    assert done.exit_code == 1
    assert done.stderr.count("does not decode even here, and is not written") == 1
    assert len(list((tmp_path / "out").glob("*.vtc"))) == len(list(photo_folder.iterdir())) - 1


@pytest.mark.parametrize("family", [SCALE, MEAN_SCALE])
def test_what_is_decoded_together_changes_no_table(family: str, codecs: dict[str, Codec]) -> None:
    images = [pixels(name, 128, 64) for name in ("astronaut", "chelsea", "coffee")]
    together = codecs[family].compress(images)
    for data, back in zip(together, codecs[family].decompress(together), strict=True):
        assert (codecs[family].decompress(data).int() - back.int()).abs().max() <= 1


def test_how_many_threads_there_are_changes_no_table(codecs: dict[str, Codec], threads: Callable[[int], None]) -> None:
    image = pixels("coffee", 256, 192)
    threads(1)
    data = codecs[MEAN_SCALE].compress([image])[0]
    threads(3)
    assert codecs[MEAN_SCALE].decompress(data).shape == image.shape


def test_files_say_where_their_tables_were_chosen(codecs: dict[str, Codec], tmp_path: Path) -> None:
    for family in FAMILIES:
        (tmp_path / f"{family}.vtc").write_bytes(codecs[family].compress([pixels("rocket", 64, 64)])[0])
    done = run("info", *(tmp_path / f"{family}.vtc" for family in FAMILIES), "--json")
    shown = dict(zip(FAMILIES, json.loads(done.stdout), strict=True))
    for family in (SCALE, MEAN_SCALE):
        assert (shown[family]["format"], shown[family]["quality"]) == ("1.1", 0)
        host = codecs[family].network.host
        assert shown[family]["chosen_on"] == f"{host} (tables chosen in floats: may not decode elsewhere)"
    assert shown[FACTORIZED]["format"] == "1.0"  # its tables go by channel: it decodes everywhere
    assert "chosen_on" not in shown[FACTORIZED]


def test_an_older_reader_refuses(codecs: dict[str, Codec], monkeypatch: pytest.MonkeyPatch) -> None:
    data = codecs[SCALE].compress([pixels("rocket", 64, 64)])[0]
    monkeypatch.setattr(container, "CRITICAL", container.CRITICAL - {HOST})
    with pytest.raises(UnsupportedVersion, match="HOST"):
        read_front(data)


@every_family
def test_a_forged_payload_is_an_error(family: str, codecs: dict[str, Codec]) -> None:
    contents = unpack(codecs[family].compress([pixels("rocket", 64, 64)])[0])
    payload, crc = contents.payloads[0], contents.front.entries[0].symbols_crc
    assert payload is not None
    generator = np.random.default_rng(0)
    for _ in range(40):
        forged = bytearray(payload)
        for place in generator.integers(len(forged), size=3):
            forged[place] ^= int(generator.integers(1, 256))
        with pytest.raises(FormatError):  # the checksum of the payload fits
            codecs[family].decompress(pack(contents.header, contents.front.boxes, [(bytes(forged), crc)]))


def test_a_file_without_a_model_names_no_machine() -> None:
    header = Header(NO_MODEL, 1, 1, 3, 8, 100.0, 0, 0)
    with pytest.raises(Corrupt, match="a box HOST in a file without a model"):
        unpack(pack(header, {HOST: b"torch", PIXELS: b"a PNG"}, []))


def test_what_a_file_says_of_its_machine_is_one_line() -> None:
    assert host_in({HOST: b"torch\n\x1b[2J\xff" + bytes(200)}) == "torch??[2J\ufffd" + "?" * 117
    assert host_in({}) == ""


def test_without_the_weights_files_say_which_they_need(codecs: dict[str, Codec]) -> None:
    data = codecs[SCALE].compress([pixels("rocket", 64, 64)])[0]
    with pytest.raises(ModelMissing, match=codecs[SCALE].model.hash.hex()):
        Codec.load("photo", "cpu").decompress(data)


# The command line, and what else uses models.


def test_a_folder_there_and_back(album: Path, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAETOOLS_MODELS", str(weights[MEAN_SCALE].parent))
    done = run("compress", album, "-o", tmp_path / "out", "--model", "mbt2018-mean", "--device", "cpu", "--verify")
    assert done.exit_code == 0, done.output
    assert "3 decoded again and compared" in done.stdout
    done = run("verify", tmp_path / "out", "--against", album, "--device", "cpu")
    assert (done.exit_code, "3 files checked, 0 bad" in done.stdout) == (0, True), done.output
    done = run("decompress", tmp_path / "out", "-o", tmp_path / "back", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "back").glob("*.png")) == sorted(path.name for path in album.iterdir())
    with Image.open(tmp_path / "back" / "coffee.png") as image:
        assert image.size == (192, 160)


def test_eval_measures_the_one_rate(photo_folder: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    options = ("--model", weights[FACTORIZED], "--device", "cpu", "--against", "none")
    done = run("eval", photo_folder, *options, "--json", tmp_path / "result.json")
    assert done.exit_code == 0, done.output
    assert {row["setting"] for row in json.loads((tmp_path / "result.json").read_text())["rows"]} == {0}
    refused = run("eval", photo_folder, *options, "--qualities", "20")
    assert (refused.exit_code, "has one rate" in refused.stderr) == (2, True)
    refused = run("eval", photo_folder, *options, "--effort", 1)
    assert (refused.exit_code, "takes no effort" in refused.stderr) == (2, True)


@pytest.mark.parametrize("load", [Augmenter.load, Denoiser.load, Embedder.load, SymbolReader.load])
def test_what_needs_a_vae_refuses(load: Callable[[Path], object], weights: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="imported from CompressAI, which compresses and restores images and does nothing else"):
        load(weights[SCALE])


@pytest.mark.parametrize("command", ["sample", "fit-prior", "train"])
def test_commands_that_need_a_vae_refuse(command: str, weights: dict[str, Path], photo_folder: Path, tmp_path: Path) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "sample": ("-n", 1, "-o", tmp_path / "out.png", "--model", weights[SCALE]),
        "fit-prior": (photo_folder, "--model", weights[SCALE], "--device", "cpu"),
        "train": (photo_folder, "--out", tmp_path / "out", "--start-from", weights[SCALE]),
    }
    done = run(command, *arguments[command])
    assert (done.exit_code, "does nothing else" in done.stderr) == (1, True), done.output


def test_a_report_leaves_out_the_maps_of_bits(codecs: dict[str, Codec], weights: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/rocket.png.vtc").write_bytes(codecs[SCALE].compress([pixels("rocket", 192, 160)])[0])
    done = run("report", tmp_path / "in", "-o", tmp_path / "page.html", "--model", weights[SCALE], "--device", "cpu")
    assert done.exit_code == 0, done.output


def test_the_classes_are_those_of_the_zoo() -> None:
    assert tuple(CLASSES) == FAMILIES
