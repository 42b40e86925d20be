"""How much memory of its GPU a worker sees used."""

from __future__ import annotations

import sys


def gpu_memory(device: str) -> dict[str, int]:
    """Bytes `gpu_used` and `gpu_total` of a CUDA device, by all processes; empty without one, and before its first use here."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"gpu_used": total - free, "gpu_total": total}
