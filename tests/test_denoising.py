"""Denoisers: how they are trained, what they do to images and folders, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from vaetools import Codec
from vaetools.cli import main
from vaetools.denoising import denoiser as module
from vaetools.denoising.denoiser import Denoiser
from vaetools.denoising.estimate import estimate_sigma
from vaetools.denoising.job import denoise_folder
from vaetools.errors import ModelError, UsageError
from vaetools.model.distributions import Noise
from vaetools.model.noise import noise_level, noisy_pair, quality_of
from vaetools.model.weights import load_weights
from vaetools.training.loop import train
from vaetools.training.settings import TrainingSettings

from .conftest import PHOTOGRAPHS, photo_batch, photograph, tiny
from .medical_files import nifti, volume

RANGE = (75.0, 5.0)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def weights(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser that was trained for seconds."""
    config = tiny(name="denoise", noise=RANGE, quality_lambdas=(0.01, 1.0), latent_channels=16)
    settings = TrainingSettings(epochs=1, steps_per_epoch=120, batch=8, crops=((0.0, 32),), learning_rate=4e-3)
    path = train(photo_folder, tmp_path_factory.mktemp("denoiser"), config, settings, device="cpu")
    assert path is not None
    return path


@pytest.fixture
def denoiser(weights: Path) -> Denoiser:
    return Denoiser.load(weights, "cpu")


def noisy_photograph(sigma: float, side: int = 96, name: str = "coffee") -> tuple[Tensor, Tensor]:
    """(3, side, side) uint8, without and with noise."""
    clean = np.asarray(photograph(name, side, side)).transpose(2, 0, 1)
    noisy = clean + np.random.default_rng(1).normal(0, sigma, clean.shape)
    return torch.from_numpy(clean.copy()), torch.from_numpy(noisy.round().clip(0, 255).astype(np.uint8))


def mse(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).square().mean())


# What it does to images.


@pytest.mark.parametrize("ensemble", [False, True])
def test_noise_is_taken_out(weights: Path, ensemble: bool) -> None:
    clean, noisy = noisy_photograph(50)
    (denoised,) = Denoiser.load(weights, "cpu", ensemble=ensemble).denoise([noisy], 50).images
    assert mse(denoised, clean) < 0.5 * mse(noisy, clean)


def test_auto_is_what_the_estimate_says(denoiser: Denoiser) -> None:
    _, noisy = noisy_photograph(30)
    found = denoiser.denoise([noisy])
    assert found.sigmas[0] == pytest.approx(30, rel=0.15)
    assert torch.equal(found.images[0], denoiser.denoise([noisy], found.sigmas[0]).images[0])


@pytest.mark.parametrize("sigma", [8, 25, 60])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_noise_is_estimated(name: str, sigma: float) -> None:
    _, noisy = noisy_photograph(sigma, side=256, name=name)
    assert estimate_sigma(noisy / 255) == pytest.approx(sigma, rel=0.2, abs=1.5)


def test_images_without_noise_have_little_and_tiny_ones_none() -> None:
    assert estimate_sigma(torch.full((3, 40, 40), 0.5)) == 0
    assert estimate_sigma(torch.rand(3, 1, 40)) == 0
    assert estimate_sigma(torch.rand(1, 2, 3)) >= 0


def test_sigma_0_gives_the_image_back(denoiser: Denoiser) -> None:
    _, noisy = noisy_photograph(20)
    (same,) = denoiser.denoise([noisy], 0).images
    assert torch.equal(same, noisy)
    assert same.data_ptr() != noisy.data_ptr()


def test_below_the_least_a_part_of_the_image_is_kept(denoiser: Denoiser) -> None:
    _, noisy = noisy_photograph(5)
    image = noisy / 255
    half, whole = (denoiser.denoise([image], sigma).images[0] for sigma in (2.5, 5.0))
    unclipped = (half > 0) & (half < 1) & (whole > 0) & (whole < 1)
    assert torch.allclose((2 * (half - image))[unclipped], (whole - image)[unclipped], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_images_come_back_as_they_came(denoiser: Denoiser, channels: int, dtype: torch.dtype) -> None:
    pixels = torch.cat([photo_batch(24, 1)[0], torch.rand(1, 24, 24)])[[0, 3] if channels == 2 else list(range(channels))]
    largest = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    image = (pixels * largest).round().to(torch.int32).to(dtype) if dtype != torch.float32 else pixels
    (denoised,) = denoiser.denoise([image], 40).images
    assert (denoised.shape, denoised.dtype) == (image.shape, dtype)
    colours = channels - (channels in (2, 4))
    assert torch.equal(denoised[colours:].float(), image[colours:].float())
    assert not torch.equal(denoised[:colours].float(), image[:colours].float())


def test_windows_leave_no_seam(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo_batch(150, 1)[0][:, :131]
    (whole,) = denoiser.denoise([image], 30).images
    monkeypatch.setattr(module, "WINDOW", 32)
    (parts,) = denoiser.denoise([image], 30).images
    assert torch.allclose(whole, parts, atol=2e-2 if denoiser.bfloat16 else 1e-5)


@pytest.mark.parametrize("sigma", [-1, 75.5, float("nan"), "much"])
def test_a_sigma_that_means_nothing_is_refused(denoiser: Denoiser, sigma: float | str) -> None:
    with pytest.raises(UsageError, match=r"sigma must be 'auto', or from 0 to 75"):
        denoiser.denoise([], sigma)


# Models.


def test_a_model_that_is_no_denoiser_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no denoiser; train one with `vaetools train IMAGES --denoise"):
        Denoiser.load("photo", "cpu")


def test_a_denoiser_is_no_codec(weights: Path) -> None:
    with pytest.raises(ModelError, match="a denoiser has no codec; use it with `vaetools denoise`"):
        Codec.load(weights)


def test_quality_and_noise_stand_for_each_other() -> None:
    quality = torch.tensor([0.0, 0.3, 1.0])
    levels = noise_level(quality, RANGE)
    assert levels[[0, 2]].tolist() == pytest.approx([75, 5])
    assert [quality_of(float(level), RANGE) for level in levels] == pytest.approx(quality.tolist(), abs=1e-6)
    assert (quality_of(1000, RANGE), quality_of(0, RANGE)) == (0, 1)


def test_some_training_images_are_gray_with_one_noise() -> None:
    images = photo_batch(16, 4).repeat(16, 1, 1, 1)
    clean, seen = noisy_pair(images, torch.full((64,), 20.0), Noise(torch.Generator().manual_seed(0)))
    gray = (seen == seen[:, :1]).all(dim=(1, 2, 3))
    assert 1 <= int(gray.sum()) <= 20
    assert torch.equal(clean[~gray], images[~gray])
    assert bool((clean[gray] == clean[gray][:, :1]).all())
    assert float((seen - clean)[~gray].std()) * 255 == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("noise", [(5, 75), (75, 0), (300, 5), (75,), ("a", 5)])
def test_a_config_with_an_impossible_noise_is_refused(noise: tuple[object, ...]) -> None:
    with pytest.raises(ModelError, match="config: noise must"):
        tiny(noise=noise)


# Training by the command line.


def test_train_denoise_writes_a_denoiser(photo_folder: Path, tmp_path: Path) -> None:
    quick = ("--preset", "small", "--epochs", 1, "--steps-per-epoch", 2, "--batch", 2)
    done = run("train", photo_folder, "--out", tmp_path, "--denoise", "--noise-range", 3, 60, *quick)
    assert done.exit_code == 0, done.output
    config = Denoiser.load(tmp_path, "cpu").config
    assert (config.name, config.noise, config.quality_lambdas) == ("denoise", (60, 3), (0.01, 1))


def test_a_training_starts_from_given_weights(weights: Path, photo_folder: Path, tmp_path: Path) -> None:
    quick = ("--epochs", 1, "--steps-per-epoch", 1, "--batch", 2, "--learning-rate", 1e-9)
    done = run("train", photo_folder, "--out", tmp_path, "--start-from", weights, *quick)
    assert done.exit_code == 0, done.output
    before, after = load_weights(weights).vae, load_weights(next(tmp_path.glob("*.safetensors"))).vae
    assert before.config == after.config
    for name, value in before.state_dict().items():
        assert torch.allclose(value, after.state_dict()[name], atol=1e-3), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--noise-range", 5, 75), "--noise-range is for --denoise"),
        (("--denoise", "--noise-range", 75, 5), "LEAST must be above 0 and below MOST"),
        (("--denoise", "--noise-range", 5, 300), "which is at most 255"),
        (("--start-from", "photo", "--channels", 1), "are those of the model with --start-from"),
        (("--resume", "--denoise"), "are fixed once a run has started"),
        (("--start-from", "nothing"), "unknown model 'nothing'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    photo_folder: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    done = run("train", photo_folder, "--out", tmp_path / "run", "--epochs", 1, *options)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


# Folders.


@pytest.fixture
def folder(tmp_path: Path, gray16_folder: Path) -> Path:
    source = tmp_path / "noisy"
    (source / "deep").mkdir(parents=True)
    _, noisy = noisy_photograph(30)
    pixels = Image.fromarray(noisy.numpy().transpose(1, 2, 0))
    pixels.save(source / "a.png", icc_profile=b"profile")
    pixels.save(source / "deep/b.jpg", quality=98)
    shutil.copy(gray16_folder / "moon.png", source / "deep/moon.png")
    return source


def test_a_folder_is_denoised(folder: Path, weights: Path, tmp_path: Path) -> None:
    done = run("denoise", folder, "-o", tmp_path / "clean", "--sigma", 30, "--model", weights)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("3 images denoised: sigma 30.0 to 30.0")
    names = sorted(path.relative_to(tmp_path / "clean").as_posix() for path in (tmp_path / "clean").rglob("*.png"))
    assert names == ["a.png", "deep/b.jpg.png", "deep/moon.png"]
    clean, noisy = noisy_photograph(30)
    with Image.open(tmp_path / "clean/a.png") as image:
        assert image.info["icc_profile"] == b"profile"
        pixels = np.asarray(image)
    assert mse(torch.from_numpy(pixels.transpose(2, 0, 1).copy()), clean) < mse(noisy, clean)
    with Image.open(tmp_path / "clean/deep/moon.png") as image:
        assert image.mode == "I;16"


def test_the_outcome_as_json_tells_each_sigma(folder: Path, weights: Path, tmp_path: Path) -> None:
    done = run("denoise", folder, "-o", tmp_path / "clean", "--model", weights, "--json")
    outcome = json.loads(done.stdout)
    assert outcome["done"] == 3
    assert outcome["sigmas"]["a.png"] == pytest.approx(30, rel=0.2)


def test_the_same_command_again_does_nothing(folder: Path, weights: Path, tmp_path: Path) -> None:
    command = ("denoise", folder, "-o", tmp_path / "clean", "--sigma", 30, "--model", weights)
    run(*command)
    before = (tmp_path / "clean/a.png").stat().st_mtime_ns
    done = run(*command)
    assert (done.exit_code, done.stdout.strip()) == (0, "0 images denoised, 3 there already")
    assert (tmp_path / "clean/a.png").stat().st_mtime_ns == before


def test_a_broken_image_is_one_line(folder: Path, weights: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    done = run("denoise", folder, "-o", tmp_path / "clean", "--sigma", 30, "--model", weights)
    assert done.exit_code == 1
    assert "3 images denoised, 1 failed" in done.stdout
    assert "broken.png: " in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sigma", "lots"), "'lots' is neither a number nor auto"),
        (("--sigma", 80), "from 0 to 75"),
        (("--model", "photo"), "no denoiser"),
    ],
)
def test_wrong_use_is_told_and_writes_nothing(
    folder: Path, weights: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    done = run("denoise", folder, "-o", tmp_path / "clean", "--model", weights, *options)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert not (tmp_path / "clean").exists()


def test_the_output_must_not_be_the_input(folder: Path, weights: Path) -> None:
    done = run("denoise", folder, "-o", folder, "--model", weights)
    assert done.exit_code == 2
    assert "must not be the input folder" in done.stderr


def test_twelve_bits_of_sixteen_are_denoised_as_eight(weights: Path, tmp_path: Path) -> None:
    clean, noisy = (image[:1].numpy()[0] for image in noisy_photograph(40))
    clean[0, :2] = noisy[0, :2] = 0, 255
    (tmp_path / "in").mkdir()
    Image.fromarray(noisy.astype(np.uint16) * 16).save(tmp_path / "in/a.png")
    done = run("denoise", tmp_path / "in", "-o", tmp_path / "out", "--model", weights, "--json")
    assert json.loads(done.stdout)["sigmas"]["a.png"] == pytest.approx(40, rel=0.2)
    with Image.open(tmp_path / "out/a.png") as image:
        error = np.square(np.asarray(image) / 16 - clean).mean()
    assert error < 0.6 * np.square(noisy.astype(float) - clean).mean()


def test_a_dicom_file_says_that_its_pixels_are_others(weights: Path, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from .medical_files import dicom, slice_of

    (tmp_path / "in").mkdir()
    dicom(tmp_path / "in/s.dcm", slice_of("camera"))
    done = run("denoise", tmp_path / "in", "-o", tmp_path / "out", "--sigma", 30, "--format", "original", "--model", weights)
    assert done.exit_code == 0, done.output
    data = pydicom.dcmread(tmp_path / "out/s.dcm")
    assert data.ImageType[0] == "DERIVED"
    assert "noise taken out" in data.DerivationDescription


def test_estimates_are_one_kind_of_note(folder: Path, weights: Path, tmp_path: Path) -> None:
    done = run("denoise", folder, "-o", tmp_path / "clean", "--model", weights)
    assert [line for line in done.stderr.splitlines() if line.startswith("note: ")] == [
        "note: 3 files: the noise was estimated; the manifest in the output folder tells which"
    ]


def test_volumes_of_labels_are_not_mixed(tmp_path: Path, denoiser: Denoiser) -> None:
    (tmp_path / "scans").mkdir()
    nifti(tmp_path / "scans" / "seg.nii.gz", (np.indices((64, 64, 2)).sum(0) // 40).astype(np.uint8))
    nifti(tmp_path / "scans" / "t1.nii.gz", volume(2))
    outcome, _ = denoise_folder(tmp_path / "scans", tmp_path / "clean", denoiser, sigma=25.0)
    assert [(Path(path).name, reason) for path, reason in outcome.failed] == [
        ("seg.nii.gz", "its few values look like labels, which denoising would mix: keep it out of the folder")
    ]
    assert outcome.done == 1
