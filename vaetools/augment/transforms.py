"""The augmenter in torchvision: for one sample, before collate, and for a batch, after it.

docs/loaders.md tells how to use them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from numbers import Integral
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchvision import tv_tensors  # type: ignore[import-untyped]
from torchvision.transforms.v2 import Transform  # type: ignore[import-untyped]
from torchvision.transforms.v2.functional import is_pure_tensor  # type: ignore[import-untyped]

from ..errors import UsageError
from ..images.tensors import to_tensor
from .augmenter import Augmenter
from .stream import SeedStream

LabelsGetter = Callable[[Any], Any]

PIL_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
MARKS = {tv_tensors.BoundingBoxes: "boxes", tv_tensors.Mask: "masks"}
if hasattr(tv_tensors, "KeyPoints"):  # not in older torchvisions
    MARKS[tv_tensors.KeyPoints] = "keypoints"
_label: ContextVar[int | None] = ContextVar("label", default=None)  # of the sample that is on its way through `forward`


class _Latent(Transform):
    """What both have: an augmenter, a stream of seeds, and a way to find labels."""

    _transformed_types = (is_pure_tensor, tv_tensors.Image, tv_tensors.Video, PIL.Image.Image)

    def __init__(self, augmenter: Augmenter, seed: int | None, labels_getter: LabelsGetter | str | None) -> None:
        super().__init__()
        if isinstance(labels_getter, str):
            if labels_getter != "default":
                raise UsageError(f"labels_getter is 'default', None or a function of the sample, not {labels_getter!r}")
            labels_getter = find_labels
        self.augmenter, self.stream, self.labels_getter = augmenter, SeedStream(seed), labels_getter
        self.wants_labels = (
            augmenter.needs_labels or augmenter.mixes_labels or augmenter.gate is not None or bool(augmenter.strength.classes)
        )
        if self.wants_labels and self.labels_getter is None:
            raise UsageError(
                f"{_names(augmenter)}: these operators, this gate or these strengths need labels: give labels_getter"
            )

    def set_epoch(self, epoch: int) -> None:
        """Before each epoch: with a seed, images then are the same for any number of workers; and ramps of strength go on."""
        self.stream.set_epoch(epoch)

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Raises UsageError on boxes, masks or keypoints, if an operator may move what they mark."""
        for each in flat_inputs:
            for kind, name in MARKS.items():
                if isinstance(each, kind):
                    self.augmenter.refuse_moving(name)

    def extra_repr(self) -> str:
        return f"operators={_names(self.augmenter)!r}, strength={self.augmenter.strength}, seed={self.stream.seed}"


class LatentTransform(_Latent):
    """Augments a sample's image, (C, H, W) as `tv_tensors.Image`, PIL image or pure tensor, or the frames of a video, all alike.

    Types, sizes and modes stay as they are; boxes, masks and keypoints are passed on, and refused by operators that move pixels.
    Works in workers, forked or spawned.

    seed: None for other images whenever torch's generator is in another state; a number for images that follow from it (see
    `SeedStream`). labels_getter: a function of the sample that gives its class number, for operators that look at it; by default
    the sample's second item, or what a dictionary has as "labels" or the like.

    Raises UsageError if the augmenter cannot be used on single images: operators that mix labels, or need a bank and have none.

    >>> transform = v2.Compose([v2.RandomCrop(224), LatentTransform(augmenter), v2.ToDtype(torch.float32, scale=True)])
    """

    def __init__(
        self, augmenter: Augmenter, *, seed: int | None = None, labels_getter: LabelsGetter | str | None = "default"
    ) -> None:
        if augmenter.mixes_labels:
            raise UsageError(f"{_names(augmenter)} mixes labels, which needs a whole batch: use BatchAugment after collate")
        if augmenter.needs_bank and augmenter.bank is None:
            raise UsageError(f"{_names(augmenter)} takes other images' latents: give the augmenter a bank, or use BatchAugment")
        super().__init__(augmenter, seed, labels_getter)

    def forward(self, *inputs: Any) -> Any:
        """What the base class does, with the label at hand: it is not among what `make_params` gets."""
        if not self.wants_labels:
            return super().forward(*inputs)
        assert self.labels_getter is not None
        token = _label.set(_class_number(self.labels_getter(inputs if len(inputs) > 1 else inputs[0])))
        try:
            return super().forward(*inputs)
        finally:
            _label.reset(token)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """One seed for all images of the sample, by the first."""
        if not flat_inputs:
            return {}
        planes = torch.cat(_frames(flat_inputs[0]))
        return {"seed": self.stream.draw([planes])[0], "label": _label.get()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        frames = _frames(inpt)
        seeds = [params["seed"]] * len(frames)
        labels = None if params["label"] is None else [params["label"]] * len(frames)
        images = self.augmenter.augment(frames, seeds, labels, epoch=self.stream.epoch).images
        if isinstance(inpt, PIL.Image.Image):
            return _to_pil(images[0], inpt)
        result = torch.stack(images) if isinstance(inpt, tv_tensors.Video) else images[0]
        return tv_tensors.wrap(result, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else result


class BatchAugment(_Latent):
    """Augments a batch after collate, on the device that it is on: (images, labels), a dictionary, or images alone.

    images: (B, C, H, W), uint8 or floats in 0..1, `tv_tensors.Image` or the first pure tensor that is not the labels. The same
    structure is returned. If an operator mixes labels, labels (B,) become (B, num_classes) floats, as by torchvision's MixUp;
    else they are left alone. In eval mode, what comes in goes out.

    seed, labels_getter: as for LatentTransform. num_classes: needed where labels are mixed and the augmenter has no bank.

    Without a bank, operators that need one take the other images of the batch: what becomes of an image depends on them then.

    >>> batch_augment = BatchAugment(Augmenter.load("photo", "jitter,mix", device="cuda"), num_classes=10)
    >>> for images, labels in loader:
    ...     images, labels = batch_augment(images.cuda(), labels.cuda())
    """

    def __init__(
        self,
        augmenter: Augmenter,
        *,
        seed: int | None = None,
        labels_getter: LabelsGetter | str | None = "default",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(augmenter, seed, labels_getter)
        bank = augmenter.bank
        self.num_classes = bank.classes if num_classes is None and bank is not None else num_classes
        if augmenter.mixes_labels and self.num_classes is None:
            raise UsageError(f"{_names(augmenter)} mixes labels: give num_classes, or the augmenter a bank")
        if augmenter.mixes_labels and bank is not None and self.num_classes < bank.classes:  # type: ignore[operator]
            raise UsageError(f"num_classes is {num_classes}, and the augmenter's bank has {bank.classes} classes")

    def forward(self, *inputs: Any) -> Any:
        sample = inputs if len(inputs) > 1 else inputs[0]
        if not self.training:
            return sample
        flat, spec = tree_flatten(sample)
        self.check_inputs(flat)
        found: Any = self.labels_getter(sample) if self.wants_labels and self.labels_getter is not None else None
        place = _place_of_images(flat, found)
        images = flat[place]
        labels = _class_numbers(found, len(images)) if self.wants_labels else None
        plain = images.as_subclass(Tensor)
        result = self.augmenter.augment(plain, self.stream.draw(plain), labels, epoch=self.stream.epoch)
        stacked = torch.stack(result.images) if result.images else plain
        flat[place] = tv_tensors.wrap(stacked, like=images) if isinstance(images, tv_tensors.TVTensor) else stacked
        if self.augmenter.mixes_labels and result.labels is not None:
            flat[_place_of(flat, found)] = self._soft(result.labels).to(found.device)
        return tree_unflatten(flat, spec)

    def _soft(self, labels: Tensor) -> Tensor:
        """(B, num_classes) floats, of those or less."""
        assert self.num_classes is not None
        if not len(labels):
            return torch.zeros(0, self.num_classes)
        if labels.shape[1] > self.num_classes:
            raise UsageError(f"num_classes is {self.num_classes}, and a label of the batch is {labels.shape[1] - 1}")
        return F.pad(labels.float(), (0, self.num_classes - labels.shape[1]))


def find_labels(sample: Any) -> Any:
    """The second item of a tuple or list if it is labels; else what a dictionary, there or alone, has as "labels" or the like.

    Raises UsageError if there is nothing of the kind.
    """
    part = sample[1] if isinstance(sample, tuple | list) and len(sample) > 1 else sample
    if isinstance(part, Mapping):
        keys = [key for key in part if isinstance(key, str) and "label" in key.lower()]
        if keys:
            return part[min(keys, key=lambda key: key.lower() != "labels")]
    elif part is not sample and (isinstance(part, Integral) or is_pure_tensor(part)):
        return part
    raise UsageError("some of the operators need labels, and none are found in the sample: give labels_getter, a function of it")


def _names(augmenter: Augmenter) -> str:
    return ",".join("+".join(operator.name for operator in chain) for chain in augmenter.operators)


def _class_number(label: Any) -> int:
    if isinstance(label, Tensor) and label.numel() == 1 and not label.is_floating_point():
        return int(label)
    if isinstance(label, Integral):
        return int(label)
    got = f"a tensor {tuple(label.shape)} of {label.dtype}" if isinstance(label, Tensor) else repr(label)
    raise UsageError(f"the label of an image is one class number, not {got}: give a labels_getter that finds it")


def _class_numbers(labels: Any, count: int) -> Tensor:
    """(B,) class numbers. Raises UsageError on anything else."""
    if not isinstance(labels, Tensor) or labels.shape != (count,) or labels.is_floating_point():
        got = f"a tensor {tuple(labels.shape)} of {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
        raise UsageError(f"labels must be a tensor of {count} class numbers, one for each image, and not mixed yet; got {got}")
    return labels.as_subclass(Tensor).cpu()


def _place_of(flat: list[Any], wanted: Any) -> int:
    for place, each in enumerate(flat):
        if each is wanted:
            return place
    raise UsageError("labels_getter must give the tensor that is in the batch, so that mixed labels can take its place")


def _place_of_images(flat: list[Any], labels: Any) -> int:
    """Which of the batch's parts is the images. Raises UsageError if none or several are."""
    places = [place for place, each in enumerate(flat) if isinstance(each, tv_tensors.Image)]
    if not places:
        plain = [place for place, each in enumerate(flat) if is_pure_tensor(each) and each is not labels]
        places = sorted(plain, key=lambda place: flat[place].ndim != 4)[:1]  # labels come first where nobody has looked for them
    if len(places) != 1:
        raise UsageError(f"expected one batch of images (B, C, H, W) and found {len(places) or 'none'}: use it after collate")
    if flat[places[0]].ndim != 4:
        raise UsageError(f"expected a batch of images (B, C, H, W), got shape {tuple(flat[places[0]].shape)}")
    return places[0]


def _frames(image: Any) -> list[Tensor]:
    """Plain tensors (C, H, W): one, or those of a video. Raises UsageError on anything but an image or a video."""
    if isinstance(image, PIL.Image.Image):
        if image.mode not in PIL_MODES:
            raise UsageError(
                f"PIL images of mode {image.mode} cannot be augmented, those of {', '.join(PIL_MODES)} can: convert it"
            )
        return [to_tensor(np.asarray(image))]
    plain = image.as_subclass(Tensor)
    if isinstance(image, tv_tensors.Video):
        if plain.ndim != 4 or not len(plain):
            raise UsageError(f"expected a video (T, C, H, W), got shape {tuple(plain.shape)}")
        return list(plain)
    if plain.ndim != 3:
        hint = "; for batches there is BatchAugment" if plain.ndim == 4 else ""
        raise UsageError(f"expected an image (C, H, W), got shape {tuple(plain.shape)}{hint}")
    return [plain]


def _to_pil(image: Tensor, like: PIL.Image.Image) -> PIL.Image.Image:
    pixels = image.permute(1, 2, 0).numpy()
    result = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
    result.info = dict(like.info)
    return result
