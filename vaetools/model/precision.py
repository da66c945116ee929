"""Which arithmetic a device is fastest in."""

from __future__ import annotations

from pathlib import Path

import torch


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


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first GPU, or the CPU. Raises RuntimeError, with torch's own words, on an unknown name."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
