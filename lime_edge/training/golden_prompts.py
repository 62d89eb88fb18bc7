"""What every package of a checkpoint carries: what it was made for, and golden prompts that prove it.

Golden prompts are asked of a float32 model, so that every runtime can be held to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lime_edge.evaluation.examples import Row
from lime_edge.skills.manifest import Golden

from . import backbone, checkpoint
from .predictor import Predictor, Prompt

_PROMPTS = 3
_TOKENS = 8  # of each answer
_LOGITS = 8  # fingerprint: the likeliest tokens with the skill


def made_for(model: Any, where: Path) -> dict[str, Any]:
    """The part of a manifest that says which backbone, shared adapter and routing its vectors belong to.

    Args:
        model: A wrapped model with the skill's vectors.
        where: Its backbone's directory.
    """
    tuner = checkpoint.tuner(model)
    config = tuner.lime_config
    name = config.base_model_name_or_path or ""
    return {
        "backbone": config.backbone_digest or backbone.digest(where),
        "backbone_name": _public(name)[:200],
        "adapter": checkpoint.adapter_digest(model),
        "modules": tuner.table().digest,
        "routing": replace(config.routing, experts=1) if tuner.table().virtual_tokens else config.routing,
    }


def _public(name: str) -> str:
    """A backbone's name for people: the hub's, or of a folder its last part, but no path of this machine."""
    if name == backbone.DEFAULT:
        return backbone.DEFAULT_NAME
    return Path(name).name if Path(name).is_dir() else name


def golden_prompts(predictor: Predictor, rows: Sequence[Row], count: int = _PROMPTS) -> list[Golden]:
    """Answers and logits, with the skill and without, to the shortest prompts of the rows."""
    predictor.model.eval()
    shortest = sorted(rows, key=lambda row: sum(len(message["content"]) for message in row.messages))
    return [_golden(predictor, predictor.prompt(row)) for row in shortest[:count]]


def _golden(predictor: Predictor, prompt: Prompt) -> Golden:
    logits = predictor.prefill([prompt])[0][0]
    with predictor.model.disable_adapter():
        base = predictor.prefill([prompt])[0][0]
    top = logits.topk(_LOGITS).indices
    (answer,) = predictor.generate([prompt], _TOKENS)
    return Golden(
        prompt_ids=list(prompt.ids),
        answer_ids=answer or [predictor.tokenizer.eos_token_id],
        top_ids=top.tolist(),
        skill_logits=[round(float(v), 4) for v in logits[top]],
        base_logits=[round(float(v), 4) for v in base[top]],
    )


def today() -> str:
    return datetime.now(UTC).date().isoformat()
