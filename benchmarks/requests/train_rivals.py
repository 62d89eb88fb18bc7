"""Trains the rivals of the request benchmark: one LoRA (r = 8 on q, k, v and o) for each skill data set.

    python -m benchmarks.requests.train_rivals --data DIR -o FOLDER [-t request_to_json ...]

Rows keep their instruction: what a LoRA learns is the full prompt. Method, optimiser, learning rate, steps, batch and
order of the rows are those of benchmarks/skill_quality, whose validation rows chose the rate. Each adapter is a PEFT
folder, FOLDER/TASK; a run that was interrupted continues from its newest checkpoint.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import click
import torch

from benchmarks.engines.rival_files import whole
from benchmarks.harness.compiled_backbone import compile_between
from benchmarks.skill_quality.methods import METHODS
from lime_edge.common.paths import SHIPPED
from lime_edge.evaluation.examples import read_rows
from lime_edge.training.dataset import Collator, Examples
from lime_edge.training.learn_skill import SKILL_PLAN
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.predictor import pad_id
from lime_edge.training.quiet import silence_libraries
from lime_edge.training.trainer import fit, resumable

TASKS = ("request_to_json", "assistant_routing", "legal_clause_type", "shell_command")
RATE = 3e-3  # the better one for lora-8 in benchmarks/results/skill-rates.jsonl
METHOD, SEED, MAX_LENGTH = "lora-8", 0, 384
_SAVE_EVERY = 40


def train(data: Path, target: Path, plan: TrainingPlan) -> None:
    """Train one LoRA and write it to a PEFT folder.

    Args:
        data: Folder with train.jsonl.
        target: The folder; nothing happens if it exists.
        plan: Steps, batch and rate.
    """
    if target.exists():
        return
    torch.manual_seed(plan.seed)
    method = METHODS[METHOD]
    model, tokenizer = method.open(SHIPPED / "smollm2-135m")
    examples = Examples(tokenizer, read_rows(data / "train.jsonl"), MAX_LENGTH)
    state = target.with_name(f"{target.name}.state")
    with silence_libraries():
        fit(model, examples, None, Collator(pad_id(tokenizer)), plan, state, resume=resumable(state))
    with whole(target) as made:
        method.store(model, made)
    shutil.rmtree(state)


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with skills/TASK/train.jsonl.",
)
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to fill.")
@click.option("-t", "--task", "tasks", multiple=True, type=click.Choice(TASKS), default=TASKS)
@click.option("--steps", default=160, show_default=True, type=click.IntRange(1))
@click.option("--batch", default=4, show_default=True, type=click.IntRange(1))
def main(data: Path, out: Path, tasks: tuple[str, ...], steps: int, batch: int) -> None:
    """Train a LoRA for each task that has none yet."""
    torch.set_num_threads(1)
    plan = replace(
        SKILL_PLAN,
        steps=steps,
        batch=batch,
        vector_rate=RATE,
        shared_rate=RATE,
        weight_decay=0.0,
        optimizer=METHODS[METHOD].optimizer,
        seed=SEED,
        save_every=_SAVE_EVERY,
    )
    for task in tasks:
        train(data / "skills" / task, out / task, plan)
        click.echo(f"{out / task}: {steps} steps of {batch} rows")


if __name__ == "__main__":
    compile_between()
    main()
