"""Exports a trained adapter with its backbone to a model directory that needs no torch.

Needs the extra ``export``; importing this package loads onnx_ir, but neither torch nor the builder.
"""

from .adapter import AdaptedModule, AdapterWeights
from .builder import PRECISIONS, Precision
from .directory import export
from .projections import PACKED, Place, module_place
from .rounding import rounded_weights

__all__ = [
    "PACKED",
    "PRECISIONS",
    "AdaptedModule",
    "AdapterWeights",
    "Place",
    "Precision",
    "export",
    "module_place",
    "rounded_weights",
]
