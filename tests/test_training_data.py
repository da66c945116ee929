"""Crops of a folder of images."""

from __future__ import annotations

import itertools
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vaetools.errors import TrainingError, UsageError
from vaetools.images.read import read_for_training
from vaetools.model.config import preset
from vaetools.model.tables import ProbabilityTables
from vaetools.model.vae import VAE
from vaetools.training.calibration import calibrate
from vaetools.training.data import CropSampler, ImageCache, Prefetcher, made_smaller, patch_basis, to_unit_range
from vaetools.training.settings import TrainingSettings

from .conftest import PHOTOGRAPHS, photograph, tiny

PLENTY = 1 << 30
IMAGE_BYTES = 192 * 160 * 3
seeds = st.integers(0, 2**32)
steps = st.integers(0, 10**7)


@pytest.fixture(scope="module")
def cache(photo_folder: Path) -> ImageCache:
    return ImageCache.load(photo_folder, tiny(), PLENTY)


# The cache.


def test_every_image_is_held(cache: ImageCache, photo_folder: Path) -> None:
    assert [path.stem for path in cache.paths] == sorted(PHOTOGRAPHS)
    assert cache.sizes == [(160, 192)] * 4
    for index, path in enumerate(cache.paths):
        np.testing.assert_array_equal(cache.image(index), read_for_training(path))


@pytest.mark.parametrize("held", [0, 1, 3])
def test_memory_limit_is_kept_and_the_rest_is_served_alike(photo_folder: Path, cache: ImageCache, held: int) -> None:
    limited = ImageCache.load(photo_folder, tiny(), held * IMAGE_BYTES + 10)
    assert len(limited) == 4
    assert sum(image.nbytes for image in limited.decoded.values()) == held * IMAGE_BYTES
    ours, theirs = CropSampler(limited, 0).batch(3, 32, 16), CropSampler(cache, 0).batch(3, 32, 16)
    np.testing.assert_array_equal(ours.images, theirs.images)


def test_unreadable_images_are_left_out_and_named(photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "photos")
    (tmp_path / "photos" / "broken.png").write_text("no image")
    cut = tmp_path / "photos" / "cut.png"
    cut.write_bytes((photo_folder / "coffee.png").read_bytes()[:5000])
    cache = ImageCache.load(tmp_path / "photos", tiny(), PLENTY)
    assert len(cache) == 4
    assert [line.split(":")[0].rpartition("/")[2] for line in cache.unreadable] == ["broken.png", "cut.png"]


def test_folder_of_unreadable_images_stops_the_training(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(TrainingError, match=r"none of the 1 images can be read; the first: .*a\.png"):
        ImageCache.load(tmp_path, tiny(), PLENTY)


def test_empty_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image"):
        ImageCache.load(tmp_path, tiny(), PLENTY)


def test_image_that_vanishes_meanwhile_is_named(photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "photos")
    cache = ImageCache.load(tmp_path / "photos", tiny(), 0)
    (tmp_path / "photos" / "coffee.png").unlink()
    with pytest.raises(TrainingError, match=r"changed while training ran: .*coffee\.png"):
        cache.image(2)


def test_sixteen_bit_gray_keeps_its_depth(gray16_folder: Path) -> None:
    config = preset("gray16")
    cache = ImageCache.load(gray16_folder, config, PLENTY)
    image = cache.image(0)
    assert image.shape == (96, 128, 1)
    stored = np.asarray(Image.open(gray16_folder / "camera.png")).astype(np.float64)
    stretched = (stored - stored.min()) / (stored.max() - stored.min()) * 65535  # as the codec shows it to the model
    np.testing.assert_array_equal(image[:, :, 0], np.floor(stretched + 0.5))
    batch = CropSampler(cache, 0).batch(0, 64, 2)
    assert batch.images.dtype == np.uint16
    assert len(np.unique(batch.images)) > 256


# The batches.


@given(seed=seeds, step=steps)
def test_batch_is_a_function_of_seed_and_step(cache: ImageCache, seed: int, step: int) -> None:
    first, again = (CropSampler(cache, seed).batch(step, 16, 3) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.quality, again.quality)


@given(seed=seeds, step=steps)
def test_other_steps_and_seeds_give_other_batches(cache: ImageCache, seed: int, step: int) -> None:
    quality = CropSampler(cache, seed).batch(step, 16, 3).quality
    assert not np.array_equal(quality, CropSampler(cache, seed).batch(step + 1, 16, 3).quality)
    assert not np.array_equal(quality, CropSampler(cache, seed + 1).batch(step, 16, 3).quality)


@given(seed=seeds, step=steps, world=st.sampled_from([2, 3]))
def test_rows_of_the_ranks_are_the_batch_of_one(cache: ImageCache, seed: int, step: int, world: int) -> None:
    whole = CropSampler(cache, seed).batch(step, 16, 2 * world)
    parts = [CropSampler(cache, seed, rank, world).batch(step, 16, 2) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    np.testing.assert_array_equal(np.concatenate([part.quality for part in parts]), whole.quality)


@given(step=steps, size=st.integers(1, 12))
def test_qualities_are_spread_over_the_range(cache: ImageCache, step: int, size: int) -> None:
    quality = CropSampler(cache, 0).batch(step, 8, size).quality
    assert quality.dtype == np.float32
    assert (quality >= 0).all()
    assert (quality <= 1).all()
    assert sorted(np.minimum((quality * size).astype(int), size - 1)) == list(range(size))


def test_crops_are_pieces_of_the_images(cache: ImageCache) -> None:
    crop = CropSampler(cache, 0).batch(0, 32, 1).images[0]
    assert crop.shape == (3, 32, 32)
    views = [piece for flipped in (crop, crop[:, :, ::-1]) for piece in (flipped, flipped.transpose(0, 2, 1))]
    views += [view[:, ::-1] for view in views]
    corners = [np.lib.stride_tricks.sliding_window_view(cache.image(i), (32, 32), (0, 1)) for i in range(4)]
    assert any((window == view).all((2, 3, 4)).any() for window in corners for view in views)


def test_smaller_images_are_filled_with_their_edge(tmp_path: Path) -> None:
    image = photograph("coffee", 20, 9)
    image.save(tmp_path / "small.png")
    cache = ImageCache.load(tmp_path, tiny(), PLENTY)
    expected = np.pad(np.asarray(image), [(0, 23), (0, 12), (0, 0)], mode="edge").transpose(2, 0, 1)
    views = [expected, expected[:, :, ::-1], expected.transpose(0, 2, 1), expected[:, :, ::-1].transpose(0, 2, 1)]
    seen = set()
    for step in range(30):
        crop = CropSampler(cache, 0).batch(step, 32, 1).images[0]
        seen.add(next(number for number, view in enumerate(views) if np.array_equal(crop, view)))
    assert seen == {0, 1, 2, 3}
    assert cache.smaller_than(32) == 1
    assert cache.smaller_than(9) == 0


def test_larger_images_are_drawn_more_often(tmp_path: Path) -> None:
    Image.new("L", (160, 160), 255).save(tmp_path / "large.png")
    Image.new("L", (40, 40), 0).save(tmp_path / "small.png")
    sampler = CropSampler(ImageCache.load(tmp_path, tiny(), PLENTY), 0)
    white = np.mean([sampler.batch(step, 8, 50).images.mean() / 255 for step in range(8)])
    assert white == pytest.approx(0.8, abs=0.06)  # in proportion to the side


@pytest.mark.parametrize(("name", "dtype", "largest"), [("photo", np.uint8, 255), ("gray16", np.uint16, 65535)])
def test_values_come_to_the_unit_range(name: str, dtype: type, largest: int) -> None:
    images = np.array([0, 1, largest], dtype).reshape(1, 1, 1, 3)
    tensor = to_unit_range(images, preset(name), torch.device("cpu"))
    torch.testing.assert_close(tensor.flatten(), torch.tensor([0, 1 / largest, 1]))


# The thread that makes them ahead.


def test_prefetched_batches_are_those_asked_for(cache: ImageCache) -> None:
    sampler, batches = CropSampler(cache, 0), Prefetcher(CropSampler(cache, 0))
    for step in range(10):
        batches.request(step, 16, 2)
    for step in range(10):
        np.testing.assert_array_equal(batches.next().images, sampler.batch(step, 16, 2).images)
    batches.close()


def test_errors_of_the_thread_are_raised_where_the_batch_is_taken(photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "photos")
    batches = Prefetcher(CropSampler(ImageCache.load(tmp_path / "photos", tiny(), 0), 0))
    shutil.rmtree(tmp_path / "photos")
    batches.request(0, 16, 2)
    with pytest.raises(TrainingError, match="changed while training ran"):
        batches.next()
    batches.close()


def test_the_thread_ends_when_it_is_closed(cache: ImageCache) -> None:
    batches = Prefetcher(CropSampler(cache, 0))
    batches.request(0, 16, 2)
    batches.close()
    assert not any(thread.name == "crops" for thread in threading.enumerate())


# Principal components.


def test_patch_basis_is_orthonormal_and_begins_with_brightness(cache: ImageCache) -> None:
    basis = patch_basis(cache, 4, seed=0, count=4000)
    assert basis.shape == (48, 48)
    np.testing.assert_allclose(basis @ basis.T, np.eye(48), atol=1e-4)
    assert abs(basis[0].sum()) > 0.95 * 48**0.5  # one component near a constant patch holds most


def test_patch_basis_of_images_smaller_than_a_patch(tmp_path: Path) -> None:
    photograph("coffee", 3, 2).save(tmp_path / "tiny.png")
    basis = patch_basis(ImageCache.load(tmp_path, tiny(), PLENTY), 4, seed=0, count=100)
    assert np.isfinite(basis).all()


# The settings.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "either as epochs or as minutes"),
        ({"epochs": 1, "minutes": 1}, "either as epochs or as minutes"),
        ({"epochs": 0}, "above 0"),
        ({"minutes": 0.0}, "above 0"),
        ({"minutes": float("nan")}, "above 0"),
        ({"minutes": float("inf")}, "above 0"),
        ({"epochs": 1, "batch": 0}, "batch"),
        ({"epochs": 1, "learning_rate": 0.0}, "learning rate"),
        ({"epochs": 1, "learning_rate": float("nan")}, "learning rate"),
        ({"epochs": 1, "seed": -1}, "seed"),
        ({"epochs": 1, "crops": ()}, "crops"),
        ({"epochs": 1, "crops": ((0.5, 128),)}, "fraction 0"),
    ],
    ids=str,
)
def test_unusable_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingSettings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("images", "batch", "world", "expected"), [(10, 16, 1, 50), (1000, 16, 1, 63), (1600, 8, 2, 100)])
def test_an_epoch_is_a_pass_or_at_least_fifty_steps(images: int, batch: int, world: int, expected: int) -> None:
    assert TrainingSettings(epochs=1, batch=batch).epoch_steps(images, world) == expected


def test_later_crops_are_larger_and_their_batches_smaller() -> None:
    settings = TrainingSettings(epochs=1, batch=16, crops=((0.0, 64), (0.5, 128), (0.9, 512)))
    assert [settings.crop(fraction) for fraction in (0.0, 0.49, 0.5, 0.95, 1.0)] == [
        (64, 16),
        (64, 16),
        (128, 4),
        (512, 1),
        (512, 1),
    ]


def test_learning_rate_warms_up_holds_and_decays() -> None:
    settings = TrainingSettings(epochs=1, learning_rate=0.01)
    rates = [settings.rate(step, step / 1000, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(0.0001)
    assert rates[150] == pytest.approx(0.01)
    assert all(now >= later for now, later in itertools.pairwise(rates[300:]))
    assert rates[-1] == pytest.approx(0.0002)


# Calibration.


def test_calibration_counts_what_is_coded_and_no_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("astronaut", "coffee"):
        photograph(name, 50, 30).save(tmp_path / f"{name}.png")
    counts: list[np.ndarray] = []
    fit = ProbabilityTables.fit

    def note(y_counts: np.ndarray, z_counts: np.ndarray, scale: np.ndarray) -> ProbabilityTables:
        counts.extend((y_counts, z_counts))
        return fit(y_counts, z_counts, scale)

    monkeypatch.setattr(ProbabilityTables, "fit", note)
    config = tiny()
    calibrate(VAE(config).eval(), ImageCache.load(tmp_path, config, PLENTY), seed=0)
    assert counts[0].sum() == 2 * config.latent_channels * 13 * 8  # positions of 4 pixels that cover 50 x 30
    assert counts[1].sum() == 2 * config.hyper_channels * 4 * 2  # of 16 pixels, padding and all


@pytest.mark.parametrize("mirrored", [True, False])
def test_images_with_a_right_way_up_may_keep_it(cache: ImageCache, mirrored: bool) -> None:
    sampler, ways = CropSampler(cache, 0, mirrored=mirrored), set()
    images = [cache.image(i).transpose(2, 0, 1) for i in range(len(cache))]
    for step in range(12):
        crop = sampler.batch(step, 160, 1).images[0]
        upright = any((crop == image[:, :160, left : left + 160]).all() for image in images for left in range(33))
        ways.add(upright)
    assert ways == ({True, False} if mirrored else {True})


# Images made smaller.


def places_of(crop: np.ndarray, cache: ImageCache) -> int:
    """In how many images a crop (C, 96, 96) stands as it is, at any place."""
    count = 0
    for number in range(len(cache)):
        windows = np.lib.stride_tricks.sliding_window_view(cache.image(number), (96, 96), axis=(0, 1))  # type: ignore[call-overload]
        corner = (windows[..., 0, 0] == crop[:, 0, 0]).all(-1)
        count += any((window == crop).all() for window in windows[corner])
    return count


def test_three_crops_in_four_are_of_images_made_smaller(cache: ImageCache) -> None:
    crops = CropSampler(cache, 0, mirrored=False, smallest_scale=0.6).batch(0, 96, 80).images
    assert crops.shape == (80, 3, 96, 96)
    as_they_are = sum(places_of(crop, cache) > 0 for crop in crops)
    assert 10 <= as_they_are <= 32


def test_no_image_is_made_smaller_unless_asked_for(cache: ImageCache) -> None:
    crops = CropSampler(cache, 0, mirrored=False).batch(0, 96, 12).images
    assert all(places_of(crop, cache) for crop in crops)


def test_smaller_images_are_drawn_from_the_seed_and_the_step_alone(cache: ImageCache) -> None:
    first, again = (CropSampler(cache, 5, smallest_scale=0.4).batch(9, 64, 8) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    other = CropSampler(cache, 6, smallest_scale=0.4).batch(9, 64, 8)
    assert (first.images != other.images).any()


@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (1, np.uint8), (1, np.uint16)])
def test_made_smaller_keeps_type_level_and_place(channels: int, dtype: type[np.generic]) -> None:
    highest = np.iinfo(dtype).max  # type: ignore[arg-type]
    ramp = np.linspace(0, highest, 200).astype(dtype)
    piece = np.repeat(np.tile(ramp, (200, 1))[:, :, None], channels, 2)
    small = made_smaller(piece, 80)
    assert small.dtype == dtype
    assert small.shape == (80, 80, channels)
    expected = np.interp((np.arange(80) + 0.5) * 2.5 - 0.5, np.arange(200), ramp.astype(float))
    np.testing.assert_allclose(small[40, 4:-4, 0], expected[4:-4], atol=0.006 * highest)


def test_fine_stripes_become_gray_when_made_smaller_and_do_not_beat() -> None:
    stripes = np.zeros((192, 192, 3), np.uint8)
    stripes[:, ::2] = 200
    small = made_smaller(stripes, 64)
    assert np.ptp(small[8:-8, 8:-8].astype(int)) <= 12


def test_images_hardly_larger_than_the_crop_are_taken_whole(tmp_path: Path) -> None:
    photograph("coffee", 100, 70).save(tmp_path / "coffee.png")
    cache = ImageCache.load(tmp_path, tiny(), PLENTY)
    images = CropSampler(cache, 0, smallest_scale=0.1).batch(0, 64, 16).images
    assert images.shape == (16, 3, 64, 64)
    assert CropSampler(cache, 0, smallest_scale=0.1).batch(0, 128, 2).images.shape == (2, 3, 128, 128)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, float("nan")])
def test_scales_that_make_no_image_smaller_are_refused(scale: float) -> None:
    with pytest.raises(UsageError, match="smallest scale"):
        TrainingSettings(epochs=1, smallest_scale=scale)
