"""Arguments that name folders and files: of this machine, or in stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..storage.place import local_path, parse_folder, parse_source


class PlaceType(click.ParamType):
    """A path, or a URL such as s3://bucket/folder. writing: it is to be written to."""

    name = "path"

    def __init__(self, *, writing: bool = False) -> None:
        self.writing = writing

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        return parse_folder(value) if self.writing else parse_source(value)


class LocalPath(click.Path):
    """A path of this machine, also as file://; other URLs would be told as folders that are not there."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from ..storage.url import is_url

        if isinstance(value, str) and is_url(value) and not Path(value).exists():
            if path := local_path(value):
                return super().convert(str(path), param, ctx)
            command = ctx.command.name if ctx else "this command"
            raise UsageError(
                f"{value.partition('://')[0]}://...: `vaetools {command}` takes files and folders of this machine here, no URLs: "
                "copy it first (aws s3 cp --recursive, gcloud storage cp -r, rclone copy)"
            )
        return super().convert(value, param, ctx)


def without_urls(command: click.Command) -> click.Command:
    """Have every path that a command takes refuse URLs."""
    for param in command.params:
        if type(param.type) is click.Path:
            param.type = LocalPath(path_type=param.type.type)
    return command
