"""Answers: batches of mixed skills, stop strings, the end of turn and the length of the context."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime import Runtime
from lime_edge.runtime.text.prompts import Text
from tests.support.runtime_models import PROMPTS, Plain, exported, runtime, skill

SKILLS: list[Any] = ["always", "reply", None, {"reply": 0.5, "other": 0.5}]


@pytest.fixture(scope="module", params=[1, 3])
def made(request: pytest.FixtureRequest) -> Runtime:
    found = runtime(exported(request.param), "reply", "other")
    found.load_skill(skill(exported(request.param), "always", activation="always"))
    return found


@pytest.fixture(scope="module")
def simple() -> Runtime:
    return runtime(exported(), "reply")


def test_the_answer_is_that_of_whole_plain_runs(made: Runtime) -> None:
    directory = made._graph.directory.path
    for info in made.skills():
        plain = Plain(directory, info.path, info.activation)
        tokens = made._text.tokens(PROMPTS[1])
        found = made.generate(PROMPTS[1], info.name, max_new_tokens=12)
        wanted = plain.answer(tokens.ids.tolist(), tokens.boundary, 12)
        assert list(found.token_ids) == wanted[: len(found.token_ids)]
        assert (found.finish_reason == "length") == (len(found.token_ids) == 12)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.2, "seed": 5}, {"repetition_penalty": 1.5}])
def test_a_row_of_a_batch_answers_as_it_does_alone(made: Runtime, settings: Any) -> None:
    alone = [made.generate(p, s, max_new_tokens=16, **settings) for p, s in zip(PROMPTS, SKILLS, strict=True)]
    for size in (8, 3):
        batch = made.generate(PROMPTS, SKILLS, max_new_tokens=16, batch_size=size, **settings)
        assert [b.token_ids for b in batch] == [a.token_ids for a in alone]
        assert [b.text for b in batch] == [a.text for a in alone]
        assert [{**b.receipt, "tokens": None} for b in batch] == [{**a.receipt, "tokens": None} for a in alone]


def test_one_prompt_with_every_skill_runs_what_is_common_once(made: Runtime) -> None:
    made = runtime(made._graph.directory.path, "reply", "other")  # has read nothing yet
    answers = made.generate("Hello", ["reply", None, "other"], max_new_tokens=4)
    tokens = made._text.tokens("Hello")
    assert [a.timings.reused_tokens for a in answers] == [0, tokens.boundary, tokens.boundary]
    assert len({a.token_ids for a in answers}) == 3


def test_half_precision_answers_from_the_shared_cache() -> None:
    """An fp16 export has an fp16 cache and bank; its probabilities are close to those of fp32."""
    half, full = runtime(exported(precision="fp16"), "reply"), runtime(exported(), "reply")
    for name in (None, "reply"):
        ours = half.choose(PROMPTS[1], ["yes", "no", "perhaps"], name)
        theirs = full.choose(PROMPTS[1], ["yes", "no", "perhaps"], name)
        for choice, value in theirs.probabilities.items():
            assert ours.probabilities[choice] == pytest.approx(value, abs=0.02)
    assert len(half.generate(PROMPTS[0], "reply", max_new_tokens=8).token_ids) > 0


def test_stop_strings(made: Runtime) -> None:
    whole = made.generate(PROMPTS[1], "reply", max_new_tokens=40)
    for start, length in ((0, 1), (7, 1), (9, 3), (5, 12)):
        stop = whole.text[start : start + length]
        found = made.generate(PROMPTS[1], "reply", max_new_tokens=40, stop=["never said", stop])
        assert found.text == whole.text[: whole.text.index(stop)]
        assert found.finish_reason == "stop"
        assert "".join(made.stream(PROMPTS[1], "reply", max_new_tokens=40, stop=stop)) == found.text


def test_end_of_turn_stops_and_is_not_text(simple: Runtime) -> None:
    """If the first generated token is the end of turn, the answer is empty."""
    first = simple.generate("Hello", max_new_tokens=1).token_ids[0]
    ended = Runtime(simple._graph, simple._text, {})
    ended._text = Text(simple._graph.directory.path, [first])
    found = ended.generate("Hello", max_new_tokens=9)
    assert (found.text, found.token_ids, found.finish_reason) == ("", (first,), "stop")


def test_room_in_the_context(simple: Runtime) -> None:
    """256 positions: an explicit number of tokens must fit, the default is cut to fit."""
    prompt = "x" * 200
    size = len(simple._text.tokens(prompt).ids)
    found = simple.generate(prompt, stop=[])
    assert found.finish_reason == "stop" or found.timings.new_tokens == 256 - size
    with pytest.raises(ConfigError) as caught:
        simple.generate(["x", prompt, "x" * 300], max_new_tokens=100)
    assert len(caught.value.faults) == 2
    assert f"row 1: {size} prompt tokens + 100 new ones; expected at most 256" in str(caught.value)
