"""A training loop with its state in one safetensors file: a killed run resumes exactly from its last save.

Each step is seeded by the run's seed and the step's number, so that no random state needs saving.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lime_edge.training.attention import plain_if_short

from .data import Item

_SAVE_EVERY = 25  # steps
_WARMUP = 0.05  # share of the steps
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Figures:
    """Measurements of a run, step by step."""

    cpu: list[float] = field(default_factory=list)  # processor seconds of each step
    wall: list[float] = field(default_factory=list)  # elapsed seconds of each step
    losses: list[float] = field(default_factory=list)
    tokens: int = 0  # tokens without padding
    peak_mb: float = 0.0  # peak resident memory of the process


class OutOfTimeError(Exception):
    """The run reached its deadline; its state is saved."""


@dataclass(frozen=True)
class Run:
    """One method on one order of batches.

    Attributes:
        model: Has the forward of a causal model.
        transformer: The backbone inside it.
        groups: Parameter groups for AdamW; "top" is a group's highest learning rate.
        batches: One batch per step.
        collate: Turns items into the model's inputs.
        tell: Called with the items before each step.
        seed: Seed of everything random.
        state: File of the saved state.
        stamp: Identifies the run; a state with another stamp is rejected.
        deadline: Time limit on the monotonic clock, or None.
    """

    model: nn.Module
    transformer: nn.Module
    groups: list[dict[str, Any]]
    batches: Sequence[Sequence[Item]]
    collate: Callable[[Sequence[Item]], dict[str, Any]]
    tell: Callable[[Sequence[Item]], None]
    seed: int
    state: Path
    stamp: str
    deadline: float | None = None

    def fit(self, say: Callable[[str], None]) -> Figures:
        """Train to the end.

        Raises:
            OutOfTimeError: The deadline passed before the last step.
            ValueError: The saved state belongs to another run.
        """
        optimizer = torch.optim.AdamW(self.groups, betas=(0.9, 0.999))
        start, figures = self._resume(optimizer)
        self.model.train()
        for step in range(start, len(self.batches)):
            self._step(step, optimizer, figures)
            done = step + 1
            late = self.deadline is not None and time.monotonic() > self.deadline
            if done % _SAVE_EVERY == 0 or done == len(self.batches) or late:
                self._save(optimizer, done, figures)
                recent = figures.losses[-_SAVE_EVERY:]
                say(f"step {done}/{len(self.batches)}: loss {sum(recent) / len(recent):.3f}")
            if late and done < len(self.batches):
                raise OutOfTimeError
        return figures

    def _step(self, step: int, optimizer: torch.optim.Optimizer, figures: Figures) -> None:
        torch.manual_seed(1_000_003 * self.seed + step)
        warm = max(1, round(_WARMUP * len(self.batches)))
        scale = min((step + 1) / warm, (len(self.batches) - step) / (len(self.batches) - warm + 1))
        for group, given in zip(optimizer.param_groups, self.groups, strict=True):
            group["lr"] = given["top"] * scale
        items = self.batches[step]
        inputs = self.collate(items)
        self.tell(items)
        cpu, wall = time.process_time(), time.monotonic()
        with plain_if_short(self.transformer, inputs["input_ids"]):
            loss = self.model(**inputs).loss
            loss.backward()
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        figures.cpu.append(time.process_time() - cpu)
        figures.wall.append(time.monotonic() - wall)
        figures.losses.append(float(loss.detach()))
        figures.tokens += int(inputs["attention_mask"].sum())
        figures.peak_mb = max(figures.peak_mb, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def _save(self, optimizer: torch.optim.Optimizer, done: int, figures: Figures) -> None:
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._trained().items():
            tensors[f"value.{name}"] = parameter.detach().contiguous()
            tensors |= {f"{moment}.{name}": optimizer.state[parameter][moment] for moment in _MOMENTS}
        document = {"stamp": self.stamp, "done": done, "figures": vars(figures)}
        self.state.parent.mkdir(parents=True, exist_ok=True)
        new = self.state.with_suffix(".new")
        save_file(tensors, new, {"run": json.dumps(document)})
        os.replace(new, self.state)

    def _resume(self, optimizer: torch.optim.Optimizer) -> tuple[int, Figures]:
        if not self.state.is_file():
            return 0, Figures()
        with safe_open(self.state, framework="pt") as file:
            document = json.loads(file.metadata()["run"])
            if document["stamp"] != self.stamp:
                raise ValueError(f"{self.state} belongs to another run: {document['stamp']}; expected {self.stamp}")
            done = int(document["done"])
            for name, parameter in self._trained().items():
                with torch.no_grad():
                    parameter.copy_(file.get_tensor(f"value.{name}"))
                moments = {moment: file.get_tensor(f"{moment}.{name}") for moment in _MOMENTS}
                optimizer.state[parameter] = {"step": torch.tensor(float(done)), **moments}
        return done, Figures(**document["figures"])
