"""Multi-task training: one method on all text tasks of the suite under one budget, and its score on each task.

    python -m benchmarks.multitask.run --data DIR --method lime-lora --seed 0 --out benchmarks/results/multitask.jsonl
    python -m benchmarks.multitask.run --data DIR --all --out benchmarks/results/multitask.jsonl [--minutes 60]

Every method sees the same batches in the same order. A stopped or killed run resumes where it was. Each finished run
adds one line of JSON; `python -m benchmarks.multitask.tables` makes docs/results.md from these lines.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.harness.compiled_backbone import compile_between
from benchmarks.harness.rounds import machine, versions
from benchmarks.rivals import clusters
from lime_edge.training import backbone
from lime_edge.training.dataset import Collator
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.predictor import pad_id
from lime_edge.training.trainer import parameter_groups

from .data import Budget, Item, Task, batches, read
from .methods import METHODS, Built, Facts, plan
from .scores import Answers, scores
from .train_loop import Figures, OutOfTimeError, Run

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_PACKAGES = ("torch", "transformers", "peft")
_LATE = 75  # exit status of a run that reached its time limit and can be resumed


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    data: Path
    out: Path
    model: str
    budget: Budget
    minutes: float | None
    rate: float  # factor on all learning rates
    valid: bool  # score on validation rows, for choosing rates


@click.command()
@click.option("--data", required=True, type=_DIRECTORY, help="The suite: CATEGORY/TASK/{train,test}.jsonl.")
@click.option("--out", required=True, type=_FILE, help="JSONL file to which finished runs are added.")
@click.option("--method", type=click.Choice(list(METHODS)))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--all", "everything", is_flag=True, help="Run everything that --out lacks, one after the other.")
@click.option("--minutes", type=float, help="Stop after this long; an unfinished run can be resumed.")
@click.option("-m", "--model", default=backbone.DEFAULT, show_default=True, help="The backbone.")
@click.option("--steps", default=Budget.steps, show_default=True, type=click.IntRange(2))
@click.option("--batch", default=Budget.batch, show_default=True, type=click.IntRange(1))
@click.option("--test-rows", default=Budget.test_rows, show_default=True, type=click.IntRange(1))
@click.option("--rate", default=1.0, show_default=True, help="Factor on all learning rates.")
@click.option("--valid", is_flag=True, help="Score on validation rows instead of test rows.")
def main(
    data: Path,
    out: Path,
    method: str | None,
    seed: int,
    everything: bool,
    minutes: float | None,
    model: str,
    steps: int,
    batch: int,
    test_rows: int,
    rate: float,
    valid: bool,
) -> None:
    """Train methods on all text tasks together, and measure them on each."""
    asked = Asked(data, out, model, Budget(steps, batch, test_rows=test_rows), minutes, rate, valid)
    if everything == (method is not None):
        raise click.UsageError("expected either --method or --all")
    if method is not None:
        _one(asked, method, seed)
    else:
        _missing(asked)


def _missing(asked: Asked) -> None:
    """Run each missing run in a process of its own, so that its peak memory is its own."""
    end = None if asked.minutes is None else time.monotonic() + 60 * asked.minutes
    for method, seed in plan():
        if (method, seed) in _finished(asked.out):
            continue
        command = [
            sys.executable,
            "-m",
            "benchmarks.multitask.run",
            *_again(asked),
            "--method",
            method,
            "--seed",
            str(seed),
        ]
        if end is not None:
            command += ["--minutes", str(max(0.01, (end - time.monotonic()) / 60))]
        status = subprocess.run(command, check=False).returncode
        if status == _LATE or (end is not None and time.monotonic() > end):
            click.echo("time is up; the same command resumes from here")
            return
        if status:
            raise click.ClickException(f"{method}, seed {seed}: exit status {status}")


def _again(asked: Asked) -> list[str]:
    budget = asked.budget
    given = {"--data": asked.data, "--out": asked.out, "--model": asked.model, "--rate": asked.rate}
    given |= {"--steps": budget.steps, "--batch": budget.batch, "--test-rows": budget.test_rows}
    return [text for name, value in given.items() for text in (name, str(value))] + ["--valid"] * asked.valid


def _finished(out: Path) -> set[tuple[str, int]]:
    lines = out.read_text("utf-8").splitlines() if out.is_file() else []
    return {(one["method"], one["seed"]) for one in map(json.loads, lines)}


def _one(asked: Asked, method: str, seed: int) -> None:
    deadline = None if asked.minutes is None else time.monotonic() + 60 * asked.minutes
    work = asked.out.with_suffix(".work") / f"{method}-{seed}-{asked.rate:g}"
    try:
        record = Trial(asked, method, seed, work).record(deadline)
    except OutOfTimeError:
        click.echo(f"{method}, seed {seed}: stopped at the time limit")
        sys.exit(_LATE)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with asked.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    shutil.rmtree(work)


class Trial:
    """One method with one seed: build, train, measure.

    Args:
        asked: Data, budget and backbone.
        method: A key of METHODS.
        seed: Seed of batches and parameters.
        work: Folder of its state until it is finished.
    """

    def __init__(self, asked: Asked, method: str, seed: int, work: Path) -> None:
        self.asked, self.name, self.method, self.seed, self.work = asked, method, METHODS[method], seed, work
        self.tasks = read(asked.data, asked.budget.test_rows, "valid" if asked.valid else "test")
        net, self.tokenizer = backbone.load(backbone.resolve(asked.model), backbone.training_dtype())
        self.embedding = net.get_input_embeddings().weight
        self.batches = batches(self.tasks, self.tokenizer, asked.budget, seed)
        torch.manual_seed(seed)
        self.net = net
        self.built: Built = self.method.build(net, self._facts())
        self.model = self.built.model

    def record(self, deadline: float | None) -> dict[str, Any]:
        """Train and measure; returns the line of the results file.

        Raises:
            OutOfTimeError: The deadline has passed; calling again resumes.
        """
        plan = TrainingPlan(
            shared_rate=self.method.rate * self.asked.rate, vector_rate=self.method.vector_rate * self.asked.rate
        )
        groups = [group | {"top": group["lr"]} for group in parameter_groups(self.model, plan)]
        stamp = json.dumps([self.name, self.seed, self.asked.rate, asdict(self.asked.budget)])
        state = self.work / "state.safetensors"
        run = Run(
            self.model,
            self.net,
            groups,
            self.batches,
            self._collate,
            self._tell_items,
            self.seed,
            state,
            stamp,
            deadline,
        )
        figures = run.fit(lambda text: click.echo(f"{self.name}, seed {self.seed}, {text}"))
        found = self._measured(deadline)
        scores, losses = ({name: one[what] for name, one in found.items()} for what in ("scores", "loss"))
        return self._described(figures) | {"scores": scores, "losses": losses}

    def _facts(self) -> Facts:
        prompts = [item.example.input_ids[: item.example.answer_start] for batch in self.batches for item in batch]
        return Facts(len(self.tasks), prompts, self.seed)

    def _collate(self, items: Sequence[Item]) -> dict[str, Any]:
        return Collator(pad_id(self.tokenizer))([{"example": item.example} for item in items])

    def _tell_items(self, items: Sequence[Item]) -> None:
        self._tell(
            [item.task for item in items], [item.example.input_ids[: item.example.answer_start] for item in items]
        )

    def _tell(self, tasks: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Pass the tasks and clusters of the next calls' rows to methods that route by them."""
        if (set_rows := getattr(self.model, "set_rows", None)) is None:
            return
        centres = self.built.centres
        near = None if centres is None else clusters.assign(clusters.represent(self.embedding, prompts), centres)
        set_rows(torch.tensor(tasks), near)

    def _measured(self, deadline: float | None) -> dict[str, dict[str, Any]]:
        """Scores and loss of every task; tasks that an earlier process has measured are not repeated."""
        kept = self.work / "measured.json"
        found: dict[str, dict[str, Any]] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
        for number, task in enumerate(self.tasks):
            if task.name in found:
                continue
            found[task.name] = self._measure(number, task)
            kept.write_text(json.dumps(found), "utf-8")
            click.echo(f"{self.name}, seed {self.seed}, {task.name}: {found[task.name]}")
            if deadline is not None and time.monotonic() > deadline and len(found) < len(self.tasks):
                raise OutOfTimeError
        return found

    def _measure(self, number: int, task: Task) -> dict[str, Any]:
        answers = Answers(self.model, self.tokenizer)
        prompts = [answers.prompt(row).ids for row in task.test]

        def tell(job: Sequence[int]) -> None:
            self._tell([number] * len(job), [prompts[i] for i in job])

        named = scores(task, answers.batched(task.test, tell))
        loss = round(answers.loss(task.test, tell), 5)
        return {"scores": {name: round(value, 4) for name, value in named.items()}, "loss": loss}

    def _described(self, figures: Figures) -> dict[str, Any]:
        budget, cpu, wall = self.asked.budget, statistics.median(figures.cpu), statistics.median(figures.wall)
        return {
            "method": self.name,
            "title": self.method.title,
            "family": self.method.family,
            "seed": self.seed,
            "budget": asdict(budget),
            "rates": [self.method.rate * self.asked.rate, self.method.vector_rate * self.asked.rate],
            "trained": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "tokens": figures.tokens,
            "loss": round(statistics.fmean(figures.losses[-50:]), 4),
            "step_cpu_s": round(cpu, 3),
            "step_s": round(wall, 3),
            "samples_per_cpu_s": round(budget.batch / cpu, 2),
            "peak_mb": round(figures.peak_mb),
            "rows": sum(len(task.test) for task in self.tasks),
            "split": "valid" if self.asked.valid else "test",
            "threads": torch.get_num_threads(),
            "date": datetime.now(UTC).date().isoformat(),
            "versions": versions(_PACKAGES),
            "machine": machine(),
        }


if __name__ == "__main__":
    compile_between()
    main()
