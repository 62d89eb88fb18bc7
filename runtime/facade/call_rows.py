"""Splits the arguments of a call into rows: one prompt or several, one skill for all or one for each."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError
from lime_edge.runtime.types import Active, Prompt, SkillSpec


class Rows(NamedTuple):
    """One prompt and one skill per row."""

    prompts: list[Prompt]
    skills: list[SkillSpec | Active]
    single: bool  # the caller gets one result, not a list


def split_rows(prompt: Any, skill: Any) -> Rows:
    """Pair prompts with skills.

    Args:
        prompt: Text, a list of messages, or a list of either.
        skill: One for all, or a list with one for each prompt; one prompt with a list of skills is answered once
            with each.

    Raises:
        ConfigError: There is no prompt, or the numbers of prompts and skills differ.
    """
    many = isinstance(prompt, list | tuple) and not (prompt and isinstance(prompt[0], Mapping))
    each = isinstance(skill, list | tuple)
    prompts, skills = (list(prompt) if many else [prompt]), (list(skill) if each else [skill])
    if not prompts:
        raise ConfigError("there is no prompt; expected text, messages, or a list of either")
    if not many:
        prompts *= len(skills)
    if not each:
        skills *= len(prompts)
    if len(prompts) != len(skills) or not skills:
        raise ConfigError(f"{len(skills)} skills for {len(prompts)} prompts; expected one for each or one for all")
    return Rows(prompts, skills, not many and not each)


def one_row(prompt: Any, skill: Any, method: str) -> Rows:
    """One prompt and one skill, for a method that takes no lists.

    Raises:
        ConfigError: There is a list.
    """
    rows = split_rows(prompt, skill)
    if not rows.single:
        raise ConfigError(f"{method} takes one prompt and one skill; generate takes lists")
    return rows


def whole_batch_size(size: Any) -> int:
    """The number of rows that run together, as an int.

    Raises:
        ConfigError: Not a whole number of 1 or more.
    """
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise ConfigError(f"batch_size is {show(size)}; expected a whole number of 1 or more")
    return int(size)
