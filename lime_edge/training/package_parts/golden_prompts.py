"""The manifest fields that every package of a checkpoint has: what it was made for, and golden prompts.

A float32 model answers the golden prompts, so that every runtime can be compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lime_edge.evaluation.content import has_media, length_of, text_of
from lime_edge.evaluation.examples import Row
from lime_edge.evaluation.splits import prompt_key
from lime_edge.skills.manifest import Golden
from lime_edge.training import backbone, checkpoint
from lime_edge.training.predictor import Predictor, Prompt

_PROMPTS = 3
_TOKENS = 8  # maximum length of a golden answer
_LOGITS = 8  # how many logits are stored: those of the likeliest tokens with the skill


def made_for(model: Any, where: Path) -> dict[str, Any]:
    """The manifest fields that identify the backbone, shared adapter and routing that the vectors belong to.

    Args:
        model: A wrapped model with the skill's vectors.
        where: The directory of its backbone.
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
    """A backbone's display name: its hub name, or the last part of its folder, so that no local path is published."""
    if name == backbone.DEFAULT:
        return backbone.DEFAULT_NAME
    return Path(name).name if Path(name).is_dir() else name


def golden_prompts(predictor: Predictor, rows: Sequence[Row], count: int = _PROMPTS) -> list[Golden]:
    """Answers and logits, with and without the skill, for the `count` shortest prompts of the rows.

    A package holds no pictures: of prompts with pictures, the text alone is asked.
    """
    predictor.model.eval()
    rows = list({prompt_key(row): row for row in map(_text_alone, rows)}.values())
    shortest = sorted(rows, key=lambda row: length_of(row.messages))
    return [_golden(predictor, predictor.prompt(row)) for row in shortest[:count]]


def _text_alone(row: Row) -> Row:
    if not has_media(row.messages):
        return row
    messages = tuple({**one, "content": text_of(one["content"]) or row.answer} for one in row.messages)
    return replace(row, messages=messages)


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
    """The current date in UTC, as in ISO 8601."""
    return datetime.now(UTC).date().isoformat()
