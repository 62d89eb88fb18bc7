"""Whether a skill fits a model: checksums, routing constants, module table, and limits on vector values.

Normative page: docs/skill-format.md, section Fitness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lime_edge.common.strict_json import bounded
from lime_edge.contract.model import ModelContract
from lime_edge.contract.vector_kinds import GAIN, Kind
from lime_edge.errors import SkillMismatchError

from .manifest import Manifest
from .package import Skill
from .vector_codec import kind_of

#: Default limits: the largest |value| of each kind that a runtime accepts. The shared adapter is trusted; an untrusted
#: skill can only rescale and shift what it computes, and by no more than this.
LIMITS: dict[Kind, float] = {"expert": 16.0, "gain": 8.0, "shift": 64.0, "rank": 16.0, "prefix": 64.0}
_HINT = "learn the skill again on this checkpoint, or export the checkpoint it was made on"


def check_skill(skill: Skill, contract: ModelContract, limit: Mapping[Kind, float] | None = None) -> None:
    """Check that a valid skill fits a model.

    Args:
        skill: From `read_skill`.
        contract: The model's ``lime.json``.
        limit: The largest |value| accepted of each kind; overrides entries of `LIMITS`.

    Raises:
        SkillMismatchError: Names everything that does not fit, and what to do.
    """
    made_for = [*_origin_faults(skill.manifest, contract), *_routing_faults(skill.manifest, contract)]
    shaped = [*_table_faults(skill, contract), *_prefix_faults(skill)]
    limits = [*_limit_faults(skill.manifest, {**LIMITS, **(limit or {})})]
    if faults := made_for + shaped + limits:
        model = f"{contract.backbone_name} ({contract.precision})"
        hint = f": {_HINT}" if made_for or shaped else ""
        raise SkillMismatchError(f"skill {skill.name!r} does not fit {model}{hint}", bounded(faults))


def _origin_faults(manifest: Manifest, contract: ModelContract) -> Iterator[str]:
    made_for = f" ({manifest.backbone_name})" if manifest.backbone_name else ""
    pairs = {
        f"backbone{made_for}": (manifest.backbone, contract.backbone_digest),
        "shared adapter": (manifest.adapter, contract.adapter_digest),
        "module table": (manifest.modules, contract.table.digest),
    }
    for what, (wanted, found) in pairs.items():
        if wanted != found:
            yield f"made for {what} {wanted[:12]}, the model has {found[:12]}"


def _routing_faults(manifest: Manifest, contract: ModelContract) -> Iterator[str]:
    if manifest.experts == 1:
        return  # every token goes to the only expert: routing constants have no effect
    theirs = contract.routing.to_dict()
    for key, value in manifest.routing.to_dict().items():
        if value != theirs[key]:
            yield f"learned with routing {key} = {value}, the model has {theirs[key]}"


def _table_faults(skill: Skill, contract: ModelContract) -> Iterator[str]:
    table = contract.table
    for kind in skill.kinds:
        if kind not in table.kinds:
            what = "export with --rank-gate" if kind == "rank" else "export again with this kind"
            yield f"contains {kind} vectors, the graph has only {', '.join(table.kinds)}: {what}"
        wanted = {f"{kind}.{module.name}": module.shape(kind, skill.manifest.experts) for module in table.modules}
        without = {f"{kind}.{name}" for name in table.gain_only if kind not in GAIN}
        found = {name: shape for name, shape in skill.shapes.items() if kind_of(name) == kind}
        if extra := [name for name in found if name not in wanted]:
            yield f"contains {_some(extra)}, which the model does not have"
        if extra := sorted(without & found.keys()):
            yield f"contains {_some(extra)}, where the model accepts only the gain: export without --gain-only"
        for name in wanted.keys() & found.keys():
            if found[name] != wanted[name]:
                yield f"{name} is {list(found[name])}, the model expects {list(wanted[name])}"


def _prefix_faults(skill: Skill) -> Iterator[str]:
    if "prefix" in skill.kinds and skill.manifest.activation != "always":
        yield f"its prefix precedes the prompt, but activation is {skill.manifest.activation}; expected always"


def _limit_faults(manifest: Manifest, limit: Mapping[Kind, float]) -> Iterator[str]:
    for kind, bound in manifest.bounds.items():
        if not bound <= limit[kind]:
            most = f"this runtime accepts at most {limit[kind]:g}"
            yield f"declares {kind} up to {bound:g}, {most}: raise the limit if you trust the author"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - 4
    return ", ".join(names[:4]) + (f" and {rest} more" if rest > 0 else "")
