"""A tokenizer, and random answers under a constraint: helpers of the tests in this folder."""

from __future__ import annotations

from functools import cache

import numpy as np

from lime_edge.runtime.constraints.answer_constraints import AnswerConstraints
from lime_edge.runtime.constraints.answer_spec import AnswerSpec
from lime_edge.runtime.constraints.constraint import Constraint, restrict
from tests.support.runtime_models import tiny_text

VOCABULARY = 320  # more logits than the tokenizer has tokens, as in many models
LENGTH = 200


@cache
def constraints() -> AnswerConstraints:
    return AnswerConstraints(tiny_text(), VOCABULARY)


def constraint(answers: object) -> Constraint:
    """The constraint of one row; answers as in `AnswerSpec.of`."""
    found = constraints().constrain(AnswerSpec.of(answers))
    assert found is not None
    return found


def walk(row: Constraint, seed: int) -> tuple[str, list[int]]:
    """Answer with random logits, greedily, until the row is done; checks every step.

    Returns:
        The answer's text and tokens.
    """
    rng, ids = np.random.default_rng(seed), list[int]()
    while not row.done and len(ids) < LENGTH:
        mask, forced = row.allowed(), row.forced()
        assert mask.any()
        assert mask[tiny_text().end_id] == row.complete
        if forced:
            assert np.flatnonzero(mask).tolist() == forced[:1]
        logits = rng.standard_normal(VOCABULARY).astype(np.float32)
        restrict(logits, mask)
        row.accept(token := int(logits.argmax()))
        ids.append(token)
    return tiny_text().tokenizer.decode(ids, skip_special_tokens=True), ids
