"""What an augmenting job does with which data set."""

from __future__ import annotations

from dataclasses import dataclass

from ..codec.container import Limits
from ..errors import UsageError
from ..folder.plan import ON_EXISTS

GATES = ("nearest",)
MAX_PIXELS = Limits().max_pixels


@dataclass(frozen=True)
class Options:
    """copies: of each train image. balance: beside those, as many as bring each class to the size of the largest.
    seed: of the run. layout: one of layouts.LAYOUTS. originals: copy the rest of the data set too, byte for byte.
    gate: "nearest" leaves out copies that no longer look like their class. max_pixels: larger images fail.
    on_exists: "skip" goes on where a job with the same settings was stopped; "overwrite" replaces what another one has written;
        "error" starts in a new folder only.

    Raises UsageError on a policy or a gate that is not known.
    """

    copies: int = 1
    balance: bool = False
    seed: int = 0
    layout: str = "auto"
    originals: bool = True
    gate: str | None = None
    on_exists: str = "skip"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.on_exists not in ON_EXISTS:
            raise UsageError(f"on_exists must be one of {', '.join(ON_EXISTS)}, not {self.on_exists!r}")
        if self.gate is not None and self.gate not in GATES:
            raise UsageError(f"unknown gate {self.gate!r}: choose one of {', '.join(GATES)}")
