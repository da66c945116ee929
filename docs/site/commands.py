"""The reference of the command line, made from click's own commands when the site is built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from vaetools.cli import main

PAGE, PLACE = "docs/commands.md", "<!-- commands: the site's build writes them here -->"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.src_uri != PAGE:
        return markdown
    if PLACE not in markdown:
        raise ValueError(f"{PAGE} lacks the line {PLACE}")
    return markdown.replace(PLACE, "\n\n".join(reference(main, click.Context(main, info_name="vaetools"))))


def reference(group: click.Group, context: click.Context, level: int = 2) -> Iterator[str]:
    """Markdown of every command of a group, in the order that `--help` has."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        path = inner.command_path
        yield f"{'#' * level} {path.removeprefix('vaetools ')} {{ #{path.replace(' ', '-')} }}"
        yield f"```text\n{path} {' '.join(command.collect_usage_pieces(inner))}\n```"
        yield from paragraphs(command.help or "")
        if isinstance(command, click.Group):
            yield from reference(command, inner, level + 1)
        else:
            yield options(command, inner)


def paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text.partition("\f")[0]).split("\n\n"):
        lines = paragraph.splitlines()
        if lines and lines[0].strip() == "\b":  # click's mark of lines that stay as they are
            yield "\n".join(["```text", *lines[1:], "```"])
        else:
            yield escaped(paragraph)


def options(command: click.Command, context: click.Context) -> str:
    rows = ["| option | |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None and "--help" not in parameter.opts:
            rows.append(f"| `{record[0]}` | {escaped(' '.join(record[1].split()))} |")
    return "\n".join(rows)


def escaped(text: str) -> str:
    """Help is plain text, but for names in backticks."""
    signs = {ord(sign): f"\\{sign}" for sign in "*_[]"} | {ord("|"): "&#124;", ord("<"): "&lt;", ord(">"): "&gt;"}
    parts = text.split("`")
    parts[::2] = [part.translate(signs) for part in parts[::2]]
    return "`".join(parts)
