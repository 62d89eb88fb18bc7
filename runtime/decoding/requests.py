"""Builds the requests of a call: the tokens, the skill and the settings of each row."""

from __future__ import annotations

from collections.abc import Sequence

from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Text, Tokens
from lime_edge.runtime.types import Prompt

from .generation_options import Options, Settings
from .loop import Answer, Request, open_answers, with_prefix


def encode_prompt(graph: Graph, text: Text, prompt: Prompt, applied: AppliedSkill, raw: bool) -> Tokens:
    """Encode a prompt with its skill's system text and soft prefix.

    Args:
        graph, text: The model.
        prompt: A user message or a list of messages; with `raw`, plain text.
        applied: The skill that answers it.
        raw: Use neither the chat template nor the system text.

    Raises:
        ConfigError: The prompt is invalid or empty.
    """
    return with_prefix(text.tokens(prompt, applied.system, raw), applied, graph)


def open_requests(
    graph: Graph, text: Text, prompts: Sequence[Prompt], skills: Sequence[AppliedSkill], raw: bool, settings: Settings
) -> list[Answer]:
    """Check the rows of a call and make them ready to run.

    Args:
        graph, text, raw: As for `encode_prompt`.
        prompts, skills: One of each per row.
        settings: The call's settings; they override those of a row's skill.

    Raises:
        ConfigError: A prompt or a setting is invalid, or a row does not fit into the context.
    """
    requests = [
        Request(encode_prompt(graph, text, prompt, applied, raw), applied, Options.settle(settings, applied.defaults))
        for prompt, applied in zip(prompts, skills, strict=True)
    ]
    return open_answers(graph, text, requests)
