"""The skills of a runtime: load, switch between, list and unload them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress

from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import ConfigError, SkillConflictError, SkillError, SkillTrustError, UnknownSkillError
from lime_edge.runtime.decoding.prefix_cache import PrefixCache
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.bank import Bank
from lime_edge.runtime.skills.registry import LoadConditions, Registry
from lime_edge.runtime.text.prompts import Text
from lime_edge.runtime.types import SkillInfo, SkillSpec
from lime_edge.skills.compatibility import LIMITS
from lime_edge.trust.policy import TrustPolicy, as_policy, read_trusted_skill

from .skill_loading import SkillLoader


class LoadedSkills:
    """What `Runtime` does with skills, apart from answering with them. Safe to use from several threads.

    Args:
        graph, text: The model.
        limits: The largest |value| by kind of vector, where it differs from `LIMITS`.
        trust: The policy that skills must satisfy; None: none.
        prefixes: What requests have read; positions of skills that are unloaded are freed.
    """

    def __init__(
        self,
        graph: Graph,
        text: Text,
        limits: Mapping[Kind, float],
        trust: TrustPolicy | None,
        prefixes: PrefixCache,
    ) -> None:
        self._graph, self._text, self._trust, self._prefixes = graph, text, trust, prefixes
        limits, table = {**LIMITS, **limits}, graph.directory.contract.table
        self._bank = Bank(table.row_size, graph.bank_dtype)
        self._skills = Registry(self._bank, table, limits)
        self._loader = SkillLoader(graph, text, self._bank, self._skills, limits, trust)

    @property
    def _registry(self) -> Registry:
        """The loaded skills: every call that answers, loads or switches begins with them."""
        self._graph.refuse_fork()
        return self._skills

    def load_skill(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        prove: bool = False,
        replace: bool = False,
        allow_downgrade: bool = False,
        expected_generation: int | None = None,
    ) -> SkillInfo:
        """Load a skill package without disturbing running requests.

        The package is read, checked and proved first, then switched in atomically: a request sees either the old
        generation or the new one. A failure at any step changes nothing.

        Args:
            path: The .lime file.
            name: The name to load it under; None: the package's own name.
            prove: Run its golden prompts on this graph first.
            replace: Replace the skill of that name, even if it is active or part of the active blend. Requests in
                flight finish with the old one.
            allow_downgrade: With a trust policy, let `replace` also go back to an older version.
            expected_generation: Load only if the skill of that name has this generation (`SkillInfo.generation`; 0:
                the name is not loaded). None: any.

        Raises:
            SkillTrustError: The trust policy refuses it, or its signature is invalid.
            SkillVersionError: With a trust policy: it is older than the skill it would replace.
            SkillFormatError: The file is not a valid package.
            SkillMismatchError: It was made for another backbone, adapter or routing, or exceeds the limits.
            SkillProofError: Its golden prompts do not reproduce.
            SkillConflictError: The loaded generation is not the expected one.
            SkillError: There is not enough memory.
            ConfigError: The name is invalid or already loaded, or the active blend cannot use the new skill.
        """
        self._graph.refuse_fork()
        loader = self._loader
        no_downgrade = loader.trust is not None and not allow_downgrade
        info = loader.load(path, name, prove, LoadConditions(replace, expected_generation, no_downgrade))
        self._forget()
        if loader is not self._loader and (error := self._unload_refused(info)):  # `use_policy` has not seen it
            raise error
        return info

    @property
    def trust(self) -> TrustPolicy | None:
        """The policy that skills must satisfy; None: none."""
        return self._trust

    def use_policy(self, trust: TrustPolicy | str | os.PathLike[str] | None) -> dict[str, str]:
        """Apply another trust policy from now on, and unload the skills that it refuses, or whose file has changed.

        Requests in flight finish with the skills that they began with.

        Args:
            trust: The policy, or the path of its file; None: every valid package that fits is accepted.

        Returns:
            The skills that were unloaded, and why.

        Raises:
            PolicyError: Names every fault of the policy; the old one stays.
        """
        policy = as_policy(trust)
        self._trust, self._loader = policy, dataclasses.replace(self._loader, trust=policy)
        return {info.name: str(error) for info in self.skills() if (error := self._unload_refused(info))}

    def use_skill(self, skill: SkillSpec) -> None:
        """Make a skill the default for calls without ``skill=``; takes microseconds.

        Args:
            skill: A name, a blend as weights by name, None for the base, or ``"auto"``: every request gets the skill
                that `Runtime.route` chooses for it.

        Raises:
            UnknownSkillError: The skill is not loaded; the message names the loaded ones.
            ConfigError: The blend is invalid.
        """
        self._registry.activate(skill)

    @property
    def active_skill(self) -> SkillSpec:
        """The skill of calls without ``skill=`` in this thread or asyncio task; None is the base."""
        return self._registry.active

    def disable_skill(self) -> AbstractContextManager[None]:
        """In this context, calls of this thread or asyncio task without ``skill=`` use the base."""
        return self._registry.disabled()

    def skills(self) -> list[SkillInfo]:
        """The loaded skills, in loading order."""
        return self._registry.infos()

    def unload_skill(self, name: str, expected_generation: int | None = None) -> None:
        """Unload a skill; requests in flight finish with it.

        Args:
            name: Name of the skill.
            expected_generation: Unload only this generation. None: any.

        Raises:
            UnknownSkillError: The skill is not loaded; the message names the loaded ones.
            SkillConflictError: The loaded generation is not the expected one.
            ConfigError: The skill is active.
        """
        self._registry.remove(name, expected_generation)
        self._forget()

    def _unload_refused(self, info: SkillInfo) -> SkillError | None:
        """Unload a skill if the policy refuses its file; returns why. If it is active, the base takes its place."""
        try:
            if read_trusted_skill(info.path, self._trust).skill.manifest.digest == info.digest:
                return None
            refusal: SkillError = SkillTrustError(f"{info.path} has changed since it was loaded: load it again")
        except SkillError as error:
            refusal = error
        with suppress(SkillConflictError, UnknownSkillError):  # another thread has replaced or unloaded it
            try:
                self.unload_skill(info.name, info.generation)
            except ConfigError:
                self.use_skill(None)
                self.unload_skill(info.name, info.generation)
        return refusal

    def _forget(self) -> None:
        """Free what requests have read with skills that are not loaded any more."""
        self._prefixes.retain({info.generation for info in self._skills.infos()})
