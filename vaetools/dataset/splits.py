"""Which folders and files of a data set hold its train, validation and test images, by their names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import UsageError

_KIND, _NUMBER = r"([-_ ]?(set|split|data|images|imgs|dev|std))?", r"[-_ ]?\d*k?"
TRAIN = re.compile(rf"(train|training|trainval){_KIND}{_NUMBER}")
HELD_OUT = re.compile(
    rf"(val|valid|validate|validation|minival|dev|test|testing|eval|evaluation|hold[-_ ]?out|held[-_ ]?out){_KIND}{_NUMBER}"
)
WORDS = re.compile(r"[^A-Za-z0-9]+")
CASED_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def is_train(name: str) -> bool:
    return TRAIN.fullmatch(name.lower()) is not None


def is_held_out(name: str) -> bool:
    """Whether images of this split must be left as they are."""
    return HELD_OUT.fullmatch(name.lower()) is not None


def split_in(name: str) -> str:
    """The split that a file's name tells of: "val2017" for "instances_val2017.json", "" for none."""
    words = [name.rpartition(".")[0] or name, *WORDS.split(name)]
    return next((word for word in words if is_held_out(word) or is_train(word)), "")


@dataclass(frozen=True)
class Splits:
    """Which folders of images are splits. level: how deep they lie, 0 for `train/cat`, 1 for `images/train`; None if there are
    none. train: the names of those to augment."""

    level: int | None = None
    train: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folders: Sequence[tuple[str, ...]]) -> Splits:
        """From the folders of all images.

        A folder named train beside others is a class, unless it holds folders or one of the others is a test or validation
        split. Where no name is that of a split alone, those count that tell of one: seg_train beside seg_test. Raises UsageError
        where test or validation images have no train images beside them, and where splits and classes cannot be told apart.
        """
        levels = [{_at(folder, level) for folder in folders} for level in range(max(map(len, folders), default=0))]
        told = next((level for level, names in enumerate(levels) if _tell_of_splits(names)), None)
        for level, names in enumerate(levels):
            train, held_out = frozenset(filter(is_train, names)), frozenset(filter(is_held_out, names))
            if train and (held_out or names == train):
                return cls(level, train)
            if train and any(len(folder) > level + 1 and folder[level] in train for folder in folders):
                return cls(level, train)
            if held_out:
                if told is not None and told <= level:
                    break
                refuse_without_train(held_out, names - held_out)
        if told is None:
            return cls()
        _refuse_classes(levels[told])
        return cls(told, _told_for_training(levels[told]))

    def split_of(self, folders: tuple[str, ...]) -> str:
        """The split of an image in these folders; "" if it is in none."""
        return "" if self.level is None else _at(folders, self.level)

    def is_train(self, folders: tuple[str, ...]) -> bool:
        return self.level is None or self.split_of(folders) in self.train

    def without(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        """The same folders but for the split's."""
        if self.level is None or len(folders) <= self.level:
            return folders
        return (*folders[: self.level], *folders[self.level + 1 :])


def _at(folders: tuple[str, ...], level: int) -> str:
    return folders[level] if len(folders) > level else ""


def tells_of_held_out(name: str) -> bool:
    """Whether a word of it is that of a held-out split: seg_test and testA, but not latest."""
    return is_held_out(name) or any(map(is_held_out, _words(name)))


def _tells_of_train(name: str) -> bool:
    return is_train(name) or any(map(is_train, _words(name)))


def _words(name: str) -> list[str]:
    """hold_out_A and holdOut are of two words that are one, too."""
    words = CASED_WORDS.findall(name)
    return words + [f"{first}{second}" for first, second in itertools.pairwise(words)]


def _tell_of_splits(names: set[str]) -> bool:
    return bool(_told_for_training(names)) and any(map(tells_of_held_out, names))


def _told_for_training(names: set[str]) -> frozenset[str]:
    """Those for training: a word on held-out images always wins."""
    return frozenset(name for name in names if _tells_of_train(name) and not tells_of_held_out(name))


def _refuse_classes(names: set[str]) -> None:
    """Raises UsageError if there are other folders beside those that tell of splits."""
    train, held_out = _told_for_training(names), set(filter(tells_of_held_out, names))
    if others := sorted(names - held_out - train - {""}):
        raise UsageError(
            f"found {min(train)} and {min(held_out)} beside {', '.join(others[:5])}{', ...' * (len(others) > 5)}, and cannot "
            "tell whether these are splits: if they are, name them 'train' and 'test'; if all are classes, put them in a "
            "folder 'train'"
        )


def refuse_without_train(held_out: Iterable[str], others: Iterable[str]) -> None:
    """Raises UsageError: nothing says which images are for training."""
    beside = sorted(name for name in others if name)
    found = f"{', '.join(sorted(held_out))}" + (f" beside {', '.join(beside[:5])}{', ...' * (len(beside) > 5)}" if beside else "")
    raise UsageError(
        f"found {found}, but no train split: name the one to augment 'train'; if {sorted(held_out)[0]!r} is no split, rename it"
    )
