"""The command `lime-edge train`: train the shared adapter of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lime_edge.common.extras import require_extra
from lime_edge.common.formatting import size
from lime_edge.reports.tables import Table, report
from lime_edge.training.quiet import silence_libraries

from .options import COUNT, RATE, json_option, path_type

if TYPE_CHECKING:
    from lime_edge.method.config import LimeConfig

_TARGETS = "o_proj,up_proj"
_FIGURES = {
    "steps": ("steps", "{:.0f}"),
    "train_loss": ("training loss", "{:.4f}"),
    "eval_loss": ("loss on valid.jsonl", "{:.4f}"),
    "tokens_per_second": ("tokens per second", "{:.0f}"),
    "rows": ("rows given for training", "{:.0f}"),
    "dropped": ("rows left out, too long", "{:.0f}"),
    "duplicates": ("rows that repeat another", "{:.0f}"),
    "overlap": ("rows left out, prompt in validation", "{:.0f}"),
}


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option(
    "-m", "--model", required=True, help="The backbone: a directory, a name on the Hugging Face Hub, or default."
)
@click.option("-o", "--output", required=True, metavar="CHECKPOINT", type=path_type(), help="The directory to create.")
@click.option("--steps", type=COUNT, default=300, show_default=True, help="Optimiser steps.")
@click.option("--minutes", type=RATE, help="Stop after this many minutes even if steps remain.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run.")
@click.option("--batch", type=COUNT, default=12, show_default=True, help="Rows per step.")
@click.option("--targets", default=_TARGETS, show_default=True, help="Names of the projections to adapt.")
@click.option(
    "--base", default="lora", show_default=True, help="The method to wrap: lora, lora-fa, dora, slicefine or prompt."
)
@click.option(
    "--rank",
    type=COUNT,
    default=8,
    show_default=True,
    help="Rank of the shared adapter; for slicefine the number of rows, for prompt that of virtual tokens.",
)
@click.option("--alpha", type=RATE, help="The adapter is scaled by alpha / rank.  [default: twice the rank]")
@click.option("--experts", type=COUNT, default=4, show_default=True, help="Number of expert vectors per projection.")
@click.option(
    "--mode", default="auto", show_default=True, help="How experts are selected: auto, hard, soft or auto_soft."
)
@click.option("--window", type=COUNT, default=1, show_default=True, help="Tokens whose evidence routes one token.")
@click.option("--max-length", type=COUNT, default=512, show_default=True, help="Skip rows with more tokens than this.")
@click.option("--shared-rate", type=RATE, default=4e-4, show_default=True, help="Learning rate of the shared adapter.")
@click.option("--vector-rate", type=RATE, default=1e-3, show_default=True, help="Learning rate of the expert vectors.")
@click.option(
    "--save-every", type=COUNT, default=100, show_default=True, help="Steps between checkpoints for --resume."
)
@click.option("--gradient-checkpointing", is_flag=True, help="Use less memory and more time.")
@click.option("--seed", default=0, show_default=True, help="Random seed for the order of rows and the initial weights.")
@json_option
def train(
    data: tuple[str, ...], model: str, output: Path, max_length: int, resume: bool, target: str | None, **settings: Any
) -> None:
    """Train the shared adapter of a model, once, on many tasks.

    DATA are data files, or folders with train.jsonl and valid.jsonl, one task each. A line is {"prompt": ...,
    "answer": ...}, with "choices": [...] if the answer is one of a list, or {"messages": [...]} whose last message is
    the answer. docs/data.md has the other formats: CSV, TSV, Parquet, JSON, Alpaca and ShareGPT.
    """
    with require_extra("train"):
        from lime_edge.training import train_adapter as training
        from lime_edge.training.plan import TrainingPlan
    config = _config(settings)
    with resumable(output / "run"), silence_libraries():
        figures = training.train(data, model, output, config, TrainingPlan(**settings), max_length, resume)
    from lime_edge.method import distributed

    if not distributed.first():
        return
    from lime_edge.store.lookup import skill_files

    skills = {path.name: path.stat().st_size for path in skill_files(output)}
    rows = [
        *figure_rows(figures),
        *((name, f"{size(count)}, vectors trained with the adapter") for name, count in skills.items()),
    ]
    document = {"checkpoint": str(output), "figures": figures, "skills": skills}
    report(document, [Table(f"checkpoint {output}", rows)], target)


def _config(settings: dict[str, Any]) -> LimeConfig:
    """Take the options that shape the adapter out of `settings`; the rest is the training plan."""
    from lime_edge.contract.routing import Routing
    from lime_edge.method.config import LimeConfig

    routing = Routing(**{name: settings.pop(name) for name in ("experts", "mode", "window")})
    targets = [name.strip() for name in settings.pop("targets").split(",") if name.strip()]
    base, rank, alpha = (settings.pop(name) for name in ("base", "rank", "alpha"))
    alpha = 2.0 * rank if alpha is None else alpha
    return LimeConfig(target_modules=targets, base=base, r=rank, alpha=alpha, routing=routing)


@contextmanager
def resumable(state: Path) -> Iterator[None]:
    """Say how to continue when the run inside is interrupted, if its folder `state` holds something to resume."""
    try:
        yield
    except KeyboardInterrupt:
        if any(state.glob("checkpoint-*")):
            click.echo("\nrun the same command with --resume to continue", err=True)
        raise


def figure_rows(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """The figures of a training run as rows of a table."""
    return [(label, form.format(figures[key])) for key, (label, form) in _FIGURES.items() if key in figures]
