"""Runs an exported model and its skills, with ONNX Runtime and without torch.

Imported as `lime_edge.runtime`. It does not know about training, the store or the command line.
"""

from lime_edge.runtime.constraints.answer_spec import AnswerSpec
from lime_edge.runtime.decoding.contexts import Context
from lime_edge.runtime.native.operators import Operators
from lime_edge.runtime.scheduling.scheduler_settings import SchedulerSettings, SchedulerStats
from lime_edge.runtime.scheduling.stream import Stream
from lime_edge.runtime.scheduling.ticket import Ticket

from .facade.session import Session
from .module import Module
from .runtime import Runtime
from .types import Choice, Generation, Route, SkillInfo, Timings, TokenLogprob

__all__ = [
    "AnswerSpec",
    "Choice",
    "Context",
    "Generation",
    "Module",
    "Operators",
    "Route",
    "Runtime",
    "SchedulerSettings",
    "SchedulerStats",
    "Session",
    "SkillInfo",
    "Stream",
    "Ticket",
    "Timings",
    "TokenLogprob",
]
