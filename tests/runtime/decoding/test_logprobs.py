"""Log-probabilities of an answer's tokens, compared with whole plain runs of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime.decoding.logprobs import Logprobs
from tests.support.runtime_models import PROMPTS, Plain, exported, runtime, skill


def test_they_are_the_softmax_of_the_model() -> None:
    logits = np.random.default_rng(0).normal(0, 3, 2000).astype(np.float32)
    found = Logprobs(3)
    found.before(logits)
    logits[:] = 0  # what changes them later changes nothing
    found.taken(7)
    logits = np.random.default_rng(0).normal(0, 3, 2000).astype(np.float32)
    expected = logits - np.log(np.exp(logits.astype(np.float64)).sum())
    order = np.argsort(-expected)[:3]
    assert found[0].logprob == pytest.approx(expected[7])
    assert [token for token, _ in found[0].top] == order.tolist()
    assert [value for _, value in found[0].top] == pytest.approx(expected[order].tolist())


def test_ties_give_no_more_than_asked_for() -> None:
    found = Logprobs(2)
    found.before(np.zeros(50, np.float32))
    found.taken(0)
    assert [token for token, _ in found[0].top] == [0, 1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 2.0, "seed": 3}, {"frequency_penalty": 1.5}, {"answers": ["yes", "no, not at all"]}],
)
def test_of_an_answer_by_a_skill(settings: Any) -> None:
    """Penalties and constraints choose other tokens; how likely these were is what the model says."""
    made, path = runtime(exported()), skill(exported(), "reply", activation="response")
    made.load_skill(path)
    plain = Plain(exported(), path, "response")
    found = made.generate(PROMPTS[1], "reply", max_new_tokens=8, logprobs=2, **settings)
    assert found.logprobs is not None
    assert [one.token_id for one in found.logprobs] == list(found.token_ids)
    tokens = made._text.tokens(PROMPTS[1])
    for at, one in enumerate(found.logprobs):
        logits = plain([*tokens.ids.tolist(), *found.token_ids[:at]], tokens.boundary)[-1].astype(np.float64)
        expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert one.logprob == pytest.approx(expected[one.token_id], abs=1e-3)
        assert [value for _, value in one.top] == pytest.approx(np.sort(expected)[:-3:-1].tolist(), abs=1e-3)


def test_asking_changes_no_token_and_a_stream_has_them_while_it_runs() -> None:
    made = runtime(exported(), "reply")
    without = made.generate(PROMPTS[1], "reply", max_new_tokens=8)
    assert without.logprobs is None
    stream = made.stream(PROMPTS[1], "reply", max_new_tokens=8, logprobs=0)
    assert len(stream.logprobs) == 0
    next(stream)
    assert 1 <= len(stream.logprobs) <= 8
    assert "".join(stream) in without.text
    assert stream.generation.token_ids == without.token_ids
    assert stream.generation.logprobs == stream.logprobs
    assert all(one.top == () for one in stream.logprobs)


def test_out_of_range() -> None:
    with pytest.raises(ConfigError, match="logprobs is 21; expected a whole number from 0 to 20"):
        runtime(exported()).generate("Hello", logprobs=21)
