"""Which waiting request is next: higher priorities first, then the user and the skill that were served least.

Served is counted in tokens, read and written (the virtual token counter of Sheng et al., "Fairness in Serving Large
Language Models", OSDI 2024). A user that comes back begins where the one that was served least stands, so nobody saves
up for later. Among a user's requests, skills share in the same way; then the order of arrival counts.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Hashable, Iterable

from .job import Job

_REMEMBERED = 1024  # users, and skills of users, whose service is remembered


class FairQueue:
    """Waiting jobs. Any thread may add; only the driver does the rest."""

    def __init__(self) -> None:
        self._waiting: list[weakref.ref[Job]] = []  # each change is one operation on the list
        self._served: dict[Hashable, float] = {}  # tokens by user, and by user and skill
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job) -> None:
        """Let a job wait."""
        job.number, job.arrived = next(self._numbers), time.monotonic()
        self._waiting.append(weakref.ref(job))

    def remove(self, job: Job) -> None:
        """A job waits no longer."""
        self._waiting.remove(weakref.ref(job))

    def jobs(self) -> list[Job]:
        """All waiting jobs; those that nobody refers to any more are dropped."""
        found = [(one, one()) for one in list(self._waiting)]
        for one, job in found:
            if job is None:
                self._waiting.remove(one)
        return [job for _, job in found if job is not None]

    def first(self, jobs: Iterable[Job]) -> Job | None:
        """The one of these jobs that is next."""
        return min(jobs, key=self.rank, default=None)

    def rank(self, job: Job) -> tuple[float, float, float, int]:
        """Its place: lower is earlier."""
        user, skill = _keys(job)
        return -job.priority, self._served.get(user, 0.0), self._served.get(skill, 0.0), job.number

    def serve(self, job: Job, tokens: int) -> None:
        """Count tokens that were read or written for a job."""
        for key in _keys(job):
            self._served[key] = self._served.get(key, 0.0) + tokens

    def welcome(self, job: Job, others: Iterable[Job]) -> None:
        """Let the user of a new job, and its skill, begin at least where the least served of the others stands.

        Args:
            job: One that just came.
            others: All jobs that wait or run; those that just came, too, do not count.
        """
        others, (user, skill) = [other for other in others if other.welcomed], _keys(job)
        job.welcomed = True
        same = [other for other in others if other.user == job.user]
        if not same:
            self._lift(user, [_keys(other)[0] for other in others])
        if all(other.skill != job.skill for other in same):
            self._lift(skill, [_keys(other)[1] for other in same])
        if len(self._served) > 2 * _REMEMBERED:
            kept = sorted(self._served, key=self._served.__getitem__)[-_REMEMBERED:]
            self._served = {key: self._served[key] for key in kept}

    def _lift(self, key: Hashable, others: list[Hashable]) -> None:
        least = min((self._served.get(other, 0.0) for other in others), default=0.0)
        self._served[key] = max(self._served.get(key, 0.0), least)


def _keys(job: Job) -> tuple[Hashable, Hashable]:
    """By whom service is counted: the user, and the user's skill."""
    if job.accounts is None:
        job.accounts = ("user", job.user), ("skill", job.user, job.skill)
    return job.accounts
