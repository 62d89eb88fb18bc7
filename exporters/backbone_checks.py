"""Checks a backbone directory without loading the model: its files, its architecture and the shapes of its weights.

Reads JSON files and the headers of safetensors files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lime_edge.contract.names import TOKENIZER_FILE
from lime_edge.exporters.weights.adapter_weights import AdaptedModule
from lime_edge.exporters.weights.projections import module_place, placeless

from .genai_builder import builds

Shapes = dict[str, tuple[int, ...]]


def backbone_faults(directory: Path, modules: Sequence[AdaptedModule], whole: bool = True) -> Iterator[str]:
    """Every reason why a backbone cannot be exported with these adapted modules.

    With `whole`, the model builder must know its architecture; otherwise only a part of it is built.
    """
    if not directory.is_dir():
        yield f"{directory} is not a directory; expected a backbone in the Hugging Face layout"
        return
    if not (directory / TOKENIZER_FILE).is_file():
        yield f"{directory / 'tokenizer.json'} is missing; save the tokenizer beside the model"
    if whole:
        yield from _architecture_faults(directory / "config.json")
    shapes, faults = _read_shapes(directory)
    yield from faults
    if shapes:
        yield from _module_faults(shapes, modules)


def _architecture_faults(path: Path) -> Iterator[str]:
    try:
        architecture = json.loads(path.read_text("utf-8"))["architectures"][0]
    except (OSError, ValueError, TypeError, LookupError) as error:
        yield f"{path} names no architecture ({type(error).__name__}: {error})"
        return
    if not builds(str(architecture)):
        yield f"ONNX Runtime GenAI's model builder does not know the architecture {architecture!r}"


def _read_shapes(directory: Path) -> tuple[Shapes, list[str]]:
    """Shape of every weight by name, from the file headers, and a fault for each unreadable file."""
    shapes: Shapes = {}
    paths = sorted(directory.glob("*.safetensors"))
    if not paths:
        return shapes, [f"{directory} has no *.safetensors; save the backbone with safe_serialization"]
    faults = []
    for path in paths:
        try:
            with safe_open(path, framework="numpy") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            faults.append(f"{path} cannot be read: {error}")
    return shapes, faults


def _module_faults(shapes: Shapes, modules: Sequence[AdaptedModule]) -> Iterator[str]:
    # A checkpoint may use another name prefix than the model. Then only layer and projection can be compared.
    places = {module_place(name.removesuffix(".weight")) for name in shapes if name.endswith(".weight")}
    for module in modules:
        shape = shapes.get(f"{module.name}.weight")
        place = module_place(module.name)
        if place is None:
            yield placeless(module.name)
        elif shape is None and place not in places:
            yield f"{module.name}: the backbone has no such module"
        if shape and not any(module.faults()) and shape != (module.out_features, module.in_features):
            adapted = [module.out_features, module.in_features]
            yield f"{module.name}: the adapter is made for a weight of {adapted}; the backbone's is {list(shape)}"
