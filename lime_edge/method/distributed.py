"""What training processes share: a sum, a decision, and who of them writes and speaks. One process needs none of it.

Knows nothing of what is trained. `accelerate launch` and `torchrun` start the processes.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch import distributed as group


def launched() -> int:
    """How many processes were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this is the one that writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def join() -> None:
    """Find the other processes, if there are any."""
    if launched() > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def meet() -> None:
    """Wait until all are here."""
    if _several():
        group.barrier()


def agree(mine: bool) -> bool:
    """Whether any process says yes: a decision that all take together."""
    if not _several():
        return mine
    device = "cuda" if group.get_backend() == "nccl" else "cpu"
    votes = torch.tensor([int(mine)], device=device)
    group.all_reduce(votes)
    return bool(votes.item())


def summed(local: Tensor, share: float | None = None) -> Tensor:
    """Sum over the processes, [...]: the same value in each; its gradient flows into this one's part alone.

    Args:
        local: This process's part, [...].
        share: What that gradient is multiplied by. 1 where the gradients of the processes are then added, which is
            what the Trainer does with losses that it divides by all processes' labels; by default their number, since
            plain data-parallel training takes the mean of the gradients.
    """
    if not _several():
        return local
    total = local.detach().clone()
    group.all_reduce(total)
    factor = group.get_world_size() if share is None else share
    return total + factor * (local - local.detach())


def _several() -> bool:
    return group.is_available() and group.is_initialized() and group.get_world_size() > 1
