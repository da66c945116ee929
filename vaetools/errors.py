"""Every error that vaetools raises on purpose.

    VaetoolsError
    |-- UsageError            an argument or a folder that cannot be worked with
    |-- ImageError            an image that cannot be read, or is of a kind that is not supported
    |-- ModelError            weights or a config that cannot be used
    |-- TrainingError         training cannot start or go on
    `-- FormatError           a compressed file that cannot be decoded
        |-- NotThisFormat     it is no .vtc file, or was altered by a text-mode transfer
        |-- Truncated         it ends too early
        |-- Corrupt           a checksum or a field contradicts the rest
        |-- UnsupportedVersion  it was written by a newer vaetools
        |-- LimitExceeded     a size is above the configured cap
        |-- ModelMissing      the model that wrote it is not installed
        `-- Desync            it decoded to other symbols than were encoded

Messages say what is wrong, where, and what to do about it.
"""


class VaetoolsError(Exception):
    """Base class: catch this to catch everything below."""


class UsageError(VaetoolsError):
    """An argument or a folder that cannot be worked with."""


class ImageError(VaetoolsError):
    """An image that cannot be read, or is of a kind that is not supported."""


class ModelError(VaetoolsError):
    """Weights or a config that cannot be used."""


class TrainingError(VaetoolsError):
    """Training cannot start or go on."""


class FormatError(VaetoolsError):
    """A compressed file that cannot be decoded."""


class NotThisFormat(FormatError):
    """No .vtc file, or one altered by a text-mode transfer."""


class Truncated(FormatError):
    """The file ends too early."""


class Corrupt(FormatError):
    """A checksum fails, or a field contradicts the rest of the file."""


class UnsupportedVersion(FormatError):
    """Written by a newer vaetools."""


class LimitExceeded(FormatError):
    """A size in the file is above the configured cap."""


class ModelMissing(FormatError):
    """The model that wrote the file is not installed."""


class Desync(FormatError):
    """The file decoded to other symbols than were encoded."""


def reason_of(error: BaseException | str) -> str:
    """Why something failed, in words."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, str | VaetoolsError | OSError):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"
