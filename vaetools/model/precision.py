"""Which arithmetic a device is fastest in."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import UsageError


def has_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 matrix products run in hardware; elsewhere they would be emulated, slower than float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # it asks the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device: torch.device, *, bfloat16: bool | None = None) -> torch.autocast:
    """bfloat16 where the chip has it, float32 elsewhere; `bfloat16` overrides the choice."""
    enabled = has_bfloat16(device) if bfloat16 is None else bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def pick_device(name: str = "auto", *, local_rank: int | None = None) -> torch.device:
    """A device that works: `auto` is a GPU, or the CPU where there is none.

    A GPU always has its number, since each thread has a current one of its own. `local_rank`: which one this process of several
    takes, if `name` does not say. Raises UsageError on a name that torch does not know, or a device that cannot add two numbers.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device() if local_rank is None else local_rank)
        torch.ones(1, device=device).add(1).item()  # torch makes tensors even on a GPU that it has no code for
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used: {reason}; `cpu` can be used everywhere") from None
    return device


def compute_exactly(device: torch.device) -> None:
    """Have convolutions in float32 on a GPU be in float32, in the whole process: by default, cuDNN rounds their inputs to 11 bits
    (TF32)."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
