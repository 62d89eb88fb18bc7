"""Kills processes at random while they change a shared store: `python -m tests.tools.kill_store`.

Every worker installs, updates, rolls back, removes and collects. It records which installations were reported as done
in a journal, and its current step in shared memory. In each round one worker, or all, is killed with `kill -9`, the
store is checked while the others continue, and killed workers are restarted. System calls are delayed at random, so
that kills land in short calls, too. Needs `os.fork`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from lime_edge.errors import SkillError
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull, update
from lime_edge.trust.signature_file import read_signature, signature_path
from tests.support.store_case import Promise, check, litter, package, sha256, signature_of

OPERATIONS = ("idle", "install", "update", "rollback", "remove", "gc")
STEPS = ("thinking", "lock", "open", "write", "fsync", "close", "replace", "unlink", "mkdir")
TARGETS = ("", "skill", "signature", "index", "folder", "lock", "other")
VERSIONS = tuple(f"1.{minor}.0" for minor in range(12))
SHARED = "shared"  # the skill that all workers install


@dataclass
class Worker:
    """A process that may be killed, its journal and its shared memory."""

    number: int
    path: Path  # of the store
    seed: int
    shown: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 16))
    pid: int = 0

    @property
    def journal(self) -> Path:
        return self.path.parent / f"journal-{self.number}"

    def start(self) -> None:
        self.seed += 1000
        self.shown[:3] = bytes(3)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _work(self)
            finally:
                os._exit(1)

    def kill(self) -> tuple[str, str]:
        """Kill the process; returns its operation and the step that was interrupted."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSIGNALED(status), f"worker {self.number} ended by itself: {status}"
        operation, step, target = self.shown[:3]
        return OPERATIONS[operation], f"{STEPS[step]} {TARGETS[target]}".strip()

    def promises(self) -> set[Promise]:
        """The installations in the journal; an incomplete last line does not count."""
        if not self.journal.is_file():
            return set()
        lines = self.journal.read_text("utf-8").split("\n")[:-1]
        return {(name, version, blob) for name, version, blob in (line.split() for line in lines)}


def run(rounds: int, workers: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill workers at least `rounds` times.

    Returns:
        How often kills landed in which operation and step, and how many promises were kept.

    Raises:
        AssertionError: An invariant is violated.
    """
    for name in (SHARED, *(f"own-{number}" for number in range(workers)), "scratch", "moving"):
        for version in VERSIONS:
            package(name, version)  # cached before the workers are forked
    path, rng = folder / "store", random.Random(seed)
    team = [Worker(number, path, seed + number) for number in range(workers)]
    landed: Counter[tuple[str, str]] = Counter()
    for worker in team:
        worker.start()
    try:
        while landed.total() < rounds:
            time.sleep(rng.uniform(0, 0.06))
            for worker in team if rng.random() < 0.1 else [rng.choice(_busy(team) or team)]:
                landed[worker.kill()] += 1
                check(path, set().union(*(other.promises() for other in team)))
                worker.start()
    finally:
        for worker in team:
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
    promised = set().union(*(worker.promises() for worker in team))
    check(path, promised)
    _check_signatures(path, promised)
    leftovers = len(litter(path))
    Store(path).gc()
    assert not litter(path), litter(path)
    check(path, promised)
    _check_signatures(path, promised)
    return {
        "kills": landed.total(),
        "promises kept": len(promised),
        "left by the dead, collected": leftovers,
        "by operation": dict(Counter(operation for operation, _ in landed.elements()).most_common()),
        "by step": dict(Counter(f"{operation}: {step}" for operation, step in landed.elements()).most_common()),
    }


def _check_signatures(path: Path, promised: set[Promise]) -> None:
    """Check that every skill that was installed with a signature still has one; `check` verifies its content."""
    lost = {
        (name, version)
        for name, version, _ in promised
        if name != "moving" and read_signature(signature_path(Store(path).get(f"{name}@{version}"))) is None
    }
    assert not lost, f"lost their signatures: {lost}"


def _busy(team: list[Worker]) -> list[Worker]:
    """The workers that do not wait for the lock; waiting takes most of their time."""
    return [worker for worker in team if worker.shown[1] != STEPS.index("lock")]


def _work(worker: Worker) -> None:
    """Run random operations until killed."""
    rng = random.Random(worker.seed)
    _show_steps(worker.shown, rng)
    store = Store(worker.path)
    own = f"own-{worker.number}"
    moving = worker.path.parent / f"moving-{worker.number}.lime"
    operations: dict[str, Callable[[], object]] = {
        "install": lambda: _install(store, worker, rng.choice((own, SHARED)), rng.choice(VERSIONS)),
        "update": lambda: _update(store, worker, moving, rng.choice(VERSIONS)),
        "rollback": lambda: store.rollback(rng.choice((own, SHARED))),
        "remove": lambda: store.remove(store.install(package("scratch")).name),
        "gc": store.gc,
    }
    while True:
        name = rng.choices(list(operations), (5, 3, 2, 1, 2))[0]
        worker.shown[:3] = bytes((OPERATIONS.index(name), 0, 0))
        with contextlib.suppress(SkillError):  # expected: for example, nothing to roll back to
            operations[name]()
        worker.shown[:3] = bytes(3)


def _install(store: Store, worker: Worker, name: str, version: str) -> None:
    data = package(name, version)
    found = store.install(data, signature=signature_of(data), allow_downgrade=True)
    _promise(worker, found.name, found.version, found.held.blob)


def _update(store: Store, worker: Worker, moving: Path, version: str) -> None:
    """Replace the file of a reference, then update the skill from it."""
    data = package("moving", version)
    temporary = moving.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.replace(moving)
    if any(entry.name == "moving" for entry in store.list()):
        done = update(store, ["moving"])[0]
        if not done.failed and done.after == version and not done.note:
            _promise(worker, "moving", version, sha256(data))
    else:
        pull(store, moving.as_uri())


def _promise(worker: Worker, *words: str) -> None:
    with open(worker.journal, "ab", buffering=0) as file:
        file.write(f"{' '.join(words)}\n".encode())


def _show_steps(shown: mmap.mmap, rng: random.Random) -> None:
    """Make every system call publish its name and target in shared memory, and delay some calls."""
    opened: dict[int, int] = {}
    waiting = False
    names = STEPS[2:]
    really = {name: getattr(os, name) for name in names}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            target = opened.get(args[0], 0) if isinstance(args[0], int) else _target(args[0])
            if not waiting:
                shown[1:3] = bytes((STEPS.index(name), target))
            if rng.random() < 0.2:
                time.sleep(rng.uniform(0, 0.004))
            found = really[name](*args, **kwargs)
            if name == "open":
                opened[found] = target
            return found

        return call

    for name in names:
        setattr(os, name, wrapped(name))
    acquire: Any = filelock.FileLock.acquire

    def acquiring(*args: Any, **kwargs: Any) -> Any:
        nonlocal waiting
        shown[1:3], waiting = bytes((STEPS.index("lock"), 0)), True
        found = acquire(*args, **kwargs)
        shown[1:3], waiting = bytes(2), False
        return found

    filelock.FileLock.acquire = acquiring  # type: ignore[method-assign]


def _target(path: Any) -> int:
    name = Path(os.fsdecode(path)).name
    kinds = {"lock": "lock", "index.json": "index", ".sig": "signature", ".lime": "skill"}
    kind = next((kind for part, kind in kinds.items() if part in name), "folder" if "." not in name else "other")
    return TARGETS.index(kind)


def main() -> None:
    """Run the kills and print in which steps they landed."""
    parser = argparse.ArgumentParser(description="kill -9 against the store")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        found = run(asked.rounds, asked.workers, asked.seed, Path(work))
    print(json.dumps({**found, "seconds": round(time.monotonic() - began, 1)}, indent=2))


if __name__ == "__main__":
    main()
