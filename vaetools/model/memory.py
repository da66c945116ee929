"""Memory that is not needed any more: given back to the system, or kept for the next time."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

# Of glibc's mallopt. Larger blocks than the first, at most 32 MiB, come from the system one by one; more than the second, free at
# the end of the heap, goes back.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
LARGEST_FROM_HEAP, ALMOST_ALL = 32 << 20, 2**31 - 1


@cache
def _c_library() -> Any:
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "malloc_trim") else None
    except (OSError, TypeError):  # no such thing on this system
        return None


def give_back() -> None:
    """Where the C library is glibc, else nothing.

    Between the tiles of a large image: the network's tensors leave holes in the heap that glibc keeps. Without this, 100
    megapixels took 400 to 500 MB more.
    """
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


def keep() -> None:
    """From now on, freed memory stays with the process, but for blocks above 32 MiB. Where the C library is glibc, else nothing.

    A step of training makes and frees the tensors of the one before. Pages that go back to the system in between, and come again
    filled with zeros, took a third of its time.
    """
    library = _c_library()
    if library is not None and hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)
        library.mallopt(M_TRIM_THRESHOLD, ALMOST_ALL)
