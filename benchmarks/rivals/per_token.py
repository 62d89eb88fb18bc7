"""Mixtures that route every token: MoELoRA, MoELoRA-FA, MoEDoRA, HydraLoRA and MoLA.

Shapes: B rows, S tokens, D inputs, H outputs, E experts, r rank.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .scaffold import Adapted, Settings, fresh_a, fresh_b, keep_top, low_rank, probabilities, raise_rank, router, weigh


class MoeLora(Adapted):
    """MoELoRA: E LoRA experts, chosen for each token by a linear router, and one expert that is always active.

        out = W x + s * sum_e w_e B_e A_e x + s * B_0 A_0 x,   w = renormalised top-k of softmax(G x)

    Source: LoRA experts, linear top-k gate and load-balancing loss of arXiv 2402.12851. Its contrastive loss between
    experts is left out, because LiME's comparison (arXiv 2604.02338, "standard MoE-LoRA") does not show one. The expert
    that is always active is inferred from the parameter counts printed there, 10.79M and 1.70M, which match E + 1
    experts and a router of E outputs. The k of that comparison is unknown; here k = 2.
    """

    always = 1  # number of experts that every token uses, stored after the routed ones

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
    """MoELoRA-FA: MoELoRA with frozen random down-projections (LoRA-FA, arXiv 2308.03303).

    No paper describes the combination; LiME's comparison names it in its figure on efficiency.
    """

    def add(self, inputs: int, outputs: int) -> None:
        super().add(inputs, outputs)
        self.a.requires_grad_(False)


class MoeDora(MoeLora):
    """MoEDoRA: MoELoRA with DoRA (arXiv 2402.09353) as routed experts.

        out = sum_e w_e m_e * (W x + s B_e A_e x) / n_e + s B_0 A_0 x,   n_e = row norms of W + s B_e A_e

    m_e is initialised with the row norms of W; n_e carries no gradient (section 4.3 there). The norms are computed as
    ||W||^2 + 2 s W A^T : B + s^2 (A A^T) B : B, so that no expert's weight is ever materialised. No paper describes the
    combination; that the always active expert is a plain LoRA is inferred from the 12.19M parameters printed in
    arXiv 2604.02338.
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
    """HydraLoRA (arXiv 2404.19245): one down-projection and E up-projections, all of them active.

        out = W x + s * sum_e w_e B_e A x,   w = softmax(G x)

    The router reads the D inputs x, as in the authors' code; the paper prints its shape as r x E. There is no
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
    """MoLA (arXiv 2402.08562): a mixture of LoRA with more experts in higher layers, top 2, load-balancing loss.

        out = W x + s * sum_e w_e B_e A_e x,   w = renormalised top-2 of softmax(G x)

    In the paper the quarters of a model have 2, 4, 6 and 8 experts; `allocate` scales this to another mean.
    """

    always = 0


def allocate(name: str, layers: int, experts: int) -> int:
    """Number of experts of the module `name`, by the quarter of the model that its layer is in.

    Args:
        name: Dotted name of a module in a layer.
        layers: Number of layers of the model.
        experts: Mean number of experts: 5 gives 2, 4, 6, 8 as in the paper; 4 gives 2, 3, 5, 6.

    Raises:
        ValueError: The module is in no layer, or the mean is neither 4 nor 5.
    """
    found = re.search(r"\.layers\.(\d+)\.", f".{name}")
    if not found:
        raise ValueError(f"{name} is in no layer; MoLA allocates experts by layer")
    quarter = min(3, 4 * int(found[1]) // layers)
    steps = {5: (2, 4, 6, 8), 4: (2, 3, 5, 6)}
    if experts not in steps:
        raise ValueError(f"the mean number of experts is {experts}; expected one of {sorted(steps)}")
    return steps[experts][quarter]


def mola_settings(settings: Settings, experts: int) -> Settings:
    """The same settings with another number of experts."""
    return Settings(experts, settings.rank, settings.scaling, settings.top_k, settings.balance)
