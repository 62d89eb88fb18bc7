"""`lime-edge learn`: one new skill on a frozen backbone and a frozen shared adapter.

Only the skill's own vectors train, so no skill can change another. The package is written first and
measured afterwards, on the quantised values that ship.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from . import backbone, checkpoint
from .checkpoint import Vectors
from .contract import KINDS, Kind, ModuleTable
from .data import Collator, Examples
from .errors import ConfigError
from .manifest import Activation, Golden, Manifest, Metric
from .metrics import score
from .package import Skill, write_skill
from .peft_config import LimeConfig
from .predict import Predictor, Prompt
from .rows import Row, data_digest, read_rows
from .training import Plan, fit

_GOLDEN_PROMPTS = 3
_GOLDEN_TOKENS = 8  # of each golden answer
_GOLDEN_LOGITS = 8  # fingerprint: the likeliest tokens with the skill


@dataclass(frozen=True)
class Recipe:
    """What kind of skill to learn, and what to say of it."""

    name: str
    experts: int = 1  # 1, or the E that the model is exported with
    rank_gate: bool = False  # also learn q; the model must be exported with --rank-gate
    activation: Activation = "always"  # or "response": the prompt is read as the base would
    system: str | None = None  # system text that the skill is learned and used with
    dtype: Literal["i8", "f16"] = "i8"
    max_length: int = 512  # tokens; longer rows are left out
    metric_rows: int = 100  # rows of the validation split that are measured; 0 measures nothing
    about: dict[str, str] = field(default_factory=dict)  # description, license, author, version


def learn(
    data: Path, checkpoint_dir: Path, output: Path, recipe: Recipe, plan: Plan, valid: Path | None = None
) -> tuple[Skill, dict[str, float]]:
    """Learn a skill and write its package.

    Args:
        data: A JSONL file, or a folder with train.jsonl and maybe valid.jsonl.
        checkpoint_dir: The checkpoint, from `lime-edge train`.
        output: The package to write.
        recipe: What to learn.
        plan: How long and how fast.
        valid: Rows to measure on; by default valid.jsonl in the folder, else a tenth of the rows.

    Returns:
        The package, and the figures of the run.

    Raises:
        ConfigError, DataError: naming everything that cannot be used.
    """
    train_rows, valid_rows = _split(data, valid, plan.seed)
    model, tokenizer, where = prepare(checkpoint_dir, recipe, backbone.training_dtype())
    train_set = Examples(tokenizer, train_rows, recipe.max_length, recipe.system)
    response_only = recipe.activation == "response"
    collator = Collator(tokenizer.pad_token_id, response_only)
    state = output.with_name(f".{output.name}.run")
    figures = fit(model, train_set, None, collator, plan, state)
    manifest = _manifest(model, recipe)
    skill = write_skill(output, manifest, checkpoint.get_vectors(model), recipe.dtype)
    checkpoint.set_vectors(model, skill.tensors)
    measured = pick(valid_rows, recipe.metric_rows, plan.seed)
    metrics = _measure(Predictor(model, tokenizer, response_only, recipe.system), measured)
    golden = _golden(where, checkpoint_dir, recipe, skill, valid_rows)
    manifest = dataclasses.replace(manifest, metrics=metrics, golden=golden)
    return write_skill(output, manifest, checkpoint.get_vectors(model), recipe.dtype), figures


def prepare(checkpoint_dir: Path, recipe: Recipe, dtype: Any) -> tuple[Any, Any, Path]:
    """The checkpoint with a skill of the recipe's shape on it; only the skill's vectors require gradients."""
    model, tokenizer, where = checkpoint.open_checkpoint(checkpoint_dir, dtype)
    config = checkpoint.tuner(model).lime_config
    _check(recipe, config)
    shared, start = checkpoint.shared_adapter(model), checkpoint.get_vectors(model)
    shaped = dataclasses.replace(
        config,
        routing=dataclasses.replace(config.routing, experts=recipe.experts),
        kinds=_kinds(config, recipe),
        shared_vector=False,
        inference_mode=False,
    )
    wrapped = checkpoint.wrap(model.unload(), shaped)
    for name, layer in checkpoint.tuner(wrapped).layers().items():
        a, b, _ = shared[name]
        with torch.no_grad():
            layer.get_parameter(f"lime_A.{layer.adapter}").copy_(torch.from_numpy(a))
            layer.get_parameter(f"lime_B.{layer.adapter}").copy_(torch.from_numpy(b))
        layer.freeze_shared()
    checkpoint.set_vectors(wrapped, reshape(start, checkpoint.get_vectors(wrapped)))
    return wrapped, tokenizer, where


def reshape(start: Vectors, fresh: Vectors) -> Vectors:
    """Vectors to start from, in the shape of `fresh`: experts averaged where their number differs."""

    def fit_one(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        if name not in start:
            return fresh[name]
        same = len(start[name]) == len(fresh[name])
        return start[name] if same else np.broadcast_to(start[name].mean(0), fresh[name].shape)

    return {name: fit_one(name) for name in fresh}


def pick(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """At most `count` rows, drawn without order."""
    return random.Random(seed).sample(list(rows), min(count, len(rows)))


def _check(recipe: Recipe, config: LimeConfig) -> None:
    if recipe.experts not in (1, config.routing.experts):
        raise ConfigError(
            f"a skill of {recipe.experts} experts fits no export of this checkpoint; "
            f"expected 1 or {config.routing.experts}"
        )


def _kinds(config: LimeConfig, recipe: Recipe) -> tuple[Kind, ...]:
    wanted = {"expert", "gain", "shift", *config.kinds} | ({"rank"} if recipe.rank_gate else set())
    return tuple(kind for kind in KINDS if kind in wanted)


def _split(data: Path, valid: Path | None, seed: int) -> tuple[list[Row], list[Row]]:
    rows = read_rows(data / "train.jsonl" if data.is_dir() else data)
    beside = data / "valid.jsonl"
    if valid is not None or (data.is_dir() and beside.is_file()):
        return rows, read_rows(valid or beside)
    random.Random(seed).shuffle(rows)
    held = max(1, len(rows) // 10)
    return rows[held:], rows[:held]


def _manifest(model: Any, recipe: Recipe) -> Manifest:
    tuner = checkpoint.tuner(model)
    table: ModuleTable = tuner.table()
    config = tuner.lime_config
    return Manifest(
        name=recipe.name,
        version=recipe.about.get("version", "1.0.0"),
        description=recipe.about.get("description", ""),
        license=recipe.about.get("license", "NOASSERTION"),
        author=recipe.about.get("author", ""),
        created=_today(),
        backbone=str(config.backbone_digest),
        backbone_name=str(config.base_model_name_or_path or ""),
        adapter=checkpoint.adapter_digest(model),
        modules=table.digest,
        routing=config.routing,
        activation=recipe.activation,
        prompt={"system": recipe.system, "generation": {}, "stop": []},
    )


def _measure(predictor: Predictor, rows: Sequence[Row]) -> list[Metric]:
    """Exact match and F1 of skill and base on the rows."""
    if not rows:
        return []
    wanted = [row.answer for row in rows]
    skill = score(predictor.answers(rows, label="measuring the skill"), wanted)
    with predictor.model.disable_adapter():
        base = score(predictor.answers(rows, label="measuring the base"), wanted)
    names = ["accuracy"] if all(row.choices for row in rows) else ["exact match", "f1"]
    pairs = {"accuracy": "exact", "exact match": "exact", "f1": "f1"}
    return [
        Metric(
            dataset=data_digest(rows),
            name=name,
            split="valid",
            rows=len(rows),
            skill=round(getattr(skill, pairs[name]), 4),
            base=round(getattr(base, pairs[name]), 4),
            date=_today(),
        )
        for name in names
    ]


def _golden(where: Path, checkpoint_dir: Path, recipe: Recipe, skill: Skill, rows: Sequence[Row]) -> list[Golden]:
    """Golden prompts in float32, so that every runtime can be held to them."""
    model, tokenizer, _ = prepare(checkpoint_dir, recipe, torch.float32)
    checkpoint.set_vectors(model, skill.tensors)
    predictor = Predictor(model, tokenizer, recipe.activation == "response", recipe.system)
    model.eval()
    prompts = [predictor.prompt(row) for row in sorted(rows, key=lambda r: sum(len(m["content"]) for m in r.messages))]
    return [_golden_of(predictor, prompt) for prompt in prompts[:_GOLDEN_PROMPTS]]


def _golden_of(predictor: Predictor, prompt: Prompt) -> Golden:
    logits = predictor.prefill([prompt])[0][0]
    with predictor.model.disable_adapter():
        base = predictor.prefill([prompt])[0][0]
    top = logits.topk(_GOLDEN_LOGITS).indices
    (answer,) = predictor.generate([prompt], _GOLDEN_TOKENS)
    return Golden(
        prompt_ids=list(prompt.ids),
        answer_ids=answer or [predictor.tokenizer.eos_token_id],
        top_ids=top.tolist(),
        skill_logits=[round(float(v), 4) for v in logits[top]],
        base_logits=[round(float(v), 4) for v in base[top]],
    )


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
