"""Trains the tiny model and records its gradients, in one process or in those that `accelerate launch` starts.

python -m tests.tools.two_processes OUTPUT MODEL DATA CHECKPOINTING
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from lime_edge.contract.routing import Routing
from lime_edge.method.config import LimeConfig
from lime_edge.training import backbone, checkpoint
from lime_edge.training import train_adapter as training
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.trainer import fit
from tests.support.tiny_training import randomise

STEPS = 4


class _Gradients(TrainerCallback):
    """Records the gradients that the optimiser gets, without clipping."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, dict[str, torch.Tensor]()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        args.max_grad_norm = 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self.found[f"{state.global_step}.{name.removeprefix('module.')}"] = parameter.grad.clone()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            save_file(self.found, self.path)


@contextmanager
def _watched(path: Path) -> Iterator[None]:
    """Make `train` record its gradients, run in float32, and start from random adapters with large gradients."""
    patched: Any = training
    places: Any = checkpoint
    originals = patched.fit, places.wrap, backbone.training_dtype

    def wrap(model: Any, config: LimeConfig) -> Any:
        made = originals[1](model, config)
        randomise(made, seed=0, size=0.3)
        return made

    patched.fit = partial(fit, callbacks=[_Gradients(path)])
    places.wrap, backbone.training_dtype = wrap, lambda: torch.float32
    try:
        yield
    finally:
        patched.fit, places.wrap, backbone.training_dtype = originals


def run(output: Path, model: Path, data: Path, checkpointing: bool = False) -> dict[str, float]:
    """Train; writes the gradients to OUTPUT.safetensors and the checkpoint to OUTPUT."""
    torch.set_num_threads(1)
    config = LimeConfig(
        r=4, routing=Routing(experts=3, window=2), jitter=0.0, balance=(0.5, 0.2), balance_every=2, shared_vector=True
    )
    rates: dict[str, Any] = {"vector_rate": 1e-3, "shared_rate": 1e-3}
    # the time limit makes the processes agree after every step on whether to stop
    plan = TrainingPlan(STEPS, minutes=60, batch=4, gradient_checkpointing=checkpointing, **rates)
    with _watched(output.with_suffix(".safetensors")):
        return training.train([str(data)], str(model), output, config, plan)


if __name__ == "__main__":
    output, model, data = map(Path, sys.argv[1:4])
    run(output, model, data, checkpointing=sys.argv[4] == "yes")
