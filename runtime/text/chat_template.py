"""Compiles the chat template of a model directory in a sandbox, as transformers does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox

from lime_edge.common.strict_json import show
from lime_edge.errors import ModelError


@dataclass(frozen=True)
class Template:
    """A compiled chat template and its text."""

    compiled: jinja2.Template
    source: str
    takes_tools: bool = False  # it reads the variable `tools`, and asks for calls as <tool_call>


def read_template(path: Path, config: Mapping[str, Any]) -> Template | None:
    """Read chat_template.jinja, otherwise `config["chat_template"]`, and compile it.

    Args:
        path: The model directory.
        config: The contents of tokenizer_config.json.

    Returns:
        The template; None if the model has none.

    Raises:
        ModelError: The template cannot be read, or is not valid Jinja.
    """
    source = _source(path / "chat_template.jinja", config.get("chat_template"))
    if source is None:
        return None
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _GenerationTag]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    try:
        source.encode()  # JSON can hold lone surrogates
        known = jinja2.meta.find_undeclared_variables(environment.parse(source))
        return Template(environment.from_string(source), source, "tools" in known and "<tool_call>" in source)
    except Exception as error:  # jinja2 evaluates constants and recurses
        raise ModelError(f"the chat template of {path} is invalid: {show(str(error))}") from error


def _source(file: Path, configured: Any) -> str | None:
    """The text of the template. Several templates in tokenizer_config.json have names; one is the default."""
    if file.is_file():
        try:
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{file} cannot be read: {error}; expected UTF-8 text") from error
    if isinstance(configured, list):
        named = [entry for entry in configured if isinstance(entry, dict) and entry.get("name") == "default"]
        configured = named[0].get("template") if named else None
    return configured if isinstance(configured, str) else None


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
