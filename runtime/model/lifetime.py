"""Sessions when their process forks or exits.

The threads of an ONNX Runtime session do not exist in a forked child. There, a session computes wrong or waits for them
for ever, and so does its destructor, when the child exits. So a child neither runs nor destroys its parent's sessions.

At exit, Python ends a daemon thread when it comes back from C++, which aborts the process. So the exit waits for runs
of the graph, and no daemon thread begins another.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from typing import Any

from lime_edge.errors import DeviceError

_LONGEST = 30  # seconds that the exit waits
_SESSIONS: weakref.WeakSet[Any] = weakref.WeakSet()  # of this process and, in a child, of its parents
_runs: set[int] = set()  # threads that run a graph
_exiting = threading.Event()


def spare(session: Any) -> None:
    """Never destroy this session in a forked child."""
    _SESSIONS.add(session)


def refuse_fork(loaded_in: int) -> None:
    """Refuse to run a session in another process than that which loaded it.

    Args:
        loaded_in: The id of that process.

    Raises:
        DeviceError: This process is a forked child.
    """
    if loaded_in != os.getpid():
        raise DeviceError(
            f"the model was loaded in process {loaded_in}; process {os.getpid()} was forked from it, and a session "
            "does not survive a fork: load the model in the child (Runtime.load), or start processes with "
            "multiprocessing's spawn or forkserver"
        )


def run_bound(session: Any, binding: Any) -> None:
    """Run a session on bound arrays. A daemon thread that comes here at exit never returns."""
    thread = threading.get_ident()
    _runs.add(thread)
    try:
        if _exiting.is_set() and thread != threading.main_thread().ident:
            _runs.discard(thread)
            threading.Event().wait()
        session.run_with_iobinding(binding)
    finally:
        _runs.discard(thread)


def _finish_runs() -> None:
    """Wait for the runs of daemon threads; Python has waited for the others."""
    _exiting.set()
    deadline = time.monotonic() + _LONGEST
    while _runs - {threading.get_ident()} and time.monotonic() < deadline:
        time.sleep(0.002)


def _after_fork() -> None:
    """Keep every session for ever, by a reference that is never given back; the runs are those of the parent."""
    _runs.clear()
    for session in list(_SESSIONS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


atexit.register(_finish_runs)
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
