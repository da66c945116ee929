"""What the commands that work on a folder say of it, beside their result: on stderr."""

from __future__ import annotations

from collections import Counter

import click

from ..folder.ledger import Outcome

FAILURES_SHOWN = 20


def shown(text: object) -> str:
    """A path or a message on one line, also where a name holds line breaks or bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def beside(outcome: Outcome, failing: str) -> str:
    """What is not done, for the summary's line."""
    parts = [
        f"{outcome.skipped} there already" * bool(outcome.skipped),
        f"{len(outcome.failed)} {failing}" * bool(outcome.failed),
    ]
    return "".join(f", {part}" for part in parts if part)


def print_failures(outcome: Outcome) -> None:
    for path, reason in outcome.failed[:FAILURES_SHOWN]:
        click.echo(f"failed: {shown(path)}: {shown(reason)}", err=True)
    if len(outcome.failed) > FAILURES_SHOWN:
        more = len(outcome.failed) - FAILURES_SHOWN
        click.echo(f"failed: {more} more; the manifest in the output folder and --json list them all", err=True)


def print_left_out(outcome: Outcome) -> None:
    for path in outcome.linked:
        click.echo(f"left out: {shown(path)}: a link to a folder", err=True)
    if outcome.own_output:
        click.echo(f"left out: {shown(outcome.own_output)}: the output folder, which is inside the source", err=True)
    if outcome.others:
        click.echo(f"left out: {outcome.others} files of other kinds", err=True)
    if outcome.filtered:
        click.echo(f"left out: {outcome.filtered} files by --include and --exclude", err=True)
    if outcome.stale:
        click.echo(
            f"out of date: {outcome.stale} of the files that are there: their sources, the settings or the files themselves were "
            "changed since; --on-exists overwrite makes them anew",
            err=True,
        )
    kinds = Counter(note.partition(": ")[0] for _, notes in outcome.notes for note in notes)
    for note, count in kinds.most_common(FAILURES_SHOWN):
        click.echo(f"note: {count} files: {shown(note)}; the manifest in the output folder tells which", err=True)
