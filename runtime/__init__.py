"""Run an exported model and its skills: onnxruntime, numpy, tokenizers, safetensors and jinja2 only."""

from .operators import Operators
from .results import Choice, Generation, SkillInfo, Timings
from .runtime import Runtime
from .stream import Stream

__all__ = ["Choice", "Generation", "Operators", "Runtime", "SkillInfo", "Stream", "Timings"]
