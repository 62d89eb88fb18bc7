"""What mixtures of adapters share: settings, state of a call, routing, batched experts, and insertion into a model.

There is no loop over experts: the ranks of all experts lie side by side, [E * r], and a token's weights scale them, so
that a mixture of E adapters takes two matrix products, like a single adapter.
Shapes: B rows, S tokens, D inputs, H outputs, E experts, r rank.
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
    scaling: float = 2.0  # s = alpha / r
    top_k: int = 2  # experts that a token uses, for sparse methods
    balance: float = 0.01  # coefficient of the load-balancing loss, for methods that have one
    tasks: int = 1  # number of tasks, for methods that route by task
    clusters: int = 1  # number of clusters of prompts, for methods that route by cluster


@dataclass
class Call:
    """State of one forward call, shared by the layers of a model.

    Attributes:
        real: [B, S], 0 on padding, or None.
        task, cluster: [B], each row's task and cluster, or None.
        losses: Load-balancing losses of the layers so far.
    """

    real: Tensor | None = None
    task: Tensor | None = None
    cluster: Tensor | None = None
    losses: list[Tensor] = field(default_factory=list)

    def balance(self, prob: Tensor, weights: Tensor) -> None:
        """Record a layer's load-balancing loss; prob and weights are [B, S, E]."""
        real = None if self.real is None else self.real[:, -prob.shape[1] :]
        self.losses.append(load_balance(prob, weights, real))


class Mixture(nn.Module):
    """A frozen backbone with adapters in it; in training, adds their load-balancing loss to the model's loss.

    Args:
        backbone: The model with its adapters.
        call: State shared by the adapters.
        coefficient: Coefficient of the mean load-balancing loss.
    """

    def __init__(self, backbone: nn.Module, call: Call, coefficient: float) -> None:
        super().__init__()
        self.backbone, self.call, self.coefficient = backbone, call, coefficient

    def set_rows(self, task: Tensor, cluster: Tensor | None) -> None:
        """Set the tasks and clusters of the rows of the next calls, [B] each."""
        self.call.task, self.call.cluster = task, cluster

    def forward(self, **inputs: Any) -> Any:
        """Like the backbone's forward."""
        self.call.real = inputs.get("attention_mask")
        self.call.losses.clear()
        output = self.backbone(**inputs)
        if self.training and self.call.losses and output.loss is not None:
            mean = torch.stack(self.call.losses).mean()
            output["loss"] = output.loss + self.coefficient * mean.to(output.loss.dtype)
        return output


class Adapted(nn.Module):
    """A frozen linear module plus a mixture: base(x) + change(x).

    Args:
        base: The linear module, [..., D] -> [..., H].
        settings: Sizes.
        call: State shared by the layers.
    """

    def __init__(self, base: nn.Linear, settings: Settings, call: Call) -> None:
        super().__init__()
        self.base, self.settings, self.call = base, settings, call
        self.add(base.in_features, base.out_features)

    def add(self, inputs: int, outputs: int) -> None:
        """Create the parameters for D inputs and H outputs."""
        raise NotImplementedError

    def change(self, x: Tensor) -> Tensor:
        """The mixture's output, [B, S, H]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, H]."""
        found: Tensor = self.base(x)
        return found + self.change(x)


def fresh_a(*shape: int) -> nn.Parameter:
    """New down-projections [..., r, D] with LoRA's initialisation: Kaiming-uniform with a = sqrt(5)."""
    bound = 1 / math.sqrt(shape[-1])
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def fresh_b(*shape: int) -> nn.Parameter:
    """New up-projections [..., H, r] with LoRA's initialisation: zeros."""
    return nn.Parameter(torch.zeros(shape))


def router(experts: int, inputs: int) -> nn.Parameter:
    """New weights of a linear router [E, D], normal with standard deviation 0.02."""
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
    """E * sum over experts of (share of choices) * (mean probability) (Switch, arXiv 2101.03961, eq. 4).

    The loss is 1 if the load is even. The shares carry no gradient.

    Args:
        prob: [B, S, E].
        weights: [B, S, E]; above 0 where the expert was chosen.
        real: [B, S], 0 on padding, or None.
    """
    chosen = (weights > 0).to(prob.dtype)
    keep = prob.new_ones(prob.shape[:2]) if real is None else real.to(prob.dtype)
    share = (chosen * keep[..., None]).sum((0, 1))
    mean = (prob * keep[..., None]).sum((0, 1)) / keep.sum().clamp_min(1)
    return prob.shape[-1] * (share / share.sum().clamp_min(1) * mean).sum()


def low_rank(x: Tensor, a: Tensor) -> Tensor:
    """Apply all down-projections at once: [..., D], [E, r, D] -> [..., E * r]."""
    return F.linear(x, a.flatten(0, 1).to(x.dtype))


def weigh(low: Tensor, weights: Tensor, rank: int) -> Tensor:
    """Scale each expert's ranks by its weight: [..., E * r], [..., E] -> [..., E * r]."""
    return low * weights.to(low.dtype).repeat_interleave(rank, -1)


def raise_rank(low: Tensor, b: Tensor) -> Tensor:
    """Apply all up-projections at once and sum them: [..., E * r], [E, H, r] -> [..., H]."""
    return F.linear(low, b.transpose(0, 1).flatten(1).to(low.dtype))


def insert(model: nn.Module, targets: Sequence[str], make: Callable[[nn.Linear, str], nn.Module]) -> list[nn.Module]:
    """Freeze a model and replace every linear module whose name ends in a target by `make(module, name)`.

    Returns:
        The new modules.

    Raises:
        TypeError: A module of that name is not linear.
    """
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
