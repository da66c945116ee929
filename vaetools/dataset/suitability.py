"""Which operators go with which data set."""

from __future__ import annotations

from collections.abc import Sequence

from ..augment.operators import Operator, refuse_moving
from ..errors import UsageError
from .dataset import Dataset

# (operators, strength). The first are mild, and need no classes; the others are what helped classifiers of few images, and of few
# images of some classes, with a model that was fitted to these: docs/augmentation.md has the figures.
MILD = ("style", 0.3)
WITHIN_CLASSES = ("extrapolate,difference", 0.8)
BALANCING = ("extrapolate,difference,resample", 0.5)


def default_operators(dataset: Dataset, *, fitted: bool, balance: bool) -> tuple[str, float]:
    """What is done where nobody says: (operators, strength). fitted: with a model of the data set's own."""
    if fitted and dataset.classes and not dataset.marks:
        return BALANCING if balance else WITHIN_CLASSES
    return MILD


def refuse_unfit(dataset: Dataset, operators: Sequence[Sequence[Operator]], *, gated: bool) -> None:
    """Raises UsageError if one of the operators, or a gate, does not go with what the data set says of its images."""
    used = {operator.name: operator for chain in operators for operator in chain}
    if dataset.marks:
        refuse_moving(operators, f"the {dataset.marks} of the layout {dataset.layout}")
    if not dataset.classes:
        labelled = sorted(name for name, operator in used.items() if operator.needs_labels)
        what = f"{', '.join(labelled)} work within a class" if labelled else "the gate compares classes" if gated else ""
        if what:
            raise UsageError(
                f"{what}, and images in the layout {dataset.layout} have none: it takes a folder for each class, or labels"
            )
    mixing = sorted(name for name, operator in used.items() if operator.mixes_labels)
    if mixing:
        raise UsageError(
            f"{', '.join(mixing)} mixes classes, and a folder holds one: mix while training, or choose other operators"
        )
