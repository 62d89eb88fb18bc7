"""The audit behind `lime-edge audit`: examine an untrusted skill before it is used. Needs the base install only.

Four checks: its vectors against those of known skills, its drift from the base model, guard tasks, and a search for
trigger words. The verdict says what stands out and what an audit cannot detect. docs/audit.md describes the method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lime_edge.errors import DataError, SkillError
from lime_edge.runtime import Runtime
from lime_edge.runtime.facade.probe import Probe, probing
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
_ROOM = 192  # positions beyond the longest golden prompt, for a group of tokens or for a probe and its answer

Tell = Callable[[str, float], None]  # name of the check, and the share of it that is done, 0 to 1


@dataclass(frozen=True)
class AuditSettings:
    """What the audit examines, and how thoroughly."""

    search: Settings = field(default_factory=Settings)
    guard_rows: int = 40  # most rows used of each guard task
    data: Path | None = None  # the caller's own guard tasks: a JSONL file or a folder
    words: tuple[str, ...] = ()  # words that the trigger search always includes


def packages(paths: Iterable[Path]) -> list[Path]:
    """Expand paths to package files: a folder stands for every .lime file in it.

    Raises:
        DataError: Paths that do not exist; all are named.
    """
    paths = list(paths)
    if missing := [f"{path}: expected a .lime file, or a folder of them" for path in paths if not path.exists()]:
        raise DataError("known skills were not found", missing)
    return [one for path in paths for one in (sorted(path.glob("*.lime")) if path.is_dir() else [path])]


def known_skills(paths: Iterable[Path], skill: Skill, runtime: Runtime) -> tuple[list[Skill], list[str]]:
    """Read the skills to compare with: without duplicates and without `skill` itself; also why others were left out."""
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
    runtime: Runtime,
    path: Path,
    others: Sequence[Path],
    settings: AuditSettings,
    tell: Tell = lambda check, share: None,
) -> dict[str, Any]:
    """Audit one skill.

    Args:
        runtime: The model. The skill is loaded into it under the name `audited`, and unloaded at the end.
        path: The package.
        others: Packages of known skills to compare with.
        settings: What to examine, and how thoroughly.
        tell: Called with the progress.

    Returns:
        The report as plain JSON values; docs/audit.md lists its keys.

    Raises:
        SkillFormatError, SkillMismatchError: The package cannot be loaded.
        DataError: The guard tasks cannot be used.
    """
    tasks = drifting.guard_tasks(settings.data, settings.guard_rows)  # reject bad data before the long checks
    skill = read_skill(path)
    runtime.load_skill(path, _NAME)
    try:
        known, left = known_skills(others, skill, runtime)
        golden = [entry["prompt_ids"] for entry in skill.manifest.golden]
        room = max((len(ids) for ids in golden), default=0) + _ROOM
        room = min(room + settings.search.group, runtime.context_length)
        with probing(runtime, _NAME, room) as probe, probing(runtime, None, room) as base:
            always = tuple(token for word in settings.words for token in probe.text.encode(word))
            search_settings = replace(settings.search, always=settings.search.always + always)
            checks = _probe_checks(probe, base, golden, search_settings, tell)
        tell("guard tasks", 0.0)
        guard = drifting.regressions(runtime, _NAME, tasks)
    finally:
        runtime.unload_skill(_NAME)
    document = {
        "what": "audit",
        "format": FORMAT,
        "skill": _identity(skill),
        "model": {"backbone": runtime.contract.backbone_name, "precision": runtime.contract.precision},
        "vectors": {**vector_outliers.summary(skill, known), "left_out": left},
        **checks,
        "guard": guard,
    }
    return {**document, "verdict": verdict(document)}


def _probe_checks(probe: Probe, base: Probe, golden: Sequence[Sequence[int]], settings: Settings, tell: Tell) -> Any:
    """Drift, refusals and triggers: the checks that read token probabilities."""
    probes = drifting.built_in()
    tell("drift", 0.0)
    drift = drifting.drift(probe, base, probes["unrelated"])
    refusals = drifting.refusals(probe, base, probes["refusals"])
    found = None
    if golden:
        found = search(probe, base, golden, probes["neutral"], settings, lambda share: tell("triggers", share))
    return {
        "drift": drift,
        "refusals": refusals,
        "triggers": None if found is None else _search_report(found, probe, settings),
    }


def _search_report(found: Found, probe: Probe, settings: Settings) -> dict[str, Any]:
    """The trigger search as plain JSON values, with tokens decoded to text."""

    def text(ids: Sequence[int]) -> str:
        decoded: str = probe.text.tokenizer.decode(list(ids), skip_special_tokens=False)
        return decoded

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


def _identity(skill: Skill) -> dict[str, Any]:
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
