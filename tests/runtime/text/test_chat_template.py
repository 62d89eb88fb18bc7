"""Chat templates: where they are found, and what a failing one raises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime.text.prompts import Text
from tests.support.runtime_models import tiny_text
from tests.support.tiny import tiny_tokenizer


def test_template_from_the_tokenizer_config_and_none_at_all(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    source = (tmp_path / "chat_template.jinja").read_text("utf-8")
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"no chat template: call with raw=True, or add chat_template\.jinja"):
        Text(tmp_path, [2]).tokens("Hello")
    assert Text(tmp_path, [2]).known([3, 4]).boundary == 1
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    config |= {"chat_template": source, "eos_token": {"content": "<|im_end|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    assert Text(tmp_path, [0]).tokens("Hello").ids.tolist() == tiny_text().tokens("Hello").ids.tolist()
    assert Text(tmp_path, [0]).eos_ids == {0, 2}


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{{ raise_exception('no tools here') }}", ConfigError, "no tools here"),
        ("{{ messages[7].content }}", ConfigError, "rejects these messages"),
        ("{{ ''.__class__.__mro__ }}", ConfigError, "unsafe"),
        ("{{ 1 / 0 }}", ConfigError, "rejects these messages"),
        ("{% if %}", ModelError, "is invalid"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", ModelError, "is invalid"),
        ("{% if 1 %}" * 500 + "{% endif %}" * 500, ModelError, "is invalid"),
    ],
)
def test_templates_that_fail(tmp_path: Path, template: str, error: Any, message: str) -> None:
    tiny_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template, "utf-8")
    with pytest.raises(error, match=message):
        Text(tmp_path, [2]).tokens("Hello")


def test_a_template_that_is_not_text(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"caf\xe9 {{ messages }}")
    with pytest.raises(ModelError, match=r"chat_template\.jinja cannot be read: .*; expected UTF-8 text"):
        Text(tmp_path, [2])
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "\\ud83d"}', "utf-8")
    with pytest.raises(ModelError, match=r"the chat template of .* is invalid: .*surrogates"):
        Text(tmp_path, [2])


def test_the_default_of_several_templates(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    source = (tmp_path / "chat_template.jinja").read_text("utf-8")
    (tmp_path / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": "{{ 1 / 0 }}"}, {"name": "default", "template": source}, 5]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}), "utf-8")
    assert Text(tmp_path, [2]).tokens("Hello").ids.tolist() == tiny_text().tokens("Hello").ids.tolist()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named[:1]}), "utf-8")
    with pytest.raises(ConfigError, match="no chat template"):
        Text(tmp_path, [2]).tokens("Hello")
