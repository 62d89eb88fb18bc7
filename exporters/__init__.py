"""Exports a trained adapter with its backbone to a model directory that needs no torch.

Needs the extra ``export``; importing this package loads onnx_ir, but neither torch nor the builder.
"""

from .adapter import AdaptedModule, AdapterWeights
from .builder import PRECISIONS, Precision
from .directory import export

__all__ = ["PRECISIONS", "AdaptedModule", "AdapterWeights", "Precision", "export"]
