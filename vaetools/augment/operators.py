"""What can be done to latents. Every operator is a pure function

    op(latents, context, strength, generators) -> latents

of a batch of latents, (B,) strengths from 0 (nothing) to 1, and one generator per image; what it draws for an image depends on
that image's generator alone. To add one of your own, decorate it with `operator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import UsageError
from ..model.space import Latents, LatentSpace, normal, per_row, uniform
from .bank import LatentBank

NEIGHBOURS = 5  # of the nearest images of a class, one is drawn
SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class Context:
    """What operators may look at beside the latents. labels (B,): -1 where there is none."""

    space: LatentSpace
    bank: LatentBank | None = None
    labels: Tensor | None = None

    def rows(self, index: Tensor) -> Context:
        return replace(self, labels=None if self.labels is None else self.labels[index])

    def bank_or_refuse(self) -> LatentBank:
        if self.bank is None:
            raise UsageError("this operator takes other images' latents: give a bank (LatentBank.fit), or labels with the batch")
        return self.bank

    def label_or_refuse(self, row: int) -> int:
        if self.labels is None or int(self.labels[row]) < 0:
            raise UsageError("this operator works within a class: give the labels of the images")
        return int(self.labels[row])


Apply = Callable[[Latents, Context, Tensor, Sequence[torch.Generator]], Latents]


@dataclass(frozen=True)
class Operator:
    """keeps_pixels: what an image shows stays where it is, so that boxes and masks hold. mixes_labels: the result is of several
    classes, in parts."""

    name: str
    summary: str
    apply: Apply
    keeps_pixels: bool = True
    needs_bank: bool = False
    needs_labels: bool = False
    mixes_labels: bool = False


OPERATORS: dict[str, Operator] = {}


def operator(
    *, keeps_pixels: bool = True, needs_bank: bool = False, needs_labels: bool = False, mixes_labels: bool = False
) -> Callable[[Apply], Apply]:
    """Register a function under its name, without a leading underscore; its docstring's first line is the summary."""

    def register(apply: Apply) -> Apply:
        name = getattr(apply, "__name__", "").strip("_")
        summary = (apply.__doc__ or "").strip().split("\n")[0]
        OPERATORS[name] = Operator(name, summary, apply, keeps_pixels, needs_bank, needs_labels, mixes_labels)
        return apply

    return register


@operator()
def jitter(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Add noise of the prior's standard deviation given z."""
    scale = context.space.conditional(latents).scale
    return latents.moved(latents.y + per_row(strength, latents.y) * scale * normal(generators, latents.y))


@operator()
def resample(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Draw a part of the places anew from p(y|z): textures change, the layout stays.

    strength: the share of the places.
    """
    chosen = uniform(generators, latents.y, 1, *latents.y.shape[-2:]) < per_row(strength, latents.y)
    return latents.moved(context.space.redraw(latents, chosen, normal(generators, latents.y)))


@operator()
def hyper(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Add noise to z, and carry y along with what z says of it."""
    space = context.space
    z = latents.z + per_row(strength, latents.z) * space.prior_z(latents.z).scale * normal(generators, latents.z)
    before, after = space.conditional(latents), space.conditional(latents.moved(latents.y, z))
    y = after.mean + after.scale / before.scale * (latents.y - before.mean)
    still = per_row(strength, latents.y) == 0
    return latents.moved(torch.where(still, latents.y, y), z)


@operator(needs_bank=True)
def style(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Mix each channel's mean and standard deviation with another image's.

    Adaptive instance normalisation, Huang and Belongie, ICCV 2017, equation 8; mixed as in MixStyle, Zhou et al., ICLR 2021.
    """
    y = latents.y
    other, _ = _partners(latents, context, _others(latents, context, generators))
    mean, std = _moments(y)
    other_mean, other_std = _moments(other)
    styled = (y - mean) / std * other_std + other_mean
    return latents.moved(y + per_row(strength, y) * (styled - y))


@operator()
def requantise(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Round y to coarser steps, as a codec does.

    Steps are drawn from 0 to `strength` times those of quality 0.
    """
    mean = context.space.conditional(latents).mean
    drawn = per_row(strength, latents.y) * uniform(generators, latents.y, 1, 1, 1)
    step = drawn * context.space.coarsest_step()
    rounded = mean + step * ((latents.y - mean) / step.clamp_min(1e-6)).round()
    return latents.moved(torch.where(step > 1e-6, rounded, latents.y))


@operator(keeps_pixels=False, needs_bank=True, needs_labels=True)
def interpolate(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Move towards a near image of the same class: up to all the way at strength 1.

    SMOTE, Chawla et al., JAIR 2002, section 4.2, in latents.
    """
    return _towards_neighbour(latents, context, strength, generators, 1)


@operator(keeps_pixels=False, needs_bank=True, needs_labels=True)
def extrapolate(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Move away from a near image of the same class.

    DeVries and Taylor, "Dataset augmentation in feature space", 2017, section 3.3.
    """
    return _towards_neighbour(latents, context, strength, generators, -1)


@operator(keeps_pixels=False, needs_bank=True, needs_labels=True)
def difference(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Add the difference of two near images of the same class."""
    bank = context.bank_or_refuse()
    ends: list[list[int]] = [[], []]
    for row, generator in enumerate(generators):
        label = context.label_or_refuse(row)
        members = bank.members(label)
        one = int(members[_one_of(len(members), generator)])
        near = bank.nearest(bank.y[one], NEIGHBOURS, label=label)
        ends[0].append(one)
        ends[1].append(int(near[_one_of(len(near), generator)]))
    (y0, z0), (y1, z1) = (_partners(latents, context, places) for places in ends)
    share = strength.to(latents.y.device)
    return latents.moved(
        latents.y + per_row(share, latents.y) * (y1 - y0),
        latents.z + per_row(share, latents.z) * (z1 - z0),
    )


@operator(keeps_pixels=False, needs_bank=True, needs_labels=True)
def sample(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Move towards a draw from the class's own normal distribution: all the way at strength 1.

    Mean and covariance are those of the class in the bank. A draw of N(mean, covariance) is the mean and a random combination
    of its images' distances from it, so the covariance is never written down.
    """
    bank = context.bank_or_refuse()
    drawn_y, drawn_z = [], []
    for row, generator in enumerate(generators):
        y, z = bank.take(bank.members(context.label_or_refuse(row)), latents.y[:1], latents.z[:1])
        weights = torch.randn(len(y), generator=generator).to(y.device) / max(1, len(y) - 1) ** 0.5
        drawn_y.append(y.mean(0) + torch.einsum("n,nchw->chw", weights, y - y.mean(0)))
        drawn_z.append(z.mean(0) + torch.einsum("n,nchw->chw", weights, z - z.mean(0)))
    share = strength.to(latents.y.device)
    return latents.moved(
        latents.y + per_row(share, latents.y) * (torch.stack(drawn_y) - latents.y),
        latents.z + per_row(share, latents.z) * (torch.stack(drawn_z) - latents.z),
    )


@operator(keeps_pixels=False, needs_bank=True, needs_labels=True, mixes_labels=True)
def mix(latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator]) -> Latents:
    """Move towards any other image, and the label with it: at most half the way at strength 1.

    MixUp, Zhang et al., ICLR 2018, in latents.
    """
    bank = context.bank_or_refuse()
    places = _others(latents, context, generators)
    y, z = _partners(latents, context, places)
    share = 0.5 * strength.to(latents.y.device) * uniform(generators, latents.y)
    labels = latents.labels
    if labels is not None:
        theirs = torch.nn.functional.one_hot(bank.labels[places], labels.shape[1]).to(labels)
        labels = labels + per_row(share, labels) * (theirs - labels)
    return Latents(
        latents.y + per_row(share, latents.y) * (y - latents.y), latents.z + per_row(share, latents.z) * (z - latents.z), labels
    )


def _towards_neighbour(
    latents: Latents, context: Context, strength: Tensor, generators: Sequence[torch.Generator], sign: int
) -> Latents:
    bank = context.bank_or_refuse()
    places = []
    for row, generator in enumerate(generators):
        near = bank.nearest(latents.y[row], NEIGHBOURS, label=context.label_or_refuse(row))
        places.append(int(near[_one_of(len(near), generator)]))
    y, z = _partners(latents, context, places)
    share = sign * strength.to(latents.y.device) * uniform(generators, latents.y)
    return latents.moved(
        latents.y + per_row(share, latents.y) * (y - latents.y), latents.z + per_row(share, latents.z) * (z - latents.z)
    )


def _others(latents: Latents, context: Context, generators: Sequence[torch.Generator]) -> list[int]:
    """For each image any of the bank, but not itself if there is another."""
    bank = context.bank_or_refuse()
    places = []
    for y, generator in zip(latents.y, generators, strict=True):
        place = _one_of(len(bank), generator)
        places.append((place + 1) % len(bank) if bank.is_same(place, y) else place)
    return places


def _partners(latents: Latents, context: Context, places: Sequence[int]) -> tuple[Tensor, Tensor]:
    return context.bank_or_refuse().take(torch.tensor(places), latents.y, latents.z)


def _one_of(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def _moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (B, M, 1, 1)."""
    return y.mean((2, 3), keepdim=True), y.std((2, 3), keepdim=True, correction=0).clamp_min(SMALLEST_STD)


def parse_operators(names: str | Sequence[str]) -> tuple[tuple[Operator, ...], ...]:
    """Choices, of which each image gets one: "jitter,style" or ["jitter", "hyper+style"], where + joins a chain.

    Raises UsageError on a name that is not registered.
    """
    wanted = names.split(",") if isinstance(names, str) else list(names)
    chains = []
    for choice in wanted:
        chain = []
        for name in (part.strip() for part in choice.split("+")):
            if name not in OPERATORS:
                raise UsageError(f"unknown operator {name!r}: choose among {', '.join(OPERATORS)}")
            chain.append(OPERATORS[name])
        chains.append(tuple(chain))
    if not chains:
        raise UsageError(f"no operator given: choose among {', '.join(OPERATORS)}")
    return tuple(chains)


def refuse_moving(chains: Sequence[Sequence[Operator]], what: str) -> None:
    """Raises UsageError if an operator may move what `what` (boxes, masks) mark."""
    moving = sorted({operator.name for chain in chains for operator in chain if not operator.keeps_pixels})
    if moving:
        keeping = ", ".join(name for name, operator in OPERATORS.items() if operator.keeps_pixels)
        raise UsageError(f"{', '.join(moving)} may move what {what} mark: use operators that keep pixels in place ({keeping})")
