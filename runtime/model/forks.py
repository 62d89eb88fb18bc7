"""Keeps a forked child away from the sessions of its parent.

The threads of an ONNX Runtime session do not exist in a child. There, a session computes wrong or waits for them for
ever, and so does its destructor, when the child exits. So the child never destroys a session, and must not run one.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

from lime_edge.errors import DeviceError

_SESSIONS: weakref.WeakSet[Any] = weakref.WeakSet()  # of this process and, in a child, of its parents


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
            f"the model was loaded in process {loaded_in}, of which this process ({os.getpid()}) is a forked child; a "
            "session does not work there: call Runtime.load in the child, before or instead of the parent, or start "
            "processes with multiprocessing's spawn or forkserver"
        )


def _leak() -> None:
    """Keep every session for ever: a reference that is never given back."""
    for session in list(_SESSIONS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_leak)
