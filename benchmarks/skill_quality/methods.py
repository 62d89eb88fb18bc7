"""The ways to teach a frozen model one task that skills.py compares: what trains, and what the file holds.

LiME skills as `lime-edge learn` makes them, whole or in part; PEFT's methods as they are. Knows nothing of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from peft import IA3Config, LoraConfig, RoadConfig, VeraConfig, get_peft_model
from safetensors.numpy import load_file, save

from lime_edge.contract.vector_kinds import KINDS, NEUTRAL, Kind
from lime_edge.method.config import ATTENTION, TARGETS
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import write_skill
from lime_edge.skills.vector_codec import Array, kind_of, module_of, quantise
from lime_edge.training import backbone, checkpoint
from lime_edge.training.golden_prompts import made_for, today
from lime_edge.training.learn_skill import GAIN_ONLY, SKILL_PLAN, Recipe, prepare
from lime_edge.training.plan import Optimizer

Vectors = Mapping[str, Array]


@dataclass(frozen=True)
class Stored:
    """A file as it is saved.

    Attributes:
        bytes: Of the file.
        smallest_bytes: Of the same tensors at 2 bytes a number, where they are saved at 4.
        numbers: How many were trained.
    """

    bytes: int
    smallest_bytes: int
    numbers: int


class Method(Protocol):
    """One way to learn a task."""

    @property
    def family(self) -> str:
        """Methods of a family share the learning rate."""

    @property
    def optimizer(self) -> Optimizer:
        """As `training.Plan` names it."""

    def open(self, shared: Path) -> tuple[Any, Any]:
        """Model, whose parameters that train require gradients, and tokenizer; `shared`: the checkpoint."""

    def store(self, model: Any, folder: Path) -> Stored:
        """Save what was learned; afterwards the model is what the file makes of it."""


@dataclass(frozen=True)
class Lime:
    """A skill on a frozen shared adapter.

    Attributes:
        kinds: By projection; those that are missing stay neutral. "" is all others.
        experts: 1, or those of the checkpoint.
    """

    kinds: Mapping[str, tuple[Kind, ...]] = field(default_factory=lambda: _LEARNED)
    experts: int = 1
    dtype: Literal["i8", "f16"] = "i8"
    family: str = "lime"
    optimizer: Optimizer = SKILL_PLAN.optimizer

    def holds(self, name: str) -> bool:
        """Whether the skill has this vector, ``<kind>.<module>``."""
        projection = module_of(name).rpartition(".")[2]
        return kind_of(name) in self.kinds.get(projection, self.kinds.get("", ()))

    def open(self, shared: Path) -> tuple[Any, Any]:
        """As `learn` opens it, without the vectors that the skill is not to have."""
        held = any("expert" in kinds for kinds in self.kinds.values())
        recipe = Recipe("skill", self.experts, held, gain_only=())
        model, tokenizer, _ = prepare(shared, recipe, backbone.training_dtype())
        for name, layer in checkpoint.tuner(model).layers().items():
            for kind in KINDS:
                held = getattr(layer, f"lime_{kind}")
                if layer.adapter in held and not self.holds(f"{kind}.{name}"):
                    held[layer.adapter].requires_grad_(False).fill_(NEUTRAL[kind])
        return model, tokenizer

    def store(self, model: Any, folder: Path) -> Stored:
        """A package without golden prompts, which take about 1 KB each."""
        vectors = checkpoint.get_vectors(model)
        held = {name: values for name, values in vectors.items() if self.holds(name)}
        made = made_for(
            model, backbone.resolve(checkpoint.tuner(model).lime_config.base_model_name_or_path or backbone.DEFAULT)
        )
        manifest = Manifest(name="skill", version="1.0.0", created=today(), **made)
        skill = write_skill(folder / "skill.lime", manifest, held, self.dtype)
        checkpoint.set_vectors(model, vectors | dict(skill.tensors))
        return Stored(skill.size, skill.size, sum(values.size for values in held.values()))


@dataclass(frozen=True)
class Peft:
    """A method of PEFT."""

    family: str
    config: Callable[[], Any]
    optimizer: Optimizer = "adamw"

    def open(self, shared: Path) -> tuple[Any, Any]:
        model, tokenizer = backbone.load(_backbone(shared), backbone.training_dtype())
        return get_peft_model(model, self.config()), tokenizer

    def store(self, model: Any, folder: Path) -> Stored:
        """As PEFT saves it, in float32; beside it, the size in float16."""
        model.save_pretrained(str(folder), save_embedding_layers=False)
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        smallest = len(save({name: values.astype(np.float16) for name, values in tensors.items()}))
        numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return Stored(path.stat().st_size, smallest, numbers)


@dataclass(frozen=True)
class Specific(Peft):
    """A LoRA of the task's own that starts as the shared adapter with its mean expert: what a skill stands in for."""

    def open(self, shared: Path) -> tuple[Any, Any]:
        lime, _, _ = checkpoint.open_checkpoint(shared, torch.float32)
        adapters, vectors = checkpoint.shared_adapter(lime), checkpoint.get_vectors(lime)
        rank, scaling = next((len(a), s) for a, _, s in adapters.values())
        config = LoraConfig(r=rank, lora_alpha=round(rank * scaling), target_modules=_projections(adapters))
        net, tokenizer = backbone.load(_backbone(shared), backbone.training_dtype())
        model = get_peft_model(net, config)
        for name, (a, b, _) in adapters.items():
            layer: Any = model.get_submodule(f"base_model.model.{name}")
            mean = vectors[f"expert.{name}"].mean(0)[:, None]
            with torch.no_grad():
                layer.lora_A["default"].weight.copy_(torch.from_numpy(a))
                layer.lora_B["default"].weight.copy_(torch.from_numpy(mean * b))
        return model, tokenizer


def _projections(adapters: Mapping[str, Any]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in adapters})


def _backbone(shared: Path) -> Path:
    return backbone.resolve(checkpoint.read_config(shared).base_model_name_or_path or backbone.DEFAULT)


def _lora(rank: int, targets: Sequence[str] = ATTENTION, family: str = "lora", optimizer: Optimizer = "adamw") -> Peft:
    return Peft(family, lambda: LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets)), optimizer)


def four_bits(vectors: Vectors) -> dict[str, Array]:
    """What 4 bits would leave of vectors: 15 levels in blocks of 32, as the 255 of I8 are."""
    found = {}
    for name, values in vectors.items():
        _, scale = quantise(values)  # of 127 levels
        wide = np.repeat(scale.astype(np.float32) * (127 / 7), 32, axis=1)[:, : values.shape[1]]
        found[name] = np.rint(values / np.where(wide > 0, wide, 1)) * wide
    return found


_ALL: tuple[Kind, ...] = ("expert", "gain", "shift")
_GAIN: tuple[Kind, ...] = ("gain",)
_INSIDE: Mapping[str, tuple[Kind, ...]] = dict.fromkeys(GAIN_ONLY, _GAIN)
_LEARNED: Mapping[str, tuple[Kind, ...]] = {**_INSIDE, "": ("gain", "shift")}  # by `lime-edge learn`
_MIXED: Mapping[str, tuple[Kind, ...]] = {**_INSIDE, "": _ALL}  # by `lime-edge learn --expert`

#: Most telling first.
METHODS: dict[str, Method] = {
    "lime": Lime(),
    "lora-8": _lora(8),
    "ia3": Peft("ia3", IA3Config),
    "road": Peft("road", lambda: RoadConfig(target_modules=list(ATTENTION))),
    "lora-1": _lora(1),
    "lime with expert, adamw": Lime(_MIXED, family="lime, adamw", optimizer="adamw"),
    "lora-8, signal": _lora(8, family="lora, signal", optimizer="signal"),
    "ia3, signal": Peft("ia3, signal", IA3Config, "signal"),
    "lime with expert": Lime(_MIXED),
    "lora-8 on o, up": _lora(8, TARGETS),
    "lime on o": Lime({**dict.fromkeys(GAIN_ONLY, ()), "": _ALL}),
    "lime on up": Lime(_INSIDE),
    "lime, all kinds on up": Lime({"": _ALL}),
    "lime gain": Lime({"": _GAIN}),
    "lime expert": Lime({"": ("expert",)}),
    "lime E=2": Lime(_MIXED, experts=2),
    "vera": Peft("vera", lambda: VeraConfig(target_modules=list(ATTENTION), save_projection=False)),
    "lora-2": _lora(2),
    "lora-4": _lora(4),
    "specific": Specific("lora", LoraConfig),
    "lime f16": Lime(dtype="f16"),
}
