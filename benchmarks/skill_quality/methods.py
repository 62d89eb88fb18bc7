"""Methods that teach a frozen model one task: what each one trains, and what its file contains.

LiME skills are those of `lime-edge learn`, whole or in part; PEFT's methods are unmodified.
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
from lime_edge.training.learn_skill import GAIN_ONLY, SKILL_PLAN, Recipe, prepare
from lime_edge.training.package_parts.golden_prompts import made_for, today
from lime_edge.training.plan import Optimizer

Vectors = Mapping[str, Array]


@dataclass(frozen=True)
class Stored:
    """Sizes of a saved file.

    Attributes:
        bytes: Size of the file.
        smallest_bytes: Size with 2 bytes per number, if the file stores 4.
        numbers: Number of trained values.
    """

    bytes: int
    smallest_bytes: int
    numbers: int


class Method(Protocol):
    """One way to learn a task."""

    @property
    def family(self) -> str:
        """Name of the family of methods that share a learning rate."""

    @property
    def optimizer(self) -> Optimizer:
        """Optimiser, as `TrainingPlan` names it."""

    def open(self, shared: Path) -> tuple[Any, Any]:
        """Model and tokenizer for a checkpoint; the parameters to train require gradients."""

    def store(self, model: Any, folder: Path) -> Stored:
        """Save what was learned, and load the saved values back into the model."""


@dataclass(frozen=True)
class Lime:
    """A skill on a frozen shared adapter.

    Attributes:
        kinds: Kinds of vectors by projection, "" for all others; missing kinds stay neutral.
        experts: 1, or the number of the checkpoint's experts.
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
        """Open the checkpoint as `learn` does, with the vectors that the skill lacks neutral and frozen."""
        expert = any("expert" in kinds for kinds in self.kinds.values())
        recipe = Recipe("skill", self.experts, expert, gain_only=())
        model, tokenizer, _ = prepare(shared, recipe, backbone.training_dtype())
        for name, layer in checkpoint.tuner(model).layers().items():
            for kind in KINDS:
                vectors = getattr(layer, f"lime_{kind}")
                if layer.adapter in vectors and not self.holds(f"{kind}.{name}"):
                    vectors[layer.adapter].requires_grad_(False).fill_(NEUTRAL[kind])
        return model, tokenizer

    def store(self, model: Any, folder: Path) -> Stored:
        """Save a package without golden prompts, which would take about 1 KB each."""
        vectors = checkpoint.get_vectors(model)
        kept = {name: values for name, values in vectors.items() if self.holds(name)}
        made = made_for(
            model, backbone.resolve(checkpoint.tuner(model).lime_config.base_model_name_or_path or backbone.DEFAULT)
        )
        manifest = Manifest(name="skill", version="1.0.0", created=today(), **made)
        skill = write_skill(folder / "skill.lime", manifest, kept, self.dtype)
        checkpoint.set_vectors(model, vectors | dict(skill.tensors))
        return Stored(skill.size, skill.size, sum(values.size for values in kept.values()))


@dataclass(frozen=True)
class Peft:
    """One of PEFT's methods."""

    family: str
    config: Callable[[], Any]
    optimizer: Optimizer = "adamw"

    def open(self, shared: Path) -> tuple[Any, Any]:
        model, tokenizer = backbone.load(_backbone(shared), backbone.training_dtype())
        return get_peft_model(model, self.config()), tokenizer

    def store(self, model: Any, folder: Path) -> Stored:
        """Save PEFT's own file, in float32, and compute its size in float16."""
        model.save_pretrained(str(folder), save_embedding_layers=False)
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        smallest = len(save({name: values.astype(np.float16) for name, values in tensors.items()}))
        numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return Stored(path.stat().st_size, smallest, numbers)


@dataclass(frozen=True)
class Specific(Peft):
    """A LoRA for one task, initialised with the shared adapter and its mean expert: what a skill replaces."""

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
    """Round vectors to 4 bits: 15 levels in blocks of 32, by the scheme that I8 uses with 255 levels."""
    found = {}
    for name, values in vectors.items():
        _, scale = quantise(values)  # of I8, with 127 positive levels
        wide = np.repeat(scale.astype(np.float32) * (127 / 7), 32, axis=1)[:, : values.shape[1]]
        found[name] = np.rint(values / np.where(wide > 0, wide, 1)) * wide
    return found


_ALL: tuple[Kind, ...] = ("expert", "gain", "shift")
_GAIN: tuple[Kind, ...] = ("gain",)
_INSIDE: Mapping[str, tuple[Kind, ...]] = dict.fromkeys(GAIN_ONLY, _GAIN)
_LEARNED: Mapping[str, tuple[Kind, ...]] = {**_INSIDE, "": ("gain", "shift")}  # as `lime-edge learn`
_MIXED: Mapping[str, tuple[Kind, ...]] = {**_INSIDE, "": _ALL}  # as `lime-edge learn --expert`

#: Methods by name, the most informative first.
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
