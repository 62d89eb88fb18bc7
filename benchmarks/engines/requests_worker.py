"""The worker's side of the request benchmark: whole requests, answered greedily by one engine in its own process.

The protocol is that of worker.py, whose `serve` is used. This module imports only the standard library.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Answered:
    """What an engine did for one request.

    Attributes:
        tokens: The answer, with the end token.
        read: Tokens of the prompt that were not in the cache.
        steps: Runs of the model behind the prompt.
        drafted, accepted: Drafted tokens, and those that became part of the answer.
    """

    tokens: list[int]
    read: int
    steps: int
    drafted: int = 0
    accepted: int = 0


class RequestEngine(ABC):
    """One engine with several adapters, each with a prompt cache of its own: what its last request has left.

    Args:
        settings: ``threads``, ``positions``, ``ends`` (end tokens), ``adapters`` (file by name) and paths.
    """

    @abstractmethod
    def __init__(self, settings: dict[str, Any]) -> None: ...

    @abstractmethod
    def variants(self) -> dict[str, str]:
        """Variants by name, each with a description and versions: without and with speculation."""

    @abstractmethod
    def forget(self, variant: str, adapter: str) -> None:
        """Empty the prompt cache of an adapter."""

    @abstractmethod
    def answer(self, variant: str, adapter: str, ids: Sequence[int], most: int) -> Answered:
        """Answer a prompt with at most `most` tokens; reads what the adapter's cache does not hold."""


class RequestWorker:
    """The requests: each public method answers the request of its name."""

    def __init__(self, engine: RequestEngine) -> None:
        self._engine = engine
        self._last: dict[str, str] = {}  # adapter of each variant's last request

    def answer(self, variant: str, adapter: str, ids: Sequence[int], most: int, one_cache: bool) -> dict[str, Any]:
        """Answer a prompt; with `one_cache`, the cache ends where the adapter changes."""
        if one_cache and self._last.get(variant) != adapter:
            self._engine.forget(variant, adapter)
        self._last[variant] = adapter
        began = time.perf_counter()
        found = self._engine.answer(variant, adapter, ids, most)
        return {**asdict(found), "seconds": time.perf_counter() - began}


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of tokens that two sequences have in common at the beginning."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
