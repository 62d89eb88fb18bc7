"""A thread that waits for something, and how another one wakes it."""

from __future__ import annotations

import threading
from contextlib import suppress


class Waiter:
    """Made by the thread that waits; any other may wake it, also before it waits.

    Attributes:
        main: It is the main thread, in which handlers of signals raise exceptions.
        woken: It was woken, and has not waited again since.
    """

    def __init__(self) -> None:
        self.main = threading.current_thread() is threading.main_thread()
        self.woken = False
        self._signal = threading.Lock()  # locked while there is no news
        self._signal.acquire()

    def wake(self) -> None:
        """Let `wait` return."""
        self.woken = True
        if self._signal.locked():
            with suppress(RuntimeError):  # another thread has woken it meanwhile
                self._signal.release()

    def wait(self, seconds: float) -> None:
        """Wait until somebody wakes it, or the time is over."""
        self._signal.acquire(timeout=seconds)
        self.woken = False
