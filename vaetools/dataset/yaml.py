"""The splits that a YOLO data set's YAML file names.

    path: ../datasets/birds
    train: images/one                 a folder, or a text file of images
    val: [images/two, more/val.txt]   or several

Only such lines are read, and lists with a dash on each line; nothing else of YAML.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from ..errors import UsageError
from .listing import Listing
from .lists import read_list

SPLITS = ("train", "val", "test")
KEY = re.compile(r"(['\"]?)([A-Za-z_]\w*)\1\s*:(?:\s+(.*)|$)")
NO_PATHS = ("&", "*", "!", "|", ">", "{", "?", "%", "@", "`")  # what YAML gives a meaning of its own


def yaml_splits(listing: Listing) -> list[tuple[str, list[str]]]:
    """(split, images) of each split that a YAML file in the data set's folder names.

    Raises UsageError on a split that is written in another way, and where images are held out but the train images are not here.
    """
    found = []
    for path in yaml_files(listing):
        values = top_level(listing, path)
        if not {"train", "val"} & values.keys():
            continue
        where = str(listing.root / path)
        base = "/".join(_paths(where, "path", values.get("path", [])))
        here = {key: _images(listing, base, _paths(where, key, values[key])) for key in SPLITS if key in values}
        if not here.get("train") and any(here.values()):
            raise UsageError(f"{where}: the images of its train split are not below {listing.root}: correct the paths in it")
        found += [(key, images) for key, images in here.items() if images]
    return found


def yaml_files(listing: Listing) -> Iterator[str]:
    return (path for path in listing.others if "/" not in path and path.endswith((".yaml", ".yml")))


def top_level(listing: Listing, path: str) -> dict[str, list[str]]:
    """Of each key, the text behind it and the lines below it, without comments."""
    text = (listing.root / path).read_bytes().decode("utf-8-sig", "surrogateescape")
    values: dict[str, list[str]] = {}
    key = ""
    for line in map(_without_comment, text.splitlines()):
        match = KEY.match(line)
        if match:
            key = match[2]
            values[key] = [match[3].strip()] if (match[3] or "").strip() else []
        elif key and line.strip():
            values[key].append(line.strip())
    return values


def _without_comment(line: str) -> str:
    quote = ""
    for place, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and (place == 0 or line[place - 1] in " \t[,:"):
            quote = char
        elif char == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place].rstrip()
    return line.rstrip()


def _paths(where: str, key: str, lines: Sequence[str]) -> list[str]:
    text = " ".join(lines)
    if text.startswith("["):
        if not text.endswith("]"):
            raise _unclear(where, key, text)
        items = [item.strip() for item in text[1:-1].split(",")]
        items = [item for item in items if item]
    elif lines and all(line.startswith("- ") for line in lines):
        items = [line[2:].strip() for line in lines]
    elif len(lines) > 1:
        raise _unclear(where, key, text)
    else:
        items = list(lines)
    return [path for path in (_scalar(where, key, item) for item in items) if path]


def _scalar(where: str, key: str, item: str) -> str:
    if item[0] in "'\"":
        inner = item[1:-1]
        if len(item) < 2 or item[-1] != item[0] or item[0] in inner or (item[0] == '"' and "\\" in inner):
            raise _unclear(where, key, item)
        return inner
    if item in ("~", "null", "Null", "NULL"):
        return ""
    if item.startswith(NO_PATHS) or any(sign in item for sign in ("[", "]", "{", "}", ": ", "$")):
        raise _unclear(where, key, item)
    return item


def _unclear(where: str, key: str, text: str) -> UsageError:
    return UsageError(
        f"{where}: cannot tell what {key} is ({text[:60]!r}): write a path, such as images/{key}, or several: "
        "[images/a, images/b]"
    )


def _images(listing: Listing, base: str, paths: Sequence[str]) -> list[str]:
    """The images of folders and of lists that are below the data set's folder."""
    folders, texts = set(listing.folders), {path for path in listing.others if path.endswith(".txt")}
    found: list[str] = []
    for path in paths:
        places = [_suffix(each, folders | texts) for each in (f"{base}/{path}", path)]
        place = max((each for each in places if each is not None), key=len, default=None)
        if place is None and posixpath.normpath(path) in (".", ".."):
            place = ""
        if place in texts:
            found += filter(None, read_list(listing, place).images)
        elif place is not None:
            found += [image for image in listing.images if not place or image.startswith(f"{place}/")]
    return found


def _suffix(path: str, known: set[str]) -> str | None:
    """The longest end of a path that is known."""
    parts = [part for part in posixpath.normpath(path.replace("\\", "/")).split("/") if part not in ("", ".", "..")]
    return next((end for end in ("/".join(parts[place:]) for place in range(len(parts))) if end in known), None)
