"""Contexts: what several prompts begin with, read once and kept until it is closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from lime_edge.common.strict_json import show
from lime_edge.contract.content_parts import is_parts
from lime_edge.errors import ConfigError
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.bank import Array
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Tokens
from lime_edge.runtime.types import Message, Prompt

from .control import Control
from .kv_cache import Cache, Ids
from .loop import skill_rows
from .prefix_cache import Pin, PrefixCache


@dataclass(frozen=True)
class Opening:
    """The messages that prompts begin with, and the system text before them."""

    messages: tuple[Message, ...]
    system: str | None

    @classmethod
    def of(cls, given: Any, system: str | None) -> Opening:
        """Messages as they are; a text, or a list of parts, is a user's message.

        Raises:
            ConfigError: It is neither text nor a list of messages, or empty. (The chat template checks the rest.)
        """
        is_content = bool(given) if isinstance(given, str) else is_parts(given)
        messages = [{"role": "user", "content": given}] if is_content else given
        if not isinstance(messages, list | tuple) or not messages or not all(isinstance(m, Mapping) for m in messages):
            raise ConfigError(f"the context is {show(given)}; expected text or a list of messages, not empty")
        return cls(tuple(dict(message) for message in messages), system)

    def ask(self, question: Prompt | None) -> Prompt:
        """The messages of a prompt that ends with a question, or with the opening if there is none.

        If the opening ends with a message of the user, and the question begins with one, they become one message with
        an empty line between them: templates may refuse two in a row.
        """
        if question is None:
            return list(self.messages)
        asked = [{"role": "user", "content": question}] if isinstance(question, str) else question
        if not isinstance(asked, list | tuple) or not asked or not isinstance(asked[0], Mapping):
            return question  # refused by name when it is encoded
        last, first = self.messages[-1], asked[0]
        contents = [last.get("content"), first.get("content")]
        if not (last.get("role") == first.get("role") == "user") or not all(map(_is_content, contents)):
            return [*self.messages, *asked]
        return [*self.messages[:-1], {**first, "content": _joined(*contents)}, *asked[1:]]


def _is_content(content: Any) -> bool:
    return isinstance(content, str | list | tuple)


def _joined(first: Any, second: Any) -> Any:
    """Two contents as one, with an empty line between them."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    parts = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in (first, second)]
    return [*parts[0], {"type": "text", "text": "\n\n"}, *parts[1]]


def common_length(first: Ids, second: Ids) -> int:
    """Number of tokens that two prompts have in common at the beginning."""
    count = min(len(first), len(second))
    same = first[:count] == second[:count]
    return count if same.all() else int(same.argmin())


class Context:
    """A document or a conversation that was read once and can be asked many questions, with any skill.

    Made by `Runtime.prefill`. Its positions are kept until `close`, the end of a ``with`` block, or its deletion; then
    they are like those of any earlier request. Pass it as ``context=`` to `generate`, `stream` and `choose`.

    Attributes:
        tokens: Number of tokens that all prompts with this context begin with.
    """

    def __init__(self, store: PrefixCache, opening: Opening, tokens: int) -> None:
        self._store, self._opening, self.tokens = store, opening, tokens
        self._pin: Pin | None = store.pin()

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory; 0 once it is closed."""
        return self._store.held(self._pin)

    def read(self, graph: Graph, bank: Array, tokens: Tokens, applied: AppliedSkill, control: Control) -> None:
        """Read the tokens that prompts begin with, and keep their positions.

        Args:
            graph: The graph to run.
            bank: [N, P], pinned by the caller.
            tokens: From `read_opening`.
            applied: The skill that reads them, if it applies to prompts; otherwise the base does.
            control: Asked between two runs of the graph.

        Raises:
            ConfigError: The context of the model or the memory is too small.
            StoppedError: The control said stop.
        """
        cache = Cache(graph, bank, 1, len(tokens.ids), self._store.view([applied]))
        if len(tokens.ids) > 1:  # a run of one token has other bits
            for _ in cache.prefill_steps(0, tokens.ids, skill_rows(tokens, applied), exact=True):
                control.check()
            cache.remember(0, self._pin)

    def close(self) -> None:
        """Let go of its memory: beyond the limit of the prefix cache it is freed at once. May be called again."""
        self._pin = None
        self._store.trim()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def opening_in(self, store: PrefixCache) -> Opening:
        """What prompts begin with, for the runtime of a store.

        Raises:
            ConfigError: It is closed, or belongs to another runtime.
        """
        if self._store is not store:
            raise ConfigError("the context belongs to another runtime: call prefill of this one")
        if self._pin is None:
            raise ConfigError("the context is closed: call prefill again")
        return self._opening


def opening_of(context: Any, store: PrefixCache, raw: bool) -> Opening | None:
    """What the prompts of a call begin with; None without a context.

    Raises:
        ConfigError: The context cannot be used in this call.
    """
    if context is None:
        return None
    if not isinstance(context, Context):
        raise ConfigError(f"context is {show(context)}; expected what prefill returned")
    if raw:
        raise ConfigError("raw=True takes a prompt as it is, so it has no context: put the text before the prompt")
    return context.opening_in(store)
