"""Communication between training processes: a sum, a joint decision, a barrier and the choice of the main process.

`accelerate launch` and `torchrun` start the processes. With a single process every function returns at once.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch import distributed as group


def launched() -> int:
    """Number of processes started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this is the main process, which writes files and logs."""
    return int(os.environ.get("RANK", "0")) == 0


def join() -> None:
    """Connect to the other processes, if there are any."""
    if launched() > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def meet() -> None:
    """Wait until every process has called this."""
    if _several():
        group.barrier()


def agree(mine: bool) -> bool:
    """A joint decision: true in every process if any of them passes true."""
    if not _several():
        return mine
    device = "cuda" if group.get_backend() == "nccl" else "cpu"
    votes = torch.tensor([int(mine)], device=device)
    group.all_reduce(votes)
    return bool(votes.item())


def summed(local: Tensor, share: float | None = None) -> Tensor:
    """Sum over the processes, [...]; the gradient flows only into the part of this process.

    Args:
        local: The part of this process, [...].
        share: Factor of that gradient. By default the number of processes, because plain data-parallel training takes
            the mean of their gradients. 1 if the gradients are added, as the Trainer does when it divides the loss by
            the number of labels in all processes.

    Returns:
        The same value in every process.
    """
    if not _several():
        return local
    total = local.detach().clone()
    group.all_reduce(total)
    factor = group.get_world_size() if share is None else share
    return total + factor * (local - local.detach())


def _several() -> bool:
    return group.is_available() and group.is_initialized() and group.get_world_size() > 1
