"""Conversations: which messages are accepted, where the answer begins, and that values of messages are text."""

from __future__ import annotations

import copy
import json
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.contract.conversation import Chat, Messages, text_faults, value_faults, with_system
from lime_edge.errors import ConfigError
from tests.support.runtime_models import tiny_text
from tests.support.tiny import CHAT_TEMPLATE

USER = {"role": "user", "content": "is it so"}


#: Writes contents as text and as parts; an image is the token 0.
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<|endoftext|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Takes lists of parts alone and writes images first, as that of LLaVA.
LISTS = (
    "{% for m in messages %}{{ m.role }}: {% for part in m.content | selectattr('type', 'equalto', 'image') %}"
    "<|endoftext|>{% endfor %}{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part.text }}"
    "{% endfor %}{% endfor %}"
)
IMAGE = {"type": "image", "path": "leaf.png"}


def chat_of(source: str = CHAT_TEMPLATE, placeholders: dict[str, int] | None = None) -> Chat:
    environment = jinja2.Environment(autoescape=False)  # a prompt, not HTML
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(source)

    def render(messages: Messages, answer: bool) -> str:
        return template.render(messages=messages, add_generation_prompt=answer)

    return Chat(tiny_text().tokenizer, render, source, placeholders)


def text_of(ids: list[int]) -> str:
    found: str = tiny_text().tokenizer.decode(ids, skip_special_tokens=False)
    return found


def test_a_system_text_goes_in_front_unless_there_is_one() -> None:
    assert with_system([USER], None) == [USER]
    assert with_system([USER], "s")[0] == {"role": "system", "content": "s"}
    own = [{"role": "system", "content": "mine"}, USER]
    assert with_system(own, "s") == own


def test_the_system_text_is_data() -> None:
    ids, _ = chat_of().prompt([USER], "<|im_end|>")
    assert text_of(ids).startswith("<|im_start|>system\n<|im_end|><|im_end|>\n<|im_start|>user")
    assert ids.count(2) == 2  # of system and user


@pytest.mark.parametrize(
    ("source", "start"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}> {% endif %}", 4),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", 3),  # the answer has no header
        ("{% if add_generation_prompt %}abcd{% else %}ax{% endif %}", 3),  # another history
    ],
)
def test_where_the_answer_begins(source: str, start: int) -> None:
    assert chat_of(source).prompt([{"role": "user", "content": "wxyz"}])[1] == start


def test_a_last_message_of_the_assistant_begins_the_answer() -> None:
    chat, begun = chat_of(), {"role": "assistant", "content": "yes<|im_end|>"}
    before, start = chat.prompt([USER])
    assert chat.prompt([USER, begun], continues=True) == (before + chat.text("yes<|im_end|>"), start)
    assert text_of(chat.prompt([USER, begun])[0]).endswith("yes<|im_end|><|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(ConfigError, match="the only message is the assistant's"):
        chat.prompt([begun], continues=True)


TOOLS = "{% for m in messages %}{{ m.role }}: {{ m.content }} {{ m.tool_calls | tojson }}<|im_end|>{% endfor %}"


def test_every_value_of_a_message_is_text() -> None:
    call = {"function": {"name": "f<|im_end|>", "arguments": {"<|im_end|>": ["<|im_start|>", 1, None, True, 0.5]}}}
    ids, _ = chat_of(TOOLS).prompt([{**USER, "tool_calls": [call]}])
    assert ids.count(2) == 1
    assert text_of(ids) == f"user: is it so {json.dumps([call])}<|im_end|>"


def test_a_template_that_looks_into_what_was_said() -> None:
    """It cuts, strips and repeats the content; the data stay data, and the template's own tokens stay special."""
    source = (
        "{% for m in messages %}{% if '<|im_end|>' in m.content %}cut{% endif %}"
        "{{ m.content.split('</think>')[-1] | trim | upper }}{{ m.content[:4] }}<|im_end|>{% endfor %}"
    )
    ids, _ = chat_of(source).prompt([{"role": "user", "content": "<|im_end|>b</think> <|im_end|>a "}])
    assert text_of(ids) == "<|IM_END|>A<|im<|im_end|>"
    assert ids.count(2) == 1


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        (5, "the prompt is 5; expected text or a list of messages"),
        ([], r"the prompt is \[\]"),
        (["x"], "message 0 is str; expected an object with role and content"),
        ([{"role": "user"}], "message 0 has content None; expected text"),
        (
            [USER, {"role": "human", "content": "x"}],
            "message 1 has the role 'human'; this .* knows system,",
        ),
        ([{"role": "user<|im_end|>", "content": "x"}], "has the role 'user<|im_end|>'"),
        ([{"role": "user", "content": "hi \ud83d"}], r"'content' has the lone surrogate '\\ud83d' at character 3"),
        ([{**USER, "name": object()}], "'name' holds object; expected JSON values"),
        ([{"role": "user", "content": "x", 5: "x"}], "has the key 5; expected text"),
        ([{**USER, "x": {5: "x"}}], "'x' has the key 5; expected text"),
        ([{**USER, "x": "\ud83d"}], "'x' has the lone surrogate"),
    ],
)
def test_messages_that_are_refused(messages: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        chat_of().prompt(messages)


def test_a_value_is_not_deeper_than_a_template_may_follow() -> None:
    deep: Any = "x"
    for _ in range(17):
        deep = [deep]
    assert list(value_faults(deep)) == ["is nested in more than 16 levels"]
    assert list(value_faults(deep[0])) == []


def test_messages_are_copied_in_plain_types() -> None:
    class Shouting(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "<|im_end|>"

    (found,) = chat_of().checked([{"role": "user", "content": Shouting("quiet"), "x": (Shouting("y"),)}])
    assert type(found["content"]) is str
    assert found == {"role": "user", "content": "quiet", "x": ["y"]}


def parts(*values: Any, role: str = "user") -> dict[str, Any]:
    content = [{"type": "text", "text": value} if isinstance(value, str) else value for value in values]
    return {"role": role, "content": content}


@pytest.mark.parametrize("source", [CHAT_TEMPLATE, PARTS])
def test_parts_of_text_are_the_text(source: str) -> None:
    split = chat_of(source).prompt([parts("is it", " so")])
    assert split == chat_of(source).prompt([USER])


def test_a_template_that_takes_lists_gets_lists() -> None:
    chat = chat_of(LISTS, {"image": 0})
    assert text_of(chat.prompt([USER], "s<|im_end|>")[0]) == "system: s<|im_end|>user: is it so"
    assert chat.roles == ("system", "user", "assistant", "tool")
    ids, _ = chat.prompt([parts("a<|endoftext|>", IMAGE, "b")])
    assert text_of(ids) == "user: <|endoftext|>a<|endoftext|>b"
    assert ids.count(0) == 1


def test_an_image_is_one_placeholder() -> None:
    ids, start = chat_of(PARTS, {"image": 0}).prompt([parts(IMAGE, "<|endoftext|> what", IMAGE), parts(IMAGE, "is")])
    assert text_of(ids[:start]) == (
        "<|im_start|>user\n<|endoftext|><|endoftext|> what<|endoftext|><|im_end|>\n"
        "<|im_start|>user\n<|endoftext|>is<|im_end|>\n"
    )
    assert ids.count(0) == 3  # not what the user spelt


def test_an_added_token_that_is_not_special_is_one_as_a_placeholder() -> None:
    """The user's own spelling of it stays text, although the tokenizer does not call the token special."""
    chat = chat_of(PARTS.replace("<|endoftext|>", "<image>"), {"image": 300})
    chat._tokenizer = copy.deepcopy(chat._tokenizer)
    chat._tokenizer.add_tokens(["<image>"])
    ids, _ = chat.prompt([parts(IMAGE, "<image>")])
    assert ids.count(300) == 1


def test_the_answer_continues_parts_of_text() -> None:
    chat = chat_of(PARTS, {"image": 0})
    whole = chat.prompt([USER, {"role": "assistant", "content": "yes"}], continues=True)
    assert chat.prompt([USER, parts("y", "es", role="assistant")], continues=True) == whole
    assert chat.prompt([parts("is it so"), parts("yes", role="assistant")], continues=True) == whole
    with pytest.raises(ConfigError, match="begins the answer, holds a picture"):
        chat.prompt([USER, parts(IMAGE, role="assistant")], continues=True)


@pytest.mark.parametrize(
    ("source", "placeholders", "message", "fault"),
    [
        (PARTS, {}, parts(IMAGE, "x"), "message 0: part 0 is image; this model reads text alone"),
        (PARTS, {"image": 0}, parts({"type": "video", "path": "x"}), "part 0 is video; .* reads text and images"),
        (CHAT_TEMPLATE, {"image": 0}, parts(IMAGE, "x"), "this model's chat template takes text alone"),
        (PARTS, {"image": 1}, parts(IMAGE, "x"), "writes 2 placeholders for 1 images; expected one for each"),
        (PARTS, {"image": 0}, parts("a\ud83d"), "message 0: part 0: the text has the lone surrogate"),
        (PARTS, {"image": 0}, parts(IMAGE, 5), "message 0: part 1 is int; expected an object with a type"),
        (PARTS, {"image": 0}, parts(), "message 0: has 0 parts"),
    ],
)
def test_parts_that_are_refused(source: str, placeholders: dict[str, int], message: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        chat_of(source, placeholders).prompt([message])


def test_roles() -> None:
    assert chat_of().roles == ("system", "user", "assistant", "tool")  # any word is a role of ChatML: these are usual
    picky = (
        "{% for m in messages %}{% if m['role'] == 'user' or m.role in ['developer', \"ipython\"] %}{{ m.content }}"
        "{% elif m.role != 'ghost' and m.role == 'assistant' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    assert chat_of(picky).roles == ("user", "assistant", "developer", "ipython")
    assert chat_of("{{ messages[9].content.x.y }}").roles == ("system", "user", "assistant", "tool")
    with pytest.raises(ConfigError, match="the chat template rejects these messages"):
        chat_of("{{ messages[9].content.x.y }}").prompt([USER])


def test_a_template_that_renders_nothing() -> None:
    with pytest.raises(ConfigError, match="the prompt is empty"):
        chat_of("{% if messages %}{{ messages[0].content }}{% endif %}").prompt([{"role": "user", "content": ""}])


@given(st.text(st.characters(exclude_categories=())))
def test_text_is_unicode(text: str) -> None:
    lone = [at for at, char in enumerate(text) if 0xD800 <= ord(char) < 0xE000]
    faults = list(text_faults(text))
    assert bool(faults) == bool(lone)
    if lone:
        assert f"at character {lone[0]};" in faults[0]
        with pytest.raises(ConfigError, match="lone surrogate"):
            chat_of().text(text)
