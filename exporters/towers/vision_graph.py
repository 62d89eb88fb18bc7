"""The tower of a model as vision.onnx, in fp32 or with products in 8 bits."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from lime_edge.common.extras import require_extra
from lime_edge.contract.names import VISION_FILE, VISION_WEIGHTS_FILE
from lime_edge.exporters.captured.torch_graph import torch_graph

from .tower_family import Probe, TowerFamily

_MOST_TILES = 4096


def export_tower(model: Any, family: TowerFamily, probe: Probe, output: Path) -> None:
    """Write vision.onnx in fp32, with any number of tiles (or patches).

    Args:
        model: The transformers model, in evaluation mode and fp32.
        family: Its family.
        probe: Example inputs.
        output: Directory to write to.

    Raises:
        ExportError: torch cannot export the tower.
    """
    size = torch.export.Dim("size", min=1, max=_MOST_TILES)
    count = size if family.divisor == 1 else family.divisor * size
    arguments = {name: torch.from_numpy(probe.arrays[name]) for name in family.inputs}
    if family.divisor == 1:  # one tile alone would be exported as always one
        arguments = {name: torch.cat([value, value])[:2] for name, value in arguments.items()}
    dynamic = {name: {0: count} for name in family.inputs}
    graph = torch_graph(family.tower(model).eval(), arguments, family.outputs, dynamic)
    ir.save(graph, output / VISION_FILE, external_data=VISION_WEIGHTS_FILE)


def quantise_tower(directory: Path) -> None:
    """Round the weights of vision.onnx to 8 bits, in place; a product rounds its other factor when it runs."""
    with require_extra("export"):
        from onnxruntime.quantization import QuantType, quantize_dynamic
    rounded = directory / f"rounded-{VISION_FILE}"
    before = logging.getLogger().manager.disable
    logging.disable(logging.WARNING)  # it advises on preprocessing that changes nothing here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(
                directory / VISION_FILE,
                rounded,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QUInt8,
            )
    finally:
        logging.disable(before)
    graph = ir.load(rounded)
    for value in graph.graph.initializers.values():  # read before the files that hold them are replaced
        if value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
    graph.producer_name = "lime-edge"
    graph.producer_version = ""
    graph.metadata_props.clear()
    ir.save(graph, directory / VISION_FILE, external_data=VISION_WEIGHTS_FILE)
    rounded.unlink()
    (directory / f"{rounded.name}.data").unlink(missing_ok=True)
