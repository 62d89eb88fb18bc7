"""Calls of functions in answers, in the form that Hermes, Qwen and SmolLM2 templates ask for.

An answer calls a function with ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, after any text.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from lime_edge.common.strict_json import load_json
from lime_edge.runtime import AnswerSpec

from .api_errors import ApiError
from .request_models import ChatRequest, NamedTool, Tool
from .response_models import FunctionCall, ToolCall

OPENING, CLOSING = "<tool_call>", "</tool_call>"


class ToolText:
    """Divides the text of an answer into what is said and what is called.

    Args:
        forced: The answer is a call and nothing else: JSON without the words around it.
    """

    def __init__(self, forced: bool = False) -> None:
        self._held, self._calling = "", forced

    def push(self, text: str) -> str:
        """Add text; returns what is certainly said."""
        self._held += text
        if self._calling:
            return ""
        said, found, rest = self._held.partition(OPENING)
        if found:
            self._calling, self._held = True, found + rest
            return said
        keep = next((n for n in range(len(OPENING) - 1, 0, -1) if self._held.endswith(OPENING[:n])), 0)
        said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return said

    def end(self) -> tuple[str, list[ToolCall]]:
        """The rest of what is said, and the calls. Text that only looks like a call is said."""
        if not self._calling:
            return self._held, []
        calls = []
        for part in self._held.split(OPENING):
            if body := part.partition(CLOSING)[0].strip():
                call = _call(body)
                if call is None:
                    return self._held, []
                calls.append(call)
        return ("", calls) if calls else (self._held, [])


def tools_of(body: ChatRequest) -> list[Tool]:
    """The tools that an answer may use.

    Raises:
        ApiError: The choice names a function that is no tool, or needs tools where there are none.
    """
    tools = list(body.tools or ())
    if body.tool_choice == "none":
        return []
    if isinstance(body.tool_choice, NamedTool):
        name = body.tool_choice.function.name
        tools = [tool for tool in tools if tool.function.name == name]
        if not tools:
            raise ApiError(400, f"tool_choice names {name!r}; expected the name of one of the tools", "tool_choice")
    elif body.tool_choice == "required" and not tools:
        raise ApiError(400, "tool_choice is required, but there are no tools", "tool_choice")
    return tools


def must_call(body: ChatRequest) -> bool:
    """Whether every answer has to be a call."""
    return body.tool_choice == "required" or isinstance(body.tool_choice, NamedTool)


def call_form(tools: Sequence[Tool]) -> AnswerSpec:
    """The form of an answer that is a call of one of the tools.

    Raises:
        ConfigError: Names every fault of the parameters' schemas.
    """
    forms = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": tool.function.parameters or _ANY},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return AnswerSpec("schema", forms[0] if len(forms) == 1 else {"anyOf": forms})


_ANY = {"type": "object"}


def _call(text: str) -> ToolCall | None:
    try:
        value: Any = load_json(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        return None
    function = FunctionCall(name=value["name"], arguments=json.dumps(arguments, ensure_ascii=False))
    return ToolCall(id=f"call_{secrets.token_hex(12)}", function=function)
