"""Checkpoint directories in PEFT's layout: open one, read and set the shared adapter and the vectors, digest.

A checkpoint is ``adapter_config.json`` and ``adapter_model.safetensors``, as PEFT writes them. Its digest covers the
shared adapter alone, so it does not change with the vectors stored in the same file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from lime_edge.common.digests import json_digest, tensor_digest
from lime_edge.common.strict_json import bounded
from lime_edge.contract.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, ROUTE_FILE
from lime_edge.contract.route_settings import RouteSettings
from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import ConfigError
from lime_edge.method.config import LimeConfig
from lime_edge.method.model import LimeModel
from lime_edge.skills.route_statistics import read_statistics
from lime_edge.skills.vector_codec import kind_of, module_of

from . import backbone

Vectors = dict[str, npt.NDArray[np.float32]]


def wrap(model: Any, config: LimeConfig) -> Any:
    """`model` with fresh LiME layers, as a PEFT model."""
    if config.base_model_name_or_path:
        model.name_or_path = config.base_model_name_or_path  # PEFT copies it into the config: no local path
    with _quietly():
        return get_peft_model(model, config)


def open_checkpoint(directory: Path, dtype: Any, trainable: bool = False) -> tuple[Any, Any, Path]:
    """Load a checkpoint onto its backbone.

    Returns:
        The PEFT model, the tokenizer, and the backbone's directory.

    Raises:
        ConfigError: The directory is not a LiME checkpoint, or the backbone is not the one it was trained on.
    """
    config = read_config(directory)
    where = backbone.resolve(config.base_model_name_or_path or backbone.DEFAULT)
    found = backbone.digest(where)
    if config.backbone_digest not in (None, found):
        raise ConfigError(
            f"{directory} was trained on another backbone than {where}",
            [f"digest {config.backbone_digest}, expected by the checkpoint", f"digest {found}, found"],
        )
    model, tokenizer = backbone.load(where, dtype)
    try:
        with _quietly():
            adapted = PeftModel.from_pretrained(model, str(directory), config=config, is_trainable=trainable)
            faults = _key_faults(adapted, directory / ADAPTER_WEIGHTS)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{directory} cannot be loaded onto {where}: {error}") from error
    if faults:
        raise ConfigError(f"{directory} does not fit {where}", faults)
    return adapted, tokenizer, where


def read_config(directory: Path) -> LimeConfig:
    """Read and validate adapter_config.json.

    Raises:
        ConfigError: The directory is not a checkpoint, or the file has unknown or out-of-range keys, all of them named.
    """
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (directory / name).is_file():
            raise ConfigError(f"{directory} is not a checkpoint: it has no {name}; make one with lime-edge train")
    try:
        config: LimeConfig = LimeConfig.from_pretrained(str(directory))
    except ConfigError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{directory / ADAPTER_CONFIG} cannot be read: {error}") from error
    return config


def route_of(directory: Path) -> tuple[RouteSettings, Path] | None:
    """How models exported from a checkpoint choose a skill, and the file of statistics; None if it has none.

    Raises:
        ModelError: The file cannot be used.
    """
    path = directory / ROUTE_FILE
    if not path.exists():
        return None
    statistics, digest = read_statistics(path)
    return statistics.settings(digest), path


def _key_faults(adapted: Any, weights: Path) -> list[str]:
    """Missing and unknown parameters of a file: PEFT only warns of missing ones and ignores unknown ones."""
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    with safe_open(weights, framework="np") as file:
        found = set(file.keys())
    faults = [f"missing {name}" for name in sorted(wanted - found)]
    hint = "; a checkpoint must not hold backbone weights: use save_pretrained(..., save_embedding_layers=False)"
    faults += [f"unknown {name}{hint if '.base_layer.' in name else ''}" for name in sorted(found - wanted)]
    return bounded(faults)


def tuner(model: Any) -> LimeModel:
    """The LiME tuner inside a PEFT model."""
    inner = model.base_model if isinstance(model, PeftModel) else model
    if not isinstance(inner, LimeModel):
        raise ConfigError(f"expected a model wrapped with LimeConfig, found {type(inner).__name__}")
    return inner


def get_shared(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """The shared adapter's parameters by ``<module>.<name>``; each layer names its own: "A", "B", "m", "rows"."""
    layers = tuner(model).layers().items()
    return {f"{module}.{name}": _numpy(value) for module, layer in layers for name, value in layer.shared().items()}


def set_shared(model: Any, shared: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Copy a shared adapter into a model of the same variant and shapes."""
    with torch.no_grad():
        for module, layer in tuner(model).layers().items():
            for name, parameter in layer.shared().items():
                parameter.copy_(torch.from_numpy(shared[f"{module}.{name}"]))


def shared_adapter(model: Any) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]]:
    """A [r, D], Bm [H, r] and the scale s as in the exported graph, of every adapted module by its backbone name."""
    found = {name: layer.low_rank() for name, layer in tuner(model).layers().items()}
    return {name: (_numpy(a), _numpy(b), scale) for name, (a, b, scale) in found.items()}


def adapter_digest(model: Any) -> str:
    """SHA-256 of the shared adapter: module names, every shared parameter and every scale s."""
    scales = {name: layer.scaling for name, layer in tuner(model).layers().items()}
    return tensor_digest(get_shared(model).items(), json_digest(scales).encode())


def get_vectors(model: Any) -> Vectors:
    """The vectors of the active skill, named as in a package: ``<kind>.<module>`` -> [E, width]."""
    layers = tuner(model).layers().items()
    return {f"{kind}.{name}": _numpy(value) for name, layer in layers for kind, value in layer.vectors().items()}


def set_vectors(model: Any, vectors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Copy a skill's vectors into the active adapter; their shapes must match. Missing vectors become neutral."""
    given: dict[str, dict[Kind, torch.Tensor]] = {}
    for name, values in vectors.items():
        given.setdefault(module_of(name), {})[kind_of(name)] = torch.from_numpy(np.array(values))
    with torch.no_grad():
        for name, layer in tuner(model).layers().items():
            layer.set_vectors(given.get(name, {}))


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide two warnings of PEFT: its use of a deprecated property, and missing keys, which `_key_faults` reports."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        yield


def _numpy(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy().copy()


def is_lime(model: Any) -> bool:
    """Whether the model has LiME layers."""
    return isinstance(model, PeftModel) and isinstance(model.base_model, LimeModel)
