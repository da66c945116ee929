"""What the site's build does beside mkdocs' own work.

Files of the site have the paths that they have in the repository: `docs/pillow.md` beside `FORMAT.md` and `assets/kodak.png`. A
relative link is then right where it stands, on GitHub and on the site, and mkdocs checks it. On the site the folder `docs` is
left out of addresses: `pillow.html`.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "FORMAT.md", "CHANGELOG.md")  # the site's pages that do not lie in docs/
SHORT = 26  # characters: names and options of up to so many are not broken into two lines
HERE = "site/"  # within docs/: what makes the site, and is no part of it


def on_files(files: Files, config: MkDocsConfig) -> Files:
    chosen = {path: ROOT / path for path in (*PAGES, "LICENSE")}
    chosen |= {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "assets").iterdir())}
    ours = [file for file in files if file.src_dir == config.docs_dir]
    chosen |= {f"docs/{file.src_uri}": Path(config.docs_dir, file.src_uri) for file in ours if not file.src_uri.startswith(HERE)}
    theirs = [file for file in files if file.src_dir != config.docs_dir]  # the theme's
    return Files([*(place(config, name, path) for name, path in chosen.items()), *theirs])


def place(config: MkDocsConfig, name: str, path: Path) -> File:
    file = File.generated(config, name, abs_src_path=str(path))
    file.dest_uri = file.dest_uri.removeprefix("docs/")
    if name in PAGES:
        file.dest_uri = file.dest_uri.lower()
    return file


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Browsers break `--minutes` after its hyphens."""
    return re.sub(rf"<code>([^<]{{1,{SHORT}}})</code>", r'<code class="short">\1</code>', html)
