"""When a request has to stop before its answer is finished: it is cancelled, or its time is over.

Whoever runs the graph asks between two runs, so a request stops at the latest after one chunk of its prompt, or one
token.
"""

from __future__ import annotations

import math
import time

from lime_edge.errors import StoppedError

from .generation_options import Event, Options, Settings


class Control:
    """Says whether a request has to stop. Safe to use from several threads.

    Args:
        event: Stops the request when it is set; None: only `cancel` does.
        timeout: Seconds from now on; None: no limit.
    """

    def __init__(self, event: Event | None = None, timeout: float | None = None) -> None:
        self._event, self._timeout = event, timeout
        self.cancelled = False  # by `cancel`
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout

    @classmethod
    def of(cls, settings: Settings) -> Control:
        """The control of a call that begins now.

        Raises:
            ConfigError: Names every invalid setting.
        """
        options = Options.settle(settings)
        return cls(options.cancel, options.timeout)

    def cancel(self) -> None:
        """Stop the request at its next checkpoint."""
        self.cancelled = True

    @property
    def reason(self) -> str:
        """Why the request has to stop, ``"cancelled"`` or ``"timeout"``; empty if it may go on."""
        if self.cancelled or (self._event is not None and self._event.is_set()):
            return "cancelled"
        return "timeout" if time.monotonic() >= self._deadline else ""

    def check(self) -> None:
        """Raise StoppedError if the request has to stop: for results that are of no use in part."""
        if reason := self.reason:
            what = "was cancelled" if reason == "cancelled" else f"took longer than its timeout of {self._timeout:g} s"
            raise StoppedError(f"the request {what} before it had a result", reason)
