"""Exports a trained adapter with its backbone to a model directory that needs no torch.

Needs the extra ``export``; importing this package loads onnx_ir, but neither torch nor the builder.
"""

from .adapter_weights import AdaptedModule, AdapterWeights
from .export import export
from .genai_builder import PRECISIONS, Precision
from .int4_weights import rounded_weights
from .projections import PACKED, Place, module_place

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
