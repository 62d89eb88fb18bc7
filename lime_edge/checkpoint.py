"""A checkpoint directory: the shared adapter in PEFT's layout, and what exporter and skills need of it.

``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT writes them; the digest of a
checkpoint covers the shared adapter alone, so that it outlives changes of the vectors beside it.
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

from . import backbone
from .contract import KINDS, json_digest, tensor_digest
from .errors import ConfigError
from .layer import LimeLora
from .model import LimeModel
from .peft_config import LimeConfig

Vectors = dict[str, npt.NDArray[np.float32]]


def wrap(model: Any, config: LimeConfig) -> Any:
    """`model` with fresh LiME layers, as a PEFT model."""
    with _quietly():
        return get_peft_model(model, config)


def open_checkpoint(directory: Path, dtype: Any, trainable: bool = False) -> tuple[Any, Any, Path]:
    """The PEFT model of a checkpoint on its backbone, the tokenizer, and the backbone's directory.

    Raises:
        ConfigError: not a LiME checkpoint, or the backbone is not the one it was trained on.
    """
    if not (directory / "adapter_config.json").is_file():
        raise ConfigError(
            f"{directory} is not a checkpoint: it has no adapter_config.json; make one with lime-edge train"
        )
    config = LimeConfig.from_pretrained(str(directory))
    where = backbone.resolve(config.base_model_name_or_path or backbone.DEFAULT)
    found = backbone.digest(where)
    if config.backbone_digest not in (None, found):
        raise ConfigError(
            f"{directory} was trained on another backbone than {where}",
            [f"digest {config.backbone_digest}, expected by the checkpoint", f"digest {found}, found"],
        )
    model, tokenizer = backbone.load(where, dtype)
    with _quietly():
        adapted = PeftModel.from_pretrained(model, str(directory), config=config, is_trainable=trainable)
    return adapted, tokenizer, where


def tuner(model: Any) -> LimeModel:
    """The LiME tuner inside a PEFT model."""
    inner = model.base_model if isinstance(model, PeftModel) else model
    if not isinstance(inner, LimeModel):
        raise ConfigError(f"expected a model wrapped with LimeConfig, found {type(inner).__name__}")
    return inner


def shared_adapter(model: Any) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]]:
    """A [r, D], Bm [H, r] and s of every adapted module, by its name in the backbone."""
    adapters = {}
    for name, layer in tuner(model).layers().items():
        if not isinstance(layer, LimeLora):
            raise ConfigError(f"{name} is {type(layer).__name__}; only LiME-LoRA can be exported so far")
        key = layer.adapter
        adapters[name] = (_numpy(layer.lime_A[key]), _numpy(layer.lime_B[key]), layer.lime_config[key].scaling)
    return adapters


def adapter_digest(model: Any) -> str:
    """SHA-256 of the shared adapter: module names, A, Bm and s."""
    adapters = shared_adapter(model)
    head = json_digest({name: s for name, (_, _, s) in adapters.items()}).encode()
    pairs = [(f"{n}.{k}", m) for n, (a, b, _) in adapters.items() for k, m in (("A", a), ("B", b))]
    return tensor_digest(pairs, head)


def get_vectors(model: Any) -> Vectors:
    """The active skill, ``<kind>.<module>`` -> [E, width]; the shared vector is folded into the experts.

    The weights w of a token sum to 1, so c * p_shared added to every expert is the same output.
    """
    vectors: Vectors = {}
    for name, layer in tuner(model).layers().items():
        key = layer.adapter
        for kind in KINDS:
            held = getattr(layer, f"lime_{kind}")
            if key in held:
                vectors[f"{kind}.{name}"] = _numpy(held[key])
        if key in layer.lime_shared:
            vectors[f"expert.{name}"] += _numpy(layer.lime_gate[key] * layer.lime_shared[key])
    return vectors


def set_vectors(model: Any, vectors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Put a skill's vectors into the active adapter; shapes must be the model's own."""
    with torch.no_grad():
        for name, layer in tuner(model).layers().items():
            key = layer.adapter
            if key in layer.lime_gate:
                layer.lime_gate[key].zero_()
            for kind in KINDS:
                held = getattr(layer, f"lime_{kind}")
                if key in held:
                    held[key].copy_(torch.from_numpy(np.array(vectors[f"{kind}.{name}"])))


@contextmanager
def _quietly() -> Iterator[None]:
    """PEFT asks transformers for a property by its old name; nobody but PEFT can do anything about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def _numpy(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy().copy()


def is_lime(model: Any) -> bool:
    """Whether LiME layers are in the model."""
    return isinstance(model, PeftModel) and isinstance(model.base_model, LimeModel)
