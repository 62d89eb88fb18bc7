"""Compiles the chat template of a model directory in a sandbox, as transformers does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

from lime_edge.errors import ModelError


def read_template(path: Path, config: Mapping[str, Any]) -> jinja2.Template | None:
    """Read chat_template.jinja, otherwise `config["chat_template"]`, and compile it.

    Args:
        path: The model directory.
        config: The contents of tokenizer_config.json.

    Returns:
        The template; None if the model has none.

    Raises:
        ModelError: The template is not valid Jinja.
    """
    file = path / "chat_template.jinja"
    source = file.read_text("utf-8") if file.is_file() else config.get("chat_template")
    if not isinstance(source, str):
        return None
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _GenerationTag]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise ModelError(f"the chat template of {path} is invalid: {error}") from error


class _GenerationTag(jinja2.ext.Extension):
    """Renders the content of ``{% generation %}`` unchanged; the tag only marks answers for training."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it like this

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
