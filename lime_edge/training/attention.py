"""Which attention a training step runs on a CPU. Knows nothing of what is trained.

Torch's fused attention saves memory, and on a CPU takes twice as long backwards as plain products: with
SmolLM2-135M, rows of 140 tokens and bfloat16, a fifth of the whole step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

_LONGEST = 256  # tokens; plain attention keeps a number for each pair of them, of each head


@contextmanager
def plain_if_short(model: Any, ids: Tensor) -> Iterator[None]:
    """For forward and backward of one step: plain attention, where that is faster and takes little memory.

    Args:
        model: Of transformers, or one of PEFT around it.
        ids: Tokens of the step, [B, S].
    """
    chosen = model.config._attn_implementation
    if chosen != "sdpa" or ids.device.type != "cpu" or ids.shape[1] > _LONGEST:
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(chosen)
