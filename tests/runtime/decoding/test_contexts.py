"""Contexts: what prompts with one are, what is shared between skills, and that a closed one keeps no memory."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError, LimeError, StoppedError
from lime_edge.runtime import Context, Runtime
from lime_edge.runtime.decoding.contexts import Opening, common_length
from lime_edge.skills.interface import AnswerForm, Interface
from tests.support.runtime_models import exported, skill

DOCUMENT = "The lime is a green fruit. It is sour, and it grows in warm places."
SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [SYSTEM, {"role": "user", "content": DOCUMENT}, {"role": "assistant", "content": "I see."}]
QUESTIONS = ["What is it?", "\nWhere?", " é", "0"]


def loaded(window: int = 1, limit: int = 2**28) -> Runtime:
    directory = exported(window)
    made = Runtime.load(directory, threads=1, prefix_cache=limit)
    for name in ("reply", "other"):
        made.load_skill(skill(directory, name, interface=Interface(prefix="Q: ", suffix="!")))
    made.load_skill(skill(directory, "always", activation="always"))
    return made


@pytest.fixture(params=[1, 3])
def made(request: pytest.FixtureRequest) -> Runtime:
    return loaded(request.param)


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize("given", [DOCUMENT, TALK, [SYSTEM], TALK[:2]])
def test_answers_are_those_of_the_whole_prompt(made: Runtime, given: Any) -> None:
    """Text or messages, with every method and several skills, by a runtime that keeps nothing."""
    plain = loaded(made._graph.window, 0)
    messages = [user(given)] if isinstance(given, str) else given
    with made.prefill(given, None) as context:
        for question in QUESTIONS:
            for spec in (None, "reply", "always", {"reply": 0.5, "other": 0.5}):
                asked = f"Q: {question}!" if spec not in (None, "always") else question
                joined = messages[-1]["role"] == "user"
                whole = [*messages[:-1], user(f"{messages[-1]['content']}\n\n{asked}")]
                whole = whole if joined else [*messages, user(asked)]
                wanted = plain.generate(whole, spec, max_new_tokens=5)
                found = made.generate(question, spec, context=context, max_new_tokens=5)
                assert found.token_ids == wanted.token_ids
                assert found.timings.prompt_tokens == wanted.timings.prompt_tokens
                stream = made.stream(question, spec, context=context, max_new_tokens=5)
                assert "".join(stream) == wanted.text
                picked = made.choose(question, ["yes", "no"], spec, context=context)
                assert picked.scores == plain.choose(whole, ["yes", "no"], spec).scores


def test_what_is_shared(made: Runtime) -> None:
    """All of it by the base and skills of activation response; for others, what the same generation has read."""
    made.load_skill(skill(made._graph.directory.path, "spoken", interface=Interface(system="Speak.")))
    for reader in ("reply", "spoken"):
        context = made.prefill(DOCUMENT, reader)
        for spec in (None, "reply", "other", {"reply": 0.5}, "spoken"):
            found = made.generate("What?", spec, context=context, max_new_tokens=1)
            assert found.timings.reused_tokens >= context.tokens > len(DOCUMENT) // 2
    assert made.generate("What?", "always", context=context, max_new_tokens=1).timings.reused_tokens == 0
    with made.prefill(DOCUMENT, "always") as context:
        first = made.generate("Why?", "always", context=context, max_new_tokens=1)
        assert first.timings.reused_tokens >= context.tokens
        made.load_skill(skill(made._graph.directory.path, "always", 7, activation="always"), replace=True)
        again = made.generate("Why?", "always", context=context, max_new_tokens=1)
        assert again.timings.reused_tokens == 0
        assert context.size == 0  # no skill can use it any more


def test_a_question_may_be_messages(made: Runtime) -> None:
    talk = [user("What?"), {"role": "assistant", "content": "Well"}]
    with made.prefill(DOCUMENT) as context:
        prompts: list[Any] = [talk, "What?"]
        found = made.generate(prompts, context=context, max_new_tokens=4)
    wanted = made.generate([user(f"{DOCUMENT}\n\nWhat?"), talk[1]], max_new_tokens=4)
    assert found[0].token_ids == wanted.token_ids
    assert len(found) == 2


def test_a_context_can_be_the_whole_prompt_of_many_skills(made: Runtime) -> None:
    messages = [{"role": "user", "content": "Is it so? " * 20}]
    with made.prefill(messages) as context:
        found = made.generate(None, ["reply", "reply", None], context=context, max_new_tokens=4)
        whole = [made.generate(messages, name, max_new_tokens=4).token_ids for name in ("reply", "reply", None)]
        assert [one.token_ids for one in found] == whole
        assert all(one.timings.reused_tokens > 0.8 * one.timings.prompt_tokens for one in found)
    with pytest.raises(ConfigError, match="the prompt is None"):
        made.generate(None)


def test_the_interface_of_the_answer_still_holds(made: Runtime) -> None:
    interface = Interface(answers=AnswerForm("choices", ["red", "blue"]))
    made.load_skill(skill(made._graph.directory.path, "colour", interface=interface))
    with made.prefill(DOCUMENT) as context:
        assert made.generate("Which?", "colour", context=context).text in ("red", "blue")


def test_memory_of_a_context() -> None:
    """It is kept whatever else is read, counts, and is gone with the context: by close, by deletion."""
    made = loaded(limit=0)
    store = made._prefixes
    context = made.prefill(DOCUMENT)
    assert context.size == store.size > 0
    for number in range(3):
        made.generate(f"{number}" * 60, max_new_tokens=2)
    assert store.size == context.size
    assert made.generate("What?", context=context, max_new_tokens=1).timings.reused_tokens >= context.tokens
    second = made.prefill(DOCUMENT + " Really.")
    assert store.size < context.size + second.size  # what is common is there once
    context.close()
    context.close()
    assert context.size == 0
    assert store.size == second.size
    del second
    gc.collect()
    assert store.size == 0
    assert made._bank.in_use == 4


def test_bad_contexts(made: Runtime) -> None:
    context = made.prefill(DOCUMENT)
    other = loaded(made._graph.window)
    bad: list[tuple[Any, str]] = [
        (lambda: made.prefill(""), "expected text or a list of messages, not empty"),
        (lambda: made.prefill(5), "the context is 5"),  # type: ignore[arg-type]
        (lambda: made.prefill([]), "not empty"),
        (lambda: made.prefill([{"role": "user"}]), "content"),
        (lambda: made.prefill("a" * 10**6), "1,000,004 characters"),
        (lambda: made.prefill("ab " * 200), "positions are needed; the context has 256"),
        (lambda: made.prefill(DOCUMENT, "nope"), "no skill named 'nope'"),
        (lambda: made.generate("a", context=DOCUMENT), "expected what prefill returned"),  # type: ignore[call-overload]
        (lambda: made.generate("a", raw=True, context=context), "raw=True takes a prompt as it is"),
        (lambda: made.generate(5, context=context), "row 0"),  # type: ignore[call-overload]
        (lambda: other.stream("a", context=context), "belongs to another runtime"),
    ]
    for call, message in bad:
        with pytest.raises(LimeError) as caught:
            call()
        assert message in str(caught.value)
    with pytest.raises(StoppedError):
        made.prefill(DOCUMENT + "!", timeout=0)
    context.close()
    with pytest.raises(ConfigError, match="the context is closed"):
        made.choose("a", ["b"], context=context)
    assert made._bank.in_use == 4


def test_an_opening_is_a_copy() -> None:
    messages = [user("a")]
    opening = Opening.of(messages, None)
    messages[0]["content"] = "b"
    assert opening.ask("c") == [user("a\n\nc")]


def test_common_length() -> None:
    known = np.array([1, 2, 3])
    assert [common_length(np.array(one), known) for one in ([], [1, 2], [1, 5, 3], [1, 2, 3, 4])] == [0, 2, 1, 3]


def test_two_turns_of_a_chat_read_only_what_is_new(made: Runtime) -> None:
    """The base: the second prompt is the first, its answer and a question, which alone is read."""
    first = made.generate(DOCUMENT, None, max_new_tokens=8)
    turns = [user(DOCUMENT), {"role": "assistant", "content": first.text}]
    second = made.generate([*turns, user("Why?")], None, max_new_tokens=4)
    known = first.timings.prompt_tokens
    assert second.timings.reused_tokens >= known
    wanted = loaded(made._graph.window, 0).generate([*turns, user("Why?")], None, max_new_tokens=4)
    assert second.token_ids == wanted.token_ids


def test_a_context_is_a_public_name() -> None:
    assert isinstance(loaded().prefill(DOCUMENT), Context)
