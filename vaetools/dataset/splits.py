"""Which folders and files of a data set hold its train, validation and test images, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..errors import UsageError

_KIND, _NUMBER = r"([-_ ]?(set|split|data|images|imgs|dev|std))?", r"[-_ ]?\d*k?"
TRAIN = re.compile(rf"(train|training|trainval){_KIND}{_NUMBER}")
HELD_OUT = re.compile(rf"(val|valid|validation|minival|dev|test|testing|eval|evaluation|holdout){_KIND}{_NUMBER}")
WORDS = re.compile(r"[^A-Za-z0-9]+")


def is_train(name: str) -> bool:
    return TRAIN.fullmatch(name.lower()) is not None


def is_held_out(name: str) -> bool:
    """Whether images of this split must be left as they are."""
    return HELD_OUT.fullmatch(name.lower()) is not None


def split_in(name: str) -> str:
    """The split that a file's name tells of: "val2017" for "instances_val2017.json", "" for none."""
    words = [name.rpartition(".")[0] or name, *WORDS.split(name)]
    return next((word for word in words if is_held_out(word) or is_train(word)), "")


def split_level(folders: Sequence[tuple[str, ...]]) -> int | None:
    """How deep the folders lie that are splits, from the folders of all images: 0 for `train/cat`, 1 for `images/train`.

    None if there are no splits. A folder named train beside others is a class, unless it holds folders or one of the others is a
    test or validation split. Raises UsageError where test or validation images have no train images beside them.
    """
    for level in range(max(map(len, folders), default=0)):
        names = {folder[level] if len(folder) > level else "" for folder in folders}
        train, held_out = set(filter(is_train, names)), set(filter(is_held_out, names))
        if train and (held_out or names == train):
            return level
        if train and any(len(folder) > level + 1 and folder[level] in train for folder in folders):
            return level
        if held_out:
            refuse_without_train(held_out, names - held_out)
    return None


def refuse_without_train(held_out: Iterable[str], others: Iterable[str]) -> None:
    """Raises UsageError: nothing says which images are for training."""
    beside = sorted(name for name in others if name)
    found = f"{', '.join(sorted(held_out))}" + (f" beside {', '.join(beside[:5])}{', ...' * (len(beside) > 5)}" if beside else "")
    raise UsageError(
        f"found {found}, but no train split: name the one to augment 'train'; if {sorted(held_out)[0]!r} is no split, rename it"
    )
