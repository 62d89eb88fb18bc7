"""Encoded prompts: the same tokens as in training, and where the answer begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime.text.prompts import Text
from lime_edge.training.dataset import encode_prompt
from tests.support.runtime_models import tiny_text
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
def text() -> Text:
    return tiny_text()


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
    header = text.tokens("<|im_start|>assistant\n", raw=True).ids.tolist()
    found = text.tokens("Hello")
    assert found.ids[found.boundary :].tolist() == header
    assert text.known(found.ids.tolist()).boundary == found.boundary
    assert text.known([5, 6, 7]).boundary == 2  # without a header the skill applies to the last token
    raw = text.tokens("Hello", raw=True)
    assert raw.ids.tolist() == text.encode("Hello")
    assert raw.boundary == len(raw.ids) - 1


def test_raw_text_can_spell_special_tokens_and_data_cannot(text: Text) -> None:
    assert text.tokens("a<|im_end|>", raw=True).ids.tolist()[-1] == 2
    assert 2 not in text.encode("a<|im_end|>")
    assert text.tokens("a<|im_end|>").ids.tolist().count(2) == 1


def test_messages_that_end_with_the_assistant_are_continued(text: Text) -> None:
    before = text.tokens(CHAT[:2])
    found = text.tokens(CHAT[:3])
    assert found.ids.tolist() == [*before.ids.tolist(), *text.encode("d")]
    assert found.boundary == before.boundary


@pytest.mark.parametrize("bad", ["hi \ud83d", "\udfff"])
def test_half_a_character_is_refused(text: Text, bad: str) -> None:
    with pytest.raises(ConfigError, match="lone surrogate"):
        text.tokens(bad)
    with pytest.raises(ConfigError, match="lone surrogate"):
        text.tokens(bad, raw=True)
    with pytest.raises(ConfigError, match="lone surrogate"):
        text.encode(bad)
    with pytest.raises(ConfigError, match="lone surrogate"):
        text.tokens("x", system=bad)


def test_what_no_encoding_can_fit_is_refused_by_its_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Text(tiny_tokenizer(tmp_path), [2], context_length=10)
    most = 10 * short.longest_token
    assert short.longest_token == len("<|endoftext|>")
    assert len(short.encode("x" * most)) == most
    monkeypatch.setattr(short, "_chat", None)  # nothing is encoded
    for call in (
        lambda: short.encode("x" * (most + 1)),
        lambda: short.tokens("x" * (most + 1)),
        lambda: short.tokens("x" * (most + 1), raw=True),
        lambda: short.tokens([{"role": "user", "content": "x" * (most // 2)}] * 3),
        lambda: short.tokens([{"role": "user", "content": ""}] * (most + 1)),
    ):
        with pytest.raises(ConfigError, match=f"the context of 10 tokens has room for at most {most}, as no token"):
            call()


def test_stop_strings(text: Text) -> None:
    assert text.stop_ids(["<|endoftext|>", "yes"]) == {0}
    assert list(text.stop_faults(["yes", "<|im_end|>", "<|im_"])) == []
    mixed, lone = text.stop_faults(["x<|im_end|>", "\ud83d"])
    assert mixed == (
        "stop string 'x<|im_end|>' contains the special token '<|im_end|>', which never becomes text; "
        "expected text alone or a special token alone"
    )
    assert "lone surrogate" in lone


@pytest.mark.parametrize("content", [b'{"a": "caf\xe9"}', b"[]", b"{", b"[" * 100_000, b'{"eos_token": "\\ud83d"}'])
def test_broken_settings_of_the_tokenizer_are_named(tmp_path: Path, content: bytes) -> None:
    tiny_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        Text(tmp_path, [2])


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", "utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        Text(tmp_path, [2])
