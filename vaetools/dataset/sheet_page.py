"""The sheet of a preview as a page of HTML that needs nothing but itself."""

from __future__ import annotations

import base64
from html import escape

import numpy as np

from ..augment.operators import Operator
from ..images.png import png_bytes
from .sheet import ENLARGED, Column, Group, Sheet, enlarged

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #595959; --paper: #fff; --card: #f4f4f4; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --soft: #a8a8a8; --paper: #161616; --card: #242424; } }
body { margin: 0 auto; padding: 1rem; max-width: 110rem; font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
h4 { font-size: .9rem; margin: 0 0 .4rem; }
h3 span, dd span, .facts, figcaption { font-weight: 400; color: var(--soft); }
dl { columns: 24rem; } dt { font-weight: 600; break-after: avoid; } dd { margin: 0 0 .6rem; break-inside: avoid; }
.facts, .groups, .cells { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; list-style: none; }
.facts { gap: .2rem 1.2rem; }
.group { padding: .6rem; border-radius: .5rem; background: var(--card); }
figure { margin: 0; width: min(max(var(--side), 6rem), (100vw - 4.5rem) / 3); }
figcaption { font-size: .8rem; line-height: 1.3; } figcaption b { font-weight: 500; color: var(--ink); }
img { display: block; width: var(--side); max-width: 100%; height: auto; margin-bottom: .2rem; }
.pixels { image-rendering: pixelated; }
.alpha { background: repeating-conic-gradient(#ccc 0 25%, #f4f4f4 0 50%) 0 0 / 16px 16px; }
"""


def page_of(sheet: Sheet) -> str:
    """HTML5 without scripts; its images are in it."""
    facts = "\n".join(f"<li>{escape(fact)}</li>" for fact in sheet.facts)
    legend = "\n".join(_explained(operator) for operator in sheet.operators)
    sections = "".join(_section(sheet, row) for row in range(len(sheet.rows)))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>vaetools augment: preview</title>
<style>{STYLE}</style>
</head>
<body>
<h1>vaetools augment: preview</h1>
<ul class="facts">{facts}</ul>
<h2>Operators</h2>
<dl>{legend}</dl>
<h2>Images</h2>
<p>Each choice of operators, always applied, at several strengths; then the first copies as they are written.</p>
{sections}</body>
</html>
"""


def _explained(operator: Operator) -> str:
    parts = ["keeps pixels in place" if operator.keeps_pixels else "may move what the image shows: not for boxes and masks"]
    parts += ["takes other images' latents"] * operator.needs_bank + ["mixes labels"] * operator.mixes_labels
    promises = escape("; ".join(parts))
    return f"<dt>{escape(operator.name)}</dt><dd>{escape(operator.summary)}<br><span>{promises}</span></dd>"


def _section(sheet: Sheet, row: int) -> str:
    name, label = sheet.rows[row]
    side = enlarged(sheet.groups[0].columns[0].images[row]).width
    groups = []
    for group in sheet.groups:
        figures = "".join(_figure(name, group, column, row) for column in group.columns)
        groups.append(f'<div class="group"><h4>{escape(group.title)}</h4><div class="cells">\n{figures}</div></div>\n')
    heading = f"{escape(name)} <span>{escape(label)}</span>"
    return f'<section style="--side: {side}px">\n<h3>{heading}</h3>\n<div class="groups">\n{"".join(groups)}</div>\n</section>\n'


def _figure(name: str, group: Group, column: Column, row: int) -> str:
    picture, caption = column.images[row], column.captions[row]
    kinds = ["pixels"] * (max(picture.size) < ENLARGED) + ["alpha"] * (picture.mode in ("LA", "RGBA"))
    source = "data:image/png;base64," + base64.b64encode(png_bytes(np.asarray(picture))).decode()
    told = escape(", ".join(part for part in (name, group.title, column.heading) if part))
    size = f'width="{picture.width}" height="{picture.height}"'
    image = f'<img class="{" ".join(kinds)}" src="{source}" {size} alt="{told}">'
    words = f"<b>{escape(column.heading)}</b>" + (f"<br>{escape(caption)}" if caption else "")
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>\n"
