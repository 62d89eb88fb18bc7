"""How many threads by default: affinity, hyper-threads and control groups, from trees as Linux shows them."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime as ort
import pytest

from lime_edge.runtime.model import session
from lime_edge.runtime.model.cores import usable_cores
from lime_edge.runtime.model.session import SessionSettings, open_session
from tests.support.runtime_models import exported

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux tells what a process is bound to")


def machine(root: Path, siblings: list[str], files: dict[str, str]) -> Path:
    """A root with logical cores that share physical ones, and with files of control groups."""
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


@pytest.mark.parametrize(("asked", "cores", "threads"), [(None, 3, 3), (2, 3, 2), (None, None, 0)])
def test_sessions_get_them(monkeypatch: pytest.MonkeyPatch, asked: int | None, cores: int | None, threads: int) -> None:
    seen = []

    class Recording(ort.SessionOptions):  # type: ignore[misc]
        def register_custom_ops_library(self, path: str) -> None: ...

    monkeypatch.setattr(ort, "SessionOptions", Recording)
    monkeypatch.setattr(ort, "InferenceSession", lambda path, options, **_: seen.append(options.intra_op_num_threads))
    monkeypatch.setattr(session, "usable_cores", lambda: cores)
    open_session(exported() / "model.onnx", SessionSettings(threads=asked, operators=None))
    assert seen == [threads]


@pytest.mark.parametrize(
    ("version", "asked", "wanted"),
    [
        ("1.32.0", None, session.SPIN),
        ("1.26.1", None, session.SPIN),
        ("1.25.1", None, 0),
        ("1.25.1", 7, 7),
        ("1.32.0", 0, 0),
    ],
)
def test_how_long_threads_stay_awake(
    monkeypatch: pytest.MonkeyPatch, version: str, asked: int | None, wanted: int
) -> None:
    monkeypatch.setattr(ort, "__version__", version)
    options = session._options(SessionSettings(spin=asked), None)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == ("1" if wanted else "0")
    assert options.get_session_config_entry("session.intra_op.spin_duration_us") == str(wanted)
