"""Golden prompts: a skill that reproduces its author's measurement is loaded, any other is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import (
    SkillProofError,
)
from lime_edge.runtime import Runtime
from tests.support.runtime_models import Plain, exported, runtime, skill


def golden(path: Path, activation: str, count: int = 4) -> dict[str, Any]:
    """A golden prompt as measured on the author's machine."""
    made = runtime(exported())
    tokens = made._text.tokens("Hello")
    ids = tokens.ids.tolist()
    base, own = Plain(exported()), Plain(exported(), path, activation)
    with_skill, without = own(ids, tokens.boundary)[-1], base(ids)[-1]
    top = np.argsort(-with_skill)[:8]
    return {
        "prompt_ids": ids,
        "answer_ids": own.answer(ids, tokens.boundary, count),
        "top_ids": top.tolist(),
        "skill_logits": with_skill[top].tolist(),
        "base_logits": without[top].tolist(),
    }


@pytest.mark.parametrize("activation", ["always", "response"])
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_proof(activation: str, precision: str) -> None:
    entry = golden(skill(exported(), "legal", activation=activation), activation)
    made = Runtime.load(exported(precision=precision), threads=1)
    path = skill(exported(precision=precision), "legal", activation=activation, golden=[entry])
    assert made.load_skill(path, prove=True).proved


PROOFS: list[tuple[str, dict[str, Any], float, str]] = [
    ("fp32", {}, 0.0, "golden prompt 0: the skill changes no logit by more than 0.001 on this graph"),
    ("int4", {}, 0.0, "golden prompt 0: the skill changes no logit by more than 0.001 on this graph"),
    ("fp32", {"base_logits": [9.0] * 8}, 0.5, "the base's logits differ by"),
    ("fp32", {"skill_logits": [9.0] * 8}, 0.5, "the skill's logits differ by"),
    ("fp32", {"answer_ids": [3, 3]}, 0.5, "expected [3, 3]"),
    ("fp32", {"answer_ids": [300]}, 0.5, "with ids up to 300; the model has room for 256 and 300 ids"),
    ("fp32", {"prompt_ids": [3] * 256}, 0.5, "260 tokens with ids up to"),
    ("int4", {"base_logits": "skill", "skill_logits": "base"}, 0.5, "the change has another direction: cosine -"),
    ("int4", {"skill_logits": "twice"}, 0.5, "times its author's; expected 0.5 to 2"),
    ("int4", {"skill_logits": "base"}, 0.5, "the skill changes nothing"),
]


@pytest.mark.parametrize(("precision", "changes", "size", "message"), PROOFS)
def test_proofs_that_fail(precision: str, changes: dict[str, Any], size: float, message: str) -> None:
    directory = exported(precision=precision)
    entry = golden(skill(exported(), "legal"), "response")
    skill_logits, base_logits = np.array(entry["skill_logits"]), np.array(entry["base_logits"])
    words = {"skill": skill_logits, "base": base_logits, "twice": base_logits + 5 * (skill_logits - base_logits)}
    wrong = {key: words[value].tolist() if isinstance(value, str) else value for key, value in changes.items()}
    made = runtime(directory, "brief")
    path = skill(directory, "legal", size=size, golden=[entry | wrong])
    with pytest.raises(SkillProofError) as caught:
        made.load_skill(path, prove=True)
    assert message in str(caught.value)
    assert "'legal' does not reproduce what its author measured: it was not loaded" in str(caught.value)
    assert [info.name for info in made.skills()] == ["brief"]
    assert made._bank.in_use == 2
