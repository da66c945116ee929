"""`vaetools info`: needs neither torch nor a model."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..codec.container import BOX, ERRORS, HOST, NO_LIMITS, SCAN, TAGS, Contents, host_in, unpack
from ..codec.fidelity import Fidelity
from ..errors import Corrupt, FormatError, UsageError, VaetoolsError
from ..folder.manifest import number_or_inf
from ..images.sources import FORMATS_KNOWN, MODES_KNOWN
from ..medical.scan import Scan
from ..storage.url import Url
from . import EXIT_FAILED
from .outcome import shown
from .place import PlaceType

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.argument("files", nargs=-1, required=True, type=PlaceType(writing=True))
@click.option(
    "--preview/--no-preview",
    default=None,
    help="Show a small picture in the terminal; --preview decodes files that hold none, which takes the model "
    "[default: where the file holds one, and the terminal has colours].",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array on stdout.")
def info(files: tuple[Path | Url, ...], preview: bool | None, as_json: bool) -> None:
    """Print what the header of each of FILES says, and check the checksums."""
    if as_json and preview:
        raise UsageError("--json and --preview exclude each other: there is no picture in JSON")
    console = _console(asked=bool(preview)) if preview is not False and not as_json else None
    described: list[dict[str, object]] = []
    failed = False
    for path in files:
        try:
            data = path.read_bytes() if isinstance(path, Path) else path.blob().read_bytes()
            contents = unpack(data, NO_LIMITS)
        except (FormatError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            click.echo(f"Error: {shown(path)}: {reason}", err=True)
            failed = True
            continue
        fields = describe(path, len(data), contents)
        described.append(fields)
        if as_json:
            continue
        click.echo("\n".join(f"{name.replace('_', ' '):<15} {shown(_worded(value))}" for name, value in fields.items()))
        if console is not None and (reason := _print_picture(console, data, contents, decode=bool(preview))):
            click.echo(f"no picture of {path}: {reason}", err=True)
            failed |= bool(preview)
        click.echo()
    if as_json:
        click.echo(json.dumps(described))
    if failed:
        sys.exit(EXIT_FAILED)


def _console(*, asked: bool) -> Console | None:
    """Where a picture can be shown; None where none can."""
    if not asked and not sys.stdout.isatty():  # and nothing more is imported
        return None
    from .terminal import picture_console

    console = picture_console(asked=asked)
    if console is None and asked:
        click.echo("no pictures: stdout is no terminal with at least 256 colours", err=True)
    return console


def _print_picture(console: Console, data: bytes, contents: Contents, *, decode: bool) -> str:
    """decode: by the model, if need be. In words why there is no picture, where that is a fault."""
    from ..desktop.thumbnail import MAX_LOSSLESS_PIXELS, small, small_picture
    from .terminal import SIDE, HalfBlocks

    header, side = contents.header, min(SIDE, console.width)
    try:
        image = small_picture(contents.front, side, max_pixels=header.pixels if decode else MAX_LOSSLESS_PIXELS)
        if image is None and decode:
            from ..codec.codec import Codec
            from ..model.weights import find_by_hash

            model = find_by_hash(header.model_hash)
            if model is None:
                return f"it was written with the model {header.model_hash.hex()}, which is not installed"
            image = small(Codec.load(model, "cpu").decode([data])[0].picture, side)
    except VaetoolsError as error:
        return str(error)
    if image is not None:
        console.print(HalfBlocks(image))
    return ""


def describe(path: Path | Url, size: int, contents: Contents) -> dict[str, object]:
    """Every field of the header, by name, and what follows it."""
    header, front = contents.header, contents.front
    floats = {"chosen_on": f"{host_in(front.boxes)} (tables chosen in floats: may not decode elsewhere)"}
    return {
        "file": str(path),
        "format": f"{header.version[0]}.{header.version[1]}",
        "model": "none (lossless)" if header.lossless else header.model_hash.hex(),
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "bit_depth": header.bit_depth,
        "quality": header.quality,
        "tile_width": header.tile_width,
        "tile_height": header.tile_height,
        "tiles": header.tiles,
        "source_format": _named(FORMATS_KNOWN, header.source_format),
        "source_mode": _named(MODES_KNOWN, header.source_mode),
        "file_bytes": size,
        "header_bytes": header.boxes_start,
        "box_bytes": {kind.decode("latin-1").strip(): BOX.size + len(data) for kind, data in front.boxes.items()},
        **(floats if HOST in front.boxes else {}),
        **_scan_and_errors(contents),
        "payload_bytes": sum(entry.length for entry in front.entries),
        "bits_per_pixel": round(8 * size / header.pixels, 4),
        "payload_crc32": [f"{entry.payload_crc:08x}" for entry in front.entries],
        "symbols_crc32": [f"{entry.symbols_crc:08x}" for entry in front.entries],
    }


def _scan_and_errors(contents: Contents) -> dict[str, object]:
    """What a DICOM or NIfTI file was, and how far its values are off; nothing for other images."""
    try:
        return _described(contents.front.boxes)
    except Corrupt as error:  # the pixels are none the worse for it
        return {"scan": f"damaged: {error}"}


def _described(boxes: Mapping[bytes, bytes]) -> dict[str, object]:
    fields: dict[str, object] = {}
    scan = Scan.unpack(boxes[SCAN]) if SCAN in boxes else None
    if scan is not None:
        kind = "floating-point" if scan.floating else "signed" if scan.signed else "unsigned"
        fields["stored_values"] = f"{scan.bits} bits, {kind}: {scan.step:g} x pixel {scan.origin:+g}"
        fields["real_values"] = f"{scan.slope:g} x stored {scan.intercept:+g}"
        fields["window"] = None if math.isnan(scan.centre) else f"centre {scan.centre:g}, width {scan.width:g}"
        fields["tags"] = "kept" if TAGS in boxes else "not kept"
    found = Fidelity.unpack(boxes[ERRORS]) if ERRORS in boxes else None
    if found is not None:
        fields["max_abs_error"] = found.max_error if scan is None else scan.largest_error(found.max_error)
        if scan is not None:
            fields["max_real_error"] = number_or_inf(abs(scan.slope * scan.largest_error(found.max_error)))
        fields["range_psnr_db"] = number_or_inf(found.psnr if math.isinf(found.psnr) else round(found.psnr, 2))
    return fields


def _named(known: tuple[str, ...], code: int) -> str:
    return known[code] if code < len(known) else f"number {code}"


def _worded(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {size}" for name, size in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(value[:8]) + f" ... ({len(value)})" * (len(value) > 8)
    return value
