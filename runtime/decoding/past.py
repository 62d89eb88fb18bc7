"""What a request takes over from the turns before it: by which skill each of its first tokens was read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.skills.registry import AppliedSkill

from .prefix_cache import Pin

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Switch:
    """Another skill took over an answer.

    Attributes:
        after: Number of tokens that the answer had; the last of them was read by the new skill already.
        seconds: Since the request began.
        applied: The new skill.
    """

    after: int
    seconds: float
    applied: AppliedSkill


@dataclass(frozen=True, eq=False)
class Past:
    """The skills of the first tokens of a prompt.

    Attributes:
        rows: [n] the graph's number of the skill of each; n is at most the length of the prompt - 1.
        applied: The skills among them, whose bank rows the request's lease or the caller keeps.
        pin: Keeps the positions of the request after it has ended.
    """

    rows: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    applied: tuple[AppliedSkill, ...] = ()
    pin: Pin | None = None
