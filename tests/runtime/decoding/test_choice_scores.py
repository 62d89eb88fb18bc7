"""A greedy answer that is one of several choices is the one that `choose` picks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from lime_edge.runtime import Generation, Runtime
from lime_edge.runtime.decoding import loop
from lime_edge.runtime.decoding.choice_scores import log_softmax, score_steps
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.skills.interface import AnswerForm, Interface
from tests.support.runtime_models import PROMPTS, exported, runtime

#: Labels that begin alike, and labels of one, two and many tokens.
CHOICES = ["yes", "yes and no", "yes sir", "no", "e", "the", "the answer is no", "x", "zq!"]


@pytest.fixture(scope="module", params=[1, 3])
def made(request: pytest.FixtureRequest) -> Runtime:
    return runtime(exported(request.param), "one", "two")


def test_log_softmax() -> None:
    found = log_softmax(np.array([1.0, 2.0, 3.0], np.float32))
    assert math.isclose(np.exp(found).sum(), 1)
    np.testing.assert_allclose(np.diff(found), 1)


def _generated(made: Runtime, prompt: str, skill: str | None, **settings: Any) -> str:
    found: Generation = made.generate(prompt, skill, answers=CHOICES, **settings)
    assert found.finish_reason == "stop"
    assert found.token_ids == (*made._text.encode(found.text), made._text.end_id)
    return found.text


def test_generate_agrees_with_choose(made: Runtime) -> None:
    prompts = [f"{prompt} {number}" for number in range(8) for prompt in PROMPTS]
    skills = [None, "one", "two"]
    chosen = [[made.choose(prompt, CHOICES, skill).label for skill in skills] for prompt in prompts]
    assert [[_generated(made, prompt, skill) for skill in skills] for prompt in prompts] == chosen
    for prompt, wanted in zip(prompts[:4], chosen, strict=False):
        together = made.generate(prompt, skills, answers=CHOICES)
        assert [one.text for one in together] == wanted
        assert "".join(made.stream(prompt, "one", answers=CHOICES)) == wanted[1]
        assert _generated(made, prompt, "one", speculate=False) == wanted[1]
        reported = made.generate(prompt, "one", answers=CHOICES, logprobs=0)
        assert reported.text == wanted[1]
        assert reported.logprobs is not None
        score = made.choose(prompt, CHOICES, "one").scores[wanted[1]]
        np.testing.assert_allclose(sum(one.logprob for one in reported.logprobs), score, atol=1e-3)


def test_the_trie_alone_would_differ(made: Runtime) -> None:
    """Sampling so cold that it is greedy takes the likeliest token at every branch."""
    prompts = [f"{prompt} {number}" for number in range(8) for prompt in PROMPTS]
    cold = [_generated(made, prompt, None, temperature=1e-6) for prompt in prompts]
    assert cold != [_generated(made, prompt, None) for prompt in prompts]


def test_choices_that_do_not_fit_are_cut(made: Runtime) -> None:
    found = made.generate("Hello", answers=CHOICES, max_new_tokens=1)
    assert found.finish_reason == "length"
    assert any(choice.startswith(found.text) for choice in CHOICES)


def _scored(first: dict[int, float], choices: Mapping[str, tuple[int, ...]], doubt: float) -> dict[str, float] | None:
    """The scores that need no run of the graph; None if one would be needed."""
    logits = np.log(np.array([first.get(token, 1e-9) for token in range(8)]))
    nothing: Any = None  # neither a cache nor a prompt is read
    steps = score_steps(nothing, 0, nothing, 0, logits, choices, best_only=True, doubt=doubt)
    try:
        next(steps)
    except StopIteration as end:
        found: dict[str, float] = end.value
        return found
    return None


def test_a_first_token_without_doubt_decides_alone() -> None:
    choices = {"a": (1, 5, 0), "b": (2, 5, 0), "c": (2, 6, 0)}
    sure = {1: 0.98, 2: 0.01}
    found = _scored(sure, choices, 0.02)
    assert found is not None
    assert list(found) == ["a"]
    assert math.isclose(found["a"], math.log(0.98 / (0.99 + 6e-9)), abs_tol=1e-6)
    assert _scored(sure, choices, 0.0) is None
    assert _scored(sure, choices, 0.005) is None
    assert _scored({1: 0.9, 2: 0.1}, choices, 0.02) is None
    assert _scored({1: 0.01, 2: 0.98}, choices, 0.02) is None  # two choices begin with it


def test_only_a_skill_s_own_choices_go_without_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    doubts: list[float] = []

    def scored(*arguments: Any, **settings: Any) -> Any:
        doubts.append(settings["doubt"])
        return score_steps(*arguments, **settings)

    monkeypatch.setattr(loop, "score_steps", scored)
    inside = Interface(answers=AnswerForm("choices", CHOICES))
    made = runtime(exported(), "own", interface=inside)
    made.generate("Hello", "own")
    made.generate("Hello", "own", answers=CHOICES)
    assert doubts == [loop._DOUBT, 0.0]


def test_the_best_alone_is_scored(made: Runtime) -> None:
    """A score bounds those of other choices that begin with the same token; the label stays the same."""
    graph, text = made._graph, made._text
    prompt = text.tokens("Hello").ids
    choices = {choice: (*text.encode(choice), text.end_id) for choice in CHOICES}
    found = []
    for best_only in (False, True):
        with made._registry.lease([None]) as lease:
            cache = Cache(graph, lease.array, 1, len(prompt) + 40)
            logits, _ = cache.prefill(0, prompt, np.zeros(len(prompt), np.int64))
            steps = score_steps(cache, 0, prompt, 0, logits, choices, best_only)
            runs = 0
            while True:
                try:
                    next(steps)
                    runs += 1
                except StopIteration as end:
                    found.append((runs, end.value))
                    break
            assert cache.lengths == [len(prompt)]
    (every, scores), (some, best) = found
    assert every == len(scores) == len(CHOICES)
    assert some == len(best) <= len(scores)
    assert max(best, key=best.__getitem__) == max(scores, key=scores.__getitem__)
    assert best.items() <= scores.items()
