"""Compiles a Llama backbone's element-wise operations, which shortens training steps on a CPU by a sixth.

Norms, rotary embeddings and gates of the frozen layers are the same for every method; eager torch makes five to ten
passes over memory for each. torch.compile needs a C++ compiler, so the product does not do this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llama import modeling_llama as llama


def compile_between() -> None:
    """Compile norms, gates and rotary embeddings for calls that need gradients, for the rest of this process.

    Calls without gradients, such as generation, still run the original code.
    """
    norm, gate = torch.compile(_norm, dynamic=True), torch.compile(_gate, dynamic=True)
    turn = torch.compile(llama.apply_rotary_pos_emb, dynamic=True)
    _where_gradients_flow(llama.LlamaRMSNorm, "forward", lambda own, x: norm(x, own.weight, own.variance_epsilon))
    _where_gradients_flow(
        llama.LlamaMLP, "forward", lambda own, x: own.down_proj(gate(own.gate_proj(x), own.up_proj(x)))
    )
    _where_gradients_flow(llama, "apply_rotary_pos_emb", turn)


def _where_gradients_flow(owner: Any, name: str, compiled: Callable[..., Any]) -> None:
    plain = getattr(owner, name)

    def either(*args: Any, **named: Any) -> Any:
        flows = torch.is_grad_enabled() and any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        return (compiled if flows else plain)(*args, **named)

    setattr(owner, name, either)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up
