"""The right skill by itself: reads a request once as the base, and chooses among the loaded skills by its state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lime_edge.common.digests import canonical_json
from lime_edge.contract.names import AUTO_SKILL, ROUTE_FILE
from lime_edge.errors import ConfigError, ModelError, UnknownSkillError
from lime_edge.runtime.decoding.contexts import Context, Opening, opening_of
from lime_edge.runtime.decoding.control import Control
from lime_edge.runtime.decoding.generation_options import Event
from lime_edge.runtime.decoding.prefix_cache import Pin
from lime_edge.runtime.decoding.requests import encode_prompts
from lime_edge.runtime.decoding.state_reading import read_state
from lime_edge.runtime.routing.chooser import Candidate, Chooser
from lime_edge.runtime.skills.registry import AppliedSkill, Lease
from lime_edge.runtime.types import ACTIVE, Active, Choice, Generation, Prompt, Route, SkillSpec
from lime_edge.skills.route_statistics import read_statistics

from .call_rows import Rows
from .prompt_tokens import PromptTokens

Result = TypeVar("Result", Generation, Choice)


@dataclass(frozen=True, eq=False)
class Routed:
    """What was chosen for one row, and what keeps the positions that were read for it."""

    route: Route
    pin: Pin


class RoutedSkills(PromptTokens):
    """Chooses skills by requests. Safe to use from several threads."""

    _candidates: tuple[Mapping[str, AppliedSkill], tuple[Candidate, ...]] | None = None  # of these loaded skills

    def route(
        self,
        prompt: Prompt,
        *,
        raw: bool = False,
        context: Context | None = None,
        cancel: Event | None = None,
        timeout: float | None = None,
    ) -> Route:
        """Choose a skill for a request, as ``skill="auto"`` does, without answering it.

        Args:
            prompt, raw, context, cancel, timeout: As in `generate`, but one prompt.

        Raises:
            ConfigError: The prompt is invalid, or the model was exported without what a choice needs.
            StoppedError: Cancelled, or the time was over.
        """
        control = Control.of({"cancel": cancel, "timeout": timeout})
        return self._route(prompt, raw, opening_of(context, self._prefixes, raw), control).route

    def _lease(
        self, rows: Rows, raw: bool, opening: Opening | None, control: Control
    ) -> tuple[Lease, list[Routed | None]]:
        """The lease for the skills of a call; a skill is chosen for the rows that ask for it.

        Raises:
            UnknownSkillError, ConfigError, StoppedError: As in `generate`.
        """
        auto = [self._is_auto(skill) for skill in rows.skills]
        if not any(auto):
            return self._registry.lease(rows.skills), [None] * len(auto)
        routed: list[Routed | None] = [
            self._route(prompt, raw, opening, control) if chosen else None
            for prompt, chosen in zip(rows.prompts, auto, strict=True)
        ]
        while True:
            specs = [
                skill if found is None else found.route.skill for skill, found in zip(rows.skills, routed, strict=True)
            ]
            try:
                return self._registry.lease(specs), routed
            except (UnknownSkillError, ConfigError):
                again = [None if found is None else self._simpler(found) for found in routed]
                if again == routed:
                    raise
                routed = again

    def _is_auto(self, skill: SkillSpec | Active) -> bool:
        return skill == AUTO_SKILL or (skill is ACTIVE and self._registry.active == AUTO_SKILL)

    def _route(self, prompt: Prompt, raw: bool, opening: Opening | None, control: Control) -> Routed:
        chooser, pin = self._chooser, self._prefixes.pin()
        started = time.perf_counter()
        state = self._state(prompt, raw, opening, control, pin)
        read = time.perf_counter()
        found = chooser.choose(state, self._candidates_of(chooser))
        route = Route(
            skill=found.skill,
            probabilities=found.probabilities,
            none=found.none,
            why=found.why,
            read_seconds=read - started,
            choose_seconds=time.perf_counter() - read,
        )
        return Routed(route, pin)

    def _simpler(self, routed: Routed) -> Routed:
        """The choice without blends and without skills that were unloaded since."""
        loaded, skill = {info.name for info in self.skills()}, routed.route.skill
        wanted = [name for name in routed.route.probabilities if name in loaded]
        if skill is None or not wanted or routed.route.probabilities[wanted[0]] <= routed.route.none:
            simpler: SkillSpec = None
        else:
            simpler = wanted[0]
        if simpler == skill:
            return routed
        return replace(routed, route=replace(routed.route, skill=simpler, why="what was likelier cannot be used now"))

    @cached_property
    def _chooser(self) -> Chooser:
        directory, settings = self._graph.directory, self._graph.directory.contract.route
        if settings is None or not self._graph.state_width:
            raise ConfigError(
                "this model was exported without statistics of states, so no skill can be chosen by the request: add "
                "them to its checkpoint (lime-edge route --help) and export again"
            )
        statistics, digest = read_statistics(directory.path / ROUTE_FILE)
        if statistics.settings(digest) != settings or statistics.width != self._graph.state_width:
            raise ModelError(f"{directory.path / ROUTE_FILE} is not the file of lime.json: copy the directory again")
        own = [self._state(text, False, None, Control(), None) for text in statistics.texts]
        return Chooser(statistics, np.stack(own) if own else None)

    def _state(
        self, prompt: Prompt, raw: bool, opening: Opening | None, control: Control, pin: Pin | None
    ) -> npt.NDArray[np.float32]:
        """The state [D] of a request as the base reads it."""
        with self._registry.lease([None]) as lease:
            (tokens,) = encode_prompts(self._graph, self._text, [prompt], lease.applied, raw, opening)
            return read_state(self._graph, lease.array, tokens, self._prefixes, pin, control)

    def _candidates_of(self, chooser: Chooser) -> tuple[Candidate, ...]:
        """The loaded skills that can be chosen; made again only when skills were loaded or unloaded."""
        loaded, known = self._registry.loaded, self._candidates
        if known is None or known[0] is not loaded:
            found = tuple(
                Candidate(name, applied.generation, applied.route, _kind(applied))
                for name, applied in loaded.items()
                if applied.route is not None and chooser.takes(applied.route)
            )
            known = self._candidates = loaded, found
        return known[1]


def with_route(result: Result, routed: Routed | None) -> Result:
    """The same result, whose receipt says how its skill was chosen."""
    if routed is None:
        return result
    return replace(result, receipt={**result.receipt, "route": receipt_of(routed.route)})


def finisher(finish: Callable[[Any], Generation], routed: Routed | None) -> Callable[[Any], Generation]:
    """As `with_route`, for an answer that ends later; keeps what was read until then."""
    return lambda answer: with_route(finish(answer), routed)


def receipt_of(route: Route) -> dict[str, Any]:
    """The part of a receipt that says how a skill was chosen."""
    return {
        "probabilities": dict(route.probabilities),
        "none": route.none,
        "why": route.why,
        "seconds": route.read_seconds + route.choose_seconds,
    }


def _kind(applied: AppliedSkill) -> bytes:
    """Equal for skills that are asked and answer in the same form, and apply to the same tokens."""
    document = applied.interface.to_dict()
    return canonical_json([applied.activation, document["input"], document["answers"], document["modality"]])
