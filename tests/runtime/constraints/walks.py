"""A tokenizer, and random answers under a constraint: helpers of the tests in this folder."""

from __future__ import annotations

from functools import cache

import numpy as np

from lime_edge.runtime.constraints.answer_constraints import AnswerConstraints
from lime_edge.runtime.constraints.constraint import Constraint, restrict
from lime_edge.runtime.text.prompts import Text
from tests.support.runtime_models import tiny_text

VOCABULARY = 320  # more logits than the tokenizer has tokens, as in many models
LENGTH = 200


@cache
def constraints() -> AnswerConstraints:
    return AnswerConstraints(tiny_text(), VOCABULARY)


def constraint(answers: object) -> Constraint:
    """The constraint of one row; answers as in `AnswerSpec.of`."""
    from lime_edge.runtime.constraints.answer_spec import AnswerSpec

    found = constraints().constrain(AnswerSpec.of(answers))
    assert found is not None
    return found


def walk(row: Constraint, seed: int, length: int = LENGTH, text: Text | None = None) -> tuple[str, list[int]]:
    """Answer with random logits, greedily, until the row is done; checks every step.

    Returns:
        The answer's text and tokens.
    """
    rng, ids = np.random.default_rng(seed), list[int]()
    while not row.done and len(ids) < length:
        mask, forced = row.allowed(), row.forced()
        assert mask.any()
        assert mask[(text or tiny_text()).end_id] == row.complete
        if forced:
            assert np.flatnonzero(mask).tolist() == forced[:1]
        logits = rng.standard_normal(VOCABULARY).astype(np.float32)
        restrict(logits, mask)
        row.accept(token := int(logits.argmax()))
        ids.append(token)
    return (text or tiny_text()).tokenizer.decode(ids, skip_special_tokens=True), ids
