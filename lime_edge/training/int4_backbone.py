"""Trains on the rounded weights of an int4 export instead of the exact ones.

Vectors learned on exact weights lose up to 12 points on the rounded weights of a 135M model (docs/log.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import TrainerCallback

from lime_edge.common.extras import require_extra
from lime_edge.contract.model import read_contract
from lime_edge.errors import ConfigError, LimeError

from . import checkpoint

with require_extra("export"):
    from lime_edge.exporters import PACKED, Place, module_place, rounded_weights

Array = npt.NDArray[np.float32]


def rounded_faults(directory: Path, model: Any, backbone_digest: str) -> list[str]:
    """Reasons why a model directory is not an int4 export of the wrapped model."""
    try:
        contract = read_contract(directory)
    except LimeError as error:
        return [f"{directory} is not an exported model: {error}"]
    pairs = {
        "backbone": (contract.backbone_digest, backbone_digest),
        "shared adapter": (contract.adapter_digest, checkpoint.adapter_digest(model)),
    }
    faults = [
        f"{directory} has another {what}: {found[:12]}; expected {expected[:12]}"
        for what, (found, expected) in pairs.items()
        if found != expected
    ]
    if contract.precision != "int4":
        faults.append(f"{directory} is {contract.precision}; expected an int4 export")
    return faults


class OnRounded(TrainerCallback):
    """Replaces weights by their rounded values when a run begins, and restores the exact ones when it ends.

    Tied output embeddings keep their exact weights, since the input embedding is the same tensor.

    Args:
        model: The backbone, wrapped or not.
        directory: An int4 export of it.

    Raises:
        ExportError: The directory has no rounded weights.
        ConfigError: Rounded weights have other shapes than the model's.
    """

    def __init__(self, model: torch.nn.Module, directory: Path) -> None:
        found = _Places(rounded_weights(directory))
        self._weights: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for name, module in model.named_modules():
            place = module_place(name.removesuffix(".base_layer"))
            rounded = found.take(place, module.out_features) if place and isinstance(module, torch.nn.Linear) else None
            if rounded is None:
                continue
            if rounded.shape != module.weight.shape:
                raise ConfigError(f"{directory}: {name} is {list(rounded.shape)}; expected {list(module.weight.shape)}")
            exact = module.weight.data
            self._weights.append((module.weight, exact, torch.from_numpy(rounded).to(exact)))

    def __len__(self) -> int:
        """Number of weights that are replaced."""
        return len(self._weights)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._use(rounded=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._use(rounded=False)

    def _use(self, rounded: bool) -> None:
        for weight, exact, other in self._weights:
            weight.data = other if rounded else exact


class _Places:
    """A graph's rounded weights by backbone module. Graph and backbone may pack projections differently."""

    def __init__(self, weights: dict[Place, Array]) -> None:
        self._weights = weights
        self._taken: dict[Place, int] = {}  # rows of packed weights that were taken

    def take(self, place: Place, rows: int) -> Array | None:
        """The weight [rows, D] of the next module at this place; None if it is not rounded.

        Modules that share one packed weight must ask in the order in which it packs them.
        """
        layer, name = place
        parts = [(layer, part) for part in PACKED.get(name, ())]
        if place not in self._weights and parts and all(part in self._weights for part in parts):
            return np.concatenate([self._weights[part] for part in parts])
        wholes = [(layer, whole) for whole, packed in PACKED.items() if name in packed]
        holder = next((candidate for candidate in [place, *wholes] if candidate in self._weights), None)
        if holder is None:
            return None
        start = self._taken.get(holder, 0)
        self._taken[holder] = start + rows
        return self._weights[holder][start : start + rows].copy()
