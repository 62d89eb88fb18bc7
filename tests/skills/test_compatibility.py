"""Whether a skill fits a model: every mismatch is refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lime_edge.contract.model import ModelContract
from lime_edge.contract.module_table import Module, ModuleTable
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import SkillMismatchError
from lime_edge.skills.compatibility import LIMITS, check_skill
from lime_edge.skills.package import Skill, write_skill
from lime_edge.skills.vector_codec import decode_vectors, encode_vectors
from tests.support.faults.malformed import CONTRACT, EXPERTS, MODULES, TABLE, assert_faults, manifest, vectors


@dataclass(frozen=True)
class Mismatch:
    """A valid skill, a model that it does not fit, and a part of each fault; no other fault may be reported."""

    name: str
    faults: tuple[str, ...]
    skill: Callable[[Skill], Skill] = lambda skill: skill
    model: ModelContract = CONTRACT
    limit: dict[Kind, float] | None = None


def _table(*modules: Module, kinds: tuple[Kind, ...] = TABLE.kinds) -> ModelContract:
    """A model with another module table."""
    return replace(CONTRACT, table=ModuleTable(modules or TABLE.modules, EXPERTS, kinds))


def _routing(**changes: Any) -> ModelContract:
    return replace(CONTRACT, routing=replace(CONTRACT.routing, **changes))


def _with_rank(skill: Skill) -> Skill:
    extra = decode_vectors(encode_vectors(vectors(("rank",)), "i8")).values
    bounds = skill.manifest.bounds | {"rank": 1.0}
    return replace(skill, manifest=replace(skill.manifest, bounds=bounds), tensors={**skill.tensors, **extra})


_Q0, _Q1 = TABLE.modules
_DIGEST = "made for module table"

MISMATCHED = [
    Mismatch(
        "backbone",
        ("made for backbone (tiny) bbbbbbbbbbbb, the model has cccccccccccc",),
        model=replace(CONTRACT, backbone_digest="c" * 64),
    ),
    Mismatch("adapter", ("made for shared adapter aaaaaaaaaaaa",), model=replace(CONTRACT, adapter_digest="c" * 64)),
    Mismatch("gamma", ("learned with routing gamma = 0.7, the model has 0.5",), model=_routing(gamma=0.5)),
    Mismatch(
        "window and mode",
        ("routing mode = auto", "routing window = 1, the model has 3"),
        model=_routing(mode="hard", window=3),
    ),
    Mismatch(
        "module renamed",
        (
            _DIGEST,
            *[f"contains {k}.layers.1.q_proj, which" for k in ("expert", "gain", "shift")],
        ),
        model=_table(_Q0, replace(_Q1, name="layers.9.q_proj")),
    ),
    Mismatch(
        "a module too many",
        (_DIGEST, *[f"contains {k}.layers.1.q_proj, which" for k in ("expert", "gain", "shift")]),
        model=_table(_Q0),
    ),
    Mismatch(
        "module wider",
        (_DIGEST, *[f"{k}.layers.1.q_proj is [2, 40], the model expects [2, 48]" for k in ("expert", "gain", "shift")]),
        model=_table(_Q0, replace(_Q1, out_features=48)),
    ),
    Mismatch(
        "rank differs",
        (_DIGEST, "rank.layers.1.q_proj is [2, 3], the model expects [2, 5]"),
        skill=_with_rank,
        model=_table(_Q0, replace(_Q1, rank=5)),
    ),
    Mismatch(
        "no rank gate",
        ("contains rank vectors, the graph has only expert, gain, shift: export with --rank-gate",),
        skill=_with_rank,
        model=_table(kinds=("expert", "gain", "shift")),
    ),
    Mismatch(
        "no shift", ("contains shift vectors, the graph has only expert, gain",), model=_table(kinds=("expert", "gain"))
    ),
    Mismatch(
        "the gain alone",
        tuple(
            f"contains {kind}.layers.1.q_proj, where the model accepts only the gain" for kind in ("expert", "shift")
        ),
        model=replace(CONTRACT, table=replace(TABLE, gain_only=frozenset({"layers.1.q_proj"}))),
    ),
    Mismatch("limit", ("declares gain up to 1.001, this runtime accepts at most 0.5",), limit={"gain": 0.5}),
    Mismatch("two limits", ("declares expert up to 1", "declares shift up to 1"), limit={"expert": 0, "shift": 0.25}),
]


@pytest.mark.parametrize("case", MISMATCHED, ids=lambda case: case.name)
def test_skills_of_another_model_are_refused_with_the_reason(written: Skill, case: Mismatch) -> None:
    check_skill(written, CONTRACT)
    with pytest.raises(SkillMismatchError) as caught:
        check_skill(case.skill(written), case.model, case.limit)
    assert "skill 'tiny' does not fit tiny (fp32)" in caught.value.message
    assert_faults(caught.value, case.faults)


def test_the_table_of_mismatches_has_no_duplicates() -> None:
    assert len({case.name for case in MISMATCHED}) == len(MISMATCHED) >= 12


def test_one_expert_fits_every_router(tmp_path: Path) -> None:
    one = manifest(routing=Routing(experts=1, gamma=0.1, window=5))
    skill = write_skill(tmp_path / "one.lime", one, vectors(experts=1))
    check_skill(skill, CONTRACT)
    assert skill.tensors[f"gain.{MODULES[0]}"].shape == (1, 40)


def test_a_skill_that_fits_is_taken_up_to_the_limit(written: Skill) -> None:
    check_skill(written, CONTRACT, written.manifest.bounds)
    assert LIMITS == {"expert": 16, "gain": 8, "shift": 64, "rank": 16, "prefix": 64}
