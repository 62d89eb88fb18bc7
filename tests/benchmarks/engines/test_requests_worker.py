"""The protocol of whole requests: what a cache keeps, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.engines.requests_worker import Answered, RequestEngine, RequestWorker, common_length


class _Engine(RequestEngine):
    def __init__(self, settings: dict[str, Any]) -> None:
        self.forgotten: list[str] = []

    def variants(self) -> dict[str, str]:
        return {"plain": ""}

    def forget(self, variant: str, adapter: str) -> None:
        self.forgotten.append(adapter)

    def answer(self, variant: str, adapter: str, ids: Sequence[int], most: int) -> Answered:
        return Answered([7] * most, len(ids), most - 1)


def test_one_cache_ends_where_the_adapter_changes() -> None:
    engine = _Engine({})
    worker = RequestWorker(engine)
    for adapter in "aabba":
        found = worker.answer("plain", adapter, [1, 2, 3], 2, one_cache=True)
    assert engine.forgotten == ["a", "b", "a"]
    assert found.pop("seconds") > 0
    assert found == {"tokens": [7, 7], "read": 3, "steps": 1, "drafted": 0, "accepted": 0}
    worker.answer("plain", "b", [1], 1, one_cache=False)
    assert engine.forgotten == ["a", "b", "a"]


def test_common_length() -> None:
    assert common_length([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_length([], [1]) == 0
    assert common_length([1, 2], [1, 2]) == 2
