"""AdamW whose steps are weighted by how much of a gradient is signal. Knows nothing of models or skills."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch


class SignalAdamW(torch.optim.Optimizer):
    """AdamW with a step of m |m| / v in place of m / sqrt(v), both moments corrected for their start.

    |m| / sqrt(v) is near 1 where gradients agree from step to step, and about 0.2 where they are noise. So what is sure
    moves as with AdamW, and what is not wanders less than half as far: with high rates, few rows a step and answers
    that nobody could foresee to the word, wandering is what does harm. Source: Balles and Hennig, "Dissecting Adam"
    (arXiv 1705.07774), whose factor for gradients, 1 / (1 + relative variance) = m^2 / v, stands here on their signs.

    Args:
        params: Parameters or groups, as for every optimizer of torch.
        lr: Learning rate.
        betas: How slowly the two moments move.
        eps: Keeps a parameter still that has had no gradient.
        weight_decay: Decoupled, as in AdamW.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; gradients are left as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group)
        return loss

    def _move(self, p: torch.Tensor, group: dict[str, Any]) -> None:
        state, grad = self.state[p], p.grad
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        (first, second), mean, square = group["betas"], state["exp_avg"], state["exp_avg_sq"]
        state["step"] += 1
        step = state["step"]
        mean.lerp_(grad, 1 - first)
        square.mul_(second).addcmul_(grad, grad, value=1 - second)
        root = (square / (1 - second**step)).sqrt_().add_(group["eps"])
        ratio = (mean / (1 - first**step)).div_(root)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.addcmul_(ratio, ratio.abs(), value=-group["lr"])
