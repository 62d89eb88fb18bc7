"""A probe's distributions and answers, compared with a plain run of the graph."""

from __future__ import annotations

import numpy as np
import pytest

from lime_edge.runtime.facade.probe import probing
from tests.support.runtime_models import PROMPTS, Plain, exported, runtime, skill


@pytest.mark.parametrize("activation", ["always", "response"])
def test_a_probe_sees_what_the_model_says(activation: str) -> None:
    file = skill(exported(), "one", activation=activation)
    model = runtime(exported())
    model.load_skill(file)
    plain = Plain(exported(), file, activation)
    with probing(model, "one", 200) as probe:
        for prompt in PROMPTS:  # one after another on one cache row: a common prefix is reused
            ids = probe.tokens(prompt)
            boundary = probe.text.known(ids).boundary
            answer, _ = probe.greedy(ids, 3)
            assert list(answer) == plain.answer(ids, boundary, 3)[: len(answer)]
            first, second = probe.after(ids, answer[:1])
            logits = plain([*ids, answer[0]], boundary)[-2:].astype(np.float64)
            expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            np.testing.assert_allclose([first, second], expected, atol=1e-3)
            np.testing.assert_allclose(probe.along(ids, answer)[: len(answer)][:2], expected[: len(answer)], atol=1e-3)
