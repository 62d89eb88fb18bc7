"""TODO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lime_edge.common.strict_json import bounded
from lime_edge.contract.model import ModelContract
from lime_edge.contract.vector_kinds import GAIN, Kind
from lime_edge.errors import SkillMismatchError

from .manifest import Manifest
from .package import Skill
from .vector_codec import kind_of

#: The blast radius: the largest |value| of each kind that a runtime takes unless told otherwise. The shared
#: adapter is trusted; a skill can only rescale and shift, and never by more than this.
LIMITS: dict[Kind, float] = {"expert": 16.0, "gain": 8.0, "shift": 64.0, "rank": 16.0, "prefix": 64.0}
_HINT = "learn the skill again on this checkpoint, or export the checkpoint it was made on"


def check_skill(skill: Skill, contract: ModelContract, limit: Mapping[Kind, float] | None = None) -> None:
    """Hold a sound skill against a model.

    Args:
        skill: From `read_skill`.
        contract: The model's ``lime.json``.
        limit: The largest |value| taken of each kind, over `LIMITS`.

    Raises:
        SkillMismatchError: Names everything that does not fit and what to do.
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
        return  # one expert takes everything: no constant of the router matters
    theirs = contract.routing.to_dict()
    for key, value in manifest.routing.to_dict().items():
        if value != theirs[key]:
            yield f"learned with routing {key} = {value}, the model has {theirs[key]}"


def _table_faults(skill: Skill, contract: ModelContract) -> Iterator[str]:
    table = contract.table
    for kind in skill.kinds:
        if kind not in table.kinds:
            what = "export with --rank-gate" if kind == "rank" else "export again with this kind"
            yield f"holds {kind} vectors, the graph has only {', '.join(table.kinds)}: {what}"
        wanted = {f"{kind}.{module.name}": module.shape(kind, skill.manifest.experts) for module in table.modules}
        without = {f"{kind}.{name}" for name in table.gain_only if kind not in GAIN}
        found = {name: shape for name, shape in skill.shapes.items() if kind_of(name) == kind}
        if extra := [name for name in found if name not in wanted]:
            yield f"holds {_some(extra)}, which the model does not have"
        if extra := sorted(without & found.keys()):
            yield f"holds {_some(extra)}, of which the model takes the gain alone: export without --gain-only"
        for name in wanted.keys() & found.keys():
            if found[name] != wanted[name]:
                yield f"{name} is {list(found[name])}, the model takes {list(wanted[name])}"


def _prefix_faults(skill: Skill) -> Iterator[str]:
    if "prefix" in skill.kinds and skill.manifest.activation != "always":
        yield f"its prefix stands before the prompt, its activation is {skill.manifest.activation}; expected always"


def _limit_faults(manifest: Manifest, limit: Mapping[Kind, float]) -> Iterator[str]:
    for kind, bound in manifest.bounds.items():
        if not bound <= limit[kind]:
            most = f"this runtime takes at most {limit[kind]:g}"
            yield f"declares {kind} up to {bound:g}, {most}: raise the limit if you trust the author"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - 4
    return ", ".join(names[:4]) + (f" and {rest} more" if rest > 0 else "")
