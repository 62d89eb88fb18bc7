"""Encoded prompts: the same tokens as in training, and where the answer begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from lime_edge.errors import ModelError
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


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", "utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        Text(tmp_path, [2])
