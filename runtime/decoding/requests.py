"""Builds the requests of a call: the tokens, the skill and the settings of each row."""

from __future__ import annotations

from collections.abc import Sequence

from lime_edge.common.strict_json import bounded
from lime_edge.errors import ConfigError
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Text, Tokens
from lime_edge.runtime.types import Prompt

from .generation_options import Options, Settings
from .loop import Answer, Request, open_answers, with_prefix


def encode_prompts(
    graph: Graph, text: Text, prompts: Sequence[Prompt], skills: Sequence[AppliedSkill], raw: bool
) -> list[Tokens]:
    """Encode prompts with their skills' system texts and soft prefixes.

    Args:
        graph, text: The model.
        prompts: A user message or a list of messages each; with `raw`, plain text.
        skills: The skill that answers each of them.
        raw: Use neither the chat template nor the system text.

    Raises:
        ConfigError: Names every row whose prompt is invalid or empty.
    """
    encoded, faults = [], []
    for number, (prompt, applied) in enumerate(zip(prompts, skills, strict=True)):
        try:
            tokens = text.tokens(prompt, applied.system, raw)
        except ConfigError as error:
            faults += [f"row {number}: {fault}" for fault in error.faults or [error.message]]
            continue
        if (largest := tokens.ids.max()) >= graph.vocabulary:
            faults.append(f"row {number}: token id {largest}; the vocabulary has {graph.vocabulary}")
        encoded.append(with_prefix(tokens, applied, graph))
    if faults:
        raise ConfigError("the prompts are invalid", bounded(faults))
    return encoded


def open_requests(
    graph: Graph, text: Text, prompts: Sequence[Prompt], skills: Sequence[AppliedSkill], raw: bool, settings: Settings
) -> list[Answer]:
    """Check the rows of a call and make them ready to run.

    Args:
        graph, text, raw: As for `encode_prompts`.
        prompts, skills: One of each per row.
        settings: The call's settings; they override those of a row's skill.

    Raises:
        ConfigError: A setting or a prompt is invalid, or a row does not fit into the context.
    """
    options = [Options.settle(settings, applied.defaults) for applied in skills]
    given = Options.settle(settings).stop
    if faults := list(text.stop_faults(given)):
        raise ConfigError("the generation settings are invalid", faults)
    encoded = encode_prompts(graph, text, prompts, skills, raw)
    return open_answers(graph, text, list(map(Request, encoded, skills, options)))
