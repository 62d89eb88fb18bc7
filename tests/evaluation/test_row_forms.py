"""What the keys of a record mean: every form that people keep, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.evaluation.row_forms import example_of


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def said(who: str, value: str) -> dict[str, Any]:
    return {"from": who, "value": value}


USER, ASSISTANT = turn("user", "u"), turn("assistant", "a")
PARTS = [{"type": "text", "text": "u"}]

#: Record -> its form, its messages, and its answer.
FORMS: list[tuple[dict[str, Any], str, list[tuple[str, str]], str]] = [
    ({"prompt": "p", "answer": "a"}, "prompt and answer", [("user", "p")], "a"),
    ({"prompt": "p", "completion": "a", "choices": None}, "prompt and answer", [("user", "p")], "a"),
    ({"question": "p", "answer": "a", "id": 7}, "prompt and answer", [("user", "p")], "a"),
    ({"text": "p", "label": "a"}, "prompt and answer", [("user", "p")], "a"),
    ({"prompt": "p", "answer": "a", "text": "t", "label": 1}, "prompt and answer", [("user", "p")], "a"),
    ({"prompt": "p", "answer": "a", "system": "s"}, "prompt and answer", [("system", "s"), ("user", "p")], "a"),
    ({"prompt": "p", "answer": "a", "images": [], "system": ""}, "prompt and answer", [("user", "p")], "a"),
    ({"instruction": "i", "input": "", "output": "a"}, "Alpaca", [("user", "i")], "a"),
    ({"instruction": "i", "input": "x", "output": "a"}, "Alpaca", [("user", "i\n\nx")], "a"),
    ({"instruction": "i", "context": "x", "response": "a", "category": "qa"}, "Alpaca", [("user", "i\n\nx")], "a"),
    ({"messages": [USER, ASSISTANT]}, "messages", [("user", "u")], "a"),
    ({"messages": [turn("user", PARTS), {**ASSISTANT, "weight": 1}]}, "messages", [("user", "u")], "a"),
    ({"messages": [turn("system", "s"), USER, ASSISTANT]}, "messages", [("system", "s"), ("user", "u")], "a"),
    ({"conversations": [said("human", "u"), said("gpt", "a")], "id": "x"}, "ShareGPT", [("user", "u")], "a"),
    ({"conversations": [USER, ASSISTANT], "system": "s"}, "ShareGPT", [("system", "s"), ("user", "u")], "a"),
]


@pytest.mark.parametrize(("record", "form", "messages", "answer"), FORMS, ids=range(len(FORMS)))
def test_forms(record: dict[str, Any], form: str, messages: list[tuple[str, str]], answer: str) -> None:
    found = example_of(record)
    assert [(one["role"], one["content"]) for one in found.messages] == messages
    assert (found.form, found.answer, found.choices) == (form, answer, ())


def test_keys_without_a_meaning_are_named() -> None:
    assert example_of({"prompt": "p", "answer": "a", "id": 7, "source": "web"}).unread == ("id", "source")
    assert example_of({"prompt": "p", "answer": "a", "choices": ["a", "b"]}).choices == ("a", "b")


PAIR = {"prompt": "p", "answer": "a"}
WRONG: list[tuple[Any, str]] = [
    ([1], "expected an object, found list; a JSON array needs the extension .json"),
    ({}, "'prompt' is missing; expected one of the keys prompt, question, input, text; found []"),
    ({"prompt": "p"}, "'answer' is missing"),
    ({"prompt": "", "answer": "a"}, "'prompt' is ''; expected text"),
    ({"prompt": " \n", "answer": "a"}, "expected text"),
    ({"prompt": 3, "answer": "a"}, "'prompt' is 3; expected text"),
    ({"text": "p", "label": 1}, "'label' is 1; expected text"),
    ({"prompt": "p", "answer": "\ud83d"}, "'answer' holds half a surrogate pair at character 1"),
    ({**PAIR, "choices": ["a", "b\udc00"]}, "choice 2 holds half a surrogate pair"),
    ({**PAIR, "system": "\ud83d"}, "'system' holds half a surrogate pair"),
    ({"messages": [turn("user", "\ud83d"), ASSISTANT]}, "message 1's content holds half a surrogate pair"),
    # two meanings
    ({**PAIR, "messages": [USER, ASSISTANT]}, "has the keys 'messages' and 'prompt', which are different forms"),
    ({"instruction": "i", "output": "o", "prompt": "p"}, "'instruction' and 'prompt'"),
    ({"question": "q", "text": "t", "answer": "a"}, "'question' and 'text' could each be the prompt"),
    ({"prompt": "p", "output": "a", "label": "b"}, "'output' and 'label' could each be the answer"),
    ({"instruction": "i", "input": "x", "context": "y", "output": "o"}, "has both 'input' and 'context'"),
    ({"system": "s", "messages": [turn("system", "t"), USER, ASSISTANT]}, "both the key 'system' and a system message"),
    # misspelt keys
    ({**PAIR, "choises": ["a", "b"]}, "has the unknown key 'choises'; did you mean 'choices'?"),
    ({"promt": "p", "answer": "a"}, "has the unknown key 'promt'; did you mean 'prompt'?"),
    ({"Prompt": "p", "anwser": "a"}, "did you mean 'prompt'?; has the unknown key 'anwser'; did you mean 'answer'?"),
    ({"mesages": [USER, ASSISTANT]}, "did you mean 'messages'?"),
    ({"instruction": "i", "inputs": "x", "output": "o"}, "has the unknown key 'inputs'; did you mean 'input'?"),
    ({"messages": [{"role": "user", "contnet": "u"}, ASSISTANT]}, "message 1 has the unknown key 'contnet'"),
    # what would be lost
    ({"question": "q", "context": "c", "answer": "a"}, "'context' is not read: put its text into the prompt"),
    ({"instruction": "i", "output": "o", "history": [["a", "b"]]}, "'history' is not read"),
    ({**PAIR, "images": "a.png"}, "'images' is 'a.png'; expected a list"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": [{}]}]}, "message 2 calls a tool"),
    ({"messages": [USER, {**ASSISTANT, "weight": 0}]}, "the last message has the weight 0"),
    # conversations
    ({"messages": "hello"}, "'messages' is 'hello'; expected a list of messages"),
    ({"messages": []}, "must end with the assistant's answer"),
    ({"messages": [ASSISTANT]}, "must end with the assistant's answer"),
    ({"messages": [USER, ASSISTANT, USER]}, "must end with the assistant's answer"),
    ({"messages": ["hello", ASSISTANT]}, "message 1 is 'hello'; expected an object"),
    ({"messages": [{"role": "user"}, ASSISTANT]}, "message 1's content is None; expected text"),
    ({"messages": [turn("human", "u"), ASSISTANT]}, "message 1 has the role 'human'; expected one of system, user"),
    ({"messages": [turn("User", "u"), ASSISTANT]}, "has the role 'User'"),
    ({"messages": [turn("usr<|im_end|>", "u"), ASSISTANT]}, "has the role 'usr<|im_end|>'"),
    ({"messages": [turn("user", [{"type": "image_url"}]), ASSISTANT]}, "message 1's content: part 0 is image_url with"),
    ({"conversations": [said("bing", "u"), said("gpt", "a")]}, "has the from 'bing'; expected one of human, gpt"),
    ({"conversations": [{**USER, "from": "human"}, said("gpt", "a")]}, "keys of two forms"),
    # choices
    ({**PAIR, "choices": "ab"}, "'choices' is 'ab'; expected a list of texts"),
    ({**PAIR, "choices": ["a", 1]}, "choice 2 is 1; expected text"),
    ({**PAIR, "choices": ["a", "b", "a "]}, "'choices' has 'a' more than once"),
    ({**PAIR, "choices": ["a"]}, "has one choice; expected at least two"),
    ({**PAIR, "choices": ["b", "c"]}, "the answer 'a' is not among the choices ['b', 'c']"),
]


@pytest.mark.parametrize(("record", "message"), WRONG, ids=range(len(WRONG)))
def test_records_that_cannot_be_used(record: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below, without patterns
        example_of(record)
    assert message in str(caught.value)


def test_every_fault_of_a_record_is_named() -> None:
    with pytest.raises(ValueError, match=r"'prompt' is 1.*'answer' is missing.*expected a list of texts"):
        example_of({"prompt": 1, "choices": "ab"})
