"""The benchmark script: what it times, and what it times it beside."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import skimage.data
import torch

from vaetools import Codec
from vaetools.evaluation.peers import PEERS, VaetoolsPeer
from vaetools.foreign.config import MEAN_SCALE

from .compressai_models import saved
from .test_evaluation import PNGCodec

BENCH = Path(__file__).parent.parent / "scripts" / "bench-codec"


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[:192, 100:308])


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("bench_codec", str(BENCH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_codec", loader))  # type: ignore[arg-type]
    sys.modules["bench_codec"] = module
    loader.exec_module(module)
    return module


def test_the_benchmark_measures_whole_files(bench: ModuleType, photograph: np.ndarray) -> None:
    contenders = [bench.Contender(VaetoolsPeer(PNGCodec()), 60), bench.Contender(PEERS["jpeg"], 45)]
    own, jpeg = bench.measure(contenders, [photograph], 2)
    assert jpeg.bpp == 8 * len(PEERS["jpeg"].encode(photograph, 45)) / photograph[:, :, 0].size
    assert own.encode_mp_per_s > 0 < own.decode_mp_per_s
    assert math.isnan(jpeg.encode_ratio)


def test_the_benchmark_chooses_settings_of_about_the_same_size(bench: ModuleType, photograph: np.ndarray) -> None:
    bpp = 8 * len(PEERS["webp"].encode(photograph, 35)) / photograph[:, :, 0].size
    assert bench.nearest_setting(PEERS["webp"], [photograph], bpp) == 35


@pytest.mark.parametrize(("deviation", "bits"), [(1e-3, 0.0), (16.0, math.log2(16 * math.sqrt(2 * math.pi * math.e)))])
def test_bits_of_a_rounded_normal(bench: ModuleType, deviation: float, bits: float) -> None:
    assert float(bench.bits_of_rounded_normal(torch.tensor([deviation]))[0]) == pytest.approx(bits, abs=1e-3)


def test_a_checkpoint_is_measured_in_both_containers(bench: ModuleType, photograph: np.ndarray, tmp_path: Path) -> None:
    peer = bench.CompressAIPeer(photograph[:, :192], torch.device("cpu"), saved(MEAN_SCALE, tmp_path))
    contenders = [bench.Contender(peer, 4.0), bench.Contender(bench.imported(peer), 0.0)]
    own, other = bench.measure(contenders, [photograph[:, :192]], 1)
    assert (own.codec, other.codec, own.encode_ratio) == (bench.REFERENCE, bench.IMPORTED, 1.0)
    assert other.psnr_db == pytest.approx(own.psnr_db, abs=0.01)
    assert 0 < other.bpp - own.bpp < 8 * 160 / photograph[:, :192, 0].size + 0.01 * own.bpp


@pytest.mark.slow
def test_the_reference_codes_latents_of_the_size_it_is_published_with(bench: ModuleType, photograph: np.ndarray) -> None:
    image = photograph[:190, :192]
    peer = bench.CompressAIPeer(image, torch.device("cpu"))
    data = peer.encode(image, 4)
    assert peer.decode(data).shape == image.shape
    height, width, y_length, z_length = bench.HEADER.unpack_from(data)
    assert (height, width, bench.HEADER.size + y_length + z_length) == (190, 192, len(data))
    assert 8 * y_length / (192 * 192) == pytest.approx(bench.REFERENCE_BPP, rel=0.25)


def test_the_arithmetic_of_the_network_is_counted(bench: ModuleType) -> None:
    encode, decode = bench.arithmetic(Codec.load("photo", "cpu"))
    assert encode == pytest.approx(21.3, abs=0.1)
    assert decode == pytest.approx(24.6, abs=0.1)
