"""Data sets with metadata.jsonl or metadata.csv: what is found, and what is written of their copies."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vaetools import Augmenter
from vaetools.cli import main
from vaetools.dataset.books import AugmentOutcome
from vaetools.dataset.dataset import Dataset
from vaetools.dataset.huggingface import carry_metadata
from vaetools.dataset.job import Options, augment_folder
from vaetools.dataset.layouts import open_dataset
from vaetools.errors import UsageError

from . import dataset_files as files
from . import huggingface_files as hub
from .augment_models import tiny_weights
from .pillow_files import saved

SPLITS = {"train": 3, "validation": 1, "test": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def augmenter(weights: Path) -> Augmenter:
    return Augmenter.load(weights, "jitter", device="cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return hub.captions(tmp_path / "in", **SPLITS)


def augment(source: Path, augmenter: Augmenter, **options: Any) -> tuple[Path, AugmentOutcome]:
    return source.parent / "out", augment_folder(source, source.parent / "out", augmenter, Options(**options))


def train_paths(dataset: Dataset) -> list[str]:
    return [item.path for item in dataset.train]


# What is found.


def test_a_folder_with_metadata_in_each_split(source: Path) -> None:
    dataset = open_dataset(source)
    assert (dataset.layout, dataset.marks, dataset.classes) == ("huggingface", "boxes", ("0", "1"))
    assert train_paths(dataset) == [f"train/{number}.png" for number in range(3)]
    assert sorted(item.split for item in dataset.held_out) == ["test", "validation"]
    assert [one.path for one in dataset.annotations] == ["train/metadata.jsonl"]
    assert dataset.notes == ()


@pytest.mark.parametrize("folder", ["", "images"])
def test_metadata_at_the_top(tmp_path: Path, folder: str) -> None:
    for number in range(2):
        files.save(tmp_path, f"{folder}/{number}.png".lstrip("/"), number)
    hub.write_lines(tmp_path / "metadata.jsonl", [{"file_name": f"{folder}/{n}.png".lstrip("/"), "text": "x"} for n in range(2)])
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, len(dataset.train), dataset.classes, dataset.marks) == ("huggingface", 2, (), "")


def test_folders_are_classes_where_no_line_has_a_label(tmp_path: Path) -> None:
    files.imagefolder(tmp_path, {"train/cat": 2, "train/dog": 1, "test/cat": 1})
    names = ("cat/0.png", "cat/1.png", "dog/0.png")
    hub.write_lines(tmp_path / "train/metadata.jsonl", [{"file_name": name, "caption": "x"} for name in names])
    hub.write_lines(tmp_path / "test/metadata.jsonl", [{"file_name": "cat/0.png", "caption": "x"}])
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.classes) == ("huggingface", ("cat", "dog"))


@pytest.mark.parametrize(
    ("labels", "note"),
    [((0, None, 1), "some images have no label"), ((0, 1, 2), "1 images have several labels")],
    ids=["missing", "several"],
)
def test_labels_that_are_no_classes(tmp_path: Path, labels: tuple[int | None, ...], note: str) -> None:
    for number in range(2 + (None in labels)):
        files.save(tmp_path, f"{number}.png", number)
    names = ("0.png", "1.png", "2.png" if None in labels else "1.png")
    rows = [{"file_name": name, "label": label} for name, label in zip(names, labels, strict=True)]
    hub.write_lines(tmp_path / "metadata.jsonl", rows)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ()
    assert any(note in line for line in dataset.notes)


def test_a_split_that_a_line_tells_of_is_left_as_it_is(tmp_path: Path) -> None:
    rows = []
    for number, split in enumerate(("train", "train", "val", "test")):
        files.save(tmp_path, f"{number}.png", number)
        rows.append({"file_name": f"{number}.png", "split": split})
    hub.write_csv(tmp_path / "metadata.csv", rows)
    assert train_paths(open_dataset(tmp_path)) == ["0.png", "1.png"]
    hub.write_csv(tmp_path / "metadata.csv", rows[2:])
    with pytest.raises(UsageError, match="no train split"):
        open_dataset(tmp_path)


def test_images_that_no_line_names_are_told_and_passed_along(source: Path) -> None:
    files.save(source, "train/more.png", 9)
    dataset = open_dataset(source)
    assert len(dataset.train) == 3
    assert "train/more.png" in dataset.others
    assert any("1 images are in no metadata.jsonl" in note for note in dataset.notes)


@pytest.mark.parametrize("name", ["9.png", "../validation/0.png/../9.png", "/etc/passwd", "https://example.org/a.png"])
def test_an_image_that_is_not_there_is_a_failure(source: Path, name: str) -> None:
    rows = hub.lines(source / "train/metadata.jsonl")
    hub.write_lines(source / "train/metadata.jsonl", [*rows, {**rows[0], "file_name": name}])
    dataset = open_dataset(source)
    assert len(dataset.train) == 3
    assert [reason for _, reason in dataset.failed] == ["named in train/metadata.jsonl, but not there"]


def test_nothing_outside_the_folder_is_an_image_of_it(source: Path) -> None:
    files.save(source.parent, "outside.png", 1)
    rows = hub.lines(source / "train/metadata.jsonl")
    hub.write_lines(source / "train/metadata.jsonl", [*rows, {**rows[0], "file_name": "../../outside.png"}])
    assert len(open_dataset(source).train) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", b'{"file_name": "0.png"}\n{"file_name": \n', "line 2 is no JSON "),
        ("metadata.jsonl", b'{"file_name": "0.png"}\n["1.png"]\n', "line 2 is no JSON object"),
        ("metadata.jsonl", b'{"file_name": "0.png"}\n{"name": "1.png"}\n', "entry 2 has no file_name"),
        ("metadata.jsonl", b'{"file_name": "\xff.png"}\n', "no UTF-8"),
        ("metadata.csv", b"file_name,label\n0.png,1,2\n", "line 2 has 3 fields, and the first one 2"),
        ("metadata.csv", b"file_name,label\n0.png," + b"x" * 200_000 + b"\n", "line 2 is no CSV"),
        (
            "metadata.jsonl",
            b'{"left_file_name": "0.png", "right_file_name": "1.png"}\n',
            "left_file_name and right_file_name, and not",
        ),
    ],
)
def test_metadata_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    for number in range(2):
        files.save(tmp_path, f"{number}.png", number)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        open_dataset(tmp_path)
    assert str(tmp_path / name) in str(error.value)
    assert open_dataset(tmp_path, "plain").layout == "plain"


def test_other_files_of_that_name_are_none_of_it(tmp_path: Path) -> None:
    files.imagefolder(tmp_path, {"cat": 1, "dog": 1})
    hub.write_csv(tmp_path / "metadata.csv", [{"camera": "x", "photographer": "y"}])
    assert open_dataset(tmp_path).layout == "imagefolder"
    with pytest.raises(UsageError, match=r"no metadata.jsonl or metadata.csv names an image by file_name"):
        open_dataset(tmp_path, "huggingface")


def test_parquet_is_told_once(source: Path) -> None:
    (source / "train/metadata.parquet").write_bytes(b"PAR1")
    assert sum("metadata.parquet is passed along without the copies" in note for note in open_dataset(source).notes) == 1


def test_metadata_beside_another_layout_is_told(tmp_path: Path) -> None:
    files.yolo(tmp_path)
    hub.write_lines(tmp_path / "images/train/metadata.jsonl", [{"file_name": "a.jpg"}])
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "yolo"
    assert any("metadata.jsonl is passed along without the copies" in note for note in dataset.notes)


# What is written.


def test_lines_of_copies_come_last(source: Path, augmenter: Augmenter) -> None:
    target, outcome = augment(source, augmenter, copies=2)
    assert (outcome.done, outcome.failed) == (6, [])
    before, after = (folder / "train/metadata.jsonl" for folder in (source, target))
    assert after.read_bytes().startswith(before.read_bytes())
    rows = hub.lines(before)
    expected = [{**row, "file_name": f"{row['file_name'][0]}__v{copy}.png"} for row in rows for copy in (1, 2)]
    assert hub.lines(after)[3:] == expected
    for split in ("validation", "test"):
        for path in (source / split).iterdir():
            assert (target / split / path.name).read_bytes() == path.read_bytes()
        assert len(list((target / split).iterdir())) == 2
    for row in hub.lines(after):
        with Image.open(target / "train" / row["file_name"]) as image:
            assert image.size == (40, 32)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False], ids=["whole", "without the last line's end"])
def test_csv(tmp_path: Path, augmenter: Augmenter, end: str, last: bool) -> None:
    for number in range(2):
        files.save(tmp_path / "in", f"{number}.png", number)
    texts = ('a, "b"', "two\nlines")
    rows = [{"id": "007", "file_name": f"{number}.png", "text": text, "none": ""} for number, text in enumerate(texts)]
    path = hub.write_csv(tmp_path / "in/metadata.csv", rows, end)
    if not last:
        path.write_bytes(path.read_bytes().removesuffix(end.encode()))
    target, _ = augment(tmp_path / "in", augmenter)
    data = (target / "metadata.csv").read_bytes()
    assert data.startswith(path.read_bytes())
    with (target / "metadata.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert written == [*rows, *({**row, "file_name": row["file_name"].replace(".png", "__v1.png")} for row in rows)]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_without_originals_the_copies_alone_are_named(tmp_path: Path, augmenter: Augmenter, name: str) -> None:
    files.save(tmp_path / "in", "sub/a.png", 1)
    rows = [{"file_name": "sub/a.png", "text": "x"}]
    (hub.write_csv if name.endswith("csv") else hub.write_lines)(tmp_path / "in" / name, rows)
    target, _ = augment(tmp_path / "in", augmenter, originals=False)
    expected = {
        "metadata.jsonl": '{"file_name": "sub/a__v1.png", "text": "x"}\n',
        "metadata.csv": "file_name,text\nsub/a__v1.png,x\n",
    }
    assert (target / name).read_text() == expected[name]
    assert sorted(files.files_below(target)) == [name, "sub/a__v1.png"]


def test_all_that_json_can_hold_is_kept(tmp_path: Path, augmenter: Augmenter) -> None:
    files.save(tmp_path / "in", "a.png", 1)
    line = '{"file_name": "a.png", "a": 12345678901234567890, "b": [1.50, null, true], "c": "\\ud800 \u2028 \U0001f600"}\r\n'
    (tmp_path / "in/metadata.jsonl").write_bytes(line.encode())
    target, _ = augment(tmp_path / "in", augmenter)
    copy = line.replace("a.png", "a__v1.png").replace("1.50", "1.5")
    assert (target / "metadata.jsonl").read_bytes() == (line + copy).encode()


def test_several_lines_of_one_image(tmp_path: Path, augmenter: Augmenter) -> None:
    files.save(tmp_path / "in", "a.png", 1)
    hub.write_lines(tmp_path / "in/metadata.jsonl", [{"file_name": "a.png", "text": text} for text in "xy"])
    target, outcome = augment(tmp_path / "in", augmenter)
    assert outcome.done == 1
    assert [tuple(row.values()) for row in hub.lines(target / "metadata.jsonl")[2:]] == [("a__v1.png", "x"), ("a__v1.png", "y")]


def test_further_files_of_a_line_go_with_its_copies(tmp_path: Path, augmenter: Augmenter) -> None:
    source = tmp_path / "in"
    files.save(source, "a.png", 1)
    files.save(source, "marks/a_m.png", 2, mode="L")
    files.save(source, "depth/17.png", 3, mode="L")
    row = {"file_name": "a.png", "mask_file_name": "marks/a_m.png", "depth_file_name": "depth/17.png", "note_file_name": None}
    hub.write_lines(source / "metadata.jsonl", [row])
    assert train_paths(open_dataset(source)) == ["a.png"]
    assert open_dataset(source).marks == "masks"
    target, _ = augment(source, augmenter)
    _, copy = hub.lines(target / "metadata.jsonl")
    assert list(copy.values()) == ["a__v1.png", "marks/a__v1_m.png", "depth/a__v1_depth.png", None]
    assert (target / copy["mask_file_name"]).read_bytes() == (source / "marks/a_m.png").read_bytes()
    assert (target / copy["depth_file_name"]).read_bytes() == (source / "depth/17.png").read_bytes()


def test_operators_that_move_pixels_are_refused_beside_boxes(source: Path, weights: Path) -> None:
    moving = Augmenter.load(weights, "interpolate", device="cpu")
    with pytest.raises(UsageError, match="the boxes of the layout huggingface"):
        augment(source, moving)


def test_the_output_is_a_data_set_that_can_be_gone_on_with(source: Path, augmenter: Augmenter) -> None:
    target, _ = augment(source, augmenter)
    before = (target / "train/metadata.jsonl").read_bytes()
    _, outcome = augment(source, augmenter)
    assert (outcome.done, outcome.skipped, (target / "train/metadata.jsonl").read_bytes()) == (0, 3, before)
    assert len(open_dataset(target).train) == 6


def test_classes_can_be_balanced(source: Path, weights: Path) -> None:
    target = source.parent / "out"
    arguments = ["augment", source, "-o", target, "--model", weights, "--device", "cpu", "--copies", 0, "--balance"]
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    assert [row["label"] for row in hub.lines(target / "train/metadata.jsonl")] == [0, 1, 0, 1]


# The library itself.


def loaded(folder: Path, cache: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(cache))


@pytest.fixture(scope="module", autouse=True)
def offline() -> Any:
    """Nothing is asked of any server, and no bar is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "1")
        yield


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_datasets_loads_what_was_written(source: Path, augmenter: Augmenter, tmp_path: Path) -> None:
    target, _ = augment(source, augmenter)
    before, after = loaded(source, tmp_path / "cache"), loaded(target, tmp_path / "cache")
    assert {name: len(split) for name, split in after.items()} == {"train": 6, "validation": 1, "test": 1}
    assert after["train"].features == before["train"].features
    fields = [name for name in after["train"].column_names if name != "image"]
    rows = [{name: row[name] for name in fields} for row in after["train"]]
    assert rows[3:] == rows[:3] == [{name: row[name] for name in fields} for row in before["train"]]
    assert rows[1]["objects"] == hub.objects(1)
    for number in range(6):
        name = f"{number % 3}{'__v1' * (number > 2)}.png"
        assert np.array_equal(np.asarray(after["train"][number]["image"]), files.pixels_of(target / "train" / name))


@pytest.mark.filterwarnings("ignore")
def test_datasets_loads_a_compressed_folder(source: Path, tmp_path: Path) -> None:
    compressed = tmp_path / "compressed"
    for path in sorted(source.rglob("*.png")):
        place = compressed / f"{path.relative_to(source)}.vtc"
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            place.write_bytes(saved(image))
    assert carry_metadata(source, compressed) == [
        compressed / split / "metadata.jsonl" for split in ("test", "train", "validation")
    ]
    found = loaded(compressed, tmp_path / "cache")
    assert {name: len(split) for name, split in found.items()} == {"train": 3, "validation": 1, "test": 1}
    row = found["train"][2]
    assert (row["caption"], row["objects"]) == ('Nº 2, "so"', hub.objects(2))
    assert np.array_equal(np.asarray(row["image"]), files.pixels_of(compressed / "train/2.png.vtc"))


# Compressed folders.


def test_metadata_is_carried_for_what_was_compressed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "compressed/train").mkdir(parents=True)
    for number in (0, 2):
        (tmp_path / f"compressed/train/{number}.png.vtc").touch()
    place = tmp_path / "compressed/train/metadata.jsonl"
    assert carry_metadata(source, tmp_path / "compressed") == [place]
    rows = hub.lines(source / "train/metadata.jsonl")
    assert hub.lines(place) == [{**rows[number], "file_name": f"{number}.png.vtc"} for number in (0, 2)]
    assert carry_metadata(source, tmp_path / "compressed") == [place]  # again
    place.write_text("mine")
    with pytest.raises(UsageError, match="there already, with something else in it"):
        carry_metadata(source, tmp_path / "compressed")
    assert place.read_text() == "mine"


def test_metadata_without_compressed_files_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \.vtc file of an image"):
        carry_metadata(source, tmp_path / "nothing")


def test_a_test_split_without_labels_takes_no_classes_away(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in range(2):
            files.save(tmp_path, f"{split}/{number}.png", number + 10 * (split == "test"))
        rows = [{"file_name": f"{number}.png"} | ({"label": f"c{number}"} if split == "train" else {}) for number in range(2)]
        hub.write_lines(tmp_path / split / "metadata.jsonl", rows)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("c0", "c1")
    assert not any("label" in note for note in dataset.notes)


def test_lists_of_masks_are_marks(tmp_path: Path) -> None:
    for name in ("a", "a_1", "a_2"):
        files.save(tmp_path, f"{name}.png", 1)
    hub.write_lines(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "mask_file_names": ["a_1.png", "a_2.png"]}])
    dataset = open_dataset(tmp_path)
    assert dataset.marks == "masks"
    assert any("mask_file_names" in note for note in dataset.notes)
