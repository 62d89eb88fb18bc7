"""Scores of choices equal those of plain full runs; `best_only` and batches do not change the label."""

from __future__ import annotations

import numpy as np
import pytest

from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.choice_scores import log_softmax
from lime_edge.runtime.text.prompts import Text
from tests.support.runtime_models import Plain, exported, makers, runtime, skill


@pytest.fixture(scope="module", params=[1, 3])
def made(request: pytest.FixtureRequest) -> Runtime:
    found = runtime(exported(request.param), "reply", "other")
    found.load_skill(skill(exported(request.param), "always", activation="always"))
    return found


@pytest.fixture(scope="module")
def simple() -> Runtime:
    return runtime(exported(), "reply")


def test_choose_scores_are_those_of_whole_plain_runs(made: Runtime) -> None:
    choices = ["yes", "no", "yes and no", "é"]
    tokens = made._text.tokens("is it so?")
    for info in made.skills():
        plain = Plain(made._graph.directory.path, info.path, info.activation)
        found = made.choose("is it so?", choices, info.name)
        for choice in choices:
            ids = [*made._text.encode(choice), made._text.end_id]
            whole = [*tokens.ids.tolist(), *ids]
            logits = plain(whole, tokens.boundary)[len(tokens.ids) - 1 : -1]
            wanted = sum(log_softmax(row)[token] for row, token in zip(logits, ids, strict=True))
            np.testing.assert_allclose(found.scores[choice], wanted, atol=1e-4)
        assert found.label == max(found.scores, key=lambda label: found.scores[label])
        expected = np.exp(list(found.scores.values()))
        np.testing.assert_allclose(list(found.probabilities.values()), expected / expected.sum(), atol=1e-9)
        assert makers(found.receipt) == makers(made.generate("x", info.name, max_new_tokens=1).receipt)


def test_choose_many_is_choose_each(made: Runtime) -> None:
    prompts = [f"is it {word} so?" for word in ("not", "never", "quite", "the")]
    choices = ["yes", "no", "yes and no", "perhaps not"]
    together = made.choose(prompts, choices, "reply")
    assert together == [made.choose(prompt, choices, "reply") for prompt in prompts]
    best = made.choose(prompts, choices, "reply", best_only=True)
    assert [c.label for c in best] == [c.label for c in together]
    for some, complete in zip(best, together, strict=True):
        assert some.scores.items() <= complete.scores.items()
        assert some.probabilities == {}


def test_best_only_leaves_choices_out(simple: Runtime) -> None:
    """The end of turn is set to a likely token, so that the likeliest choice gets a high score."""
    choices = [chr(code) for code in range(33, 97)]
    tokens = simple._text.tokens("Hello").ids.tolist()
    first = Plain(simple._graph.directory.path)(tokens)[-1]
    likeliest = max((simple._text.encode(choice)[0] for choice in choices), key=lambda token: first[token])
    ending = Runtime(simple._graph, Text(simple._graph.directory.path, [2]), {})
    ending._text.end_id = Plain(simple._graph.directory.path).answer([*tokens, likeliest], 0, 1)[0]
    found = ending.choose("Hello", choices, best_only=True)
    assert 0 < len(found.scores) < len(choices)
    assert found.label == ending.choose("Hello", choices).label
