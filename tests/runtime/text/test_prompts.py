"""Prompts and text as it grows: the chat template, boundaries, whole characters, stop strings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime.text.prompts import Text
from lime_edge.runtime.text.text_stream import TextStream
from lime_edge.training.dataset import encode_prompt
from tests.support.tiny import tiny_tokenizer

TEMPLATES = {
    "loops": "{% for m in messages %}{% if loop.index > 9 %}{% break %}{% endif %}\n  [{{ m.role }}] {{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ bos_token }}{{ m.content | tojson }}{{ eos_token }}{% endif %}{% endfor %}",
    "system": "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}"
    "{{ messages[-1].content }}",
}
CHAT = [
    {"role": "system", "content": "Kürze: <b>"},
    {"role": "user", "content": 'a "b" \n c'},
    {"role": "assistant", "content": "d"},
    {"role": "user", "content": "é中😀"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def text(folder: Path) -> Text:
    return Text(folder, [2])


@pytest.mark.parametrize("template", [None, *TEMPLATES])
@pytest.mark.parametrize("messages", [CHAT, CHAT[1:], CHAT[-1:]])
def test_prompts_are_those_of_training(tmp_path: Path, template: str | None, messages: list[dict[str, str]]) -> None:
    tiny_tokenizer(tmp_path)
    if template:
        (tmp_path / "chat_template.jinja").write_text(TEMPLATES[template], "utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for system in (None, "Be brief."):
        ids, start = encode_prompt(theirs, messages, system)
        ours = Text(tmp_path, [2]).tokens(messages, system)
        assert ours.ids.tolist() == ids
        assert ours.boundary == min(start, len(ids) - 1)


def test_boundaries(text: Text) -> None:
    header = text.encode("<|im_start|>assistant\n")
    found = text.tokens("Hello")
    assert found.ids[found.boundary :].tolist() == header
    assert text.known(found.ids.tolist()).boundary == found.boundary
    assert text.known([5, 6, 7]).boundary == 2  # no header: the last token is the skill's
    raw = text.tokens("Hello", raw=True)
    assert raw.ids.tolist() == text.encode("Hello")
    assert raw.boundary == len(raw.ids) - 1


def test_template_from_the_tokenizer_config_and_none_at_all(folder: Path, tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    source = (tmp_path / "chat_template.jinja").read_text("utf-8")
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"no chat template: call with raw=True, or add chat_template\.jinja"):
        Text(tmp_path, [2]).tokens("Hello")
    assert Text(tmp_path, [2]).known([3, 4]).boundary == 1
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    config |= {"chat_template": source, "eos_token": {"content": "<|im_end|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    assert Text(tmp_path, [0]).tokens("Hello").ids.tolist() == Text(folder, [2]).tokens("Hello").ids.tolist()
    assert Text(tmp_path, [0]).eos_ids == {0, 2}


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{{ raise_exception('no tools here') }}", ConfigError, "no tools here"),
        ("{{ messages[7].content }}", ConfigError, "rejects these messages"),
        ("{{ ''.__class__.__mro__ }}", ConfigError, "unsafe"),
        ("{{ 1 / 0 }}", ConfigError, "rejects these messages"),
        ("{% if %}", ModelError, "is invalid"),
    ],
)
def test_templates_that_fail(tmp_path: Path, template: str, error: Any, message: str) -> None:
    tiny_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template, "utf-8")
    with pytest.raises(error, match=message):
        Text(tmp_path, [2]).tokens("Hello")


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", "utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        Text(tmp_path, [2])


ALPHABET = st.text("ab é中😀\n", max_size=30)


@given(ALPHABET, st.lists(st.text("ab é中", min_size=1, max_size=3), max_size=1))
def test_pieces_are_whole_and_end_before_the_stop_string(text: Text, said: str, stops: list[str]) -> None:
    stream = TextStream(text.tokenizer, stops)
    pieces = []
    for token in text.encode(said):
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    pieces.append(stream.flush())
    end = said.find(stops[0]) if stops else -1
    assert "".join(pieces) == (said if end < 0 else said[:end])
    assert stream.stopped == (end >= 0)


def test_text_is_held_back_no_longer_than_needed(text: Text) -> None:
    stream = TextStream(text.tokenizer, ["END."])
    pieces = [stream.push(token) for token in text.encode("xEND?ENEND.y")]
    assert pieces == ["x", "", "", "", "END?", "", "", "EN", "", "", "", ""]
    assert stream.stopped


def test_special_tokens_and_cut_characters_are_not_text(text: Text) -> None:
    stream = TextStream(text.tokenizer, [])
    pieces = [stream.push(token) for token in (1, *text.encode("é"), *text.encode("😀")[:2])]
    assert "".join(pieces) + stream.flush() == "é"
