"""Mixtures whose router looks at the token: MoELoRA, MoELoRA-FA, MoEDoRA, HydraLoRA, MoLA.

Shapes: B rows, S tokens, D inputs, H outputs, E experts, r rank.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .scaffold import Adapted, Settings, fresh_a, fresh_b, keep_top, low_rank, probabilities, raise_rank, router, weigh


class MoeLora(Adapted):
    """MoELoRA: a mixture of E LoRA experts, chosen for each token by a linear router, and one that is always on.

        out = W x + s * sum_e w_e B_e A_e x + s * B_0 A_0 x,   w = renormalised top-k of softmax(G x)

    Source: the LoRA experts, the linear top-k gate and the load-balancing loss of arXiv 2402.12851. Its
    contrastive loss between experts is left out: LiME's comparison (arXiv 2604.02338, "standard MoE-LoRA")
    does not show one. The expert that is always on is inferred from the numbers of parameters printed
    there, 10.79M and 1.70M, which are those of E + 1 experts and a router of E outputs. The k of that comparison
    is not known; here k = 2.
    """

    always = 1  # experts that every token uses, after the routed ones

    def add(self, inputs: int, outputs: int) -> None:
        count, rank = self.settings.experts + self.always, self.settings.rank
        self.a, self.b = fresh_a(count, rank, inputs), fresh_b(count, outputs, rank)
        self.gate = router(self.settings.experts, inputs)

    def route(self, x: Tensor) -> Tensor:
        """Weights of the routed experts, [B, S, E]."""
        prob = probabilities(x, self.gate)
        weights = keep_top(prob, self.settings.top_k)
        if self.training:
            self.call.balance(prob, weights)
        return weights

    def change(self, x: Tensor) -> Tensor:
        weights = F.pad(self.route(x), (0, self.always), value=1.0)
        low = weigh(low_rank(x, self.a), weights * self.settings.scaling, self.settings.rank)
        return raise_rank(low, self.b)


class MoeLoraFA(MoeLora):
    """MoELoRA-FA: MoELoRA whose down-projections stay as they start (LoRA-FA, arXiv 2308.03303).

    There is no paper of the combination; LiME's comparison names it in its figure of efficiency.
    """

    def add(self, inputs: int, outputs: int) -> None:
        super().add(inputs, outputs)
        self.a.requires_grad_(False)


class MoeDora(MoeLora):
    """MoEDoRA: MoELoRA whose routed experts are DoRA (arXiv 2402.09353).

        out = sum_e w_e m_e * (W x + s B_e A_e x) / n_e + s B_0 A_0 x,   n_e = row norms of W + s B_e A_e

    m_e starts as the row norms of W; n_e carries no gradient (section 4.3 there). The norms come from
    ||W||^2 + 2 s W A^T : B + s^2 (A A^T) B : B, so that no expert's weight is ever built. There is no paper of
    the combination; that the expert which is always on is a plain LoRA follows from the 12.19M parameters
    printed in arXiv 2604.02338.
    """

    squares: Tensor

    def add(self, inputs: int, outputs: int) -> None:
        super().add(inputs, outputs)
        self.register_buffer("squares", self.base.weight.detach().float().square().sum(1), persistent=False)
        self.magnitude = nn.Parameter(self.squares.sqrt().repeat(self.settings.experts, 1))  # [E, H]

    @torch.no_grad()
    def norms(self) -> Tensor:
        """Row norms of every routed expert's weight, [E, H]."""
        scaling, routed = self.settings.scaling, self.settings.experts
        a, b = self.a[:routed].float(), self.b[:routed].float()
        crossed = torch.einsum("hd,erd->ehr", self.base.weight.float(), a)
        inner = torch.einsum("erd,eqd->erq", a, a)
        found = self.squares + 2 * scaling * (crossed * b).sum(-1) + scaling**2 * ((b @ inner) * b).sum(-1)
        return found.clamp_min(0).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, H]."""
        routed, rank = self.settings.experts, self.settings.rank
        weights = self.route(x).to(x.dtype)
        ratio = self.magnitude / self.norms()  # [E, H]
        b = torch.cat([self.b[:routed] * ratio[..., None], self.b[routed:]])
        low = weigh(low_rank(x, self.a), F.pad(weights, (0, self.always), value=1.0) * self.settings.scaling, rank)
        out = F.linear(x, self.base.weight) * (weights @ ratio.to(x.dtype)) + raise_rank(low, b)
        return out if self.base.bias is None else out + self.base.bias


class HydraLora(Adapted):
    """HydraLoRA (arXiv 2404.19245): one down-projection, E up-projections, all of them used.

        out = W x + s * sum_e w_e B_e A x,   w = softmax(G x)

    The router reads x, of D inputs, as in the authors' code; the paper prints its shape as r x E. No
    load-balancing loss.
    """

    def add(self, inputs: int, outputs: int) -> None:
        self.a = fresh_a(1, self.settings.rank, inputs)
        self.b = fresh_b(self.settings.experts, outputs, self.settings.rank)
        self.gate = router(self.settings.experts, inputs)

    def change(self, x: Tensor) -> Tensor:
        weights = probabilities(x, self.gate) * self.settings.scaling
        low = low_rank(x, self.a).repeat(*[1] * (x.ndim - 1), self.settings.experts)
        return raise_rank(weigh(low, weights, self.settings.rank), self.b)


class Mola(MoeLora):
    """MoLA (arXiv 2402.08562): MoE of LoRA with more experts in higher layers, top 2, load-balancing loss.

        out = W x + s * sum_e w_e B_e A_e x,   w = renormalised top-2 of softmax(G x)

    The paper gives the quarters of a model 2, 4, 6 and 8 experts; `allocate` keeps that shape for another mean.
    """

    always = 0


def allocate(name: str, layers: int, experts: int) -> int:
    """Experts of the module `name` in a model of `layers` layers: its quarter's share of a mean of `experts`.

    2, 4, 6, 8 for a mean of 5, as the paper has it; 2, 3, 5, 6 for 4.
    """
    found = re.search(r"\.layers\.(\d+)\.", f".{name}")
    if not found:
        raise ValueError(f"{name} is in no layer; MoLA gives experts by layer")
    quarter = min(3, 4 * int(found[1]) // layers)
    steps = {5: (2, 4, 6, 8), 4: (2, 3, 5, 6)}
    if experts not in steps:
        raise ValueError(f"a mean of {experts} experts; expected one of {sorted(steps)}")
    return steps[experts][quarter]


def mola_settings(settings: Settings, experts: int) -> Settings:
    """The same settings with another number of experts."""
    return Settings(experts, settings.rank, settings.scaling, settings.top_k, settings.balance)
