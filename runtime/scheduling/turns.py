"""Who drives the engine: one of the threads that wait for an answer, until it has what it waits for.

There is no thread of our own, so a single caller works as if it were alone, and nothing has to be stopped at exit. The
main thread, in which a signal such as Ctrl-C raises an exception between any two lines, drives its own requests alone
and leaves those of others to another waiting thread: so an interrupt ends what it interrupts and nothing else.

A turn is referred to weakly: it ends with the frame that has it, however that is left. Waiting threads look again after
`_POLL` seconds, so even then nobody waits for ever.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from .waiter import Waiter

_POLL = 0.25  # seconds


class Turn:
    """The right to drive."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Turns:
    """Gives the right to drive to one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for a few lines
        self._holder: weakref.ref[Turn] | None = None
        self._waiters: list[weakref.ref[Waiter]] = []  # each change is one operation on the list

    @property
    def mine(self) -> bool:
        """Whether this thread drives: it was called by the engine, or interrupts it."""
        holder = self._held()
        return holder is not None and holder.thread == threading.get_ident()

    def drive(self, waiter: Waiter, until: Callable[[], bool], work: Callable[[], bool]) -> None:
        """Wait until something is the case, and drive meanwhile if nobody else does.

        Args:
            waiter: Of this thread; whoever makes `until` true wakes it.
            until: What to wait for.
            work: Does a part of the work; returns False if there is none.
        """
        entry = weakref.ref(waiter)
        try:
            self._waiters.append(entry)
            while not until():
                turn = Turn()
                try:
                    if self._take(turn, waiter):
                        self._work(waiter, until, work)
                finally:
                    self._give(turn, waiter)
                if not until():
                    waiter.wait(_POLL)
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)
            self.pass_on()

    def attempt(self, work: Callable[[], object]) -> None:
        """Work, unless somebody drives or is about to: the next round does the same.

        Safe in a finalizer and in the handler of a signal: it waits for no lock.
        """
        turn = Turn()
        try:
            if self._lock.acquire(blocking=False):
                try:
                    if self._held() is None:
                        self._holder = weakref.ref(turn)
                finally:
                    self._lock.release()
                if self._held() is turn:
                    work()
        finally:
            self._give(turn)

    def pass_on(self, but: Waiter | None = None) -> None:
        """Wake a thread that could drive, if nobody does, but not this one."""
        if self._held() is None and (waiter := self._idle(but)) is not None:
            waiter.wake()

    def wake_all(self) -> None:
        """Let all waiting threads look at what they wait for."""
        for entry in list(self._waiters):
            if (waiter := entry()) is not None:
                waiter.wake()

    def _work(self, waiter: Waiter, until: Callable[[], bool], work: Callable[[], bool]) -> None:
        while not until():
            if (waiter.main and self._company(waiter) is not None) or not work():
                return

    def _take(self, turn: Turn, waiter: Waiter) -> bool:
        if waiter.main and (other := self._company(waiter)) is not None:
            if self._held() is None:
                other.wake()
            return False
        with self._lock:
            if self._held() is not None:
                return False
            self._holder = weakref.ref(turn)
        return True

    def _give(self, turn: Turn, waiter: Waiter | None = None) -> None:
        if self._held() is turn:
            self._holder = None
            self.pass_on(waiter)

    def _held(self) -> Turn | None:
        holder = self._holder
        return None if holder is None else holder()

    def _company(self, waiter: Waiter) -> Waiter | None:
        """Another waiting thread that may drive the requests of all."""
        found = None
        if len(self._waiters) < 2:
            return None
        for entry in list(self._waiters):
            other = entry()
            if other is not None and other is not waiter and not other.main:
                found = other
                if not other.woken:
                    break
        return found

    def _idle(self, but: Waiter | None) -> Waiter | None:
        """A waiting thread that was not woken, if possible not the main thread."""
        found = None
        for entry in list(self._waiters):
            other = entry()
            if other is not None and other is not but and not other.woken:
                found = other
                if not other.main:
                    break
        return found
