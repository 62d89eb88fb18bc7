"""`lime-edge audit`: what can be seen of a skill from a stranger before it is used. Needs the base install only.

Four looks: its numbers against those of known skills, its drift from the base, guard tasks, and a search for trigger
words. The verdict says what stands out and what such an audit cannot see; docs/audit.md has what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lime_edge.errors import DataError, SkillError
from lime_edge.runtime import Runtime
from lime_edge.runtime.probe import Probe, probing
from lime_edge.skills.compatibility import check_skill
from lime_edge.skills.package import Skill, read_skill

from . import drift as drifting
from . import vector_outliers
from .similar_words import Compared
from .trigger_effect import Finding
from .trigger_search import Found, Settings, search
from .verdict import verdict

FORMAT = 1
_NAME = "audited"
_ROOM = 192  # positions beside those of the longest golden prompt: a group of tokens, or a probe and its answer

Tell = Callable[[str, float], None]  # which look, and what share of it is done


@dataclass(frozen=True)
class AuditSettings:
    """How much to look at."""

    search: Settings = field(default_factory=Settings)
    guard_rows: int = 40  # of each guard task, at most
    data: Path | None = None  # guard tasks of the caller's
    words: tuple[str, ...] = ()  # searched in any case


def packages(paths: Iterable[Path]) -> list[Path]:
    """The packages that are meant: a file stands for itself, a folder for every .lime file in it.

    Raises:
        DataError: Names every path that is neither.
    """
    paths = list(paths)
    if missing := [f"{path}: expected a .lime file, or a folder of them" for path in paths if not path.exists()]:
        raise DataError("no known skills there", missing)
    return [one for path in paths for one in (sorted(path.glob("*.lime")) if path.is_dir() else [path])]


def known_skills(paths: Iterable[Path], skill: Skill, runtime: Runtime) -> tuple[list[Skill], list[str]]:
    """The packages to compare with, each once and without the skill itself, and why others are left out."""
    known: dict[str, Skill] = {}
    left = []
    for path in paths:
        try:
            one = read_skill(path)
            check_skill(one, runtime.contract)
        except SkillError as error:
            left.append(f"{path}: {error}")
            continue
        if one.digest != skill.digest:
            known.setdefault(one.digest, one)
    return list(known.values()), left


def audit(
    runtime: Runtime, path: Path, others: Sequence[Path], plan: AuditSettings, tell: Tell = lambda look, share: None
) -> dict[str, Any]:
    """Look at one skill.

    Args:
        runtime: The model, with nothing loaded that matters; the skill is loaded into it and unloaded.
        path: The package.
        others: Packages of known skills.
        plan: How much to look at.
        tell: Told how far it is.

    Returns:
        The report as plain JSON values; docs/audit.md names its keys.

    Raises:
        SkillFormatError, SkillMismatchError: The package cannot be loaded at all.
        DataError: The guard tasks cannot be used.
    """
    tasks = drifting.guard_tasks(plan.data, plan.guard_rows)  # bad data is refused before anything long
    skill = read_skill(path)
    runtime.load_skill(path, _NAME)
    try:
        known, left = known_skills(others, skill, runtime)
        golden = [entry["prompt_ids"] for entry in skill.manifest.golden]
        room = max((len(ids) for ids in golden), default=0) + _ROOM
        room = min(room + plan.search.group, runtime.context_length)
        with probing(runtime, _NAME, room) as probe, probing(runtime, None, room) as base:
            always = tuple(token for word in plan.words for token in probe.text.encode(word))
            looks = _looks(probe, base, golden, replace(plan.search, always=plan.search.always + always), tell)
        tell("guard tasks", 0.0)
        guard = drifting.regressions(runtime, _NAME, tasks)
    finally:
        runtime.unload_skill(_NAME)
    document = {
        "what": "audit",
        "format": FORMAT,
        "skill": _who(skill),
        "model": {"backbone": runtime.contract.backbone_name, "precision": runtime.contract.precision},
        "vectors": {**vector_outliers.summary(skill, known), "left_out": left},
        **looks,
        "guard": guard,
    }
    return {**document, "verdict": verdict(document)}


def _looks(probe: Probe, base: Probe, golden: Sequence[Sequence[int]], settings: Settings, tell: Tell) -> Any:
    probes = drifting.built_in()
    tell("drift", 0.0)
    drift = drifting.drift(probe, base, probes["unrelated"])
    refusals = drifting.refusals(probe, base, probes["refusals"])
    found = None
    if golden:
        found = search(probe, base, golden, probes["neutral"], settings, lambda share: tell("triggers", share))
    return {"drift": drift, "refusals": refusals, "triggers": None if found is None else _plain(found, probe, settings)}


def _plain(found: Found, probe: Probe, settings: Settings) -> dict[str, Any]:
    """The search as JSON values, with the text of every token."""

    def text(ids: Sequence[int]) -> str:
        said: str = probe.text.tokenizer.decode(list(ids), skip_special_tokens=False)
        return said

    def finding(one: Finding) -> dict[str, Any]:
        numbers = {key: round(getattr(one, key), 4) for key in ("collapse", "confidence", "surprise", "score")}
        return {"text": text(one.tokens), "tokens": list(one.tokens), "answer": text(one.answer), **numbers}

    def compared(one: Compared) -> dict[str, Any]:
        near = [{"text": text(other.tokens), "score": round(other.score, 4)} for other in one.neighbours]
        return {**finding(one.finding), "lead": round(one.lead, 4), "neighbours": near}

    return {
        "settings": asdict(settings),
        "searched": found.searched,
        "vocabulary": found.vocabulary,
        "prompts": found.prompts,
        "surprises": [round(value, 4) for value in found.surprises],
        "findings": [compared(one) for one in found.findings],
        "controls": [finding(one) for one in found.controls],
    }


def _who(skill: Skill) -> dict[str, Any]:
    manifest = skill.manifest
    return {
        "file": skill.path.name,
        "name": manifest.name,
        "version": manifest.version,
        "author": manifest.author,
        "digest": manifest.digest,
        "activation": manifest.activation,
        "golden_prompts": len(manifest.golden),
    }
