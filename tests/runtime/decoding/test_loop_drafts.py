"""Drafts, constraints and interfaces in the decoding loop: the same answers, in fewer runs of the graph."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError, SkillFormatError
from lime_edge.runtime import Runtime
from lime_edge.runtime.constraints.answer_spec import AnswerSpec
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.skills.interface import AnswerForm, Interface
from tests.support.runtime_models import PROMPTS, exported, runtime

CHOICES = ["the answer is yes", "the answer is no", "other"]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7, "seed": 3},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "seed": 4},
    {"repetition_penalty": 1.3},
    {"stop": ["e"], "temperature": 1.0, "seed": 5},
]


@pytest.fixture(scope="module")
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens in each step of a single row."""
    lengths: list[int] = []
    extend = Cache.extend

    def counted(self: Cache, row: int, ids: Any, skills: Any) -> Any:
        lengths.append(len(ids))
        return extend(self, row, ids, skills)

    monkeypatch.setattr(Cache, "extend", counted)
    return lengths


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("window", [1, 3])
def test_drafts_change_no_answer(settings: dict[str, Any], window: int, runs: list[int]) -> None:
    made = runtime(exported(window), "legal")
    for prompt in PROMPTS:
        for skill in (None, "legal"):
            plain = made.generate(prompt, skill, max_new_tokens=60, speculate=False, **settings)
            assert plain.timings.drafted_tokens == 0
            assert all(length == 1 for length in runs)
            runs.clear()
            drafted = made.generate(prompt, skill, max_new_tokens=60, **settings)
            assert (drafted.token_ids, drafted.text) == (plain.token_ids, plain.text)
            assert drafted.finish_reason == plain.finish_reason
            assert drafted.timings.accepted_tokens <= drafted.timings.drafted_tokens
            runs.clear()


def test_repetitive_answers_take_fewer_runs(made: Runtime, runs: list[int]) -> None:
    """A random model repeats itself, which prompt lookup drafts."""
    found = made.generate("Hello", None, max_new_tokens=100)
    assert found.timings.accepted_tokens > 0
    assert len(runs) < len(found.token_ids) - 1
    assert "".join(made.stream("Hello", None, max_new_tokens=100)) == found.text


def test_rows_of_a_batch_are_not_drafted_until_one_is_left(made: Runtime) -> None:
    together = made.generate(PROMPTS, "legal", max_new_tokens=40)
    alone = [made.generate(prompt, "legal", max_new_tokens=40) for prompt in PROMPTS]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


@pytest.mark.parametrize("settings", SETTINGS[:4])
def test_a_choice_is_one_of_the_choices(made: Runtime, settings: dict[str, Any], runs: list[int]) -> None:
    for prompt in PROMPTS:
        found = made.generate(prompt, "legal", answers=CHOICES, max_new_tokens=60, **settings)
        assert found.text in CHOICES
        assert found.finish_reason == "stop"
    assert made.generate("Hello", answers=CHOICES, max_new_tokens=1).finish_reason == "length"
    assert {one.text for one in made.generate(PROMPTS, answers=CHOICES)} <= set(CHOICES)


def test_tokens_that_are_forced_to_the_end_take_no_run(made: Runtime, runs: list[int]) -> None:
    found = made.generate("Hello", answers=["a much longer answer"], max_new_tokens=60)
    assert found.text == "a much longer answer"
    assert runs == []
    assert found.token_ids[-1] in made._text.eos_ids


def test_a_regular_expression_and_a_schema(made: Runtime) -> None:
    for seed in range(5):
        digits = made.generate("Hello", answers=AnswerSpec("regex", "[0-9]{3}-[a-c]+"), temperature=1.5, seed=seed)
        head, _, tail = digits.text.partition("-")
        assert len(head) == 3
        assert head.isdigit()
        assert digits.finish_reason == "length" or set(tail) <= set("abc")
        schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
        found = made.generate("Hello", answers={**schema, "additionalProperties": False}, temperature=1.5, seed=seed)
        assert isinstance(json.loads(found.text)["yes"], bool)


def test_a_plain_request_goes_through_the_interface() -> None:
    plain = runtime(exported(), "legal")
    inside = Interface(prefix="Ask: ", suffix="\nSay:", answers=AnswerForm("choices", CHOICES), examples=("Hello",))
    made = runtime(exported(), "legal", interface=inside)
    messages = [{"role": "user", "content": "Ask: Hello\nSay:"}]
    found = made.generate("Hello", "legal", max_new_tokens=30)
    assert found.text in CHOICES
    assert found.timings.prompt_tokens == plain.generate(messages, "legal", max_new_tokens=1).timings.prompt_tokens
    free = plain.generate(messages, "legal", max_new_tokens=30)
    assert made.generate(messages, "legal", max_new_tokens=30).token_ids == free.token_ids
    anything = AnswerSpec("text")
    assert made.generate("Hello", "legal", answers=anything, max_new_tokens=30).token_ids == free.token_ids
    raw = made.generate("Hello", "legal", raw=True, max_new_tokens=30)
    assert raw.token_ids == plain.generate("Hello", "legal", raw=True, max_new_tokens=30).token_ids
    base = made.generate("Hello", None, max_new_tokens=30)
    assert base.token_ids == plain.generate("Hello", None, max_new_tokens=30).token_ids
    scores = made.choose("Hello", CHOICES, "legal").scores
    assert np.allclose(list(scores.values()), list(plain.choose(messages, CHOICES, "legal").scores.values()))


def test_an_answer_form_that_does_not_compile_names_the_skill_format(made: Runtime) -> None:
    broken = runtime(exported(), "legal", interface=Interface(answers=AnswerForm("regex", "(")))
    with pytest.raises(SkillFormatError):
        broken.generate("Hello", "legal")


def test_settings_that_are_invalid_are_named_together(made: Runtime) -> None:
    with pytest.raises(ConfigError) as caught:
        made.generate("Hello", answers=5, speculate="yes")  # type: ignore[call-overload]
    assert [fault.split(" is ")[0] for fault in caught.value.faults] == ["speculate", "answers"]
