"""Skills of any torch module: wrapped with `LimeConfig`, trained by a loop of the caller's, exported and packed.

The way of a module: `peft.get_peft_model(module, LimeConfig(target_modules=...))`, train everything on a mixture of
tasks, `start_skill`, train again on one of them, `write_skill`, and once `export_module`. `lime_edge.runtime.Module`
runs the result without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lime_edge.common.digests import tensor_digest
from lime_edge.common.extras import require_extra
from lime_edge.contract.model import ModelContract
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import ConfigError
from lime_edge.method.model import LimeModel
from lime_edge.skills import package
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import Skill
from lime_edge.training.package_parts.golden_prompts import today

from . import checkpoint
from .learn_skill import within_limits

with require_extra("export"):
    from lime_edge.exporters import AdaptedModule, AdapterWeights
    from lime_edge.exporters.captured.torch_graph import named_outputs
    from lime_edge.exporters.torch_module import Example
    from lime_edge.exporters.torch_module import export_module as export_graph

_OWN = ".lime_"  # in the names of LiME's parameters
_BASE = ".base_layer"  # in the names of a wrapped module's parameters


def start_skill(model: Any, vectors: Mapping[str, np.ndarray[Any, Any]] | None = None) -> list[nn.Parameter]:
    """Begin a skill: only its vectors require gradients from now on.

    Args:
        model: A module wrapped with `LimeConfig`, with a trained shared adapter.
        vectors: What the skill begins with, ``<kind>.<module>`` -> [E, width], such as `checkpoint.get_vectors` of
            the mixture, or the tensors of a skill. None: neutral, which is the module without a skill.

    Returns:
        The vectors, to be given to an optimizer.
    """
    layers = checkpoint.tuner(model).layers().values()
    for layer in layers:
        layer.freeze_shared()
    checkpoint.set_vectors(model, vectors or {})
    return [
        layer.get_parameter(f"lime_{kind}.{layer.adapter}")
        for layer in layers
        for kind in layer.lime_config[layer.adapter].kinds
    ]


def write_skill(model: Any, path: Path, name: str, **about: str) -> Skill:
    """Write the active vectors as a skill package, quantised to 8 bits.

    Args:
        model: As in `start_skill`.
        path: The .lime file.
        name: The skill's name.
        **about: version, description, license and author.

    Raises:
        ConfigError: An unknown key in `about`, or the model is not wrapped.
        SkillFormatError: A value in `about` does not fit into a package.
    """
    known = ("version", "description", "license", "author")
    if unknown := sorted(set(about) - set(known)):
        raise ConfigError(f"unknown facts {', '.join(unknown)}; expected some of {', '.join(known)}")
    tuner = checkpoint.tuner(model)
    facts: dict[str, Any] = {"version": "1.0.0", **about}
    manifest = Manifest(
        name=name,
        **facts,
        created=today(),
        activation="always",
        backbone=module_digest(model),
        backbone_name=type(tuner.model).__name__,
        adapter=checkpoint.adapter_digest(model),
        modules=tuner.table().digest,
        routing=tuner.lime_config.routing,
    )
    return package.write_skill(path, manifest, within_limits(checkpoint.get_vectors(model)))


def export_module(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    output: Path,
    *,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    overwrite: bool = False,
) -> ModelContract:
    """Export the forward pass of a wrapped module for `lime_edge.runtime.Module`, in fp32.

    The graph is compared with torch, without a skill and with the active vectors, before the directory appears.

    Args:
        model: A module wrapped with `LimeConfig`; it is the same afterwards.
        inputs: Example arguments of its forward pass by name; at least 2 in every dimension that varies.
        output: Directory to create.
        dynamic: Axes that vary and their names, by input; None: the first axis of every input, "batch".
        overwrite: Replace the directory of an earlier export.

    Returns:
        The content of ``lime.json``.

    Raises:
        ConfigError: The model is not wrapped.
        ExportError: torch cannot capture the forward pass, or the graph differs; names every reason.
    """
    tuner = checkpoint.tuner(model)
    config = tuner.lime_config
    training = tuner.model.training
    tuner.model.eval()
    try:
        with torch.no_grad():
            skilled = _outputs(tuner, inputs)
            with model.disable_adapter():
                base = _outputs(tuner, inputs)
                adapter = AdapterWeights(
                    modules=tuple(AdaptedModule(own, *low) for own, low in checkpoint.shared_adapter(model).items()),
                    routing=config.routing,
                    kinds=tuple(kind for kind in KINDS if kind in config.kinds),
                    routing_scale=config.routing_scale,
                    backbone_name=type(tuner.model).__name__,
                    backbone_digest=module_digest(model),
                    adapter_digest=checkpoint.adapter_digest(model),
                )
                axes = {name: {0: "batch"} for name in inputs} if dynamic is None else dynamic
                example = Example(inputs, axes, base, checkpoint.get_vectors(model), skilled)
                return export_graph(tuner.model, adapter, example, output, overwrite=overwrite)
    finally:
        tuner.model.train(training)


def module_digest(model: Any) -> str:
    """SHA-256 of the weights and buffers of the module, without LiME's, by their names before it was wrapped."""
    return tensor_digest(_weights(checkpoint.tuner(model)))


def _weights(tuner: LimeModel) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for name, value in tuner.model.state_dict().items():
        if _OWN not in f".{name}":
            whole = value.detach().cpu()
            yield name.replace(_BASE, ""), (whole.float() if whole.dtype == torch.bfloat16 else whole).numpy()


def _outputs(tuner: LimeModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: value.numpy() for name, value in named_outputs(tuner.model(**inputs)).items()}
