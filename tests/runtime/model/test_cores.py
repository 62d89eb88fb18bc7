"""Usable cores, from CPU affinity, hyper-threads and control groups as Linux reports them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lime_edge.runtime.model.cores import usable_cores

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux reports CPU affinity")


def machine(root: Path, siblings: list[str], files: dict[str, str]) -> Path:
    """A file system root that describes logical cores, by their siblings, and control groups."""
    for logical, shared in enumerate(siblings):
        files |= {f"sys/devices/system/cpu/cpu{logical}/topology/thread_siblings_list": f"{shared}\n"}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


PAIRS = ["0,4", "1,5", "2,6", "3,7"] * 2
V2 = "0::/a/b\n"
V1 = "5:memory:/\n3:cpu,cpuacct:/docker/x\n"


@pytest.mark.parametrize(
    ("allowed", "files", "cores"),
    [
        (range(8), {}, 4),
        ({0, 4}, {}, 1),
        ({0, 1, 5}, {}, 2),
        (range(8), {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 4),
        (range(8), {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}, 2),
        (range(8), {"proc/self/cgroup": V2, "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 1),
        (range(8), {"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        (range(8), {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        (range(8), {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "nonsense\n"}, 4),
        (
            range(8),
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            },
            2,
        ),
    ],
)
def test_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: range | set[int], files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed))
    assert usable_cores(machine(tmp_path, PAIRS, files)) == cores


def test_where_nothing_can_be_read_every_logical_core_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert usable_cores(tmp_path) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores(tmp_path) is None


def test_this_machine() -> None:
    assert 1 <= (usable_cores() or 0) <= (os.cpu_count() or 1)
