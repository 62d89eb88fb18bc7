"""`lime-edge train`, `learn` and `export`: what model owners and skill authors do. Heavy imports inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lime_edge.common.extras import need
from lime_edge.errors import ConfigError
from lime_edge.reports.tables import STDOUT, Table, report, share, short, size
from lime_edge.training.quiet import quietly

from .options import json_option, path_type

if TYPE_CHECKING:
    from lime_edge.method.config import LimeConfig
    from lime_edge.skills.package import Skill
    from lime_edge.training.learn_skill import Recipe

_COUNT, _RATE = click.IntRange(1), click.FloatRange(0, min_open=True)
_TARGETS = "o_proj,up_proj"
_FIGURES = {
    "steps": ("steps", "{:.0f}"),
    "train_loss": ("loss in training", "{:.4f}"),
    "eval_loss": ("loss on valid.jsonl", "{:.4f}"),
    "tokens_per_second": ("tokens a second", "{:.0f}"),
    "dropped": ("rows left out as too long", "{:.0f}"),
}


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option(
    "-m", "--model", required=True, help="The backbone: a directory, a name on the Hugging Face hub, or default."
)
@click.option("-o", "--output", required=True, metavar="CHECKPOINT", type=path_type(), help="The directory to make.")
@click.option("--steps", type=_COUNT, default=300, show_default=True, help="Optimiser steps.")
@click.option("--minutes", type=_RATE, help="Stop after this long, if the steps are not done by then.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@click.option("--batch", type=_COUNT, default=12, show_default=True, help="Rows a step.")
@click.option("--targets", default=_TARGETS, show_default=True, help="Projections to adapt, by name.")
@click.option(
    "--base", default="lora", show_default=True, help="The method to wrap: lora, lora-fa, dora, slicefine or prompt."
)
@click.option(
    "--rank",
    type=_COUNT,
    default=8,
    show_default=True,
    help="Rank of the shared adapter; rows of slicefine, virtual tokens of prompt.",
)
@click.option("--alpha", type=_RATE, help="The adapter is scaled by alpha / rank.  [default: twice the rank]")
@click.option("--experts", type=_COUNT, default=4, show_default=True, help="Expert vectors of each projection.")
@click.option(
    "--mode", default="auto", show_default=True, help="How experts are selected: auto, hard, soft or auto_soft."
)
@click.option("--window", type=_COUNT, default=1, show_default=True, help="Tokens whose evidence a token is routed by.")
@click.option("--max-length", type=_COUNT, default=512, show_default=True, help="Longer rows, in tokens, are left out.")
@click.option("--shared-rate", type=_RATE, default=4e-4, show_default=True, help="Learning rate of the shared adapter.")
@click.option("--vector-rate", type=_RATE, default=1e-3, show_default=True, help="Learning rate of the expert vectors.")
@click.option(
    "--save-every", type=_COUNT, default=100, show_default=True, help="Steps between what --resume can start from."
)
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory, more time.")
@click.option("--seed", default=0, show_default=True, help="Of the order of rows and the initial weights.")
@json_option
def train(
    data: tuple[str, ...], model: str, output: Path, max_length: int, resume: bool, target: str | None, **settings: Any
) -> None:
    """Train the shared adapter of a model, once, on many tasks.

    DATA are JSONL files, or folders with train.jsonl and valid.jsonl, one task each. A line is {"prompt": ...,
    "answer": ...}, with "choices": [...] if it is one of these, or {"messages": [...]} that ends with the answer.
    """
    with need("train"):
        from lime_edge.method import distributed
        from lime_edge.training import train_adapter as training
        from lime_edge.training.trainer import Plan
    config = _config(settings)
    try:
        with quietly():
            figures = training.train(data, model, output, config, Plan(**settings), max_length, resume)
    except KeyboardInterrupt:
        if any(output.glob("run/checkpoint-*")):
            click.echo("\nthe same command with --resume goes on from here", err=True)
        raise
    if not distributed.first():
        return
    from lime_edge.store.lookup import skill_files

    skills = {path.name: path.stat().st_size for path in skill_files(output)}
    rows = [*_rows(figures), *((name, f"{size(count)}, the vectors trained with it") for name, count in skills.items())]
    document = {"checkpoint": str(output), "figures": figures, "skills": skills}
    report(document, [Table(f"checkpoint {output}", rows)], target)


def _config(settings: dict[str, Any]) -> LimeConfig:
    """Takes out of the options what shapes the adapter; the rest is the plan."""
    from lime_edge.contract.routing import Routing
    from lime_edge.method.config import LimeConfig

    routing = Routing(**{name: settings.pop(name) for name in ("experts", "mode", "window")})
    targets = [name.strip() for name in settings.pop("targets").split(",") if name.strip()]
    base, rank, alpha = (settings.pop(name) for name in ("base", "rank", "alpha"))
    alpha = 2.0 * rank if alpha is None else alpha
    return LimeConfig(target_modules=targets, base=base, r=rank, alpha=alpha, routing=routing)


def _rows(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(label, form.format(figures[key])) for key, (label, form) in _FIGURES.items() if key in figures]


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
@click.option("--steps", type=_COUNT, default=200, show_default=True, help="Optimiser steps.")
@click.option("--minutes", type=_RATE, help="Stop after this long, if the steps are not done by then.")
@click.option("--batch", type=_COUNT, default=8, show_default=True, help="Rows a step.")
@click.option(
    "--rate",
    "vector_rate",
    type=_RATE,
    default=2e-2,
    show_default=True,
    help="Learning rate; expert vectors have 10 times it, gains 4 times, shifts 0.3 times.",
)
@click.option(
    "--experts", type=_COUNT, default=1, show_default=True, help="Expert vectors: 1, or as many as the checkpoint has."
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
@click.option("--max-length", type=_COUNT, default=512, show_default=True, help="Longer rows, in tokens, are left out.")
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
    with need("train"):
        from lime_edge.training import learn_skill as learning
    output = Path(f"{settings['name']}.lime") if output is None else output
    output.parent.mkdir(parents=True, exist_ok=True)
    named = settings.pop("gain_only")
    gain_only = None if named is None else _names(named)
    recipe: Recipe = learning.Recipe(about=about, gain_only=gain_only, **settings)
    plan = replace(learning.SKILL_PLAN, **plan_of)
    with quietly():
        skill, figures = learning.learn(data, checkpoint, output, recipe, plan, valid, rounded, resume)
    _report_skill(skill, figures, target)


def _names(given: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in given.split(","))))


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
    facts = [("file", f"{skill.path}, {size(skill.size)}"), ("digest", short(skill.digest)), *_rows(figures)]
    tables = [Table(f"skill {skill.name} {skill.manifest.version}", facts)]
    if metrics:
        tables.append(Table("", metrics, ("metric", "base", skill.name, "rows"), (1, 2, 3)))
    report({"skill": describe(skill), "figures": dict(figures)}, tables, target)
    if target != STDOUT:
        click.echo("skill and base are measured on rows that were not trained on")


@click.command()
@click.argument("checkpoint", type=path_type())
@click.option("-o", "--output", required=True, metavar="DIR", type=path_type(), help="The model directory to make.")
@click.option(
    "--precision",
    type=click.Choice(["int4", "fp16", "fp32"]),
    default="int4",
    show_default=True,
    help="Of the weights; int4 is the smallest and fastest.",
)
@click.option("--rank-gate", is_flag=True, help="Also take skills learned with --rank-gate.")
@click.option(
    "--gain-only",
    default="",
    metavar="NAMES",
    help="Projections of which skills bring the gain alone, as learn --gain-only: a skill takes less memory and time.",
)
@click.option(
    "--expert/--no-expert",
    default=True,
    show_default=True,
    help="Take expert vectors; skills of one expert have none, and take less memory without.",
)
@click.option("--overwrite", is_flag=True, help="Replace a model directory that is there.")
@click.option(
    "--genai-operators",
    is_flag=True,
    help="Put this machine's native operators beside the model, for ONNX Runtime GenAI; lime-edge has its own.",
)
@json_option
def export(
    checkpoint: Path,
    output: Path,
    precision: Any,
    rank_gate: bool,
    gain_only: str,
    expert: bool,
    overwrite: bool,
    genai_operators: bool,
    target: str | None,
) -> None:
    """Export a checkpoint to a directory that runs without torch."""
    with need("export"):
        from lime_edge.training.export_checkpoint import export_checkpoint
    from lime_edge.reports.describe import describe_model

    with quietly():
        names = _names(gain_only)
        export_checkpoint(checkpoint, output, precision, rank_gate, overwrite, genai_operators, names, expert)
    document, tables = describe_model(output)
    report(document, tables, target)
