"""DICOM and NIfTI through the commands: compress, decompress, info, compare, verify, train, augment."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vaetools import Codec
from vaetools.cli import main
from vaetools.codec.container import ERRORS, SCAN, TAGS, unpack, with_box
from vaetools.codec.fidelity import Fidelity
from vaetools.errors import Corrupt, Desync, UsageError
from vaetools.folder.job import compress_folder, decompress_folder
from vaetools.folder.ledger import Outcome
from vaetools.folder.manifest import Entry, Manifest
from vaetools.folder.names import format_of_name, restored_name
from vaetools.images.collection import Collection
from vaetools.images.folder import list_images
from vaetools.images.read import read_picture

from . import medical_files as files

TWELVE, SIXTEEN, VOLUME, FLOATS = "twelve.dcm", "deep/sixteen.dcm", "volume.nii.gz", "floats.nii"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load("photo", "cpu")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 12-bit and a 16-bit DICOM file, a volume of 16 bits and one of floats, and a PNG of 16 bits."""
    folder = tmp_path_factory.mktemp("scans")
    (folder / "deep").mkdir()
    files.dicom(
        folder / TWELVE, files.slice_of("camera"), RescaleSlope=0.5, RescaleIntercept=0, WindowCenter=700, WindowWidth=1000
    )
    files.packaged("CT_small.dcm", folder, SIXTEEN)
    files.nifti(folder / VOLUME, files.volume())
    files.packaged("reoriented_anat_moved.nii", folder, FLOATS)
    Image.fromarray(files.slice_of("moon", 64)).save(folder / "deep.png")
    return folder


@pytest.fixture(scope="module")
def compressed(scans: Path, codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("compressed")
    return folder, compress_folder(scans, folder, codec, errors=True, verify=True, preview=True)


@pytest.fixture(scope="module")
def restored(compressed: tuple[Path, Outcome], codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restored")
    assert decompress_folder(compressed[0], folder, codec).failed == []
    return folder


def entry(folder: Path, name: str) -> Entry:
    found = Manifest.read(folder).last(name, f"{name}.vtc")
    assert found is not None
    return found


def values(path: Path) -> np.ndarray:
    if path.suffix == ".dcm":
        return pydicom.dcmread(path).pixel_array.astype(np.float64)
    return np.asarray(nibabel.load(path).dataobj.get_unscaled(), np.float64)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", [TWELVE, SIXTEEN, VOLUME, FLOATS])
def test_the_stated_error_is_the_one_that_comes_back(
    name: str, scans: Path, compressed: tuple[Path, Outcome], restored: Path
) -> None:
    stated = entry(compressed[0], name)
    assert stated.max_error is not None
    assert stated.range_psnr is not None
    before, after = values(scans / name), values(restored / name)
    largest = np.abs(before - after).max()
    if name == FLOATS:
        assert 0.9 * stated.max_error < largest <= stated.max_error
    else:
        assert largest == stated.max_error > 0
    psnr = 10 * np.log10((before.max() - before.min()) ** 2 / ((before - after) ** 2).mean())
    assert psnr == pytest.approx(stated.range_psnr, abs=1e-3)


def test_the_error_is_stated_in_real_units_too(compressed: tuple[Path, Outcome]) -> None:
    stated = entry(compressed[0], TWELVE)
    assert stated.real_error == pytest.approx(0.5 * stated.max_error)  # type: ignore[operator]


def test_geometry_and_types_come_back(scans: Path, restored: Path) -> None:
    for name in (TWELVE, SIXTEEN):
        before, after = pydicom.dcmread(scans / name), pydicom.dcmread(restored / name)
        for keyword in ("PixelSpacing", "ImagePositionPatient", "BitsStored", "PixelRepresentation", "RescaleSlope"):
            assert after[keyword].value == before[keyword].value
        assert after.LossyImageCompression == "01"
        assert after.PatientName == ""
    assert (pydicom.dcmread(restored / TWELVE).WindowCenter, pydicom.dcmread(restored / TWELVE).WindowWidth) == (700, 1000)
    for name in (VOLUME, FLOATS):
        first, second = nibabel.load(scans / name), nibabel.load(restored / name)
        assert (second.shape, second.get_data_dtype()) == (first.shape, first.get_data_dtype())
        np.testing.assert_array_equal(second.affine, first.affine)


def test_other_images_are_restored_as_before(restored: Path) -> None:
    with Image.open(restored / "deep.png") as image:
        assert image.mode == "I;16"


def test_the_summary_tells_the_worst(compressed: tuple[Path, Outcome]) -> None:
    folder, outcome = compressed
    names = [TWELVE, SIXTEEN, VOLUME, FLOATS, "deep.png"]
    assert outcome.measured == outcome.verified == 5
    assert outcome.largest_error == max(entry(folder, name).max_error or 0 for name in names)
    assert outcome.lowest_range_psnr == pytest.approx(min(entry(folder, name).range_psnr or 0 for name in names), abs=1e-3)


def test_neither_a_batch_nor_threads_change_a_level(
    compressed: tuple[Path, Outcome], codec: Codec, threads: Callable[[int], None]
) -> None:
    data = [(compressed[0] / f"{name}.vtc").read_bytes() for name in (TWELVE, SIXTEEN, VOLUME)]
    threads(3)
    together = codec.decode([*data, data[0]])
    threads(1)
    for one, restored in zip(data, together, strict=False):
        np.testing.assert_array_equal(codec.decode([one])[0].picture.pixels, restored.picture.pixels)


def test_info_tells_errors_and_window(compressed: tuple[Path, Outcome]) -> None:
    folder = compressed[0]
    done = run("info", "--json", folder / f"{TWELVE}.vtc", folder / f"{FLOATS}.vtc", folder / "deep.png.vtc")
    twelve, floats, png = json.loads(done.stdout)
    stated = entry(folder, TWELVE)
    assert (twelve["max_abs_error"], twelve["max_real_error"]) == (stated.max_error, stated.real_error)
    assert twelve["range_psnr_db"] == pytest.approx(stated.range_psnr, abs=0.01)
    assert twelve["source_format"] == "DICOM"
    assert twelve["window"] == "centre 700, width 1000"
    assert twelve["stored_values"] == "12 bits, unsigned: 1 x pixel +0"
    assert twelve["tags"] == "not kept"
    assert floats["max_abs_error"] == entry(folder, FLOATS).max_error
    assert "window" not in png
    assert png["max_abs_error"] == entry(folder, "deep.png").max_error


def test_compare_tells_the_largest_error(scans: Path, compressed: tuple[Path, Outcome], restored: Path) -> None:
    done = run("compare", scans, restored, "--compressed", compressed[0], "--json")
    assert done.exit_code == 0, done.stderr
    found = {row["image"]: row for row in json.loads(done.stdout)["images"]}
    for name in (TWELVE, SIXTEEN, VOLUME, "deep.png"):
        assert found[name]["max_error"] == entry(compressed[0], name).max_error
        assert found[name]["range_psnr_db"] == pytest.approx(entry(compressed[0], name).range_psnr, abs=1e-3)
    assert "max error" in run("compare", scans, restored).stdout


def test_verify_takes_scans_as_originals(scans: Path, compressed: tuple[Path, Outcome]) -> None:
    done = run("verify", compressed[0], "--against", scans, "--device", "cpu")
    assert done.exit_code == 0, done.output


def test_tags_are_kept_only_if_asked_for(scans: Path, codec: Codec, tmp_path: Path) -> None:
    compress_folder(scans / TWELVE, tmp_path / "without", codec)
    outcome = compress_folder(scans / TWELVE, tmp_path / "with", codec, keep_tags=True, verify=True)
    assert outcome.failed == []
    without, kept = ((tmp_path / place / f"{TWELVE}.vtc").read_bytes() for place in ("without", "with"))
    assert files.SECRET.encode() not in without
    assert TAGS not in unpack(without).front.boxes
    assert TAGS in unpack(kept).front.boxes
    decompress_folder(tmp_path / "with", tmp_path / "back", codec)
    assert pydicom.dcmread(tmp_path / "back" / TWELVE).PatientName == files.SECRET
    assert run("verify", tmp_path / "with", "--against", scans, "--device", "cpu").exit_code == 1  # others are missing
    verified = run("verify", tmp_path / "with", "--against", scans, "--device", "cpu", "--json")
    assert TWELVE not in {each["path"] for each in json.loads(verified.stdout)["bad"]}


def test_verification_looks_at_tags(scans: Path, codec: Codec) -> None:
    picture = read_picture(scans / TWELVE, keep_tags=True)
    data = codec.compress([picture])[0]
    damaged = with_box(data, TAGS, bytes(len(unpack(data).front.boxes[TAGS])))
    codec.examine(data, picture)
    with pytest.raises(Desync, match="its metadata are not those"):
        codec.examine(damaged, picture)


def test_compare_refuses_another_depth(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "flat").mkdir()
    deep = _png(tmp_path / "deep" / "a.png")
    Image.fromarray((np.asarray(Image.open(deep)) >> 8).astype(np.uint8)).save(tmp_path / "flat" / "a.png")
    done = run("compare", tmp_path / "deep", tmp_path / "flat")
    assert done.exit_code == 2
    assert "8 bits beside an original of 16" in done.stderr


def test_info_has_no_number_that_json_lacks(compressed: tuple[Path, Outcome], tmp_path: Path) -> None:
    data = (compressed[0] / f"{TWELVE}.vtc").read_bytes()
    box = bytearray(unpack(data).front.boxes[SCAN])
    box[20:36] = struct.pack("<dd", 1e200, 1e200)  # step, slope
    (tmp_path / "a.vtc").write_bytes(with_box(data, SCAN, bytes(box)))
    done = run("info", "--json", tmp_path / "a.vtc")
    assert json.loads(done.stdout)[0]["max_real_error"] == "inf"


def test_png_holds_the_stored_values_without_a_sign(compressed: tuple[Path, Outcome], restored: Path, tmp_path: Path) -> None:
    done = run("decompress", compressed[0], "-o", tmp_path, "--format", "png", "--device", "cpu", "--include", "*.dcm.vtc")
    assert done.exit_code == 0, done.stderr
    assert "png holds no geometry and no signed values" in done.stderr
    with Image.open(tmp_path / f"{SIXTEEN}.png") as image:
        np.testing.assert_array_equal(np.asarray(image).astype(int) - 32768, values(restored / SIXTEEN))


def test_a_window_is_for_looking_at(compressed: tuple[Path, Outcome], codec: Codec, tmp_path: Path) -> None:
    done = run("decompress", compressed[0], "-o", tmp_path, "--format", "png", "--window", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / f"{TWELVE}.png") as image:
        assert image.mode == "L"
    with Image.open(tmp_path / "deep.png") as image:
        assert image.mode == "I;16"
    with pytest.raises(UsageError, match="--format"):
        decompress_folder(compressed[0], tmp_path / "other", codec, window=True)


def test_the_preview_is_seen_through_the_window(compressed: tuple[Path, Outcome]) -> None:
    boxes = unpack((compressed[0] / f"{TWELVE}.vtc").read_bytes()).front.boxes
    with Image.open(io.BytesIO(boxes[b"prev"])) as image:
        gray = np.asarray(image.convert("L"))
    assert np.mean(gray > 250) > 0.2  # real values above 1200 are white in this window; the range goes to 1900


def test_labels_are_kept_exactly(codec: Codec, tmp_path: Path) -> None:
    labels = (files.volume() > 500).astype(np.uint8) * 3
    (tmp_path / "in").mkdir()
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "in/labels.nii.gz")
    outcome = compress_folder(tmp_path / "in", tmp_path / "out", codec)
    assert "its few values look like labels" in outcome.notes[0][1][0]
    decompress_folder(tmp_path / "out", tmp_path / "back", codec)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "back/labels.nii.gz").dataobj, labels)


def test_labels_are_not_augmented(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    nibabel.save(nibabel.Nifti1Image((files.volume() > 500).astype(np.uint8), np.eye(4)), tmp_path / "set" / "labels.nii")
    (tmp_path / "set" / "a.nii.gz").write_bytes((scans / VOLUME).read_bytes())
    done = run("augment", tmp_path / "set", "-o", tmp_path / "out", "--model", "photo", "--device", "cpu")
    assert done.exit_code == 1
    assert "labels.nii: its few values look like labels" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*__v1*")) == ["a__v1.nii.gz"]


def test_without_the_extra_the_message_says_what_to_install(
    scans: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    outcome = compress_folder(scans, tmp_path, codec)
    assert outcome.done == 1  # deep.png
    assert len(outcome.failed) == 4
    assert all("pip install 'vaetools[medical]'" in reason for _, reason in outcome.failed)


def test_another_error_report_is_made_anew(scans: Path, codec: Codec, tmp_path: Path) -> None:
    compress_folder(scans / TWELVE, tmp_path, codec)
    assert compress_folder(scans / TWELVE, tmp_path, codec, errors=True).stale == 1


def test_an_error_report_does_not_break_a_target_of_bytes(scans: Path, tmp_path: Path) -> None:
    done = run("compress", scans / SIXTEEN, "-o", tmp_path, "--target-size", "1500", "--error-report", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert 1400 < (tmp_path / "sixteen.dcm.vtc").stat().st_size <= 1500
    assert "stored values are off by" in done.stdout


@pytest.mark.parametrize(
    ("name", "format", "restored"),
    [
        ("a.dcm.vtc", "default", "a.dcm"),
        ("a.DCM.vtc", "original", "a.DCM"),
        ("a.nii.gz.vtc", "default", "a.nii.gz"),
        ("a.nii.vtc", "png", "a.nii.png"),
        ("a.jpg.vtc", "default", "a.jpg.png"),
        ("a.gz.vtc", "original", "a.gz.png"),
    ],
)
def test_names(name: str, format: str, restored: str) -> None:
    assert restored_name(name, format) == restored
    assert format_of_name("a.nii.gz") == "nifti.gz"


def test_only_the_right_suffixes_are_scans(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.NII.GZ", "c.nii", "d.gz", "e.dcmx"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.dcm", "b.NII.GZ", "c.nii"]


def test_a_name_is_not_enough_to_be_a_scan(codec: Codec, tmp_path: Path) -> None:
    picture = read_picture(_png(tmp_path / "a.png"))
    (tmp_path / "a.dcm.vtc").write_bytes(codec.compress([picture])[0])
    outcome = decompress_folder(tmp_path / "a.dcm.vtc", tmp_path / "out", codec)
    assert "DICOM cannot be written: the picture was no such file; --format png" in outcome.failed[0][1]


def _png(path: Path) -> Path:
    Image.fromarray(files.slice_of("camera", 64)).save(path)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"short", "errs of 5 bytes"),
        (Fidelity(3, 90.0, 0, 9).pack(), "impossible"),
        (Fidelity(3, 1.0, 9, 0).pack(), "impossible"),
    ],
)
def test_boxes_of_errors_are_checked(content: bytes, reason: str) -> None:
    with pytest.raises(Corrupt, match=reason):
        Fidelity.unpack(content)


def test_a_damaged_scan_spoils_no_pixels(compressed: tuple[Path, Outcome], codec: Codec, tmp_path: Path) -> None:
    data = (compressed[0] / f"{TWELVE}.vtc").read_bytes()
    broken = with_box(data, SCAN, bytes(len(unpack(data).front.boxes[SCAN])))
    np.testing.assert_array_equal(codec.decode([broken])[0].picture.pixels, codec.decode([data])[0].picture.pixels)
    (tmp_path / "a.dcm.vtc").write_bytes(broken)
    assert "damaged" in run("info", tmp_path / "a.dcm.vtc").stdout
    with pytest.raises(ValueError, match="is not filled"):
        with_box(data, ERRORS, b"")


def test_a_collection_holds_scans(scans: Path) -> None:
    collection = Collection.of(scans)
    seen = [batch.images for batch in collection.batches(1, 16)]
    assert collection.failed == []
    assert sum(len(images) for images in seen) == 5
    assert all((float(images.min()), float(images.max())) == (0, 1) for images in seen)


def test_training_compressing_and_augmenting_a_folder_of_scans(scans: Path, tmp_path: Path) -> None:
    trained = run(
        *("train", scans, "--preset", "gray16", "--out", tmp_path / "run", "--device", "cpu"),
        *("--epochs", 1, "--steps-per-epoch", 1, "--batch", 1),
    )
    assert trained.exit_code == 0, trained.output
    done = run("compress", scans, "-o", tmp_path / "out", "--model", tmp_path / "run", "--device", "cpu", "--error-report")
    assert done.exit_code == 0, done.output
    assert "5 of 16 bits or of a scanner" in done.stdout
    more = run("augment", scans, "-o", tmp_path / "more", "--model", tmp_path / "run", "--device", "cpu", "--copies", 1)
    assert more.exit_code == 0, more.output
    copy = pydicom.dcmread(tmp_path / "more" / "twelve__v1.dcm")
    assert copy.DerivationDescription == "augmented copy, made by vaetools"
    assert copy.pixel_array.max() <= 4095
    assert copy.SeriesInstanceUID != pydicom.dcmread(tmp_path / "more" / TWELVE).SeriesInstanceUID
    assert nibabel.load(tmp_path / "more" / "volume__v1.nii.gz").shape == files.volume().shape


def test_dry_run_counts_scans(scans: Path, tmp_path: Path) -> None:
    done = run("compress", scans, "-o", tmp_path / "out", "--dry-run", "--error-report", "--keep-tags")
    assert "5 images would be compressed" in done.stdout
    assert not (tmp_path / "out").exists()
