"""`vaetools thumbnail` and `vaetools desktop`: neither needs torch."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import click

from ..errors import FormatError, ImageError, UsageError, reason_of
from ..files import replace_file

LARGEST = 4096  # pixels a side


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("-s", "--size", type=click.IntRange(1, LARGEST), default=128, show_default=True, help="Pixels a side, at most.")
@click.option("--overwrite", is_flag=True, help="Replace TARGET if it is there.")
def thumbnail(source: Path, target: Path, size: int, overwrite: bool) -> None:
    """Write a small PNG of the .vtc file SOURCE to TARGET, without the model.

    It is upright and never enlarged, from the preview that `compress --preview` puts into a file, of at most 96 pixels a side, or
    from the pixels of a file that is kept lossless. Other files have none.
    """
    from ..desktop.thumbnail import front_of, small_picture

    is_there = target.is_symlink() or target.exists()
    if is_there and (not target.is_file() or (source.exists() and target.samefile(source))):
        raise UsageError(f"{target}: no place for a thumbnail: choose a new name, such as {source.stem}.png")
    if is_there and not overwrite and target.stat().st_size:
        raise UsageError(f"{target}: there already; --overwrite replaces it")
    try:
        front = front_of(source)
        image = small_picture(front, size)
        if image is None:
            raise ImageError("it holds no preview: compress it with --preview, or decompress it")
    except (FormatError, ImageError, OSError) as error:
        raise ImageError(f"{source}: {reason_of(error)}") from None
    buffer = io.BytesIO()
    image.save(buffer, "PNG")

    def write(place: Path) -> None:
        place.write_bytes(buffer.getvalue())
        if is_there:
            shutil.copymode(target, place)

    try:
        if is_there and not target.stat().st_size:
            target.write_bytes(buffer.getvalue())  # a file manager's, which has it open, and would not see another one
        else:
            replace_file(target, write)
    except OSError as error:
        raise ImageError(f"{target}: cannot be written ({reason_of(error)})") from None


@click.group()
def desktop() -> None:
    """Let file managers know .vtc files, and show thumbnails of them: for this user, on Linux and other freedesktop systems.

    Only files that hold a preview (`compress --preview`) or are kept lossless have a thumbnail.
    """


@desktop.command()
def install() -> None:
    """Write the media type and the thumbnailer to XDG_DATA_HOME (~/.local/share)."""
    from ..desktop.integration import Integration, data_home

    Integration(data_home()).install(click.echo)


@desktop.command()
def uninstall() -> None:
    """Remove what `install` has written."""
    from ..desktop.integration import Integration, data_home

    Integration(data_home()).uninstall(click.echo)
