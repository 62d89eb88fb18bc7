"""Converts finished rows into the results that a caller gets, each with a receipt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lime_edge.contract.model import ModelContract
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.types import Choice, Generation

from .loop import Answer
from .scoring import probabilities


def to_generation(answer: Answer, contract: ModelContract) -> Generation:
    """The result of a finished answer."""
    return Generation(
        text="".join(answer.pieces),
        token_ids=tuple(answer.ids),
        finish_reason=answer.reason,
        timings=answer.timings,
        receipt={**receipt(answer.asked, contract), **_course(answer)},
        logprobs=None if answer.logprobs is None else tuple(answer.logprobs),
    )


def to_choice(scores: Mapping[str, float], applied: AppliedSkill, contract: ModelContract, best_only: bool) -> Choice:
    """The result of scoring: the label is the first choice with the highest score.

    Args:
        scores: Log-probability by choice.
        applied: The skill that scored them.
        contract: The model's.
        best_only: Some choices may be missing from `scores`, so there are no probabilities.
    """
    return Choice(
        label=max(scores, key=scores.__getitem__),
        probabilities={} if best_only else probabilities(scores),
        scores=scores,
        receipt=receipt(applied, contract),
    )


def receipt(applied: AppliedSkill, contract: ModelContract) -> dict[str, Any]:
    """Which skills, backbone, adapter and graph answered, by digest. docs/receipt.schema.json describes it."""
    skills = _skills(applied)
    return {
        "skills": skills,
        "activation": applied.activation if skills else None,
        "backbone": contract.backbone_digest,
        "adapter": contract.adapter_digest,
        "graph": contract.graph_digest,
        "precision": contract.precision,
    }


def _skills(applied: AppliedSkill) -> list[dict[str, Any]]:
    return [
        {
            "name": info.name,
            "version": info.version,
            "digest": info.digest,
            "generation": info.generation,
            "signer": None if info.signer is None else asdict(info.signer),
            "weight": weight,
        }
        for info, weight in applied.parts
    ]


def _course(answer: Answer) -> dict[str, Any]:
    """How the answer came about: tokens, the turns before it, and skills that took over."""
    timings, past = answer.timings, answer.request.past
    switches = [
        {"after_tokens": switch.after, "seconds": switch.seconds, "skills": _skills(switch.applied)}
        for switch in answer.switches
    ]
    return {
        "tokens": {
            "prompt": timings.prompt_tokens,
            "reused": timings.reused_tokens,
            "new": timings.new_tokens,
            "drafted": timings.drafted_tokens,
            "accepted": timings.accepted_tokens,
        },
        "switches": switches,
        "past": [_skills(applied) for applied in past.applied if applied.row and applied is not answer.asked],
    }
