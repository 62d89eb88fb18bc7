"""How many cores this process may use, given its CPU affinity and its container's quota.

ONNX Runtime's own default counts all cores of the machine and pins a thread to each. On a shared machine, or in a
container with a CPU quota, that is much slower.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int | None:
    """Physical cores that this process may use, at least 1; None if the system does not report it (outside Linux).

    Args:
        root: The folder that contains ``proc`` and ``sys``.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = {_core(root, logical) for logical in os.sched_getaffinity(0)}
    return max(1, int(min([len(cores), *_quotas(root)])))


def _core(root: Path, logical: int) -> str:
    """An identifier that the logical cores of one physical core share."""
    with suppress(OSError):
        return (root / f"sys/devices/system/cpu/cpu{logical}/topology/thread_siblings_list").read_text().strip()
    return str(logical)


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas, in cores, of the control groups of this process that have one."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _limits(root / "sys/fs/cgroup", path, _quota)
            elif "cpu" in controllers.split(","):
                yield from _limits(root / "sys/fs/cgroup/cpu", path, _quota_v1)


def _limits(mount: Path, path: str, quota: Callable[[Path], float | None]) -> Iterator[float]:
    """Quotas of a group and its parents. In a container `path` may not exist below `mount`; its parents still count."""
    group = mount / path.lstrip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(mount):
            with suppress(OSError, ValueError, ZeroDivisionError):
                if (cores := quota(folder)) is not None:
                    yield cores


def _quota(folder: Path) -> float | None:
    """In control groups version 2."""
    limit, period = (folder / "cpu.max").read_text().split()
    return None if limit == "max" else int(limit) / int(period)


def _quota_v1(folder: Path) -> float | None:
    """In control groups version 1."""
    limit = int((folder / "cpu.cfs_quota_us").read_text())
    return None if limit < 0 else limit / int((folder / "cpu.cfs_period_us").read_text())
