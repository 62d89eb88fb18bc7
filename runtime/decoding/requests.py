"""Builds the requests of a call: the tokens, the skill and the settings of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lime_edge.common.strict_json import bounded
from lime_edge.contract.content_parts import is_parts, with_affixes
from lime_edge.errors import ConfigError, SkillFormatError
from lime_edge.runtime.constraints.answer_constraints import AnswerConstraints
from lime_edge.runtime.constraints.answer_spec import AnswerSpec
from lime_edge.runtime.constraints.constraint import Constraint
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Text, Tokens
from lime_edge.runtime.types import Prompt

from .contexts import Opening, common_length
from .generation_options import Options, Settings
from .loop import Answer, Request, open_answers, with_prefix


def encode_prompts(
    graph: Graph,
    text: Text,
    prompts: Sequence[Prompt],
    skills: Sequence[AppliedSkill],
    raw: bool,
    opening: Opening | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[Tokens]:
    """Encode prompts, each through the interface of its skill, with the skill's soft prefix.

    Args:
        graph, text: The model.
        prompts: A request or a list of messages each; with `raw`, plain text. A request is a user message between the
            prefix and the suffix of the skill's interface.
        skills: The skill that answers each of them.
        raw: Use neither the chat template nor the interface.
        opening: What comes before every prompt, in place of the system text of the skill's interface.
        tools: Functions that the chat template shows; neither with `raw` nor with an opening.

    Raises:
        ConfigError: Names every row whose prompt is invalid or empty.
    """
    if tools and (raw or opening is not None):
        raise ConfigError("tools are shown by the chat template: expected no raw=True and no context with them")
    encoded, faults = [], []
    for number, (prompt, applied) in enumerate(zip(prompts, skills, strict=True)):
        try:
            tokens = _encoded(text, prompt, applied, raw, opening, tools)
        except ConfigError as error:
            faults += [f"row {number}: {fault}" for fault in error.faults or [error.message]]
            continue
        if (largest := tokens.ids.max()) >= graph.vocabulary:
            faults.append(f"row {number}: token id {largest}; the vocabulary has {graph.vocabulary}")
        encoded.append(with_prefix(tokens, applied, graph))
    if faults:
        raise ConfigError("the prompts are invalid", bounded(faults))
    return encoded


def _encoded(
    text: Text,
    prompt: Prompt,
    applied: AppliedSkill,
    raw: bool,
    opening: Opening | None,
    tools: Sequence[Mapping[str, Any]],
) -> Tokens:
    request = _through(prompt, applied, raw)
    if opening is None:
        return text.tokens(request, applied.interface.system, raw, tools)
    return text.tokens(opening.ask(request), opening.system)


def read_opening(graph: Graph, text: Text, opening: Opening, applied: AppliedSkill) -> Tokens:
    """The tokens that all prompts with an opening begin with, whatever the question is; maybe none.

    A question can begin with something that the tokenizer joins with the end of the opening; then the last tokens
    differ, and only those before them are reused.

    Raises:
        ConfigError: The opening is invalid.
    """
    questions: list[Prompt] = [[{"role": "user", "content": content}] for content in ("0", "x")]
    first, second = (encode_prompts(graph, text, [one], [applied], False, opening)[0] for one in questions)
    ids = first.ids[: common_length(first.ids, second.ids)]
    return Tokens(ids, len(ids), first.pictures)


def _through(prompt: Prompt, applied: AppliedSkill, raw: bool) -> Prompt:
    if raw:
        return prompt
    if is_parts(prompt):
        content = with_affixes(prompt, applied.interface.prefix, applied.interface.suffix)
        return [{"role": "user", "content": content}]
    return applied.interface.request(prompt) if isinstance(prompt, str) else prompt


def open_requests(
    graph: Graph,
    text: Text,
    constraints: AnswerConstraints,
    prompts: Sequence[Prompt],
    skills: Sequence[AppliedSkill],
    raw: bool,
    settings: Settings,
    opening: Opening | None = None,
) -> list[Answer]:
    """Check the rows of a call and make them ready to run.

    Args:
        graph, text, raw: As for `encode_prompts`.
        constraints: The model's.
        prompts, skills: One of each per row.
        settings: The call's settings; they override those of a row's skill.
        opening: As for `encode_prompts`.

    Raises:
        ConfigError: A setting or a prompt is invalid, or a row does not fit into the context.
    """
    call = Options.settle(settings)
    if faults := list(text.stop_faults(call.stop)):
        raise ConfigError("the generation settings are invalid", faults)
    checked = {**settings, "answers": call.answers}  # a schema is parsed once, not for every row
    options = [Options.settle(checked, applied.defaults) for applied in skills]
    encoded = encode_prompts(graph, text, prompts, skills, raw, opening, call.tools)
    forms = [
        _constraint(constraints, option, applied, plain=(isinstance(prompt, str) or is_parts(prompt)) and not raw)
        for option, applied, prompt in zip(options, skills, prompts, strict=True)
    ]
    return open_answers(graph, text, list(map(Request, encoded, skills, options, forms)))


def _constraint(
    constraints: AnswerConstraints, options: Options, applied: AppliedSkill, plain: bool
) -> Constraint | None:
    """What the call asks of the answer; for a plain request that asks for nothing, what the skill's interface says."""
    if options.answers is not None:
        return constraints.constrain(options.answers)
    form = applied.interface.answers
    if not plain or form.kind == "text":
        return None
    value = tuple(form.value) if isinstance(form.value, list) else form.value
    return constraints.constrain(_spec(form.kind, value), SkillFormatError)


@lru_cache(256)  # a schema takes milliseconds to check
def _spec(kind: str, value: Any) -> AnswerSpec:
    return AnswerSpec.from_dict({"kind": kind, "value": list(value) if isinstance(value, tuple) else value})
