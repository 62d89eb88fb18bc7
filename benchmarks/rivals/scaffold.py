"""What mixtures of adapters share: settings, the call under way, routing, batched experts, putting them into a model.

Experts are never looped over: the ranks of all experts lie side by side, [E * r], and a token's
weights scale them, so that a mixture of E adapters is two matrix products, as one adapter is.
Knows nothing of any one method, nor of data. Shapes: B rows, S tokens, D inputs, H outputs, E experts, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Settings:
    """Sizes of a mixture; the defaults are those of LiME's comparison (arXiv 2604.02338)."""

    experts: int = 4  # E
    rank: int = 2  # r of each expert
    scaling: float = 2.0  # s, alpha / r
    top_k: int = 2  # experts a token uses, where the method is sparse
    balance: float = 0.01  # coefficient of the load-balancing loss, where the method has one
    tasks: int = 1  # how many tasks there are, for methods that are told the task
    clusters: int = 1  # how many clusters of prompts, for methods that are told the cluster


@dataclass
class Call:
    """State of one forward call, shared by the layers of a model.

    Attributes:
        real: [B, S], 0 on padding, or None.
        task, cluster: [B], which each row is of, or None.
        losses: Load-balancing losses of the layers that routed.
    """

    real: Tensor | None = None
    task: Tensor | None = None
    cluster: Tensor | None = None
    losses: list[Tensor] = field(default_factory=list)

    def balance(self, prob: Tensor, weights: Tensor) -> None:
        """Keep a layer's load-balancing loss; prob and weights [B, S, E]."""
        real = None if self.real is None else self.real[:, -prob.shape[1] :]
        self.losses.append(load_balance(prob, weights, real))


class Mixture(nn.Module):
    """A frozen backbone with adapters in it; adds their load-balancing losses to its loss.

    Args:
        backbone: The model, adapters already in place.
        call: What the adapters share.
        coefficient: Of the mean load-balancing loss.
    """

    def __init__(self, backbone: nn.Module, call: Call, coefficient: float) -> None:
        super().__init__()
        self.backbone, self.call, self.coefficient = backbone, call, coefficient

    def set_rows(self, task: Tensor, cluster: Tensor | None) -> None:
        """Say what the rows of the next calls are of: [B] each."""
        self.call.task, self.call.cluster = task, cluster

    def forward(self, **inputs: Any) -> Any:
        """As the backbone's."""
        self.call.real = inputs.get("attention_mask")
        self.call.losses.clear()
        output = self.backbone(**inputs)
        if self.training and self.call.losses and output.loss is not None:
            mean = torch.stack(self.call.losses).mean()
            output["loss"] = output.loss + self.coefficient * mean.to(output.loss.dtype)
        return output


class Adapted(nn.Module):
    """A frozen linear module with a mixture beside it: base(x) + change(x).

    Args:
        base: [..., D] -> [..., H].
        settings: Sizes.
        call: What the layers share.
    """

    def __init__(self, base: nn.Linear, settings: Settings, call: Call) -> None:
        super().__init__()
        self.base, self.settings, self.call = base, settings, call
        self.add(base.in_features, base.out_features)

    def add(self, inputs: int, outputs: int) -> None:
        """Create the parameters for D inputs and H outputs."""
        raise NotImplementedError

    def change(self, x: Tensor) -> Tensor:
        """What the mixture adds, [B, S, H]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, H]."""
        found: Tensor = self.base(x)
        return found + self.change(x)


def fresh_a(*shape: int) -> nn.Parameter:
    """Down-projections [..., r, D] as LoRA starts them: Kaiming-uniform with a = sqrt(5)."""
    bound = 1 / math.sqrt(shape[-1])
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def fresh_b(*shape: int) -> nn.Parameter:
    """Up-projections [..., H, r] as LoRA starts them: zeros."""
    return nn.Parameter(torch.zeros(shape))


def router(experts: int, inputs: int) -> nn.Parameter:
    """Weights of a linear router [E, D], normal with deviation 0.02."""
    return nn.Parameter(torch.randn(experts, inputs) * 0.02)


def probabilities(x: Tensor, gate: Tensor) -> Tensor:
    """Softmax of a linear router over experts, in float32: [..., D], [E, D] -> [..., E]."""
    return torch.softmax(F.linear(x, gate.to(x.dtype)).float(), -1)


def keep_top(prob: Tensor, count: int) -> Tensor:
    """The `count` largest of each token's probabilities, renormalised; 0 elsewhere. [..., E] -> [..., E]."""
    if count >= prob.shape[-1]:
        return prob
    found = prob.topk(count, -1)
    kept = torch.zeros_like(prob).scatter(-1, found.indices, found.values)
    return kept / kept.sum(-1, keepdim=True)


def load_balance(prob: Tensor, weights: Tensor, real: Tensor | None) -> Tensor:
    """E * sum over experts of (share of choices) * (mean probability): 1 when even (Switch, arXiv 2101.03961, eq. 4).

    Args:
        prob: [B, S, E].
        weights: [B, S, E]; above 0 where the expert was chosen. The shares carry no gradient.
        real: [B, S], 0 on padding.
    """
    chosen = (weights > 0).to(prob.dtype)
    keep = prob.new_ones(prob.shape[:2]) if real is None else real.to(prob.dtype)
    share = (chosen * keep[..., None]).sum((0, 1))
    mean = (prob * keep[..., None]).sum((0, 1)) / keep.sum().clamp_min(1)
    return prob.shape[-1] * (share / share.sum().clamp_min(1) * mean).sum()


def low_rank(x: Tensor, a: Tensor) -> Tensor:
    """All down-projections at once: [..., D], [E, r, D] -> [..., E * r]."""
    return F.linear(x, a.flatten(0, 1).to(x.dtype))


def weigh(low: Tensor, weights: Tensor, rank: int) -> Tensor:
    """Scale each expert's ranks by its weight: [..., E * r], [..., E] -> [..., E * r]."""
    return low * weights.to(low.dtype).repeat_interleave(rank, -1)


def raise_rank(low: Tensor, b: Tensor) -> Tensor:
    """All up-projections at once, summed: [..., E * r], [E, H, r] -> [..., H]."""
    return F.linear(low, b.transpose(0, 1).flatten(1).to(low.dtype))


def insert(model: nn.Module, targets: Sequence[str], make: Callable[[nn.Linear, str], nn.Module]) -> list[nn.Module]:
    """Freeze a model and put `make(module, name)` in place of every linear module whose name ends in a target."""
    model.requires_grad_(False)
    found = [(name, module) for name, module in model.named_modules() if name.rpartition(".")[2] in targets]
    made = []
    for name, module in found:
        if not isinstance(module, nn.Linear):
            raise TypeError(f"{name} is a {type(module).__name__}; expected a linear module")
        parent, _, attribute = name.rpartition(".")
        made.append(make(module, name))
        setattr(model.get_submodule(parent), attribute, made[-1])
    return made
