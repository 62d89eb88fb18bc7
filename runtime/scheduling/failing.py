"""What goes wrong for one request ends that request, whoever drives."""

from __future__ import annotations

from collections.abc import Callable


class Failing:
    """Hands any exception of a block to a function; the block ends, and what comes after it goes on.

    The thread that drives runs code for others: their events, their callbacks, the rows of their answers. What these
    raise, a KeyboardInterrupt of a signal's handler included, belongs to whom the block runs for, and is raised there.

    Args:
        report: Gets the exception.
    """

    def __init__(self, report: Callable[[BaseException], object]) -> None:
        self._report = report
        self.failed = False

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self.failed = True
            self._report(error)
        return self.failed
