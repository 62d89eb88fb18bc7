"""Run an exported model and its skills: onnxruntime, numpy, tokenizers, safetensors and jinja2 only."""

from lime_edge.runtime.decoding.stream import Stream
from lime_edge.runtime.native.operators import Operators

from .runtime import Runtime
from .types import Choice, Generation, SkillInfo, Timings

__all__ = ["Choice", "Generation", "Operators", "Runtime", "SkillInfo", "Stream", "Timings"]
