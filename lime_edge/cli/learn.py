"""The command `lime-edge learn`: learn a skill on a checkpoint and write its package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lime_edge.common.extras import require_extra
from lime_edge.common.formatting import share, short, size
from lime_edge.contract.names import SKILL_SUFFIX
from lime_edge.errors import ConfigError
from lime_edge.reports.tables import STDOUT, Table, report, say
from lime_edge.training.quiet import silence_libraries

from .answers import read_answers
from .options import COUNT, RATE, json_option, name_list, path_type
from .train import figure_rows, resumable

_INSTRUCTION = {
    "carried": "carried by the skill: a request is the bare text",
    "kept": "kept in the interface: a request is the bare text",
    "none": "the prompts share none",
}

if TYPE_CHECKING:
    from lime_edge.skills.package import Skill
    from lime_edge.training.learn_skill import Recipe


@click.command()
@click.argument("data", type=path_type())
@click.option("-c", "--checkpoint", required=True, type=path_type(), help="The checkpoint from lime-edge train.")
@click.option("--name", required=True, help="Lower-case letters, digits, dots, dashes and underscores.")
@click.option("-o", "--output", type=path_type(), metavar="FILE", help="The package to write.  [default: NAME.lime]")
@click.option(
    "--valid",
    type=path_type(),
    metavar="FILE",
    help="Rows to measure on.  [default: valid.jsonl beside DATA, or a tenth of DATA]",
)
@click.option(
    "--rounded",
    type=path_type(),
    metavar="DIR",
    help="An int4 export of the checkpoint, on whose weights the skill is learned.",
)
@click.option("--steps", type=COUNT, default=200, show_default=True, help="Optimiser steps.")
@click.option("--minutes", type=RATE, help="Stop after this many minutes even if steps remain.")
@click.option("--batch", type=COUNT, default=8, show_default=True, help="Rows per step.")
@click.option(
    "--rate",
    "vector_rate",
    type=RATE,
    default=2e-2,
    show_default=True,
    help="Base learning rate, times 10 for expert vectors, 4 for gains and 0.3 for shifts.",
)
@click.option(
    "--experts",
    type=COUNT,
    default=1,
    show_default=True,
    help="Number of expert vectors: 1, or that of the checkpoint.",
)
@click.option(
    "--expert/--no-expert",
    default=None,
    help="Learn expert vectors, which scale the shared adapter.  [default: only with several experts]",
)
@click.option(
    "--gain-only",
    metavar="NAMES",
    help='Projections of which only the gain is learned; "" is none.  [default: those inside feed-forward blocks]',
)
@click.option(
    "--rank-gate",
    is_flag=True,
    help="Also learn a gate on the adapter's rank; needs a model exported with --rank-gate.",
)
@click.option(
    "--activation",
    type=click.Choice(["always", "response"]),
    default="always",
    show_default=True,
    help="Where the skill applies; with response the base reads the prompt, and skills share its cache.",
)
@click.option(
    "--keep-instruction",
    is_flag=True,
    help="Keep what all prompts share in the skill's interface, instead of cutting it before the skill learns.",
)
@click.option(
    "--answers",
    type=path_type(),
    metavar="FILE",
    help="JSON schema, or JSON list of choices, that answers follow.  [default: choices that all rows share]",
)
@click.option("--no-draft", "draft", is_flag=True, flag_value=False, default=True, help="Make no draft table.")
@click.option("--system", metavar="TEXT", help="System text that the skill is learned and used with.")
@click.option(
    "--dtype",
    type=click.Choice(["i8", "f16"]),
    default="i8",
    show_default=True,
    help="Number format of the stored vectors.",
)
@click.option("--max-length", type=COUNT, default=512, show_default=True, help="Skip rows with more tokens than this.")
@click.option(
    "--metric-rows",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Number of rows to measure on; 0 skips the measurement.",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted run of the same command.")
@click.option("--seed", default=0, show_default=True, help="Random seed for the order of rows and for sampling.")
@click.option("--description", help="What the skill does.")
@click.option("--license", "licence", metavar="SPDX", help="Licence as an SPDX identifier, for example Apache-2.0.")
@click.option("--author", help="Author of the skill.")
@click.option("--version", help="Semantic version.  [default: 1.0.0]")
@json_option
def learn(
    data: Path,
    checkpoint: Path,
    output: Path | None,
    valid: Path | None,
    rounded: Path | None,
    resume: bool,
    target: str | None,
    answers: Path | None,
    **settings: Any,
) -> None:
    """Learn a skill from examples; the model and the shared adapter stay frozen.

    What all prompts share at their beginning and end, the instruction, is cut: the skill carries it, and a request is
    the bare text. If the skill is then no better than the base with the instruction, it is learned again with it.

    DATA is a data file (JSONL, CSV and others, see docs/data.md), or a folder with train.jsonl and optionally
    valid.jsonl. The skill and the base are measured, with the vectors as stored, and the package records both results.
    No prompt is both trained on and measured on.
    """
    plan_of = {name: settings.pop(name) for name in ("steps", "minutes", "batch", "vector_rate", "seed")}
    about_of = {"description": "description", "licence": "license", "author": "author", "version": "version"}
    found = {there: settings.pop(here) for here, there in about_of.items()}
    about = {key: value for key, value in found.items() if value is not None}
    _check_about(settings["name"], settings["system"], about)
    from lime_edge.skills.interface import AnswerForm

    form = None if answers is None else AnswerForm(**read_answers(answers).to_dict())
    with require_extra("train"):
        from lime_edge.training import learn_skill as learning
    output = Path(f"{settings['name']}{SKILL_SUFFIX}") if output is None else output
    named = settings.pop("gain_only")
    gain_only = None if named is None else name_list(named)
    recipe: Recipe = learning.Recipe(about=about, gain_only=gain_only, answers=form, **settings)
    plan = replace(learning.SKILL_PLAN, **plan_of)
    with resumable(learning.state_folder(output)), silence_libraries():
        skill, figures = learning.learn(data, checkpoint, output, recipe, plan, valid, rounded, resume)
    _report_skill(skill, figures, target)


def _check_about(name: str, system: str | None, about: Mapping[str, str]) -> None:
    """Check the author's metadata before the training starts, not after it."""
    from lime_edge.contract.routing import Routing
    from lime_edge.skills.interface import Interface
    from lime_edge.skills.manifest import Manifest, manifest_faults

    nothing = "0" * 64
    whole: dict[str, Any] = {"version": "1.0.0", "created": "2000-01-01", "routing": Routing(), **about}
    interface = Interface(system=system)
    draft = Manifest(name=name, backbone=nothing, adapter=nothing, modules=nothing, interface=interface, **whole)
    if faults := manifest_faults(draft.sealed({}, nothing).to_dict()):
        raise ConfigError("the metadata of the skill is invalid", [fault.removeprefix("manifest.") for fault in faults])


def _report_skill(skill: Skill, figures: Mapping[str, float], target: str | None) -> None:
    from lime_edge.skills.package import describe

    metrics = [
        (metric["name"], share(metric["base"]), share(metric["skill"]), str(metric["rows"]))
        for metric in skill.manifest.metrics
    ]
    facts = [("file", f"{skill.path}, {size(skill.size)}"), ("digest", short(skill.digest))]
    facts += [("instruction", _instruction(skill, figures)), ("draft table", _draft(figures)), *figure_rows(figures)]
    tables = [Table(f"skill {skill.name} {skill.manifest.version}", facts)]
    if metrics:
        tables.append(Table("", metrics, ("metric", "base", skill.name, "rows"), (1, 2, 3)))
    report({"skill": describe(skill), "figures": dict(figures)}, tables, target)
    if target != STDOUT:
        trained = "rows whose prompts were not used for training"
        measured = f"measured on {metrics[0][3]} {trained}" if metrics else "not measured"
        say(f"skill and base were {measured}\n")


def _instruction(skill: Skill, figures: Mapping[str, float]) -> str:
    """What became of the instruction of the data and, if the skill was learned twice, why."""
    made = skill.manifest.made
    said = _INSTRUCTION[made["instruction"] if made else "none"]
    if "score_kept" not in figures:
        return said
    scores = ("score_kept", "score_carried", "score_base")
    kept, carried, base = (share(figures[name]) for name in scores)
    return f"{said}, since the skill has {kept} with it and {carried} without; the base has {base}"


def _draft(figures: Mapping[str, float]) -> str:
    if "draft_entries" not in figures:
        return "none"
    return f"{figures['draft_entries']:.0f} entries, {size(int(figures['draft_bytes']))}"
