"""`vaetools info`: needs neither torch nor a model."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from ..codec.container import BOX, ERRORS, HOST, SCAN, TAGS, Contents, host_in, unpack
from ..codec.fidelity import Fidelity
from ..errors import Corrupt, FormatError
from ..folder.manifest import number_or_inf
from ..images.sources import FORMATS_KNOWN, MODES_KNOWN
from ..medical.scan import Scan
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
            shown.append(describe(path, len(data), unpack(data)))
        except (FormatError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            click.echo(f"Error: {path}: {reason}", err=True)
            failed = True
    if as_json:
        click.echo(json.dumps(shown))
    else:
        for fields in shown:
            click.echo("\n".join(f"{name.replace('_', ' '):<15} {_worded(value)}" for name, value in fields.items()) + "\n")
    if failed:
        sys.exit(EXIT_FAILED)


def describe(path: Path, size: int, contents: Contents) -> dict[str, object]:
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
