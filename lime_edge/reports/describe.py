"""Describes files on disk: skill packages, exported models and checkpoints. Needs the base install only.

Every function returns the facts twice: as plain JSON values, and as tables for people.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lime_edge.common.formatting import share, short, size
from lime_edge.common.strict_json import show
from lime_edge.contract.model import read_contract
from lime_edge.contract.model_files import file_faults
from lime_edge.contract.module_table import ModuleTable
from lime_edge.contract.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MODEL_JSON
from lime_edge.errors import ConfigError, ModelError, SkillError
from lime_edge.skills.interface import AnswerForm, Interface
from lime_edge.skills.manifest import Made
from lime_edge.skills.package import Skill, describe, read_skill
from lime_edge.store.lookup import skill_files
from lime_edge.trust.policy import TrustPolicy, read_trusted_skill

from .tables import Table

Report = tuple[dict[str, Any], list[Table]]
_ADAPTER_KEYS = (
    "base_model_name_or_path",
    "backbone_digest",
    "base",
    "r",
    "alpha",
    "target_modules",
    "routing",
    "kinds",
)


def describe_path(path: Path) -> Report:
    """Describe a skill package, an exported model, a checkpoint or a folder of packages.

    Raises:
        ConfigError: `path` is none of these.
        SkillFormatError, ModelError: The file or model is damaged.
    """
    if path.is_file():
        return describe_skill(read_skill(path))
    if (path / MODEL_JSON).is_file():
        return describe_model(path)
    if (path / ADAPTER_CONFIG).is_file():
        return describe_checkpoint(path)
    if path.is_dir() and skill_files(path):
        return describe_skills(path)
    found = "is a directory without any of these" if path.is_dir() else "does not exist"
    raise ConfigError(
        f"{path} {found}; expected a .lime file, an exported model ({MODEL_JSON}) or a checkpoint ({ADAPTER_CONFIG})"
    )


def describe_skill(skill: Skill) -> Report:
    """One package: the model it fits, its settings and its measured quality."""
    document = describe(skill)
    manifest = skill.manifest
    facts = [
        ("file", f"{skill.path}, {size(skill.size)}"),
        ("digest", manifest.digest),
        ("description", manifest.description or "none"),
        ("author, licence", f"{manifest.author or 'unknown'}, {manifest.license}, {manifest.created}"),
        ("made for", f"{manifest.backbone_name or 'backbone'} {short(manifest.backbone)}"),
        ("shared adapter", f"{short(manifest.adapter)}, module table {short(manifest.modules)}"),
        ("vectors", f"{', '.join(skill.kinds)} of {document['modules_count']} modules, E = {manifest.experts}"),
        ("values", f"{document['values']:,} as {skill.dtype}"),
        ("bounds", ", ".join(f"|{kind}| <= {bound:g}" for kind, bound in manifest.bounds.items())),
        ("applies", "always" if manifest.activation == "always" else "to the response; the base reads the prompt"),
        *_interface(manifest.interface),
        ("generation", _settings({**manifest.prompt["generation"], "stop": manifest.prompt["stop"]})),
        ("golden prompts", str(len(manifest.golden))),
        ("draft table", _draft(skill)),
        ("how it was made", _made(manifest.made)),
    ]
    tables = [Table(f"skill {manifest.name} {manifest.version}", facts)]
    if manifest.metrics:
        tables.append(_metrics(skill))
    return {"what": "skill", **document}, tables


def _interface(interface: Interface) -> Iterator[tuple[str, str]]:
    """How a plain request is wrapped, and what comes back."""
    yield "system text", "none" if interface.system is None else show(interface.system)
    around = {"prefix": interface.prefix, "suffix": interface.suffix}
    yield "a request becomes", _settings(around, "itself")
    yield "answers", _answers(interface.answers)
    if interface.examples:
        yield "examples", "\n".join(show(example) for example in interface.examples)


def _answers(answers: AnswerForm) -> str:
    if answers.kind == "choices":
        return f"one of {len(answers.value)} choices: {show(answers.value)}"
    words = {"schema": "JSON of the schema", "regex": "text matching"}
    return f"{words[answers.kind]} {show(answers.value)}" if answers.kind in words else "free text"


def _draft(skill: Skill) -> str:
    if skill.draft is None:
        return "none"
    table = skill.draft
    return f"{len(table):,} entries of at most {table.order - 1} tokens and the next, {size(table.size)}"


def _made(made: Made | None) -> str:
    if made is None:
        return "not said"
    instruction = {"carried": "carries its instruction", "kept": "keeps its instruction in the prompt"}
    data = made["data"]
    counts = f"{data['dropped']:,} dropped, {data['duplicates']:,} duplicates, {data['overlap']:,} also in validation"
    how = ", ".join([made["how"], *([instruction[made["instruction"]]] if made["instruction"] in instruction else [])])
    return f"{how}; {data['rows']:,} rows: {counts}"


def _settings(settings: Mapping[str, Any], nothing: str = "left to the caller") -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in settings.items() if value) or nothing


def _metrics(skill: Skill) -> Table:
    def row(metric: Mapping[str, Any]) -> Iterator[str]:
        yield f"{metric['name']} on {metric['split']} {short(metric['dataset'])}, {metric['date']}"
        yield from (share(metric[key]) if key in metric else "" for key in ("base", "skill", "lora"))
        yield str(metric["rows"])

    rows = [list(row(metric)) for metric in skill.manifest.metrics]
    return Table("", rows, ("measured", "base", "skill", "LoRA", "rows"), (1, 2, 3, 4))


def describe_model(directory: Path) -> Report:
    """An exported model directory and its skills.

    Raises:
        ModelError: A file of the model is missing, truncated or changed.
    """
    contract = read_contract(directory)
    if faults := file_faults(directory, contract):
        raise ModelError(f"{directory} cannot be used: export or copy the directory again", faults)
    sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir()) if path.is_file()}
    table, routing = contract.table, contract.routing
    revision = f" at {contract.backbone_revision}" if contract.backbone_revision else ""
    facts = [
        ("backbone", f"{contract.backbone_name}{revision}, {short(contract.backbone_digest)}"),
        ("shared adapter", f"{short(contract.adapter_digest)}, module table {short(table.digest)}"),
        ("precision", contract.precision),
        ("graph", short(contract.graph_digest)),
        ("vectors", f"{', '.join(table.kinds)} of {len(table.modules)} modules, E = {table.experts}"),
        *([("gain only", f"{len(table.gain_only)} of these modules")] if table.gain_only else []),
        ("one loaded skill", _numbers(table)),
        ("routing", _facts(routing.to_dict())),
        ("files", ", ".join(f"{name} {size(count)}" for name, count in sizes.items() if name in dict(contract.files))),
        *([("largest parts", _shares(contract.parts))] if contract.parts else []),
        ("all files", size(sum(sizes.values()))),
    ]
    document = {"what": "model", "directory": str(directory), **json.loads(contract.to_json()), "sizes": sizes}
    listed, skills = describe_skills(directory) if skill_files(directory) else ({"skills": []}, [])
    return {**document, "skills": listed["skills"]}, [Table(f"exported model {directory}", facts), *skills]


def _shares(parts: Sequence[tuple[str, int]]) -> str:
    """Parts with their bytes and their share of all parts."""
    whole = sum(count for _, count in parts) or 1
    return ", ".join(f"{name} {size(count)} ({100 * count / whole:.0f} %)" for name, count in parts)


def _numbers(table: ModuleTable) -> str:
    several = f", {table.row_size:,} with {table.experts}" if table.experts > 1 else ""
    return f"{table.segment:,} numbers with one expert{several}"


def describe_checkpoint(directory: Path) -> Report:
    """A checkpoint: the shared adapter in PEFT's layout.

    Raises:
        ConfigError: Its configuration file cannot be read.
    """
    try:
        config = json.loads((directory / ADAPTER_CONFIG).read_text("utf-8"))
        found = {key: config.get(key) for key in _ADAPTER_KEYS}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{directory / ADAPTER_CONFIG} cannot be read: {error}") from error
    weights = directory / ADAPTER_WEIGHTS
    facts = [(key.replace("_", " "), _plain(value)) for key, value in found.items()]
    facts.append(("adapter", size(weights.stat().st_size) if weights.is_file() else f"{weights.name} is missing"))
    packages = [path.name for path in skill_files(directory)]
    facts.append(("skills", ", ".join(packages) or "none"))
    document = {"what": "checkpoint", "directory": str(directory), **found, "skills": packages}
    return document, [Table(f"checkpoint {directory}", facts)]


def describe_skills(directory: Path, trust: TrustPolicy | None = None) -> Report:
    """One line for each package in a directory; damaged and refused packages are listed with the reason.

    Args:
        directory: An exported model or a folder of packages.
        trust: The policy that packages must satisfy; None accepts all.

    Raises:
        ConfigError: The directory does not exist.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} is not a directory; expected an exported model or a folder of .lime files")
    found = [_listed(path, trust) for path in skill_files(directory)]
    columns = ("skill", "version", "size", "measured, base -> skill", "description")
    if not found:
        return {"skills": []}, [Table("", [(f"no skills in {directory}", "")])]
    return {"skills": [entry for entry, _ in found]}, [Table("", [row for _, row in found], columns, (2,))]


def _plain(value: Any) -> str:
    """A configuration value without quotes and brackets."""
    if isinstance(value, dict):
        return _facts(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _facts(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _listed(path: Path, trust: TrustPolicy | None) -> tuple[dict[str, Any], list[str]]:
    try:
        skill = read_trusted_skill(path, trust).skill
    except SkillError as error:
        return {"file": str(path), "error": str(error)}, [path.stem, "", "", "", f"cannot be used: {error}"]
    manifest = skill.manifest
    measured = "\n".join(f"{m['name']} {share(m['base'])} -> {share(m['skill'])}" for m in manifest.metrics)
    return describe(skill), [manifest.name, manifest.version, size(skill.size), measured, manifest.description]
