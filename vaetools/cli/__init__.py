"""The command line: parse, call, print; nothing else. Commands are imported when they are run, and torch with them."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Any

import click

from .. import __version__
from ..errors import UsageError, VaetoolsError
from .place import without_urls

# name: module, attribute, summary
COMMANDS = {
    "compress": ("compress", "compress", "Compress a folder of images to .vtc files."),
    "decompress": ("compress", "decompress", "Restore the images of a folder of .vtc files."),
    "verify": ("verify", "verify", "Check a folder of .vtc files, also against the originals."),
    "info": ("info", "info", "Print what the header of a .vtc file says."),
    "thumbnail": ("desktop", "thumbnail", "Write a small PNG of a .vtc file."),
    "desktop": ("desktop", "desktop", "Let file managers know .vtc files."),
    "compare": ("evaluate", "compare", "Compare restored images with their originals."),
    "eval": ("evaluate", "evaluate", "Measure rate and distortion beside other codecs."),
    "augment": ("augment", "augment", "Write augmented copies of a labelled folder of images."),
    "report": ("report", "report", "Write one HTML page that shows what a compressed folder is like."),
    "sample": ("generate", "sample", "Make new images with a trained model."),
    "interpolate": ("generate", "interpolate", "Go from one image to another in a strip or an animation."),
    "fit-prior": ("generate", "fit_prior", "Fit what `sample` draws from to a folder of images."),
    "anomaly": ("anomaly", "anomaly", "Learn what good images look like, and score others."),
    "denoise": ("denoise", "denoise", "Take noise out of a folder of images."),
    "embed": ("embed", "embed", "Write a feature vector for each image of a folder."),
    "train": ("train", "train", "Train a model on a folder of images."),
    "import-compressai": ("foreign", "import_compressai", "Make weights of a checkpoint of CompressAI."),
    "export": ("train", "export", "Write the weights of a training run's last checkpoint."),
}
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries before it imports them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        command: click.Command = getattr(module, COMMANDS[cmd_name][1])
        return without_urls(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Turn the package's errors into one line and an exit code."""
        try:
            return super().invoke(ctx)
        except VaetoolsError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
        except OSError as error:  # such as a folder that may not be entered
            if error.errno is None or error.errno == errno.EPIPE:  # which click takes care of
                raise
            click.echo(f"Error: {error.filename or 'the system'}: {error.strerror}", err=True)
            sys.exit(EXIT_FAILED)
        except KeyboardInterrupt as error:
            click.echo(f"Interrupted{f': {error}' if str(error) else ''}.", err=True)
            sys.exit(EXIT_INTERRUPTED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vaetools")
def main() -> None:
    """Compress images with a variational autoencoder, restore them, and train one on your own.

    Exit codes: 0 all done, 1 something failed, 2 wrong usage, 130 interrupted.
    """
