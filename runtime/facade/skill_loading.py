"""Loads a skill package: read, verify, check against the model, write to the bank, prove, register."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lime_edge.common.strict_json import show
from lime_edge.contract.names import AUTO_SKILL
from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import ConfigError, SkillMismatchError
from lime_edge.runtime.decoding.golden_proof import prove as prove_skill
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.bank import Bank
from lime_edge.runtime.skills.registry import AppliedSkill, LoadConditions, Registry
from lime_edge.runtime.text.prompts import Text
from lime_edge.runtime.types import SkillInfo
from lime_edge.skills.compatibility import check_skill
from lime_edge.skills.package import Skill
from lime_edge.trust.policy import Signer, TrustPolicy, read_trusted_skill


@dataclass(frozen=True)
class SkillLoader:
    """Loads skills into one bank and registry."""

    graph: Graph
    text: Text
    bank: Bank
    registry: Registry
    limits: Mapping[Kind, float]  # largest |value| by kind of vector
    trust: TrustPolicy | None

    def load(
        self, path: str | os.PathLike[str], name: str | None, prove: bool, conditions: LoadConditions
    ) -> SkillInfo:
        """Load one package; a failure at any step changes nothing.

        Args and errors as in `Runtime.load_skill`.
        """
        trusted = read_trusted_skill(path, self.trust)
        skill = trusted.skill
        name = skill.manifest.name if name is None else name
        if not isinstance(name, str) or not name or not name.isprintable() or name == AUTO_SKILL:
            raise ConfigError(f"the name {show(name)} cannot be used; expected printable text, not {AUTO_SKILL!r}")
        self.registry.admit(name, skill.manifest.version, conditions)  # fail early; `add` checks again
        table = self.graph.directory.contract.table
        check_skill(skill, self.graph.directory.contract, self.limits)
        if faults := [*self.text.stop_faults(skill.manifest.prompt["stop"]), *self._draft_faults(skill)]:
            raise SkillMismatchError(f"{path} does not fit the tokenizer of this model", faults)
        segments = table.pack(skill.tensors)  # [E or 1, segment]
        with self.bank.hold() as hold:  # until the registry keeps the row, or the load has failed
            applied = _applied(skill, name, hold.add(segments.ravel()), len(segments), prove, trusted.signer)
            if prove:
                prove_skill(self.graph, self.bank.array, self.text, name, skill.manifest.golden, applied)
            return self.registry.add(name, applied, conditions)

    def _draft_faults(self, skill: Skill) -> Iterator[str]:
        if skill.draft is not None and skill.draft.largest_id >= self.graph.vocabulary:
            yield f"the draft table has the token {skill.draft.largest_id}; the vocabulary has {self.graph.vocabulary}"


def _applied(skill: Skill, name: str, row: int, experts: int, proved: bool, signer: Signer | None) -> AppliedSkill:
    manifest = skill.manifest
    info = SkillInfo.of(skill, name, proved, signer)
    defaults = {**manifest.prompt["generation"], "stop": tuple(manifest.prompt["stop"])}
    parts = ((info, 1.0),)
    form = manifest.activation, manifest.interface
    return AppliedSkill(row, experts, *form, defaults, parts, skill.draft, skill.route)
