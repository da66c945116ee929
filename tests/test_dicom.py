"""DICOM files: what is read, what is kept of them, what is refused, and what is written."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from vaetools.errors import Corrupt, ImageError
from vaetools.images.picture import Metadata, Picture
from vaetools.images.read import probe, read_for_training, read_picture
from vaetools.images.write import save_picture
from vaetools.medical.scan import DICOM, MAX_ATTRIBUTES, Scan, compressed, same
from vaetools.medical.windowing import scan_of, window_levels, windowed

from . import medical_files as files


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """pydicom warns of test files of its own that are wrong on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def scan(path: Path) -> Scan:
    found = scan_of(read_picture(path))
    assert found is not None
    return found


def written(picture: Picture, path: Path, **options: Any) -> pydicom.Dataset:
    save_picture(path, picture, "dicom", **options)
    return pydicom.dcmread(path)


@pytest.mark.parametrize(
    ("name", "bits", "signed", "lowest"),
    [
        ("CT_small.dcm", 16, True, 128),
        ("MR_small.dcm", 16, True, 127),
        ("examples_overlay.dcm", 12, False, 0),
        ("693_J2KI.dcm", 14, True, -2971),
        ("MR_small_RLE.dcm", 16, True, 127),
        ("MR_small_bigendian.dcm", 16, True, 127),
    ],
)
def test_stored_values_are_those_of_pydicom(name: str, bits: int, signed: bool, lowest: int, tmp_path: Path) -> None:
    path = files.packaged(name, tmp_path)
    picture, found = read_picture(path), scan(path)
    assert (found.bits, found.signed, found.kind) == (bits, signed, "DICOM")
    values = found.values(picture.pixels[:, :, 0])
    assert values.min() == lowest
    np.testing.assert_array_equal(values, pydicom.dcmread(path).pixel_array)
    assert (probe(path).height, probe(path).width) == (picture.height, picture.width)


def test_eight_bits_stay_eight(tmp_path: Path) -> None:
    picture = read_picture(files.packaged("image_dfl.dcm", tmp_path))
    assert (picture.pixels.dtype, picture.mode, picture.format) == (np.uint8, "L", "DICOM")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("examples_rgb_color.dcm", "a DICOM image of kind RGB: only gray images"),
        ("examples_palette.dcm", "PALETTE COLOR"),
        ("rtdose.dcm", "15 frames: split it into files of one frame"),
        ("rtdose_1frame.dcm", "32 bits stored in 32"),
        ("JPGExtended.dcm", r"JPEG Extended \(Process 2 and 4\), has no decoder here: pip install"),
        ("MR_truncated.dcm", "cannot be read"),
        ("rtplan.dcm", "without an image in it"),
        ("no_meta.dcm", "the mark DICM is missing"),
    ],
)
def test_what_cannot_be_kept_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    path = files.packaged(name, tmp_path)
    with pytest.raises(ImageError, match=reason) as raised:
        read_picture(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_an_image_above_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="above the limit of 100"):
        read_picture(files.packaged("CT_small.dcm", tmp_path), max_pixels=100)


def test_values_that_the_bits_do_not_hold_are_no_surprise(tmp_path: Path) -> None:
    path = files.dicom(tmp_path / "a.dcm", np.full((8, 8), 0x8ABC, np.uint16))  # bits above the twelfth hold something else
    assert read_picture(path).pixels.max() == 0xABC


def test_a_file_comes_back_with_its_values_and_its_geometry(tmp_path: Path) -> None:
    path = files.packaged("CT_small.dcm", tmp_path)
    before, after = pydicom.dcmread(path), written(read_picture(path), tmp_path / "b.dcm")
    np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
    assert after.pixel_array.dtype == np.int16
    for keyword in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "PatientPosition"):
        assert after[keyword].value == before[keyword].value, keyword
    for keyword in ("RescaleSlope", "RescaleIntercept", "PhotometricInterpretation", "BitsStored", "HighBit", "SOPClassUID"):
        assert after[keyword].value == before[keyword].value, keyword
    assert "LossyImageCompression" not in after


def test_twelve_bits_and_two_windows_come_back(tmp_path: Path) -> None:
    path = files.packaged("examples_overlay.dcm", tmp_path)
    before, after = pydicom.dcmread(path), written(read_picture(path), tmp_path / "b.dcm")
    assert (after.BitsAllocated, after.BitsStored, after.HighBit, after.PixelRepresentation) == (16, 12, 11, 0)
    assert list(after.WindowCenter) == list(before.WindowCenter) == [450, 200]
    assert not [element for element in after if element.tag.group == 0x6000]  # overlays


def test_monochrome1_stays_so(tmp_path: Path) -> None:
    gray = files.slice_of("camera", 16)
    path = files.dicom(tmp_path / "a.dcm", gray, PhotometricInterpretation="MONOCHROME1")
    after = written(read_picture(path), tmp_path / "b.dcm")
    assert after.PhotometricInterpretation == "MONOCHROME1"
    np.testing.assert_array_equal(after.pixel_array, gray)
    seen = read_for_training(path, 1, 16)[:, :, 0]
    assert seen.flat[gray.argmin()] == 65535  # low values are bright
    assert seen.flat[gray.argmax()] == 0


def test_no_text_and_no_identifier_is_kept(tmp_path: Path) -> None:
    path = files.dicom(
        tmp_path / "a.dcm",
        files.slice_of("camera", 16),
        PatientComments="seen in Springfield",
        StudyDate="20240229",
        InstitutionName="General",
        RescaleType="Jane Doe",
    )
    source = pydicom.dcmread(path)
    picture = read_picture(path)
    kept = scan(path).attributes
    save_picture(tmp_path / "b.dcm", picture, "dicom")
    identifiers = [source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID, source.FrameOfReferenceUID]
    for data in (kept, (tmp_path / "b.dcm").read_bytes()):
        for word in ("Secret", "Springfield", "20240229", "General", "Jane", "GEMS", *identifiers):
            assert word.encode() not in data, word
    after = pydicom.dcmread(tmp_path / "b.dcm")
    assert after.PatientName == ""
    assert not [element for element in after if element.tag.is_private]


def with_raw(path: Path, keyword: str, kind: str, value: bytes) -> Path:
    """The file with an element whose value breaks the rules for its kind."""
    data, tag = pydicom.dcmread(path), pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword))
    data._dict[tag] = pydicom.dataelem.RawDataElement(tag, kind, len(value), value, 0, False, True)
    data.save_as(path)
    return path


@pytest.mark.parametrize(
    ("keyword", "kind", "value"),
    [
        ("SliceThickness", "DS", b"Doe^Jane"),
        ("InstanceNumber", "IS", b"Doe "),
        ("ImageType", "CS", b"ORIGINAL\\Doe^Jane "),
        ("SOPClassUID", "UI", b"Doe^Jane"),
        ("RescaleType", "CS", b"DOE JANE"),
        ("LossyImageCompressionRatio", "DS", b"Doe^Jane"),
    ],
)
def test_text_in_place_of_a_number_is_not_kept(keyword: str, kind: str, value: bytes, tmp_path: Path) -> None:
    path = with_raw(files.dicom(tmp_path / "a.dcm", files.slice_of("camera", 16)), keyword, kind, value)
    picture = read_picture(path)
    assert b"doe" not in scan(path).attributes.lower()
    assert picture.notes == () if keyword == "RescaleType" else keyword in picture.notes[0]
    assert keyword not in written(picture, tmp_path / "b.dcm") or keyword == "SOPClassUID"
    save_picture(tmp_path / "c.dcm", picture, "dicom", ratio=2.0)  # what it says of its losses is added to that


def test_bits_that_do_not_start_at_the_lowest_are_refused(tmp_path: Path) -> None:
    path = files.dicom(tmp_path / "a.dcm", files.slice_of("camera", 16) << 4)
    data = pydicom.dcmread(path)
    data.HighBit = 15
    data.save_as(path)
    with pytest.raises(ImageError, match="its 12 bits end at bit 15 of 16"):
        read_picture(path)


def test_writing_says_nothing_of_values_that_break_the_rules(tmp_path: Path) -> None:
    path = with_raw(files.dicom(tmp_path / "a.dcm", files.slice_of("camera", 16)), "SOPClassUID", "UI", b"Doe^Jane")
    picture = read_picture(path, keep_tags=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_picture(tmp_path / "b.dcm", picture, "dicom")
    assert (tmp_path / "b.dcm").exists()


def test_slices_of_a_series_stay_together_under_new_names(tmp_path: Path) -> None:
    series = []
    for number in (1, 2):
        path = files.dicom(tmp_path / f"{number}.dcm", files.slice_of("camera", 16) + number, SOPInstanceUID=f"1.2.{number}")
        series.append(written(read_picture(path), tmp_path / f"back-{number}.dcm"))
    assert series[0].SeriesInstanceUID == series[1].SeriesInstanceUID != pydicom.dcmread(tmp_path / "1.dcm").SeriesInstanceUID
    assert series[0].SOPInstanceUID != series[1].SOPInstanceUID
    assert series[0].file_meta.MediaStorageSOPInstanceUID == series[0].SOPInstanceUID


def test_other_pixels_are_another_instance(tmp_path: Path) -> None:
    picture = read_picture(files.packaged("CT_small.dcm", tmp_path))
    other = replace(picture, pixels=picture.pixels + np.uint16(1))
    assert written(picture, tmp_path / "a.dcm").SOPInstanceUID != written(other, tmp_path / "b.dcm").SOPInstanceUID


def test_tags_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    path = files.dicom(tmp_path / "a.dcm", files.slice_of("camera", 16))
    picture = read_picture(path, keep_tags=True)
    before, after = pydicom.dcmread(path), written(picture, tmp_path / "b.dcm")
    assert after.PatientName == files.SECRET
    assert after.SeriesInstanceUID == before.SeriesInstanceUID
    assert after.SOPInstanceUID != before.SOPInstanceUID
    np.testing.assert_array_equal(after.pixel_array, before.pixel_array)


def test_a_file_that_lost_something_says_so(tmp_path: Path) -> None:
    path = files.dicom(
        tmp_path / "a.dcm",
        files.slice_of("camera", 16),
        LossyImageCompressionRatio="4",
        LossyImageCompressionMethod="ISO_15444_1",
    )
    after = written(read_picture(path), tmp_path / "b.dcm", ratio=12.5)
    assert after.LossyImageCompression == "01"
    assert list(after.LossyImageCompressionRatio) == [4, 12.5]
    assert list(after.LossyImageCompressionMethod) == ["ISO_15444_1", "VAETOOLS_VTC"]
    assert after.ImageType[0] == "DERIVED"
    assert "12.5 to 1" in after.DerivationDescription


def test_the_window_decides_what_is_seen(tmp_path: Path) -> None:
    gray = np.array([[1000, 1024, 1064, 1104, 1200]], np.uint16)
    elements = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40.5, "WindowWidth": 81}
    picture = read_picture(files.dicom(tmp_path / "a.dcm", gray, **elements))
    found = scan_of(picture)
    assert found is not None
    assert window_levels(found) == (1024, 1104)
    assert windowed(picture).pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_without_a_window_the_range_is_seen(tmp_path: Path) -> None:
    picture = read_picture(files.packaged("CT_small.dcm", tmp_path))
    found = scan_of(picture)
    assert found is not None
    assert math.isnan(found.centre)
    shown = windowed(picture).pixels
    assert (shown.min(), shown.max(), shown.dtype) == (0, 255, np.uint8)


def test_a_picture_that_was_no_scan_has_no_window() -> None:
    with pytest.raises(ImageError, match="no window"):
        windowed(Picture(np.zeros((2, 2, 1), np.uint16)))


def test_training_sees_the_whole_range(tmp_path: Path) -> None:
    path = files.packaged("examples_overlay.dcm", tmp_path)
    deep, flat = read_for_training(path, 1, 16), read_for_training(path, 3, 8)
    assert (deep.min(), deep.max(), deep.shape) == (0, 65535, (300, 484, 1))
    assert (flat.min(), flat.max(), flat.shape) == (0, 255, (300, 484, 3))


@pytest.mark.parametrize(
    "damage",
    [b"", b"\1", b"\1\14\0\0" + bytes(56), None],
    ids=["empty", "short", "no step", "attributes"],
)
def test_a_damaged_box_is_an_error_in_words(damage: bytes | None, tmp_path: Path) -> None:
    picture = read_picture(files.packaged("CT_small.dcm", tmp_path))
    box = picture.metadata.scan[:60] + compressed(b"\xff" * 24) if damage is None else damage
    with pytest.raises(ImageError, match="--format png gives"):
        save_picture(tmp_path / "b.dcm", replace(picture, metadata=Metadata(scan=box)), "dicom")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\1" * 10, "too short"),
        (Scan(DICOM, 12, origin=math.inf).pack(), "impossible numbers"),
        (Scan(DICOM, 12, step=0.0).pack(), "impossible numbers"),
        (Scan(DICOM, 12).pack()[:-1], "cut short"),
        (Scan(DICOM, 12).pack() + b"more", "cut short"),
        (Scan(DICOM, 12).pack()[:60] + b"no zlib", "cannot be read"),
        (Scan(DICOM, 12, attributes=bytes(MAX_ATTRIBUTES + 1)).pack(), "more than 1,048,576 bytes"),
    ],
)
def test_boxes_are_checked(data: bytes, reason: str) -> None:
    with pytest.raises(Corrupt, match=reason):
        Scan.unpack(data)


def test_a_box_comes_back() -> None:
    there = Scan(
        DICOM, 12, signed=True, inverted=True, origin=-2048, slope=0.5, intercept=3, centre=40, width=80, attributes=b"ab"
    )
    assert Scan.unpack(there.pack()) == there
    assert same(there.pack(), there.pack())
    assert not same(there.pack(), replace(there, bits=13).pack())


def test_a_box_of_a_later_kind_is_left_alone() -> None:
    assert Scan.unpack(b"\x7f" + Scan(DICOM, 12).pack()[1:]).kind == ""


@pytest.mark.parametrize(
    ("elements", "levels"),
    [
        ({"WindowCenter": 40, "WindowWidth": 80, "VOILUTFunction": "LINEAR_EXACT"}, (0, 80)),
        ({"WindowCenter": 0.5, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT", "RescaleSlope": 0.01}, (25, 75)),
        ({"WindowCenter": 40.5, "WindowWidth": 1}, (40, 40)),
    ],
    ids=["exact", "narrow", "threshold"],
)
def test_kinds_of_windows(tmp_path: Path, elements: dict[str, object], levels: tuple[float, float]) -> None:
    """PS3.3, C.11.2.1.2 and C.11.2.1.3.2."""
    gray = np.array([[0, 39, 40, 41, 90]], np.uint16)
    picture = read_picture(files.dicom(tmp_path / "a.dcm", gray, **{"RescaleSlope": 1, "RescaleIntercept": 0, **elements}))
    found = scan_of(picture)
    assert found is not None
    assert window_levels(found) == pytest.approx(levels)
    shown = windowed(picture).pixels[0, :, 0].tolist()
    assert (shown[0], shown[-1]) == (0, 255)
    if levels[0] == levels[1]:
        assert shown == [0, 0, 0, 255, 255]


def test_a_sigmoid_is_told(tmp_path: Path) -> None:
    elements = {"WindowCenter": 40, "WindowWidth": 80, "VOILUTFunction": "SIGMOID"}
    picture = read_picture(files.dicom(tmp_path / "a.dcm", files.slice_of("camera", 16), **elements))
    assert "its window is a sigmoid, and shown as a straight line" in picture.notes
