"""The sheet that shows what an augmenter makes of a few images."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vaetools.augment.augmenter import Augmenter
from vaetools.augment.bank import LatentBank
from vaetools.augment.seeds import digest, seed_for
from vaetools.augment.strength import Strength
from vaetools.dataset.preview import write_preview
from vaetools.errors import UsageError
from vaetools.images.tensors import to_tensor
from vaetools.model.space import Latents, LatentSpace
from vaetools.model.vae import VAE
from vaetools.model.weights import LoadedModel

from .conftest import photograph, tiny

PNG, HTML = ".vaetools-preview.png", ".vaetools-preview.html"
Pictures = list[tuple[str, Tensor, int | None]]


class Page(HTMLParser):
    """What a browser would see: words, images by their description, and tags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.images: dict[str, Image.Image] = {}
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        given = {key: value or "" for key, value in attrs}
        self.addresses += [given[key] for key in ("src", "href") if key in given]
        if tag == "img":
            data = base64.b64decode(given["src"].removeprefix("data:image/png;base64,"))
            self.images[given["alt"]] = Image.open(io.BytesIO(data))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.words.append(data.strip())

    def pixels(self, description: str) -> Tensor:
        return to_tensor(np.asarray(self.images[description]))


@pytest.fixture(scope="module")
def space() -> LatentSpace:
    torch.manual_seed(0)
    return LatentSpace(LoadedModel(VAE(tiny(name="tiny")).eval().requires_grad_(False), None, b"tinytiny", Path("tiny")), "cpu")


def image(name: str = "coffee", width: int = 32, height: int = 32) -> Tensor:
    return to_tensor(np.asarray(photograph(name, width, height)))


@pytest.fixture
def pictures() -> Pictures:
    return [("coffee.png", image(), 0), ("cat.png", image("chelsea"), 1)]


@pytest.fixture(scope="module")
def bank(space: LatentSpace) -> LatentBank:
    return LatentBank.fit(space, [image(name) for name in ("coffee", "astronaut", "chelsea", "rocket")], [0, 0, 1, 1])


def sheet_in(folder: Path) -> np.ndarray:
    with Image.open(folder / PNG) as sheet:
        return np.asarray(sheet)


class Refuses:
    identity = "refuses"

    def keeps(self, images: Tensor, latents: Latents, labels: Tensor) -> list[bool]:
        return [False] * len(images)


def test_two_files_that_loaders_of_images_leave_alone(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    assert write_preview(Augmenter(space), pictures, target, seed=0) == [target / PNG, target / HTML]
    assert sorted(path.name for path in target.iterdir()) == [HTML, PNG]
    assert (target / PNG).read_bytes().startswith(b"\x89PNG")


def test_a_cell_for_each_image_and_column(space: LatentSpace, pictures: Pictures, bank: LatentBank, tmp_path: Path) -> None:
    write_preview(Augmenter(space, "jitter,hyper+style", bank=bank), pictures, tmp_path, seed=0, strengths=(0.25, 1))
    page = Page(tmp_path / HTML)
    of_one = ["as given, original", "the model alone, reconstruction"]
    of_one += [f"{chain}, strength {strength}" for chain in ("jitter", "hyper+style") for strength in ("0.25", "1")]
    of_one += [f"as written, {copy}" for copy in ("v1", "v2", "v3")]
    assert list(page.images) == [f"{name}, {cell}" for name, _, _ in pictures for cell in of_one]
    assert torch.equal(page.pixels("cat.png, as given, original"), pictures[1][1])


def test_copies_are_shown_as_they_are_written(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    augmenter = Augmenter(space, "jitter,requantise", 0.7, detail=False)
    write_preview(augmenter, pictures, tmp_path, seed=5)
    page = Page(tmp_path / HTML)
    for name, one, label in pictures:
        for copy in range(3):
            written = augmenter.augment([one], [seed_for(5, 0, digest([one])[0], copy)], [label or 0])
            assert torch.equal(page.pixels(f"{name}, as written, v{copy + 1}"), written.images[0])
            assert f"{written.operators[0]} 0.7" in page.words


def test_columns_of_an_operator_show_it_alone_and_always(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    write_preview(Augmenter(space, "jitter,requantise", 0.1, probability=0), pictures, tmp_path, seed=5, strengths=(0.5, 1))
    page = Page(tmp_path / HTML)
    one = pictures[0][1]
    seed = seed_for(5, 0, digest([one])[0], 3)  # the fourth of these columns
    alone = Augmenter(space, "requantise", 1.0).augment([one], [seed]).images[0]
    assert torch.equal(page.pixels("coffee.png, requantise, strength 1"), alone)
    assert torch.equal(page.pixels("coffee.png, as written, v1"), one)
    assert page.words.count("left as it is") == 6


def test_the_reconstruction_is_what_the_model_makes_of_the_image(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    augmenter = Augmenter(space)
    write_preview(augmenter, pictures, tmp_path, seed=0)
    shown = Page(tmp_path / HTML).pixels("coffee.png, the model alone, reconstruction")
    assert torch.equal(shown, augmenter.reconstruct([pictures[0][1]])[0])


def test_the_same_seed_gives_the_same_bytes(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    contents = []
    for seed in (3, 3, 4):
        contents.append([path.read_bytes() for path in write_preview(Augmenter(space), pictures, tmp_path, seed=seed)])
    assert contents[0] == contents[1]
    assert contents[0][0] != contents[2][0]
    assert contents[0][1] != contents[2][1]


def test_what_the_gate_refuses_is_said_and_not_counted(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    augmenter = Augmenter(space, "jitter", gate=Refuses())
    write_preview(augmenter, pictures, tmp_path, seed=0)
    page = Page(tmp_path / HTML)
    assert page.words.count("refused by the gate, left as it is") == 6
    assert torch.equal(page.pixels("cat.png, as written, v1"), pictures[1][1])
    assert not torch.equal(page.pixels("cat.png, jitter, strength 1"), pictures[1][1])
    assert augmenter.acceptance == {}


def test_mixed_labels_are_shown(space: LatentSpace, pictures: Pictures, bank: LatentBank, tmp_path: Path) -> None:
    write_preview(Augmenter(space, "mix", 1.0, bank=bank), pictures, tmp_path, seed=1)
    words = Page(tmp_path / HTML).words
    assert any(text.startswith("label 0: 0.") for text in words)
    assert any(text.startswith("mix 1, label 0: 0.") for text in words)


def test_the_page_tells_what_results_depend_on(space: LatentSpace, pictures: Pictures, bank: LatentBank, tmp_path: Path) -> None:
    augmenter = Augmenter(space, "interpolate", Strength(0.1, 0.5, 10, {1: 0.3}), detail=False, bank=bank, gate="nearest")
    write_preview(augmenter, pictures, tmp_path, seed=7)
    words = Page(tmp_path / HTML).words
    for fact in (
        "model tiny 74696e7974696e79",
        "quality 50",
        "detail not kept: as the model decodes",
        "strength 0.1 to 0.5 over 10 epochs, other values for some labels",
        "seed 7",
        f"bank {bank.identity}",
        "gate nearest 5",
        "may move what the image shows: not for boxes and masks; takes other images' latents",
        "label 1",
    ):
        assert fact in words


def test_the_page_needs_nothing_else(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    write_preview(Augmenter(space), pictures, tmp_path, seed=0)
    page = Page(tmp_path / HTML)
    assert not page.open
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert all(address.startswith("data:") for address in page.addresses)
    assert "://" not in (tmp_path / HTML).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('<script>alert("1")</script>&amp;.png', '<script>alert("1")</script>&amp;.png'),
        ("two\nlines\x1b[0m.png", "two\\nlines\\x1b[0m.png"),
        ("no utf-8 \udcff.png", "no utf-8 \\udcff.png"),
        ("a" * 300, "a" * 300),
        ("", ""),
    ],
    ids=["markup", "control", "bytes", "long", "none"],
)
def test_names_are_text_whatever_is_in_them(space: LatentSpace, name: str, shown: str, tmp_path: Path) -> None:
    write_preview(Augmenter(space), [(name, image(), None)], tmp_path, seed=0, strengths=(0.5,))
    page = Page(tmp_path / HTML)
    assert "script" not in page.tags
    assert not shown or shown in page.words
    assert ", ".join(part for part in (shown, "as given", "original") if part) in page.images


@pytest.mark.parametrize(
    ("one", "mode", "size"),
    [
        (image("camera"), "L", (32, 32)),
        (torch.cat([image(), torch.full((1, 32, 32), 90, dtype=torch.uint8)]), "RGBA", (32, 32)),
        (torch.cat([image("camera"), image("camera")]), "LA", (32, 32)),
        ((image().to(torch.int32) * 257).to(torch.uint16), "RGB", (32, 32)),
        (image().float() / 255, "RGB", (32, 32)),
        (image("coffee", 320, 80), "RGB", (160, 40)),
        (image("coffee", 1, 3), "RGB", (1, 3)),
        (image("coffee", 400, 1), "RGB", (160, 1)),
    ],
    ids=["gray", "alpha", "gray and alpha", "16 bits", "floats", "large", "tiny", "thin"],
)
def test_every_kind_of_image_is_shown(space: LatentSpace, one: Tensor, mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    write_preview(Augmenter(space), [("one", one, None)], tmp_path, seed=0, strengths=(0.5,))
    page = Page(tmp_path / HTML)
    assert {(picture.mode, picture.size) for picture in page.images.values()} == {(mode, size)}
    if one.dtype == torch.uint16 or one.is_floating_point():
        assert torch.equal(page.pixels("one, as given, original"), image())


def test_small_images_are_enlarged_by_whole_factors(space: LatentSpace, tmp_path: Path) -> None:
    one = image()
    write_preview(Augmenter(space), [("one", one, None)], tmp_path, seed=0, strengths=(0.5,))
    sheet = sheet_in(tmp_path)
    enlarged = one.permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1)
    places = np.argwhere((sheet == enlarged[0, 0]).all(2))
    assert any(np.array_equal(sheet[y : y + 96, x : x + 96], enlarged) for y, x in places)


def test_many_columns_go_below_each_other(space: LatentSpace, bank: LatentBank, tmp_path: Path) -> None:
    one: Pictures = [("one", image(width=160, height=8), 0)]
    write_preview(Augmenter(space), one, tmp_path / "few", seed=0, strengths=(0.5,))
    strengths = tuple(step / 15 for step in range(16))
    write_preview(Augmenter(space, "jitter,style,mix", bank=bank), one, tmp_path / "many", seed=0, strengths=strengths)
    few, many = (sheet_in(tmp_path / name).shape for name in ("few", "many"))
    assert few[1] < many[1] <= 2000
    assert many[0] > 3 * few[0]
    assert len(Page(tmp_path / "many" / HTML).images) == 2 + 3 * 16 + 3


def test_no_pictures_or_strengths_are_an_error(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    for wrong in ({"pictures": []}, {"pictures": pictures, "strengths": ()}):
        with pytest.raises(UsageError, match="at least one picture and one strength"):
            write_preview(Augmenter(space), target=tmp_path, seed=0, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"from 0 to 1, not 1\.5"):
        write_preview(Augmenter(space), pictures, tmp_path, seed=0, strengths=(1.5,))
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_used_is_named(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"odd\.png: expected an image"):
        write_preview(Augmenter(space), [*pictures, ("odd.png", torch.zeros(5, 8, 8), 0)], tmp_path, seed=0)
    assert not list(tmp_path.iterdir())


def test_a_preview_that_cannot_be_written_leaves_the_old_one(
    space: LatentSpace, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_preview(Augmenter(space), pictures, tmp_path, seed=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UsageError, match=r"cannot be written there \(No space left on device\)"):
        write_preview(Augmenter(space), pictures, tmp_path, seed=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_in_the_place_of_the_folder_is_an_error(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file: the preview cannot be written there"):
        write_preview(Augmenter(space), pictures, tmp_path / "file", seed=0)
    assert (tmp_path / "file").read_text() == "mine"


def test_copies_are_drawn_by_the_digests_that_are_given(space: LatentSpace, pictures: Pictures, tmp_path: Path) -> None:
    """As scans are, whose pixels are seen stretched."""
    augmenter = Augmenter(space, "jitter")
    own = [digest([image])[0] for _, image, _ in pictures]
    sheets = []
    for number, digests in enumerate((None, own, [own[0] + 1, *own[1:]])):
        write_preview(augmenter, pictures, tmp_path / str(number), seed=5, digests=digests)
        sheets.append((tmp_path / str(number) / PNG).read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]
