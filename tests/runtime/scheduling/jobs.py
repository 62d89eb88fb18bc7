"""Jobs of a tiny model, for the tests of the scheduler."""

from __future__ import annotations

from typing import Any, Unpack

from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.control import Control
from lime_edge.runtime.decoding.generation_options import Settings
from lime_edge.runtime.facade.call_rows import split_rows
from lime_edge.runtime.scheduling.job import Job


def job(
    made: Runtime, prompt: Any = "Hello", skill: Any = None, streamed: bool = False, **settings: Unpack[Settings]
) -> Job:
    """A job that is not submitted."""
    control = Control.of(settings)
    answers, lease, _ = made._open(split_rows(prompt, skill), False, settings, None, control)
    return made.scheduler.job(answers[0], control, lease, streamed=streamed)
