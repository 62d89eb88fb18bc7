"""How many cores this process may keep busy: what it is bound to and what its container is allowed, not what there is.

ONNX Runtime's own default counts the whole machine and pins a thread to each core, which on a shared one, or in a
container with part of it, is slower by far.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int | None:
    """Physical cores that this process may use, at least 1; None where the system does not tell (outside Linux).

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = {_core(root, logical) for logical in os.sched_getaffinity(0)}
    return max(1, int(min([len(cores), *_quotas(root)])))


def _core(root: Path, logical: int) -> str:
    """What the logical cores of one physical core have in common."""
    with suppress(OSError):
        return (root / f"sys/devices/system/cpu/cpu{logical}/topology/thread_siblings_list").read_text().strip()
    return str(logical)


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each control group of this process is allowed, where it is limited."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _found(root / "sys/fs/cgroup", path, _quota)
            elif "cpu" in controllers.split(","):
                yield from _found(root / "sys/fs/cgroup/cpu", path, _first_quota)


def _found(mount: Path, path: str, quota: Callable[[Path], float | None]) -> Iterator[float]:
    """Of a group and all above it; what a container calls the top may lie elsewhere in the whole tree."""
    group = mount / path.lstrip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(mount):
            with suppress(OSError, ValueError, ZeroDivisionError):
                if (found := quota(folder)) is not None:
                    yield found


def _quota(folder: Path) -> float | None:
    limit, period = (folder / "cpu.max").read_text().split()
    return None if limit == "max" else int(limit) / int(period)


def _first_quota(folder: Path) -> float | None:
    """As in the first version of control groups."""
    limit = int((folder / "cpu.cfs_quota_us").read_text())
    return None if limit < 0 else limit / int((folder / "cpu.cfs_period_us").read_text())
