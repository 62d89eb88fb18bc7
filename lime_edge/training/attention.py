"""Plain attention for short training steps on a CPU.

Torch's fused attention saves memory, but on a CPU its backward pass takes twice as long as that of plain matrix
products: a fifth of the whole step with SmolLM2-135M, rows of 140 tokens and bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

_LONGEST = 256  # tokens; plain attention stores a number for each head and pair of tokens


@contextmanager
def plain_if_short(model: Any, ids: Tensor) -> Iterator[None]:
    """Use plain attention for the forward and backward pass of one step, where it is faster and needs little memory.

    Args:
        model: A transformers model, or a PEFT model around one.
        ids: Token ids of the step, [B, S].
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
