"""Runs an exported model and its skills, with ONNX Runtime and without torch.

Imported as `lime_edge.runtime`. It does not know about training, the store or the command line.
"""

from lime_edge.runtime.constraints.answer_spec import AnswerSpec
from lime_edge.runtime.decoding.contexts import Context
from lime_edge.runtime.decoding.stream import Stream
from lime_edge.runtime.native.operators import Operators

from .runtime import Runtime
from .types import Choice, Generation, SkillInfo, Timings, TokenLogprob

__all__ = [
    "AnswerSpec",
    "Choice",
    "Context",
    "Generation",
    "Operators",
    "Runtime",
    "SkillInfo",
    "Stream",
    "Timings",
    "TokenLogprob",
]
