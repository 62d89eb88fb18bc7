"""Communication between processes: two real ones, and one alone. tests/training trains with two."""

from __future__ import annotations

from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as group
from torch import multiprocessing

from lime_edge.method.distributed import agree, first, launched, meet, summed


def test_a_process_alone_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    local = torch.ones(2, requires_grad=True)
    assert summed(local) is local
    assert (agree(True), agree(False)) == (True, False)
    assert (launched(), first()) == (1, True)
    meet()


def test_the_launcher_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    assert (launched(), first()) == (3, False)


def communicate(rank: int, meeting: str, results: Queue[Any]) -> None:
    """What each of two processes finds: votes, sums and gradients."""
    group.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    votes = [agree(vote) for vote in (rank == 0, False, True)]
    found = []
    for share in (None, 1.0):
        local = torch.tensor([1.0 + rank, 10.0], requires_grad=True)
        total = summed(local, share)
        torch.autograd.backward(total.sum())
        assert local.grad is not None
        found.append((total.tolist(), local.grad.tolist()))
    meet()
    results.put((rank, votes, found))
    group.destroy_process_group()


def test_two_processes_sum_and_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    meeting = (tmp_path / "meeting").as_uri()
    processes = [context.Process(target=communicate, args=(rank, meeting, results)) for rank in range(2)]
    for process in processes:
        process.start()
    answers = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    wanted = [([3.0, 20.0], [2.0, 2.0]), ([3.0, 20.0], [1.0, 1.0])]  # gradient: 2 processes, then the given share
    assert answers == [(rank, [True, False, True], wanted) for rank in range(2)]
