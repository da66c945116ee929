"""Measuring codecs: quality, BD-rate, the evaluation of a folder, and what it writes."""

from __future__ import annotations

import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from vaetools.cli import main
from vaetools.codec.codec import Restored
from vaetools.errors import ImageError, UsageError
from vaetools.evaluation import report
from vaetools.evaluation.bd_rate import Anchors, Curve, bd_rate, load_anchors
from vaetools.evaluation.measure import Evaluation, evaluate
from vaetools.evaluation.peers import PEERS, PillowPeer, VaetoolsPeer, find_peers
from vaetools.evaluation.quality import ms_ssim, psnr
from vaetools.images.picture import Picture
from vaetools.model.vae import VAE
from vaetools.model.weights import save_weights

from .conftest import tiny
from .test_codec import flat_tables


class PNGCodec:
    """The interface of Codec; coarser quality is coarser rounding before a lossless file."""

    device = torch.device("cpu")

    def compress(self, images: list[torch.Tensor], quality: float = 60.0, batch_size: int = 8, *, effort: int = 0) -> list[bytes]:
        step = 1 + int((100 - quality) / 4)
        files = []
        for image in images:
            rounded = ((image.int() // step) * step + step // 2).clamp(0, 255).to(torch.uint8)
            file = io.BytesIO()
            Image.fromarray(rounded.permute(1, 2, 0).numpy()).save(file, "PNG")
            files.append(file.getvalue())
        return files

    def decode(self, files: list[bytes], batch_size: int = 8) -> list[Restored]:
        return [Restored(Picture(np.array(Image.open(io.BytesIO(file))))) for file in files]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[:192, 100:308])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photograph: np.ndarray) -> Path:
    root = tmp_path_factory.mktemp("images")
    (root / "cats").mkdir()
    Image.fromarray(photograph).save(root / "a.png")
    Image.fromarray(skimage.data.chelsea()[100:180, 100:220]).save(root / "cats" / "b.png")
    (root / "broken.png").write_bytes(b"\x89PNG no more")
    return root


@pytest.fixture(scope="module")
def evaluation(folder: Path) -> Evaluation:
    anchors = Anchors("other images", (Curve("published", (0.1, 2.0, 30.0), (20.0, 30.0, 60.0)),))
    return evaluate(folder, PNGCodec(), find_peers(["jpeg", "webp"]), anchors, qualities=(0, 50, 90))


# Quality.


def test_psnr_is_the_formula(photograph: np.ndarray) -> None:
    noisy = (photograph.astype(int) + np.random.default_rng(0).integers(-9, 10, photograph.shape)).clip(0, 255).astype(np.uint8)
    mse = np.mean((photograph.astype(float) - noisy.astype(float)) ** 2)
    assert psnr(photograph, noisy) == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-9)


def test_psnr_of_black_and_white_is_zero() -> None:
    assert psnr(np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)) == 0


def test_identical_images_are_infinitely_good(photograph: np.ndarray) -> None:
    assert psnr(photograph, photograph) == math.inf
    assert ms_ssim(photograph, photograph) == pytest.approx(1)


def test_ms_ssim_falls_as_the_image_gets_worse(photograph: np.ndarray) -> None:
    values = [ms_ssim(photograph, PEERS["jpeg"].decode(PEERS["jpeg"].encode(photograph, q))) for q in (90, 40, 5)]
    assert 1 > values[0] > values[1] > values[2] > 0


@pytest.mark.parametrize(("side", "measured"), [(160, False), (161, True)])
def test_ms_ssim_needs_161_pixels(photograph: np.ndarray, side: int, measured: bool) -> None:
    assert math.isnan(ms_ssim(photograph[:side], photograph[:side])) is not measured


def test_images_of_different_shapes_are_refused(photograph: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"\(192, 208, 3\).*\(100, 208, 3\)"):
        psnr(photograph, photograph[:100])


# Peers.


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_gives_the_image_back_larger_and_better_with_each_setting(name: str) -> None:
    peer, image = PEERS[name], np.ascontiguousarray(skimage.data.astronaut()[:96, 150:250])
    lengths, qualities = [], []
    for setting in peer.settings:
        data = peer.encode(image, setting)
        lengths.append(len(data))
        qualities.append(psnr(image, peer.decode(data)))
    assert lengths == sorted(lengths)
    assert qualities == sorted(qualities)
    assert qualities[-1] > 32


def test_the_vaetools_peer_calls_the_codec(photograph: np.ndarray) -> None:
    peer = VaetoolsPeer(PNGCodec())
    assert np.array_equal(peer.decode(peer.encode(photograph, 100)), photograph)


def test_unknown_peers_are_named() -> None:
    with pytest.raises(UsageError, match=r"'gif'.*jpeg, webp, avif"):
        find_peers(["webp", "gif"])


def test_peers_keep_their_order_and_come_once() -> None:
    assert [peer.name for peer in find_peers(["webp", "jpeg", "webp"])] == ["webp", "jpeg"]


def test_an_image_that_a_format_cannot_hold_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="webp cannot hold an image of 16384 x 1"):
        PEERS["webp"].encode(np.zeros((1, 16384, 3), np.uint8), 50)


# BD-rate.

RATES, QUALITIES_DB = (0.1, 0.2, 0.4, 0.8, 1.6), (28.0, 30.5, 33.0, 36.0, 39.0)


def scaled(factor: float, shift: float = 0.0) -> Curve:
    return Curve("test", tuple(factor * rate for rate in RATES), tuple(quality + shift for quality in QUALITIES_DB))


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.25])
def test_scaled_rates_are_that_many_percent(factor: float) -> None:
    result = bd_rate(scaled(factor), scaled(1))
    assert result.percent == pytest.approx(100 * (factor - 1), abs=1e-9)
    assert (result.low_db, result.high_db, result.reason) == (28, 39, None)


def test_a_straight_line_shifted_in_psnr_by_hand() -> None:
    # log10(bpp) = psnr / 10 - 3: one dB more for the same bits is 10 ** -0.1 of the bits.
    qualities = (20.0, 25.0, 30.0, 35.0)
    rates = tuple(10 ** (quality / 10 - 3) for quality in qualities)
    result = bd_rate(Curve("test", rates, tuple(quality + 1 for quality in qualities)), Curve("reference", rates, qualities))
    assert result.percent == pytest.approx(100 * (10**-0.1 - 1), abs=1e-6)
    assert (result.low_db, result.high_db) == (21, 35)


def test_the_order_of_points_does_not_matter() -> None:
    backwards = Curve("test", RATES[::-1], QUALITIES_DB[::-1])
    assert bd_rate(backwards, scaled(0.8)).percent == pytest.approx(25)


def test_points_that_cost_more_for_no_more_quality_are_left_out() -> None:
    wasteful = Curve("test", (*RATES, 3.0, 5.0), (*QUALITIES_DB, 39.0, math.inf))
    assert bd_rate(wasteful, scaled(1)).percent == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("shift", "reason"),
    [(20, "test and test share no PSNR"), (10.75, "test and test share only 0.25 dB")],
    ids=["apart", "narrow"],
)
def test_curves_that_hardly_overlap_have_no_bd_rate(shift: float, reason: str) -> None:
    result = bd_rate(scaled(1, shift), scaled(1))
    assert (result.percent, result.low_db, result.high_db, result.reason) == (None, None, None, reason)


def test_one_point_is_no_curve() -> None:
    result = bd_rate(Curve("lonely", (1.0,), (30.0,)), scaled(1))
    assert result.percent is None
    assert result.reason is not None
    assert result.reason.startswith("lonely: too few usable points (1)")


def test_anchors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "anchors.json"
    path.write_text('{"dataset": "two images", "codecs": {"old": {"bpp": [1, 0.5], "psnr": [30, 25.5]}}}')
    assert load_anchors(path) == Anchors("two images", (Curve("old", (1.0, 0.5), (30.0, 25.5)),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "no anchors"),
        ('{"codecs": {"old": {"bpp": [1]}}}', "'old' needs the lists"),
        ('{"codecs": {"old": {"bpp": [1], "psnr": ["x"]}}}', "'old' needs the lists"),
        ('{"codecs": {"old": {"bpp": [1], "psnr": [1, 2]}}}', "1 values of bpp but 2 of psnr"),
    ],
    ids=["broken", "list", "missing", "words", "uneven"],
)
def test_bad_anchors_are_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "anchors.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_anchors(path)


def test_missing_anchors_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json: cannot be read"):
        load_anchors(tmp_path / "none.json")


# A folder.


def test_every_image_codec_and_setting_has_a_row(evaluation: Evaluation) -> None:
    settings = 3 + len(PEERS["jpeg"].settings) + len(PEERS["webp"].settings)
    assert len({(row.image, row.codec, row.setting) for row in evaluation.rows}) == len(evaluation.rows) == 2 * settings
    assert {row.image for row in evaluation.rows} == {"a.png", "cats/b.png"}
    assert evaluation.codecs == ["vaetools", "jpeg", "webp"]


def test_a_row_tells_the_bytes_of_the_file(evaluation: Evaluation, photograph: np.ndarray) -> None:
    data = PEERS["jpeg"].encode(photograph, 45)
    (row,) = (row for row in evaluation.rows if (row.image, row.codec, row.setting) == ("a.png", "jpeg", 45))
    assert (row.file_bytes, row.width, row.height) == (len(data), 208, 192)
    assert row.bpp == 8 * len(data) / (192 * 208)
    assert row.psnr_db == psnr(photograph, PEERS["jpeg"].decode(data))
    assert row.encode_seconds > 0 < row.decode_seconds


def test_averages_are_means_of_the_images_and_not_of_the_pixels(evaluation: Evaluation) -> None:
    rows = [row for row in evaluation.rows if (row.codec, row.setting) == ("jpeg", 45)]
    (point,) = (point for point in evaluation.averages if (point.codec, point.setting) == ("jpeg", 45))
    assert point.bpp == pytest.approx(sum(row.bpp for row in rows) / 2)
    assert point.psnr_db == pytest.approx(sum(row.psnr_db for row in rows) / 2)
    assert point.images == 2


def test_an_average_ms_ssim_leaves_small_images_out(evaluation: Evaluation) -> None:
    large, small = (row.ms_ssim for row in evaluation.rows if (row.codec, row.setting) == ("jpeg", 45))
    assert math.isnan(small)
    assert next(point.ms_ssim for point in evaluation.averages if (point.codec, point.setting) == ("jpeg", 45)) == large


def test_speed_counts_all_pixels_over_all_seconds(evaluation: Evaluation) -> None:
    rows = [row for row in evaluation.rows if row.codec == "webp"]
    speed = next(speed for speed in evaluation.speeds if speed.codec == "webp")
    assert speed.encode_mp_per_s == pytest.approx(sum(row.pixels for row in rows) / 1e6 / sum(row.encode_seconds for row in rows))


def test_bd_rates_are_against_peers_and_anchors(evaluation: Evaluation) -> None:
    assert [(c.against, c.published) for c in evaluation.comparisons] == [("jpeg", False), ("webp", False), ("published", True)]
    expected = bd_rate(evaluation.curve("vaetools"), evaluation.curve("jpeg"))
    assert evaluation.comparisons[0].result == expected
    assert expected.percent is not None
    assert expected.percent > 0


def test_an_unreadable_image_is_listed_and_left_out(evaluation: Evaluation) -> None:
    (left,) = evaluation.left_out
    assert left.image == "broken.png"
    assert left.reason.startswith("cannot be read")


def test_an_image_that_one_codec_cannot_hold_is_left_out_for_all(folder: Path) -> None:
    class Picky(PillowPeer):
        def encode(self, rgb: np.ndarray, setting: float) -> bytes:
            if rgb.shape[0] == 80:
                raise ImageError("too flat")
            return super().encode(rgb, setting)

    result = evaluate(folder, PNGCodec(), [Picky("picky", "JPEG", (50,))], qualities=(0, 90))
    assert {row.image for row in result.rows} == {"a.png"}
    assert [left.image for left in result.left_out] == ["broken.png", "cats/b.png"]


def test_a_gray_image_is_measured(tmp_path: Path) -> None:
    Image.fromarray(skimage.data.camera()[:64, :96]).save(tmp_path / "gray.png")
    result = evaluate(tmp_path, PNGCodec(), find_peers(["jpeg"]), qualities=(50,))
    assert {(row.width, row.height) for row in result.rows} == {(96, 64)}


def test_progress_is_told_for_each_image(folder: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    evaluate(folder, PNGCodec(), qualities=(0,), progress=lambda *call: calls.append(call))
    assert calls == [(1, 3, "a.png"), (2, 3, "broken.png"), (3, 3, "cats/b.png")]


def test_a_folder_without_a_readable_image_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"none of its 1 images can be measured; the first, x\.png"):
        evaluate(tmp_path, PNGCodec())


# What is written.


def test_the_json_has_units_machine_and_command(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    report.write_json(evaluation, path, "vaetools eval images")
    content = json.loads(path.read_text())
    assert (content["schema"], content["command"], content["images"]) == (report.SCHEMA, "vaetools eval images", 2)
    assert content["machine"]["torch_version"] == torch.__version__
    assert content["machine"]["torch_threads"] == torch.get_num_threads()
    assert content["machine"]["processor"]
    assert set(content["averages"][0]) == {"codec", "setting", "images", "bpp", "psnr_db", "ms_ssim"}
    assert {"file_bytes", "bpp", "psnr_db", "encode_seconds", "decode_seconds"} < set(content["rows"][0])
    assert {"bd_rate_percent", "psnr_low_db", "psnr_high_db", "reason"} < set(content["bd_rate"][0])
    assert {"how", "encode_mp_per_s", "decode_mp_per_s"} < set(content["codecs"][0])
    assert content["left_out"][0]["image"] == "broken.png"


def test_the_json_has_null_where_there_is_no_number(evaluation: Evaluation) -> None:
    rows = report.to_json(evaluation, "")["rows"]
    assert {row["ms_ssim"] is None for row in rows if row["image"] == "cats/b.png"} == {True}


def test_the_tables_tell_windows_and_what_was_left_out(evaluation: Evaluation) -> None:
    console = Console(file=io.StringIO(), width=80)
    report.print_report(evaluation, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    result = evaluation.comparisons[0].result
    assert f"{result.low_db:.2f}..{result.high_db:.2f} dB" in text
    assert "left out: broken.png" in text
    assert "published (published)" in text
    assert "other images" in text
    assert "cats/b.png" in text


def test_the_plot_is_a_picture_of_all_curves(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    report.save_plot(evaluation, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) >= 600
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    wanted = {tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in (*report.COLOURS[:3], report.PUBLISHED_COLOUR)}
    assert wanted <= colours


@pytest.mark.parametrize("qualities", [(100,), (50,)], ids=["identical", "one point"])
def test_a_plot_needs_no_whole_curve(folder: Path, tmp_path: Path, qualities: tuple[float, ...]) -> None:
    path = tmp_path / "plot.png"
    result = evaluate(folder, PNGCodec(), qualities=qualities)
    report.save_plot(result, path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("write", ["write_json", "save_plot"])
def test_a_place_that_cannot_be_written_is_a_usage_error(evaluation: Evaluation, tmp_path: Path, write: str) -> None:
    path = tmp_path / "missing" / "file"
    with pytest.raises(UsageError, match="missing/file: cannot be written"):
        report.write_json(evaluation, path, "") if write == "write_json" else report.save_plot(evaluation, path)


@pytest.mark.parametrize("heights", [[1.0, 1.0, 1.0], [3.0, 0.0, 2.9, 9.0], []])
def test_labels_are_spread_in_their_order(heights: list[float]) -> None:
    moved = report.spread(heights, 0.5)
    assert sum(moved) == pytest.approx(sum(heights))
    in_order = [moved[index] for index in np.argsort(heights, kind="stable")]
    assert all(upper - lower > 0.5 - 1e-9 for lower, upper in itertools.pairwise(in_order))


def test_an_image_that_comes_back_identical_is_in_no_average(tmp_path: Path, photograph: np.ndarray) -> None:
    Image.fromarray(photograph).save(tmp_path / "a.png")
    Image.fromarray(np.full((64, 64, 3), 19, np.uint8)).save(tmp_path / "flat.png")  # 1 * 13 + 6, as quality 50 rounds
    result = evaluate(tmp_path, PNGCodec(), qualities=(0, 50, 100))
    assert [(left.image, left.reason) for left in result.left_out] == [
        ("flat.png", "vaetools gives it back as it was at setting 50: without a PSNR, it is in no average")
    ]
    alone = {row.setting: row.psnr_db for row in result.rows if row.image == "a.png"}
    assert {point.setting: (point.images, point.psnr_db) for point in result.averages} == {
        setting: (1, value) for setting, value in alone.items()
    }
    assert alone[100] == math.inf  # as all are
    Image.fromarray(np.full((64, 64, 3), 13, np.uint8)).save(tmp_path / "a.png")  # as quality 0 rounds
    assert evaluate(tmp_path, PNGCodec(), qualities=(0, 50)).left_out == ()


def test_a_gray_model_is_refused(folder: Path, tmp_path: Path) -> None:
    config = tiny(image_channels=1)
    weights = save_weights(VAE(config), flat_tables(config.hyper_channels), tmp_path)
    done = CliRunner().invoke(main, ["eval", str(folder), "--against", "none", "--model", str(weights)])
    assert done.exit_code == 2
    assert "is for gray images" in done.stderr
