"""Chat templates as pieces of text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lime_edge.errors import ExportError
from lime_edge.exporters.web.chat_pieces import chat_pieces, encode_pieces, has_template
from lime_edge.runtime.text.prompts import Text
from tests.support.runtime_models import tiny_text
from tests.support.tiny import tiny_tokenizer


def text_with(tmp_path: Path, template: str | None) -> Text:
    folder = tmp_path / "text"
    folder.mkdir()
    tiny_tokenizer(folder)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    return Text(folder, [2])


def test_pieces_give_the_tokens_of_the_template() -> None:
    text = tiny_text()
    pieces = json.loads(json.dumps(chat_pieces(text)))
    assert pieces["answer"]["user"] == [2, "\n", 1, "assistant\n"]
    for contents in (["Hi"], ["a<|im_end|>b", "\n c", "<|im_start|>"], ["", "x", "é"]):
        roles = ["user", "assistant", "user"][: len(contents)]
        messages = [{"role": role, "content": one} for role, one in zip(roles, contents, strict=True)]
        assert encode_pieces(text, pieces, messages) == text.tokens(messages).ids.tolist()


def test_a_default_system_text_is_part_of_the_first_piece(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n"
        "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    pieces = chat_pieces(text_with(tmp_path, template))
    assert pieces["first"]["user"] == [1, "system\nHelp.", 2, "\n", 1, "user\n"]
    assert pieces["first"]["system"] == [1, "system\n"]


def test_pairs_of_roles_that_a_template_refuses_are_missing(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('alternate') }}{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    pieces = chat_pieces(text_with(tmp_path, template))
    assert "user>user" not in pieces["between"]
    assert "user>assistant" in pieces["between"]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | trim }}<|im_end|>{% endfor %}",
        "{% for m in messages %}{{ m.content[:1] }}<|im_end|>{% endfor %}",
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}<|im_end|>{% endfor %}",
    ],
)
def test_templates_that_change_contents_or_count_turns_are_refused(tmp_path: Path, template: str) -> None:
    text = text_with(tmp_path, template)
    with pytest.raises(ExportError, match="cannot be written as pieces of text"):
        chat_pieces(text)


def test_a_model_without_a_template(tmp_path: Path) -> None:
    assert not has_template(text_with(tmp_path, None))
    shutil.rmtree(tmp_path / "text")
    assert has_template(text_with(tmp_path, "{% for m in messages %}{{ m.content }}{% endfor %}"))
