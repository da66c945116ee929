"""What becomes of memory that the process has freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# MiB that the process still has of 64, in blocks of 8 as a step of training makes them, when they are free again.
STAYED = """
import sys, torch
from pathlib import Path
from vaetools.model import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) // 256

torch.ones(1 << 21)
if sys.argv[1] == "keep":
    memory.keep()
before = resident()
tensors = [torch.ones(1 << 21) for _ in range(8)]
del tensors
print(resident() - before)
"""


def stayed(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", STAYED, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_memory_stays_where_it_is_asked_to() -> None:
    assert stayed("keep") > 50
    assert min(stayed("give back") for _ in range(6)) < 30  # now and then something small lies on top of the heap
