"""`vaetools info`: needs neither torch nor a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ..codec.container import HEADER_BYTES, Header, unpack
from ..errors import FormatError
from . import EXIT_FAILED


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array on stdout.")
def info(files: tuple[Path, ...], as_json: bool) -> None:
    """Print what the header of each of FILES says, and check the checksums."""
    shown, failed = [], False
    for path in files:
        try:
            data = path.read_bytes()
            shown.append(describe(path, len(data), unpack(data)[0]))
        except (FormatError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            click.echo(f"Error: {path}: {reason}", err=True)
            failed = True
    if as_json:
        click.echo(json.dumps(shown))
    else:
        for fields in shown:
            click.echo("\n".join(f"{name.replace('_', ' '):<15} {value}" for name, value in fields.items()) + "\n")
    if failed:
        sys.exit(EXIT_FAILED)


def describe(path: Path, size: int, header: Header) -> dict[str, object]:
    """Every field of the header, by name."""
    return {
        "file": str(path),
        "format": f"{header.version[0]}.{header.version[1]}",
        "model": header.model_hash.hex(),
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "bit_depth": header.bit_depth,
        "quality": header.quality,
        "file_bytes": size,
        "header_bytes": HEADER_BYTES,
        "payload_bytes": header.payload_length,
        "bits_per_pixel": round(8 * size / header.pixels, 4),
        "payload_crc32": f"{header.payload_crc:08x}",
        "symbols_crc32": f"{header.symbols_crc:08x}",
    }
