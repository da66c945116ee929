"""Docstrings as the reference shows them.

In the code a docstring is prose: what it does, then `name: what it is` for arguments and fields, `Raises UsageError if ...`, and
lines of `>>>`. Here these become the sections of a Google docstring, which mkdocstrings makes lists of. Nothing is added or
left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import griffe

ERRORS = (
    "VaetoolsError|UsageError|ImageError|ModelError|TrainingError|FormatError|NotThisFormat|Truncated|Corrupt|UnsupportedVersion|"
    "LimitExceeded|ModelMissing|Desync|KeyboardInterrupt|ValueError|OSError|KeyError|IndexError|TypeError"
)
RAISES = re.compile(rf"(?:^|(?<=[.;] ))Raises (?=(?:{ERRORS})\b)")
ONE_RAISED = re.compile(rf"(?:^|, and |, | and |\. )(?P<names>(?:{ERRORS})(?: or (?:{ERRORS}))*)\b[ ,]*")


@dataclass
class Sections:
    prose: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    raises: list[tuple[str, str]] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    def text(self, heading: str) -> str:
        """A Google docstring. heading: of the names, `Parameters` or `Attributes`."""
        parts = list(self.prose)
        if self.names:
            parts.append("\n".join([f"{heading}:", *(f"    {name}: {said}" for name, said in self.names.items())]))
        if self.raises:
            parts.append("\n".join(["Raises:", *(f"    {name}: {said}" for name, said in self.raises)]))
        if self.examples:
            parts.append("\n".join(["Examples:", *(f"    {line}" for line in self.examples)]))
        return "\n\n".join(parts)


def sections(docstring: str, names: set[str]) -> Sections:
    """names: arguments or fields, which `name: ` at the start of a sentence is looked for."""
    found = Sections()
    for block in re.split(r"\n\s*\n", docstring):
        if block.lstrip().startswith(">>>"):
            found.examples += block.splitlines()
        elif re.search(r"^(?:    |\s*[-|*] )", block, re.M) and not re.match(r"`?\w+`?: ", block):
            found.prose.append(block)  # a drawing or a list: lines stay where they are
        else:
            read_paragraph(" ".join(block.split()), names, found)
    return found


def read_paragraph(paragraph: str, names: set[str], found: Sections) -> None:
    for said, text in items(paragraph, names):
        text, raises, rest = without_raises(text)
        if said:
            found.names |= dict.fromkeys(said, text)
        elif text:
            found.prose.append(text)
        found.raises += raises
        if rest:
            found.prose.append(rest)


def items(paragraph: str, names: set[str]) -> Iterator[tuple[list[str], str]]:
    """The names that are told of, none for what stands before the first, and what is said."""
    if not names:
        yield [], paragraph
        return
    name = "`?(?:" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")`?"
    starts = list(re.finditer(rf"(?:^|(?<=[.;] ))({name}(?:, {name})*): ", paragraph))
    yield [], paragraph[: starts[0].start() if starts else None].strip()
    for start, following in zip_longest(starts, starts[1:]):
        text = paragraph[start.end() : following.start() if following else None].strip()
        yield start[1].replace("`", "").split(", "), text


def without_raises(text: str) -> tuple[str, list[tuple[str, str]], str]:
    """What stands before `Raises`, what is raised when, and the sentences that follow."""
    start = RAISES.search(text)
    if not start:
        return text, [], ""
    told = text[start.end() :]
    errors = list(ONE_RAISED.finditer(told))
    raises, rest = [], []
    for error, following in zip_longest(errors, errors[1:]):
        said, _, more = told[error.end() : following.start() if following else None].strip(" .").partition(". ")
        raises += [(name, said[:1].upper() + said[1:] + ".") for name in error["names"].split(" or ")]
        rest += [f"{more}."] if more else []
    return text[: start.start()].strip(), raises, " ".join(rest)


class ProseDocstrings(griffe.Extension):
    """Rewrites docstrings of functions and classes, before they are parsed."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring:
            known = {parameter.name for parameter in func.parameters}
            func.docstring.value = sections(func.docstring.value, known).text("Parameters")

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.docstring:
            own = "__init__" in cls.members
            known = {name for name, member in cls.members.items() if member.is_attribute}
            known |= {parameter.name for parameter in cls.parameters} if own else set()
            cls.docstring.value = sections(cls.docstring.value, known).text("Parameters" if own else "Attributes")
