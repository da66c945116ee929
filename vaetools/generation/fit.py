"""From images to a fitted prior: encode them all, then fit a mixture to their latents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..augment.seeds import generator_of, seed_for
from ..errors import UsageError
from ..folder.ledger import JobProgress
from ..images.collection import Collection
from ..model.pixels import to_model
from ..model.space import LatentSpace
from ..model.threads import one_thread
from .mixture import Mixture
from .prior import COMPONENTS, KINDS, FittedPrior, is_class_name

LIMIT_BYTES = 1 << 30  # of the latents in memory
AT_ONCE = 1 << 18  # pixels that are encoded together
SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))


@dataclass(frozen=True)
class Options:
    """kind: one of KINDS. components: in each class, or of all [default: COMPONENTS]. per_class: None is where there are
    class folders. size: (height, width) to bring all images to."""

    kind: str = "mixture"
    components: int | None = None
    per_class: bool | None = None
    size: tuple[int, int] | None = None
    seed: int = 0


def encode(space: LatentSpace, images: Tensor) -> Tensor:
    """y (B, M, h, w) on the CPU of images (B, C, H, W) in 0..1 of one size."""
    at_once = max(1, AT_ONCE // (images.shape[2] * images.shape[3]))
    with one_thread(space.device):
        return torch.cat([space.encode(part).y.cpu() for part in images.split(at_once)])


def fit_latents(
    space: LatentSpace,
    y: Tensor,
    labels: Sequence[int] | Tensor,
    size: tuple[int, int],
    *,
    classes: Sequence[str] = (),
    kind: str = "mixture",
    components: int | None = None,
    seed: int = 0,
) -> FittedPrior:
    """The prior of latents y (N, M, h, w) of images of `size` (height, width), as `encode` gives them.

    labels (N,): the position of each one's class in `classes`; 0 without classes. Raises UsageError on a kind, a number of
    components or a name of a class that cannot be used, and if a class has one image only.
    """
    if kind not in KINDS:
        raise UsageError(f"no kind of prior {kind!r}: choose one of {', '.join(KINDS)}")
    if components is not None and components < 1:
        raise UsageError(f"a mixture needs at least 1 component, not {components}")
    if len(y) < 2:
        raise UsageError("a prior needs at least two images to be fitted to")
    if bad := [name for name in classes if not is_class_name(name)]:
        raise UsageError(f"the class name {bad[0]!r} is no name of a folder: choose another")
    count = 1 if kind == "normal" else components or COMPONENTS[bool(classes)]
    with one_thread(torch.device("cpu")):
        mixture = Mixture.fit(y.flatten(1), torch.as_tensor(labels), components=count, seed=seed)
    shape = (int(y.shape[1]), int(y.shape[2]), int(y.shape[3]))
    return FittedPrior(mixture, kind, space.model_hash, space.quality, *size, shape, tuple(classes), len(y))


def fit_images(
    space: LatentSpace,
    images: Iterable[Tensor],
    labels: Sequence[int] | Tensor | None,
    *,
    classes: Sequence[str] | None,
    kind: str,
    components: int | None,
    seed: int,
) -> FittedPrior:
    """See FittedPrior.fit."""
    found: list[Tensor] = []
    waiting: list[Tensor] = []
    size = (1, 1)
    for number, image in enumerate(images):
        x = to_model(image, space.config)
        here = (int(x.shape[1]), int(x.shape[2]))
        if number and here != size:
            raise UsageError(f"image {number} has {_words(here)} pixels, those before it {_words(size)}: bring them to one size")
        size = here
        waiting.append(x)
        if len(waiting) * here[0] * here[1] >= AT_ONCE:
            found.append(encode(space, torch.stack(waiting)))
            waiting = []
    if waiting:
        found.append(encode(space, torch.stack(waiting)))
    count = sum(len(part) for part in found)
    if labels is None and classes is not None:
        raise UsageError("class names without labels: give both, or neither")
    whole = [0] * count if labels is None else [int(label) for label in labels]
    if len(whole) != count:
        raise UsageError(f"{count} images and {len(whole)} labels: there must be one for each")
    names: Sequence[str] = ()
    if labels is not None:
        names = [str(number) for number in range(max(whole, default=-1) + 1)] if classes is None else classes
        if whole and not 0 <= min(whole) <= max(whole) < len(names):
            raise UsageError(f"labels go from {min(whole)} to {max(whole)}, and there are {len(names)} classes, counted from 0")
    y = torch.cat(found) if found else torch.empty(0)
    return fit_latents(space, y, whole, size, classes=names, kind=kind, components=components, seed=seed)


def _words(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def fit_folder(
    space: LatentSpace,
    folder: Path,
    options: Options,
    *,
    tell: Callable[[str], object] = lambda line: None,
    progress: JobProgress | None = None,
) -> tuple[FittedPrior, list[tuple[str, str]]]:
    """The prior, and names of images that cannot be read, each with the reason. The class of an image is its first folder.

    tell: is given notes, in words. Raises UsageError if the images differ in size and none is given, or if there are too
    few; of more images than LIMIT_BYTES hold, a random part is taken.
    """
    collection = Collection.of(folder)
    per_class = _is_per_class(collection, options.per_class)
    if splits := sorted(name for name in collection.classes if name.lower() in SPLIT_NAMES):
        tell(f"the classes are the folders {', '.join(collection.classes)}; for those of a split, give {folder / splits[0]}")
    size = options.size or _size_of_first(collection, space)
    found: list[Tensor] = []
    index: list[int] = []
    if progress is not None:
        progress.start(len(collection), len(collection))
    for images, places in _brought_to_size(collection, space, size, options, tell):
        found.append(encode(space, images))
        index += places
        if progress is not None:
            for _ in places:
                progress.advance(1, size[0] * size[1])
    names = collection.classes if per_class else []
    labels = collection.labels[index].tolist() if per_class else [0] * len(index)
    present = sorted(set(labels)) if per_class else []
    if single := [names[label] for label in present if labels.count(label) == 1]:
        raise UsageError(
            f"{folder}: the class {single[0]!r} has one image, and a density needs two: --no-per-class fits all as one"
        )
    if per_class:  # a class of which no image can be read has none
        numbers = {label: number for number, label in enumerate(present)}
        names, labels = [names[label] for label in present], [numbers[label] for label in labels]
    prior = fit_latents(
        space,
        torch.cat(found),
        labels,
        size,
        classes=names,
        kind=options.kind,
        components=options.components,
        seed=options.seed,
    )
    return prior, collection.failed


def _drawn(labels: Sequence[int], most: int, seed: int) -> list[int]:
    """Places of `most` images at random, rising; two of each class, which a density needs, as far as they reach."""
    count: Counter[int] = Counter()
    first: list[int] = []
    others: list[int] = []
    for place in torch.randperm(len(labels), generator=generator_of(seed_for(seed, 0, 0, 0))).tolist():
        (first if count[labels[place]] < 2 else others).append(place)
        count[labels[place]] += 1
    return sorted([*first, *others][:most])


def _is_per_class(collection: Collection, wanted: bool | None) -> bool:
    if wanted and collection.classes == [""]:
        raise UsageError(f"{collection.root}: has no folders for classes; leave --per-class out")
    return len(collection.classes) > 1 if wanted is None else wanted


def _brought_to_size(
    collection: Collection, space: LatentSpace, size: tuple[int, int], options: Options, tell: Callable[[str], object]
) -> Iterator[tuple[Tensor, list[int]]]:
    """Batches of the collection, or of as many of its images as their latents may take memory."""
    config = space.config
    only: list[int] | None = None
    rows, columns = space.shape(*size)
    most = max(2, LIMIT_BYTES // (4 * rows * columns * config.latent_channels))
    if len(collection) > most:
        tell(f"fitted to {most} of {len(collection)} images, drawn at random: more would not fit into memory")
        only = _drawn(collection.labels.tolist(), most, options.seed)
    for batch in collection.batches(config.image_channels, config.bit_depth, only=only):
        images = batch.images
        here = (int(images.shape[2]), int(images.shape[3]))
        if here != size and options.size is None:
            raise UsageError(
                f"{collection.root / collection.names[batch.index[0]]}: has {_words(here)} pixels, those before it "
                f"{_words(size)}, and a prior is for one size: bring all to one with --size"
            )
        if here != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        yield images, batch.index


def _size_of_first(collection: Collection, space: LatentSpace) -> tuple[int, int]:
    before = list(collection.failed)
    first = next(collection.batches(space.config.image_channels, space.config.bit_depth, batch_pixels=1))
    collection.failed[:] = before  # they come again
    return int(first.images.shape[2]), int(first.images.shape[3])
