"""The options that divide a job: among workers, or into shards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..errors import UsageError
from ..folder.shard import ENGINES, Shard


class ShardType(click.ParamType):
    """One of several parts of a job."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        try:
            return value if isinstance(value, Shard) else Shard.parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


# From the last to the first, as decorators are applied.
DIVISION = (
    click.option("--address", metavar="ADDRESS", help="Of a Ray cluster [default: Ray is started here for the job]."),
    click.option("--workers", type=click.IntRange(1), help="Of the engine [default: one per GPU, or 1]."),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="local",
        show_default=True,
        help="Who does the work of several workers: processes of this machine, or Ray's actors.",
    ),
    click.option(
        "--shard",
        type=ShardType(),
        metavar="I/N",
        help="Only part I of N, here; the others elsewhere or later, to one folder.",
    ),
)


def division_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Take `shard`, `engine`, `workers` and `address`."""
    for option in DIVISION:
        command = option(command)
    return command


def asks_for_workers(engine: str, workers: int | None, address: str | None) -> bool:
    return engine != "local" or (workers or 1) > 1 or address is not None


def workers_of(engine: str, workers: int | None, address: str | None, shard: Shard | None, device: str) -> int:
    """How many workers an engine is to have; 0 where the job, or the shard, is done here.

    Raises click.UsageError where both an engine and a shard are asked for.
    """
    from ..folder.engines import default_workers

    count = workers or (1 if shard else default_workers(device))
    if shard and (engine != "local" or count > 1):
        raise click.UsageError("--shard is one process's part of a job, and --engine and --workers divide a job: choose")
    return count if asks_for_workers(engine, count, address) else 0
