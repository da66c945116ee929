"""NIfTI volumes: slices as one picture, and back to a volume of the same values, shape and place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaetools.errors import ImageError
from vaetools.images.picture import Metadata, Picture
from vaetools.images.read import probe, read_for_training, read_picture
from vaetools.images.write import save_picture
from vaetools.medical.mosaic import Mosaic
from vaetools.medical.scan import Scan, compressed
from vaetools.medical.windowing import scan_of, windowed

from . import medical_files as files


def scan(picture: Picture) -> Scan:
    found = scan_of(picture)
    assert found is not None
    return found


def there_and_back(path: Path, **options: bool) -> tuple[Picture, nibabel.Nifti1Image]:
    picture = read_picture(path, **options)
    back = path.with_name(f"back-{path.name}")
    save_picture(back, picture, "nifti.gz" if path.suffix == ".gz" else "nifti")
    return picture, nibabel.load(back)


@pytest.mark.parametrize(
    "name", ["anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "standard.nii.gz"]
)
def test_a_volume_comes_back(name: str, tmp_path: Path) -> None:
    path = files.packaged(name, tmp_path)
    picture, after = there_and_back(path)
    before = nibabel.load(path)
    np.testing.assert_array_equal(after.dataobj.get_unscaled(), before.dataobj.get_unscaled())
    assert (after.shape, after.get_data_dtype()) == (before.shape, before.get_data_dtype())
    assert (type(after), after.dataobj.slope, after.dataobj.inter) == (type(before), before.dataobj.slope, before.dataobj.inter)
    np.testing.assert_array_equal(after.affine, before.affine)
    for field in ("qform_code", "sform_code", "pixdim", "xyzt_units", "cal_min", "cal_max"):
        np.testing.assert_array_equal(after.header[field], before.header[field])
    assert (probe(path).height, probe(path).width) == (picture.height, picture.width)


def test_floats_are_rounded_to_the_step_that_the_note_tells(tmp_path: Path) -> None:
    path = files.packaged("reoriented_anat_moved.nii", tmp_path)
    picture, after = there_and_back(path)
    before = nibabel.load(path)
    assert after.get_data_dtype() == before.get_data_dtype()
    off = np.abs(np.asarray(after.dataobj, np.float64) - before.dataobj).max()
    assert 0 < off <= scan(picture).largest_error(0) < 0.17
    assert picture.notes == ("its floating-point values are rounded to 65,536 levels: 0.3235 between two, 0.1617 at most lost",)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint32, np.int64, np.uint16, np.int8])
def test_whole_numbers_come_back_exactly(kind: type, tmp_path: Path) -> None:
    values = (np.arange(6 * 5 * 4).reshape(6, 5, 4) - (60 if np.dtype(kind).kind != "u" else 0)).astype(kind)
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4), dtype=kind), path)
    picture, after = there_and_back(path)
    assert picture.notes == ()
    assert after.get_data_dtype() == values.dtype
    np.testing.assert_array_equal(after.dataobj.get_unscaled(), values)


def test_one_value_all_over_is_not_rounded(tmp_path: Path) -> None:
    values = np.full((3, 4, 5), 0.3, np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    picture, after = there_and_back(tmp_path / "a.nii")
    assert picture.notes == ()
    np.testing.assert_array_equal(after.dataobj.get_unscaled(), values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[[0.0, np.nan]]], np.float32), "not finite"),
        (np.array([[[0.0, -np.inf]]], np.float32), "not finite"),
        (np.array([[[0.0, 1e301]]], np.float64), "too large"),
        (np.array([[[0, 70_000]]], np.int32), "more than 16 bits hold"),
        (np.zeros((2, 2, 2), np.complex64), "only real numbers"),
    ],
)
def test_values_that_16_bits_do_not_hold_are_refused(values: np.ndarray, reason: str, tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError, match=reason):
        read_picture(tmp_path / "a.nii")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"no volume at all" * 40)
    for path, reason in ((tmp_path / "a.nii", "not a NIfTI file"), (files.packaged("row_major.dconn.nii", tmp_path), "CIFTI")):
        with pytest.raises(ImageError, match=reason):
            read_picture(path)
    data = files.packaged("example4d.nii.gz", tmp_path).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(data[:-5000])
    with pytest.raises(ImageError, match="cannot be read"):
        read_picture(tmp_path / "cut.nii.gz")


def test_a_volume_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="slices side by side, is above the limit"):
        read_picture(files.packaged("example4d.nii.gz", tmp_path), max_pixels=1000)


def test_scaling_is_kept(tmp_path: Path) -> None:
    picture, after = there_and_back(files.nifti(tmp_path / "a.nii", files.volume(), slope=0.5, inter=-3))
    assert (scan(picture).slope, scan(picture).intercept) == (0.5, -3)
    assert (after.dataobj.slope, after.dataobj.inter) == (0.5, -3)


def test_a_window_narrower_than_any_step_parts_black_and_white(tmp_path: Path) -> None:
    path = files.nifti(tmp_path / "a.nii", np.arange(40, dtype=np.uint8).reshape(5, 8, 1), slope=1e30)
    head = bytearray(path.read_bytes())
    head[124:132] = np.array([1e-40, 0], "<f4").tobytes()  # cal_max, cal_min
    path.write_bytes(head)
    assert np.bincount(windowed(read_picture(path)).pixels.ravel()).nonzero()[0].tolist() == [0, 255]


def test_no_text_is_kept_unless_asked_for(tmp_path: Path) -> None:
    path = files.nifti(tmp_path / "a.nii", files.volume())
    picture, after = there_and_back(path)
    assert files.SECRET.encode() not in scan(picture).attributes + (tmp_path / "back-a.nii").read_bytes()
    assert bytes(after.header["descrip"].item()) == b""
    assert not after.header.extensions
    _, asked = there_and_back(path, keep_tags=True)
    assert asked.header["descrip"].item() == files.SECRET.encode()
    assert asked.header.extensions[0].get_content() == files.SECRET.encode()
    np.testing.assert_array_equal(asked.dataobj, nibabel.load(path).dataobj)


def test_slices_lie_across_the_coarsest_axis(tmp_path: Path) -> None:
    values = np.zeros((3, 20, 10), np.int16)
    values[1, 7, 2] = 5
    path = files.nifti(tmp_path / "a.nii", values, affine=np.diag([6.0, 1, 1, 1]))
    picture = read_picture(path)
    assert scan(picture).axis == 0
    mosaic = Mosaic.of(values.shape, 0)
    assert (mosaic.height, mosaic.width, mosaic.count) == (10, 20, 3)
    row, column = divmod(1, mosaic.across)
    assert picture.pixels[10 * row + 2, 20 * column + 7, 0] == 5 + 32768


@given(st.lists(st.integers(1, 6), min_size=3, max_size=5), st.integers(0, 2))
def test_a_mosaic_holds_every_value_once(shape: list[int], axis: int) -> None:
    values = np.random.default_rng(0).integers(0, 1000, shape).astype(np.uint16)
    mosaic = Mosaic.of(values.shape, axis)
    image = mosaic.image(values, axis)
    assert image.shape == mosaic.shape
    np.testing.assert_array_equal(mosaic.volume(image, values.shape, axis), values)


def test_labels_bear_no_loss(tmp_path: Path) -> None:
    labels = (files.volume() > 500).astype(np.uint8) * 3
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "a.nii")
    assert read_picture(tmp_path / "a.nii").exact
    assert not read_picture(files.nifti(tmp_path / "b.nii", files.volume())).exact


def test_training_sees_all_slices_at_once(tmp_path: Path) -> None:
    path = files.nifti(tmp_path / "a.nii.gz", files.volume())
    seen = read_for_training(path, 1, 16)
    assert seen.shape == (*Mosaic.of((40, 32, 5), 2).shape, 1)
    assert (seen.min(), seen.max()) == (0, 65535)


@pytest.mark.parametrize(
    "change",
    [
        {"attributes": b"short"},
        {"attributes": bytes(348)},
        {"axis": 3},
        {"axis": 0},
    ],
)
def test_a_damaged_box_is_an_error_in_words(change: dict[str, object], tmp_path: Path) -> None:
    picture = read_picture(files.nifti(tmp_path / "a.nii", files.volume()))
    broken = replace(scan(picture), **change)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"damaged .*--format png gives the slices"):
        save_picture(tmp_path / "b.nii", replace(picture, metadata=Metadata(scan=broken.pack())), "nifti")


def test_text_of_another_volume_is_not_put_back(tmp_path: Path) -> None:
    picture = read_picture(files.nifti(tmp_path / "a.nii", files.volume()))
    other = files.nifti(tmp_path / "b.nii", files.volume(3)).read_bytes()[:352]
    metadata = Metadata(scan=picture.metadata.scan, tags=compressed(other))
    with pytest.raises(ImageError, match="text is that of another volume"):
        save_picture(tmp_path / "c.nii", replace(picture, metadata=metadata), "nifti")
