"""The files by which a desktop knows .vtc files: a media type, and a command that makes thumbnails.

    DATA/mime/packages/vaetools.xml            shared-mime-info: name, glob, magic number
    DATA/thumbnailers/vaetools.thumbnailer     which command draws that type

They are written by a command and not by the installation of the package: a desktop looks for them in the user's data folder and
below /usr, where an environment of Python installs nothing, the interpreter's place must stand in one of them, and the database
of types must be made anew afterwards.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from ..codec.container import MAGIC
from ..errors import UsageError, VaetoolsError
from ..files import replace_bytes
from ..pillow import MIME_TYPE

MARK = "Written by `vaetools desktop install`; `vaetools desktop uninstall` removes it."
TYPES, THUMBNAILERS = Path("mime/packages/vaetools.xml"), Path("thumbnailers/vaetools.thumbnailer")
DATABASE_TOOL = "update-mime-database"
SANDBOX = Path("/usr")  # gnome-desktop-thumbnail-script.c, add_bwrap
Tell = Callable[[str], None]


def data_home() -> Path:
    """The user's data folder (XDG Base Directory Specification 0.8). Raises UsageError if nobody says where it is."""
    given = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(given):  # others must be ignored
        return Path(given)
    try:
        return Path.home() / ".local" / "share"
    except RuntimeError:
        raise UsageError("there is no home folder: set XDG_DATA_HOME to the data folder of the user") from None


def types_xml() -> str:
    """The media type for shared-mime-info 2.x: *.vtc, and the magic number, which goes before another program's *.vtc."""
    magic = "".join(chr(byte) if 32 < byte < 127 else f"\\x{byte:02x}" for byte in MAGIC)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- {MARK} -->
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
  <mime-type type={quoteattr(MIME_TYPE)}>
    <comment>vaetools image</comment>
    <generic-icon name="image-x-generic"/>
    <magic priority="60">
      <match type="string" offset="0" value={quoteattr(magic)}/>
    </magic>
    <glob pattern="*.vtc"/>
  </mime-type>
</mime-info>
"""


def thumbnailer_entry(python: str) -> str:
    """The entry for file managers, which take its command apart as a shell does. python: that has vaetools.

    -P keeps it from importing out of the folder in which the file manager happens to run.
    """
    command = shlex.join((python, "-P", "-m", "vaetools", "thumbnail", "--overwrite")).replace("%", "%%")
    return f"""# {MARK}
[Thumbnailer Entry]
TryExec={python}
Exec={command} --size %s %i %o
MimeType={MIME_TYPE};
"""


@dataclass(frozen=True)
class Integration:
    """The two files below a data folder."""

    home: Path

    @property
    def files(self) -> dict[Path, str]:
        """Place and content."""
        return {self.home / TYPES: types_xml(), self.home / THUMBNAILERS: thumbnailer_entry(sys.executable)}

    def install(self, tell: Tell) -> None:
        """Write both, and make the database of types anew. tell: gets a line for all that is done.

        Raises UsageError, before anything is written, if one of the places holds a file of somebody else's; VaetoolsError if
        they cannot be written.
        """
        for path in self.files:
            _check(path)
        for path, content in self.files.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_bytes(path, content.encode())
            except OSError as error:
                raise VaetoolsError(f"{path}: cannot be written ({error.strerror or error})") from None
            tell(f"wrote {path}")
        self._update(tell)
        if not Path(sys.prefix).resolve().is_relative_to(SANDBOX):
            tell(
                f"GNOME Files shows no thumbnails: it runs thumbnailers where they see nothing but {SANDBOX}, and vaetools is "
                f"installed in {sys.prefix}; others, such as Thunar, show them"
            )

    def uninstall(self, tell: Tell) -> None:
        """Remove both, where they are there. Raises as install does."""
        there = [path for path in self.files if os.path.lexists(path)]
        for path in there:
            _check(path)
        for path in there:
            try:
                path.unlink()
            except OSError as error:
                raise VaetoolsError(f"{path}: cannot be removed ({error.strerror or error})") from None
            tell(f"removed {path}")
        if not there:
            tell(f"nothing of vaetools in {self.home}")
        elif self.home / TYPES in there:
            self._update(tell)

    def _update(self, tell: Tell) -> None:
        tool, folder = shutil.which(DATABASE_TOOL), self.home / "mime"
        if tool is None:
            tell(f"{DATABASE_TOOL} is not installed: where it is, run it on {folder} for the type to be known")
            return
        done = subprocess.run([tool, str(folder)], capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise VaetoolsError(f"{DATABASE_TOOL} {folder} failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
        tell(f"ran {DATABASE_TOOL} {folder}")


def _check(path: Path) -> None:
    """Raises UsageError for a file that install has not written."""
    if not os.path.lexists(path):
        return
    try:
        ours = path.is_file() and not path.is_symlink() and MARK.encode() in path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not ours:
        raise UsageError(f"{path}: there already, and not written by vaetools: move it away, or leave things as they are")
