"""Several threads with different skills do not affect each other while skills are loaded and unloaded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lime_edge.runtime import Runtime
from tests.support.memory_accounts import STATUS, private
from tests.support.runtime_models import PROMPTS, exported, runtime, skill

JOBS: list[tuple[str, Any, dict[str, Any]]] = [
    (PROMPTS[number % 4], spec, settings)
    for number, spec in enumerate(["legal", "brief", None, {"legal": 0.5, "brief": 0.5}, {"brief": 0.7}] * 2)
    for settings in ({}, {"temperature": 1.1, "seed": number})
]


def run(made: Runtime, job: tuple[str, Any, dict[str, Any]]) -> tuple[Any, ...]:
    prompt, spec, settings = job
    answer = made.generate(prompt, spec, max_new_tokens=12, **settings)
    return answer.token_ids, {**answer.receipt, "tokens": None}  # how many were reused depends on who came before


@pytest.mark.parametrize("window", [1, 3])
def test_concurrent_answers_are_the_sequential_ones(window: int) -> None:
    directory = exported(window)
    made = runtime(directory, "legal", "brief")
    wanted = [run(made, job) for job in JOBS]
    spare = [skill(directory, "spare", seed=seed) for seed in range(4)]
    done = threading.Event()

    def churn() -> None:
        """Load, replace, use and unload other skills as fast as possible."""
        number = 0
        while not done.is_set():
            names = [f"spare-{number % 7}-{copy}" for copy in range(3)]
            for name in names:
                made.load_skill(spare[number % 4], name)
            made.use_skill({names[0]: 0.5, names[1]: 0.25})
            made.load_skill(spare[(number + 1) % 4], names[2], replace=True)
            made.use_skill(None)
            for name in names:
                made.unload_skill(name)
            number += 1

    churner = ThreadPoolExecutor(1).submit(churn)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(2):
                assert list(pool.map(lambda job: run(made, job), JOBS)) == wanted
    finally:
        done.set()
        churner.result(timeout=60)
    assert made._bank.in_use == 3


def test_disabling_is_of_one_thread() -> None:
    made = runtime(exported(), "legal")
    made.use_skill("legal")
    seen = []
    with made.disable_skill():
        thread = threading.Thread(target=lambda: seen.append(made.active_skill))
        thread.start()
        thread.join()
        assert made.active_skill is None
    assert seen == ["legal"]


@pytest.mark.skipif(not STATUS.exists(), reason="reads /proc")
def test_memory_stays_flat() -> None:
    """100 rounds of switching, blending, loading and unloading leak no memory."""
    directory = exported()
    made = runtime(directory, "legal", "brief")
    third = skill(directory, "third")

    def rounds(count: int) -> None:
        for _ in range(count):
            for spec in ("legal", {"legal": 0.5, "brief": 0.5}, "brief"):
                made.use_skill(spec)
                made.generate("Hello", max_new_tokens=2)
            made.load_skill(third)
            made.unload_skill("third")

    rounds(20)
    before = private()
    rounds(100)
    assert private() - before < 4 * 2**20
    assert made._bank.array.shape[0] == 4
