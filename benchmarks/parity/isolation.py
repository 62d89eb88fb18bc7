"""Measures how learning further skills changes the first one, with the shared adapter frozen and with it trained.

    python -m benchmarks.parity.isolation --data DIR --json benchmarks/results/isolation.json

Twenty tasks are learned one after another, each with vectors of its own. After some of them, the first skill answers
the same test rows again: once with a frozen shared adapter, as in `lime-edge learn`, and once with the adapter trained
along with every skill, as in joint training. Each task is learned for a few steps only, because the quality of the
skills does not matter here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.harness.markdown_tables import table
from lime_edge.common.paths import SHIPPED
from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.training import backbone, checkpoint
from lime_edge.training.dataset import Collator, Examples
from lime_edge.training.learn_skill import Recipe, prepare
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.predictor import pad_id
from lime_edge.training.quiet import silence_libraries
from lime_edge.training.trainer import fit
from lime_edge.training.training_rows import pick

#: The first task's skill is measured; all tasks have short prompts.
TASKS = (
    "skills/request_to_json",
    "skills/shell_command",
    "skills/assistant_routing",
    "skills/grammar_correction",
    "skills/translate_en_fr",
    "skills/python_function",
    "skills/legal_clause_type",
    "glue/sst2",
    "glue/cola",
    "glue/mrpc",
    "glue/qqp",
    "glue/rte",
    "glue/mnli",
    "glue/qnli",
    "glue/stsb",
    "commonsense_reasoning/boolq",
    "commonsense_reasoning/piqa",
    "commonsense_reasoning/arc",
    "high_level_reasoning/math_problems",
    "commonsense_reasoning/csqa",
)
WAYS = ("frozen", "trained along")
COUNTS = (1, 2, 5, 10, 20)  # numbers of learned skills after which the first one is measured
_LONGEST = 256  # most tokens of a training row
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@dataclass(frozen=True)
class Probe:
    """The first skill's logits and loss on its test rows."""

    logits: list[torch.Tensor]  # for each row, after the prompt and each token of the answer, [tokens, V]
    loss: float  # mean loss of an answer token

    def change(self, other: Probe) -> dict[str, Any]:
        """Differences from an earlier probe."""
        pairs = list(zip(self.logits, other.logits, strict=True))
        moved = [bool((one.argmax(-1) != two.argmax(-1)).any()) for one, two in pairs]
        return {
            "same_bits": all(torch.equal(one, two) for one, two in pairs),
            "largest_change": max(float((one - two).abs().max()) for one, two in pairs),
            "rows_changed": sum(moved) / len(moved),  # share of rows in which the likeliest token changed somewhere
            "loss": self.loss,
        }


@torch.no_grad()
def probe(model: Any, tokenizer: Any, rows: Sequence[Row]) -> Probe:
    """Measure the model on the rows."""
    model.eval()
    examples, collator = Examples(tokenizer, rows, 4096), Collator(pad_id(tokenizer))
    found, total, count = [], 0.0, 0
    for i in range(len(examples)):
        output = model(**(made := collator([examples[i]])))
        tokens = int((made["labels"][:, 1:] >= 0).sum())
        found.append(output.logits[0])
        total, count = total + tokens * float(output.loss), count + tokens
    return Probe(found, total / count)


def sequence(
    model: Any, tokenizer: Any, tasks: Sequence[Sequence[Row]], rows: Sequence[Row], plans: Sequence[TrainingPlan]
) -> Iterator[dict[str, Any]]:
    """Learn tasks one after another, each from the same initial vectors, and measure the first after each `COUNTS`.

    Args:
        model: From `learn_skill.prepare`; every parameter that requires gradients trains.
        tokenizer: Its tokenizer.
        tasks: Training rows of each task.
        rows: Test rows of the first task.
        plans: A plan for each task.

    Yields:
        The number of learned skills, and the first skill's changes since it was learned.
    """
    start = checkpoint.get_vectors(model)
    collator = Collator(pad_id(tokenizer))
    first, before = start, None
    for learned, (task, plan) in enumerate(zip(tasks, plans, strict=True), 1):
        checkpoint.set_vectors(model, start)
        with tempfile.TemporaryDirectory() as folder, silence_libraries():
            fit(model, Examples(tokenizer, task, _LONGEST), None, collator, plan, Path(folder))
        if learned == 1:
            first = checkpoint.get_vectors(model)
        if learned in COUNTS:
            checkpoint.set_vectors(model, first)
            found = probe(model, tokenizer, rows)
            before = before or found
            yield {"skills": learned, **found.change(before)}


def thaw(model: Any) -> None:
    """Let the shared adapter train along with the vectors."""
    for layer in checkpoint.tuner(model).layers().values():
        for name in layer.shared_names:
            getattr(layer, name)[layer.adapter].requires_grad_(True)


@click.command()
@click.option("--data", type=_FOLDER, required=True, help="Folder with CATEGORY/TASK/{train,test}.jsonl.")
@click.option("--shared", type=_FOLDER, default=SHIPPED / "smollm2-135m", help="The shared adapter.")
@click.option("--first-steps", default=10, show_default=True, help="Steps of the first task.")
@click.option("--steps", default=3, show_default=True, help="Steps of each other task; the first has a rate of 0.")
@click.option("--batch", default=4, show_default=True)
@click.option("--rows", default=12, show_default=True, help="Test rows of the first task.")
@click.option("--rate", default=1e-2, show_default=True, help="Learning rate of the vectors.")
@click.option("--shared-rate", default=4e-4, show_default=True, help="Learning rate of the shared adapter, if trained.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the results to this JSON file.")
def main(
    data: Path,
    shared: Path,
    first_steps: int,
    steps: int,
    batch: int,
    rows: int,
    rate: float,
    shared_rate: float,
    json_path: Path | None,
) -> None:
    """Measure with a frozen and with a trained adapter."""
    torch.set_num_threads(1)
    read = [read_rows(data / task / "train.jsonl") for task in TASKS]
    watched = pick(read_rows(data / TASKS[0] / "test.jsonl"), rows, 0)
    lengths = [first_steps] + [steps] * (len(TASKS) - 1)
    plans = [
        TrainingPlan(steps=n, batch=batch, vector_rate=rate, shared_rate=shared_rate, save_every=10 * n)
        for n in lengths
    ]
    found: dict[str, Any] = {"tasks": list(TASKS), "steps": lengths, "batch": batch, "rows": rows}
    for way in WAYS:
        torch.manual_seed(0)
        model, tokenizer, _ = prepare(shared, Recipe("skill", expert=True), backbone.training_dtype())
        if way == "trained along":
            thaw(model)
        found[way] = []
        for change in sequence(model, tokenizer, read, watched, plans):
            found[way].append(change)
            click.echo(json.dumps({"adapter": way, **change}))
    click.echo(report(found))
    if json_path:
        json_path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def report(found: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    header = ("skills learned", *(f"{what}, adapter {way}" for way in WAYS for what in ("loss", "rows changed")))
    lines = []
    for changes in zip(*(found[way] for way in WAYS), strict=True):
        cells = [(f"{one['loss']:.4f}", f"{100 * one['rows_changed']:.0f} %") for one in changes]
        lines.append([str(changes[0]["skills"]), *(text for pair in cells for text in pair)])
    return table(header, lines)


if __name__ == "__main__":
    main()
