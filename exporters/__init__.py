"""Exports a checkpoint to a model directory: the frozen backbone and the shared adapter as one ONNX graph.

Imported as `lime_edge.exporters`; needs the extra `export`. Importing it loads onnx_ir, but neither torch nor the
model builder. It does not know sessions, the skill store or how a checkpoint is trained.
"""

from lime_edge.exporters.weights.adapter_weights import AdaptedModule, AdapterWeights
from lime_edge.exporters.weights.int4_weights import rounded_weights
from lime_edge.exporters.weights.projections import PACKED, Place, module_place

from .export import export
from .genai_builder import PRECISIONS, Precision

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
