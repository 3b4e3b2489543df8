"""What this machine gains from bfloat16: measured, since it depends on the processor and nothing says so reliably."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WORTH = 1.3  # times as fast: below it the rounding is not worth it
_ROUNDS = 7
_ROWS, _IN, _OUT = 512, 576, 1536  # a small model's largest layer: larger ones gain no less


def gain(device: torch.device) -> float:
    """How many times as fast a product of matrices is in bfloat16 as in float32, the median of interleaved rounds."""
    import torch

    sides = [torch.randn(_ROWS, _IN, device=device), torch.randn(_OUT, _IN, device=device)]
    pairs = {dtype: [side.to(dtype) for side in sides] for dtype in (torch.float32, torch.bfloat16)}
    taken: dict[torch.dtype, list[float]] = {dtype: [] for dtype in pairs}
    for _ in range(_ROUNDS + 1):  # the first one warms up
        for dtype, (left, right) in pairs.items():
            taken[dtype].append(_seconds(left, right))
    median = {dtype: statistics.median(found[1:]) for dtype, found in taken.items()}
    return median[torch.float32] / median[torch.bfloat16]


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    import torch

    began = time.perf_counter()
    torch.nn.functional.linear(left, right)
    if left.device.type == "cuda":
        torch.cuda.synchronize(left.device)
    return time.perf_counter() - began
