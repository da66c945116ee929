"""Tars as a source: one, those of a pattern, or those of a folder that holds nothing else to work on."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..images.folder import SUFFIXES, has_suffix
from .blob import Readable
from .place import Contents, Place
from .tar import SUFFIX, TarMember, list_members, refuse_compressed
from .url import RemoteBlob, Url, is_url, without_secrets

BRACES = re.compile(r"\{([^{}]*)\}")
NUMBERS = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)
MOST = 1_000_000  # tars that a pattern may stand for


@dataclass(frozen=True)
class TarShards(Place):
    """The files in tars: `photos-000/0001.jpg` is 0001.jpg of photos-000.tar; of a single tar, `0001.jpg`.

    Raises UsageError if two tars are of one name, or the name of one of several is none of a folder.
    """

    text: str
    tars: tuple[Readable, ...]

    def __post_init__(self) -> None:
        known: dict[str, Readable] = {}
        for tar in self.tars:
            folder = tar.name[: -len(SUFFIX)]
            if known.setdefault(folder, tar) is not tar:
                raise UsageError(f"{known[folder]} and {tar} have one name: take them one after the other, to two folders")
            if folder in ("", ".", "..") and len(self.tars) > 1:  # results would be beside the output folder
                raise UsageError(f"{tar}: no folder can be named like that: rename it, or take it alone")

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, text: str) -> TarShards:
        """text: a tar, or a pattern such as `photos-{000..041}.tar` or `shards/*.tar`.

        Raises UsageError if a tar is missing, or is a compressed one.
        """
        return cls.of_all([text])

    @classmethod
    def of_all(cls, texts: Sequence[str]) -> TarShards:
        tars = [tar for text in texts for tar in _tars_of(text)]
        shown = [without_secrets(text) for text in texts]
        return cls(" ".join(shown) if len(shown) < 3 else f"{shown[0]} ... {shown[-1]}", tuple(tars))

    @classmethod
    def in_folder(cls, folder: Path) -> TarShards | None:
        """Those of a folder that has tars, and neither folders nor images in it that are not hidden; None of another."""
        tars = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir() or has_suffix(entry.name, SUFFIXES) or has_suffix(entry.name, (".vtc",)):
                        return None
                    if has_suffix(entry.name, (SUFFIX,)):
                        tars.append(folder / entry.name)
        except OSError:
            return None
        return cls(str(folder), tuple(sorted(tars))) if tars else None

    def is_in(self, folder: Path | Url) -> bool:
        if isinstance(folder, Path):
            parents = {tar.parent for tar in self.tars if isinstance(tar, Path)}
            return folder.resolve() in {parent.resolve() for parent in parents}
        return any(tar.is_right_in(folder) for tar in self.tars if isinstance(tar, RemoteBlob))

    def folder_of(self, tar: Readable) -> str:
        """What the paths of its files start with."""
        return f"{tar.name[: -len(SUFFIX)]}/" if len(self.tars) > 1 else ""

    def list(self, suffixes: frozenset[str]) -> Contents:
        files: list[tuple[str, TarMember]] = []
        problems: list[tuple[str, str]] = []
        others = 0
        for tar in self.tars:
            listing = list_members(tar)
            found = [member for member in listing.members if has_suffix(member.inside, suffixes)]
            folder = self.folder_of(tar)
            files += [(folder + member.inside, member) for member in found]
            others += len(listing.members) - len(found) + listing.passed
            problems += listing.problems
        if not files:
            kinds = ", ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
            why = f"; {problems[0][0]}: {problems[0][1]}" if problems else ""
            raise UsageError(f"{self}: no file to work on in {len(self.tars)} tars (looked for {kinds}){why}")
        files.sort(key=lambda pair: pair[0].split("/"))
        return Contents(files, others, tuple(problems))


def is_tars(text: str) -> bool:
    """Whether an argument names tars, by its end."""
    try:
        refuse_compressed(text)
    except UsageError:
        return True
    return has_suffix(without_secrets(text), (SUFFIX,))


def _tars_of(text: str) -> Sequence[Readable]:
    refuse_compressed(text)
    if is_url(text):
        try:
            return [tar for url in expanded(text) for _, tar in Url(url).list(frozenset((SUFFIX,))).files]
        except UsageError as error:
            if glob.has_magic(without_secrets(text)):
                raise UsageError(f"{error}; of tars in stores, only braces make a pattern, such as {{000..041}}") from None
            raise
    if os.path.lexists(text):
        return [Path(text)]
    found: list[Path] = []
    for name in itertools.islice(expanded(text), MOST + 1):
        if glob.has_magic(name) and not os.path.lexists(name):
            found += [Path(path) for path in sorted(glob.glob(name, recursive=True)) if has_suffix(path, (SUFFIX,))]
        elif os.path.lexists(name):
            found.append(Path(name))
        else:
            raise UsageError(f"{name}: no such file" + (f", of {text}" if name != text else ""))
    if not found:
        raise UsageError(f"{text}: no tar is of this pattern")
    if len(found) > MOST:
        raise UsageError(f"{text}: stands for more than {MOST:,} tars")
    return found


def expanded(text: str) -> Iterator[str]:
    """What a shell makes of braces: `{000..041}` and `{train,test}`, in order; other braces stay as they are.

    >>> list(expanded("a-{08..10}.tar"))
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    start = 0
    while match := BRACES.search(text, start):
        words: Iterator[str] | list[str]
        if numbers := NUMBERS.fullmatch(match[1]):
            first, last = int(numbers[1]), int(numbers[2])
            padded = any(word.startswith("0") and len(word) > 1 for word in numbers.groups())
            width = max(map(len, numbers.groups())) if padded else 0
            step = 1 if last >= first else -1
            words = (f"{number:0{width}}" for number in range(first, last + step, step))
        elif "," in match[1]:
            words = match[1].split(",")
        else:
            start = match.end()
            continue
        for word in words:
            for rest in expanded(text[match.end() :]):
                yield text[: match.start()] + word + rest
        return
    yield text
