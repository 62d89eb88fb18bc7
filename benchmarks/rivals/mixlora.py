"""MixLoRA (arXiv 2404.15159): experts are feed-forward blocks with shared frozen weights; attention has plain LoRA.

The feed-forward block must have the form of LLaMA's: down(act(gate(x)) * up(x)).
Shapes: B rows, S tokens, D hidden size, F inner size, E experts, r rank.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .scaffold import (
    Adapted,
    Call,
    Settings,
    fresh_a,
    fresh_b,
    keep_top,
    low_rank,
    probabilities,
    raise_rank,
    router,
    weigh,
)


class PlainLora(Adapted):
    """LoRA (arXiv 2106.09685) for attention projections: out = W x + s B A x."""

    def add(self, inputs: int, outputs: int) -> None:
        self.a, self.b = fresh_a(1, self.settings.rank, inputs), fresh_b(1, outputs, self.settings.rank)

    def change(self, x: Tensor) -> Tensor:
        return raise_rank(low_rank(x, self.a) * self.settings.scaling, self.b)


class MixBlock(nn.Module):
    """One feed-forward block with E experts.

        out = sum_e w_e down_e(act(gate_e(x)) * up_e(x)),   w = renormalised top-2 of softmax(G x)
        gate_e(x) = W_gate x + s B_e A_e x, and likewise up_e and down_e

    The frozen products are computed once for all experts, as in the paper's section on performance. So is the frozen
    down-projection: it is linear, and is applied to the weighted sum of the experts' inner values.

    Args:
        block: The frozen block, with gate_proj, up_proj, down_proj and act_fn.
        settings: Sizes.
        call: State shared by the layers.
    """

    def __init__(self, block: Any, settings: Settings, call: Call) -> None:
        super().__init__()
        self.block, self.settings, self.call = block, settings, call
        self.router = router(settings.experts, block.gate_proj.in_features)
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        for name in ("gate_proj", "up_proj", "down_proj"):
            linear = getattr(block, name)
            self.a[name] = fresh_a(settings.experts, settings.rank, linear.in_features)
            self.b[name] = fresh_b(settings.experts, linear.out_features, settings.rank)

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        prob = probabilities(x, self.router)
        weights = keep_top(prob, self.settings.top_k)
        if self.training:
            self.call.balance(prob, weights)
        chosen = weights.topk(min(self.settings.top_k, weights.shape[-1]), -1)
        frozen = {name: getattr(self.block, name)(x) for name in ("gate_proj", "up_proj")}
        low = {name: low_rank(x, self.a[name]) * self.settings.scaling for name in frozen}
        inner = x.new_zeros(())
        lifted = x.new_zeros(())
        for place in range(chosen.indices.shape[-1]):  # the k-th expert of all tokens at once
            mask = F.one_hot(chosen.indices[..., place], self.settings.experts)  # [B, S, E]
            weight = chosen.values[..., place, None].to(x.dtype)
            gate, up = (frozen[name] + self._raised(name, low[name], mask) for name in frozen)
            hidden = self.block.act_fn(gate) * up * weight  # [B, S, F]
            inner = inner + hidden
            below = low_rank(hidden, self.a["down_proj"]) * self.settings.scaling
            lifted = lifted + self._raised("down_proj", below, mask)
        out: Tensor = self.block.down_proj(inner) + lifted
        return out

    def _raised(self, name: str, low: Tensor, mask: Tensor) -> Tensor:
        return raise_rank(weigh(low, mask, self.settings.rank), self.b[name])


def insert_blocks(model: nn.Module, settings: Settings, call: Call) -> None:
    """Replace every feed-forward block of a frozen model by a `MixBlock`."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name == "mlp" and not isinstance(module, MixBlock):
                setattr(module, name, MixBlock(child, settings, call))
