"""Which arithmetic a device is fastest in."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import UsageError


def has_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 matrix products run in hardware; elsewhere they would be emulated, slower than float32."""
    if device.type == "cuda":
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

    `local_rank`: which GPU this process of several takes, if `name` does not say. Raises UsageError on a name that torch
    does not know, or a device that cannot hold a tensor.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        if device.type == "cuda" and device.index is None and local_rank is not None:
            device = torch.device("cuda", local_rank)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used: {reason}") from None
    return device
