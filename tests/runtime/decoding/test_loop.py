"""Answers: batches of mixed skills, streams, stop strings, prompts, choices, settings of a skill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError, LimeError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.scoring import log_softmax
from lime_edge.runtime.text.prompts import Text
from tests.support.runtime_models import PROMPTS, Plain, exported, runtime, skill

SKILLS: list[Any] = ["always", "reply", None, {"reply": 0.5, "other": 0.5}]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


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
        assert [b.receipt for b in batch] == [a.receipt for a in alone]


def test_one_prompt_with_every_skill_runs_what_is_common_once(made: Runtime) -> None:
    answers = made.generate("Hello", ["reply", None, "other"], max_new_tokens=4)
    tokens = made._text.tokens("Hello")
    assert [a.timings.reused_tokens for a in answers] == [0, tokens.boundary, tokens.boundary]
    assert len({a.token_ids for a in answers}) == 3


def test_half_precision_answers_from_the_shared_cache() -> None:
    """An fp16 export has fp16 cache and bank; steps on the cache follow the logits of whole runs."""
    half, full = runtime(exported(precision="fp16"), "reply"), runtime(exported(), "reply")
    for name in (None, "reply"):
        ours = half.choose(PROMPTS[1], ["yes", "no", "perhaps"], name)
        theirs = full.choose(PROMPTS[1], ["yes", "no", "perhaps"], name)
        for choice, value in theirs.probabilities.items():
            assert ours.probabilities[choice] == pytest.approx(value, abs=0.02)
    assert len(half.generate(PROMPTS[0], "reply", max_new_tokens=8).token_ids) > 0


@pytest.mark.parametrize("name", ["reply", None])
def test_a_stream_is_what_generate_says(made: Runtime, name: str | None) -> None:
    wanted = made.generate(PROMPTS[1], name, max_new_tokens=40)
    stream = made.stream(PROMPTS[1], name, max_new_tokens=40)
    with pytest.raises(ConfigError, match="has not ended"):
        _ = stream.generation
    pieces = list(stream)
    assert "".join(pieces) == wanted.text
    assert len(pieces) > 5
    assert stream.generation.token_ids == wanted.token_ids
    assert stream.generation.receipt == wanted.receipt


def test_stop_strings(made: Runtime) -> None:
    whole = made.generate(PROMPTS[1], "reply", max_new_tokens=40)
    for start, length in ((0, 1), (7, 1), (9, 3), (5, 12)):
        stop = whole.text[start : start + length]
        found = made.generate(PROMPTS[1], "reply", max_new_tokens=40, stop=["never said", stop])
        assert found.text == whole.text[: whole.text.index(stop)]
        assert found.finish_reason == "stop"
        assert "".join(made.stream(PROMPTS[1], "reply", max_new_tokens=40, stop=stop)) == found.text


def test_end_of_turn_stops_and_is_not_text(simple: Runtime) -> None:
    """Whatever the model says first, made the end of turn, ends the answer at once."""
    first = simple.generate("Hello", max_new_tokens=1).token_ids[0]
    ended = Runtime(simple._graph, simple._text, {})
    ended._text = Text(simple._graph.directory.path, [first])
    found = ended.generate("Hello", max_new_tokens=9)
    assert (found.text, found.token_ids, found.finish_reason) == ("", (first,), "stop")


def test_skill_settings_apply_unless_the_call_says_otherwise() -> None:
    directory = exported()
    prompt = {
        "system": "Be brief.",
        "generation": {"max_new_tokens": 3, "temperature": 2.0, "repetition_penalty": 1.3},
        "stop": ["\0"],
    }
    made = runtime(directory, "reply", prompt=prompt)
    answer = made.generate("Hello", "reply", seed=1)
    assert answer.timings.new_tokens == 3
    assert answer.timings.prompt_tokens == len(made._text.tokens(MESSAGES).ids)
    assert answer.token_ids == made.generate(MESSAGES, "reply", seed=1).token_ids
    assert answer.token_ids == made.generate("Hello", {"reply": 1.0}, seed=1).token_ids
    greedy = made.generate("Hello", "reply", temperature=0, repetition_penalty=1, max_new_tokens=5, stop=[])
    assert greedy.timings.new_tokens == 5
    assert greedy.token_ids != made.generate("Hello", "reply", temperature=0, max_new_tokens=5).token_ids
    raw = made.generate("Hello", "reply", raw=True, max_new_tokens=1)
    assert raw.timings.prompt_tokens == len(made._text.encode("Hello"))
    assert made.generate("Hello", None).timings.new_tokens > 3  # the base has defaults of its own


def test_room_in_the_context(simple: Runtime) -> None:
    """256 positions: a number asked for must fit, a number not asked for becomes what fits."""
    prompt = "x" * 200
    size = len(simple._text.tokens(prompt).ids)
    found = simple.generate(prompt, stop=[])
    assert found.finish_reason == "stop" or found.timings.new_tokens == 256 - size
    with pytest.raises(ConfigError) as caught:
        simple.generate(["x", prompt, "x" * 300], max_new_tokens=100)
    assert len(caught.value.faults) == 2
    assert f"row 1: {size} prompt tokens + 100 new ones; expected at most 256" in str(caught.value)


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
        assert found.receipt == made.generate("x", info.name, max_new_tokens=1).receipt


def test_choose_many_is_choose_each(made: Runtime) -> None:
    prompts = [f"is it {word} so?" for word in ("not", "never", "quite", "the")]
    choices = ["yes", "no", "yes and no", "perhaps not"]
    together = made.choose(prompts, choices, "reply")
    assert together == [made.choose(prompt, choices, "reply") for prompt in prompts]
    best = made.choose(prompts, choices, "reply", best_only=True)
    assert [c.label for c in best] == [c.label for c in together]
    for few, all_of_them in zip(best, together, strict=True):
        assert few.scores.items() <= all_of_them.scores.items()
        assert few.probabilities == {}


def test_best_only_leaves_choices_out(simple: Runtime) -> None:
    """Where what follows the likeliest choice is likely too; here that token is made the end of turn."""
    choices = [chr(code) for code in range(33, 97)]
    tokens = simple._text.tokens("Hello").ids.tolist()
    first = Plain(simple._graph.directory.path)(tokens)[-1]
    likeliest = max((simple._text.encode(choice)[0] for choice in choices), key=lambda token: first[token])
    ending = Runtime(simple._graph, Text(simple._graph.directory.path, [2]), {})
    ending._text.end_id = Plain(simple._graph.directory.path).answer([*tokens, likeliest], 0, 1)[0]
    found = ending.choose("Hello", choices, best_only=True)
    assert 0 < len(found.scores) < len(choices)
    assert found.label == ending.choose("Hello", choices).label


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("generate", {"prompt": 5}, "the prompt is 5; expected text or a list of messages"),
    ("generate", {"prompt": []}, "there is no prompt"),
    ("generate", {"prompt": [{"role": "user"}]}, "message 0 has content None; expected text"),
    ("generate", {"prompt": [[{"role": "user", "content": "a"}, "b"]]}, "message 1 is str"),
    ("generate", {"prompt": "", "raw": True}, "the prompt is empty"),
    ("generate", {"prompt": MESSAGES, "raw": True}, "raw=True takes plain text"),
    ("generate", {"prompt": ["a", "b"], "skill": [None]}, "1 skills for 2 prompts"),
    ("generate", {"prompt": "a", "skill": []}, "0 skills"),
    ("generate", {"prompt": "a", "skill": "nope"}, "no skill named 'nope'; loaded skills: 'reply'. Call load_skill"),
    ("generate", {"prompt": "a", "skill": 3}, "skill is 3; expected None, a name, or weights by name"),
    ("generate", {"prompt": "a", "skill": {"reply": float("nan")}}, "weight of 'reply' is nan"),
    ("generate", {"prompt": "a", "skill": {}}, "weights by name"),
    ("generate", {"prompt": "a", "batch_size": 0}, "batch_size is 0"),
    ("generate", {"prompt": "a", "beams": 2}, "unknown setting 'beams'"),
    ("generate", {"prompt": "a", "top_p": 2}, "top_p is 2; expected a number from 0.001 to 1"),
    ("stream", {"prompt": ["a"]}, "stream takes one prompt"),
    ("stream", {"prompt": "a", "top_k": -1}, "top_k is -1"),
    ("choose", {"prompt": "a", "choices": "yes"}, "choices is 'yes'; expected a list of texts"),
    ("choose", {"prompt": "a", "choices": ["a", ""]}, "''; expected text"),
    ("choose", {"prompt": "a", "choices": ["a", "a"]}, "each choice only once"),
    ("choose", {"prompt": "a", "choices": ["b" * 400]}, "the context has 256"),
]


@pytest.mark.parametrize(("method", "arguments", "message"), BAD)
def test_bad_calls(simple: Runtime, method: str, arguments: dict[str, Any], message: str) -> None:
    """Nothing but LimeError, with what was found and expected; and nothing stays pinned."""
    with pytest.raises(LimeError) as caught:
        getattr(simple, method)(**arguments)
    assert message in str(caught.value)
    assert simple._bank.in_use == 2
