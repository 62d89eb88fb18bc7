"""Mixtures that route whole rows: by task (MoRE) or by the cluster of the prompt (MoCLE).

Shapes: B rows, S tokens, D inputs, H outputs, E experts, r rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .scaffold import Adapted, Call, Settings, fresh_a, fresh_b, low_rank, raise_rank, weigh

_MEMORY = 64  # width of the learned embedding of a task or cluster


class Embedded(Adapted):
    """A layer whose gate reads a learned embedding of the row's task or cluster.

    Args:
        base, settings, call: As in `Adapted`.
        table: Embeddings of tasks or clusters, [T, 64], shared by all layers of a model.
    """

    def __init__(self, base: nn.Linear, settings: Settings, call: Call, table: nn.Embedding) -> None:
        super().__init__(base, settings, call)
        self.table = table
        self.gate = nn.Parameter(torch.randn(self.choices(), table.embedding_dim) * 0.02)

    def choices(self) -> int:
        """Number of choices of the gate."""
        return self.settings.experts

    def gated(self, rows: Tensor | None, temperature: float) -> Tensor:
        """Softmax over the choices for the tasks or clusters `rows` [B]; returns [B, 1, E] in float32."""
        if rows is None:
            raise ValueError(f"{type(self).__name__} needs the task or cluster of every row: call set_rows first")
        return torch.softmax(F.linear(self.table(rows), self.gate) / temperature, -1)[:, None]


def table(count: int) -> nn.Embedding:
    """A new table of embeddings for `count` tasks or clusters."""
    return nn.Embedding(count, _MEMORY)


class More(Embedded):
    """MoRE (arXiv 2505.22694): the ranks of one LoRA are nested experts; the task determines how many are used.

        out = W x + s * B[:, :k] A[:k] x,   k = argmax softmax(G t),   t = the task's embedding

    One LoRA of rank E * r; its E choices are r, 2 r, ..., E r ranks. The choice is hard, with a straight-through
    gradient to the softmax. Not verified against the paper: the width of the embedding (64), the scaling of truncated
    ranks (none), and the extra losses on task embeddings (left out).
    """

    def add(self, inputs: int, outputs: int) -> None:
        ranks = self.settings.experts * self.settings.rank
        self.a, self.b = fresh_a(1, ranks, inputs), fresh_b(1, outputs, ranks)

    def change(self, x: Tensor) -> Tensor:
        prob = self.gated(self.call.task, 1.0)
        hard = F.one_hot(prob.argmax(-1), self.choices()).to(prob.dtype)
        choice = hard + prob - prob.detach()  # [B, 1, E]
        used = choice.flip(-1).cumsum(-1).flip(-1)  # block i is used if the choice is at least i
        low = weigh(low_rank(x, self.a), used * self.settings.scaling, self.settings.rank)
        return raise_rank(low, self.b)


class Mocle(Embedded):
    """MoCLE (arXiv 2312.12379): the cluster of a row's instruction selects one LoRA expert; another is universal.

        out = W x + s * g_e B_e A_e x + s * (1 - g_e) B_0 A_0 x,   g = softmax(G c / T), e = argmax g

    c is the embedding of the row's cluster, T = 0.05. Clusters come from k-means over embeddings of the prompts
    (`clusters`): the paper uses a sentence encoder, this code the mean of the backbone's input embeddings. Not verified
    against the paper: the noise of the gate (none here) and the width of c (64).
    """

    temperature = 0.05

    def add(self, inputs: int, outputs: int) -> None:
        count, rank = self.settings.experts + 1, self.settings.rank
        self.a, self.b = fresh_a(count, rank, inputs), fresh_b(count, outputs, rank)

    def change(self, x: Tensor) -> Tensor:
        prob = self.gated(self.call.cluster, self.temperature)
        best = prob.max(-1, keepdim=True)
        routed = torch.zeros_like(prob).scatter(-1, best.indices, best.values)
        weights = torch.cat([routed, 1 - best.values], -1) * self.settings.scaling  # [B, 1, E + 1]
        return raise_rank(weigh(low_rank(x, self.a), weights, self.settings.rank), self.b)
