"""Learning for a rounded backbone: every second step sees the weights as an int4 export has them.

So one package is good on the exact weights and on the rounded ones. Vectors learned on exact weights
alone lose up to 12 points on a model of 135M (docs/log.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from . import checkpoint
from .contract import ModelContract
from .errors import ConfigError, LimeError
from .extras import need

with need("export"):
    from .exporters import PACKED, Place, module_place, rounded_weights


def rounded_faults(directory: Path, model: Any, backbone_digest: str) -> list[str]:
    """Why a model directory is no rounding of the wrapped model."""
    try:
        contract = ModelContract.from_json((directory / "lime.json").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, LimeError) as error:
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


class Alternate(TrainerCallback):
    """Odd steps run on the rounded weights, even ones on the exact weights; exact again after the run.

    Tied output embeddings keep their exact weights, since the input embedding is the same tensor.

    Args:
        model: The backbone's modules, wrapped or not.
        directory: An int4 export of it.

    Raises:
        ExportError, ConfigError: the directory has no rounded weights, or other ones.
    """

    def __init__(self, model: torch.nn.Module, directory: Path) -> None:
        found = rounded_weights(directory)
        self._weights: list[tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor]] = []
        rows: dict[Place, int] = {}  # of packed weights, taken so far
        for name, module in model.named_modules():
            place = module_place(name.removesuffix(".base_layer"))
            if place is None or not isinstance(module, torch.nn.Linear):
                continue
            holder = _holder(place, found)
            if holder is None:
                continue
            start, count = rows.get(holder, 0), module.out_features
            rows[holder] = start + count
            rounded = torch.from_numpy(found[holder][start : start + count].copy())
            if rounded.shape != module.weight.shape:
                raise ConfigError(f"{directory}: {name} is {list(rounded.shape)}; expected {list(module.weight.shape)}")
            exact = module.weight.data
            self._weights.append((module.weight, exact, rounded.to(exact.dtype).to(exact.device)))

    def __len__(self) -> int:
        """How many weights are rounded."""
        return len(self._weights)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._use(rounded=state.global_step % 2 == 1)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._use(rounded=False)

    def _use(self, rounded: bool) -> None:
        for weight, exact, other in self._weights:
            weight.data = other if rounded else exact


def _holder(place: Place, found: dict[Place, Any]) -> Place | None:
    """The place that computes a module: its own, or the packed one that it is a part of."""
    layer, name = place
    packed = [(layer, whole) for whole, parts in PACKED.items() if name in parts]
    return next((candidate for candidate in [place, *packed] if candidate in found), None)
