"""AdamW with smaller steps where gradients are mostly noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch


class SignalAdamW(torch.optim.Optimizer):
    """AdamW with the step m |m| / v in place of m / sqrt(v); both moments are bias-corrected.

    |m| / sqrt(v) is near 1 where gradients agree from step to step, and about 0.2 where they are noise. A parameter
    with consistent gradients therefore moves as with AdamW, and one with noisy gradients less than half as far. Random
    movement does the most harm with high rates, few rows per step, and answers whose exact wording cannot be predicted.
    Source: Balles and Hennig, "Dissecting Adam" (arXiv 1705.07774). Their factor for a gradient,
    1 / (1 + relative variance) = m^2 / v, is here applied to its sign.

    Args:
        params: Parameters or parameter groups, as for every torch optimiser.
        lr: Learning rate.
        betas: Decay rates of the first and second moment, in [0, 1).
        eps: Added to sqrt(v), so that a parameter without gradients stays where it is.
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
        """Perform one step; gradients are not modified."""
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
