"""TODO."""

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
from lime_edge.reports.tables import STDOUT, Table, report
from lime_edge.training.quiet import silence_libraries

from .options import json_option, path_type

if TYPE_CHECKING:
    from lime_edge.skills.package import Skill
    from lime_edge.training.learn_skill import Recipe
from .options import COUNT, RATE, name_list
from .train import figure_rows


@click.command()
@click.argument("data", type=path_type())
@click.option("-c", "--checkpoint", required=True, type=path_type(), help="The checkpoint, from lime-edge train.")
@click.option("--name", required=True, help="Lower-case letters, digits, dots, dashes and underscores.")
@click.option("-o", "--output", type=path_type(), metavar="FILE", help="The package to write.  [default: NAME.lime]")
@click.option(
    "--valid", type=path_type(), metavar="FILE", help="Rows to measure on.  [default: valid.jsonl beside, or a tenth]"
)
@click.option(
    "--rounded",
    type=path_type(),
    metavar="DIR",
    help="An int4 export of the checkpoint: the skill is learned on its weights.",
)
@click.option("--steps", type=COUNT, default=200, show_default=True, help="Optimiser steps.")
@click.option("--minutes", type=RATE, help="Stop after this long, if the steps are not done by then.")
@click.option("--batch", type=COUNT, default=8, show_default=True, help="Rows a step.")
@click.option(
    "--rate",
    "vector_rate",
    type=RATE,
    default=2e-2,
    show_default=True,
    help="Learning rate; expert vectors have 10 times it, gains 4 times, shifts 0.3 times.",
)
@click.option(
    "--experts", type=COUNT, default=1, show_default=True, help="Expert vectors: 1, or as many as the checkpoint has."
)
@click.option(
    "--expert/--no-expert",
    default=None,
    help="Learn how much of the shared adapter to add.  [default: only with several experts]",
)
@click.option(
    "--gain-only",
    metavar="NAMES",
    help='Projections whose gain alone is learned, "" for none.  [default: those inside of feed-forward blocks]',
)
@click.option(
    "--rank-gate", is_flag=True, help="Also learn a gate on the adapter's rank; export with --rank-gate, too."
)
@click.option(
    "--activation",
    type=click.Choice(["always", "response"]),
    default="always",
    show_default=True,
    help="Where the skill applies; response leaves the reading of the prompt to the base, so that skills share it.",
)
@click.option("--system", metavar="TEXT", help="System text that the skill is learned and used with.")
@click.option(
    "--dtype", type=click.Choice(["i8", "f16"]), default="i8", show_default=True, help="How values are stored."
)
@click.option("--max-length", type=COUNT, default=512, show_default=True, help="Longer rows, in tokens, are left out.")
@click.option(
    "--metric-rows",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Rows to measure on; 0 measures nothing.",
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of the same command stopped.")
@click.option("--seed", default=0, show_default=True, help="Of the order of rows and of what is drawn from them.")
@click.option("--description", help="What the skill does.")
@click.option("--license", "licence", metavar="SPDX", help="For example Apache-2.0.")
@click.option("--author", help="Who made it.")
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
    **settings: Any,
) -> None:
    """Learn a skill from examples, with model and shared adapter frozen.

    DATA is a JSONL file, or a folder with train.jsonl and maybe valid.jsonl. The package says how good the skill is
    against the base, measured on the values that ship.
    """
    plan_of = {name: settings.pop(name) for name in ("steps", "minutes", "batch", "vector_rate", "seed")}
    about_of = {"description": "description", "licence": "license", "author": "author", "version": "version"}
    found = {there: settings.pop(here) for here, there in about_of.items()}
    about = {key: value for key, value in found.items() if value is not None}
    _check_about(settings["name"], settings["system"], about)
    with require_extra("train"):
        from lime_edge.training import learn_skill as learning
    output = Path(f"{settings['name']}{SKILL_SUFFIX}") if output is None else output
    output.parent.mkdir(parents=True, exist_ok=True)
    named = settings.pop("gain_only")
    gain_only = None if named is None else name_list(named)
    recipe: Recipe = learning.Recipe(about=about, gain_only=gain_only, **settings)
    plan = replace(learning.SKILL_PLAN, **plan_of)
    with silence_libraries():
        skill, figures = learning.learn(data, checkpoint, output, recipe, plan, valid, rounded, resume)
    _report_skill(skill, figures, target)


def _check_about(name: str, system: str | None, about: Mapping[str, str]) -> None:
    """What an author says of a skill, checked before the training and not after it."""
    from lime_edge.contract.routing import Routing
    from lime_edge.skills.manifest import Manifest, manifest_faults

    nothing = "0" * 64
    whole: dict[str, Any] = {"version": "1.0.0", "created": "2000-01-01", "routing": Routing(), **about}
    prompt: Any = {"system": system, "generation": {}, "stop": []}
    draft = Manifest(name=name, backbone=nothing, adapter=nothing, modules=nothing, prompt=prompt, **whole)
    if faults := manifest_faults(draft.sealed({}, nothing).to_dict()):
        raise ConfigError("the skill cannot be described so", [fault.removeprefix("manifest.") for fault in faults])


def _report_skill(skill: Skill, figures: Mapping[str, float], target: str | None) -> None:
    from lime_edge.skills.package import describe

    metrics = [
        (metric["name"], share(metric["base"]), share(metric["skill"]), str(metric["rows"]))
        for metric in skill.manifest.metrics
    ]
    facts = [("file", f"{skill.path}, {size(skill.size)}"), ("digest", short(skill.digest)), *figure_rows(figures)]
    tables = [Table(f"skill {skill.name} {skill.manifest.version}", facts)]
    if metrics:
        tables.append(Table("", metrics, ("metric", "base", skill.name, "rows"), (1, 2, 3)))
    report({"skill": describe(skill), "figures": dict(figures)}, tables, target)
    if target != STDOUT:
        click.echo("skill and base are measured on rows that were not trained on")
