"""Learns each skill data set separately, with LiME on a frozen shared adapter that has not seen it, and with rivals.

    python -m benchmarks.skill_quality.run --data DIR --all --minutes 60          # continues with the missing runs
    python -m benchmarks.skill_quality.run --data DIR -t shell_command -k lora-8  # one run

All methods see the same rows and batches in the same order and take the same number of steps. Each family of methods
has the better of two learning rates, chosen on the validation rows of two tasks. Each run adds a line to
benchmarks/results/skills.jsonl; `python -m benchmarks.skill_quality.page` makes docs/results-skills.md from them.
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.harness.compiled_backbone import compile_between
from benchmarks.harness.result_lines import RESULTS, Lines, Record, run_missing
from benchmarks.multitask.scores import Answers
from lime_edge.common.paths import SHIPPED
from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.training import checkpoint
from lime_edge.training.dataset import Collator, Examples
from lime_edge.training.learn_skill import SKILL_PLAN
from lime_edge.training.predictor import Predictor, pad_id
from lime_edge.training.quiet import silence_libraries
from lime_edge.training.trainer import fit

from .methods import METHODS, Lime, four_bits
from .scores import exact, metric_of

#: The most informative first. The shipped adapter was trained on none of them.
TASKS = (
    "assistant_routing",
    "request_to_json",
    "shell_command",
    "legal_clause_type",
    "grammar_correction",
    "translate_en_fr",
    "dialogue_summary",
    "python_function",
    "banking_intent",
)
WAVES = (2, 4)  # the first methods run on the first 2 tasks, then on the next 2; the other methods follow on all 4
TELLING = 6  # number of first methods, including "base"
RATE_TASKS, RATE_STEPS = ("request_to_json", "shell_command"), 160  # a task that needs high rates and one for low ones
RATES = {  # family -> the method that represents it, and the rates to choose from
    "lime": ("lime", (1e-2, 2e-2)),
    "lime, adamw": ("lime with expert, adamw", (5e-3, 1e-2)),
    "lora": ("lora-8", (1e-3, 3e-3)),
    "lora, signal": ("lora-8, signal", (3e-3, 6e-3)),
    "ia3": ("ia3", (1e-2, 3e-2)),
    "ia3, signal": ("ia3, signal", (3e-2, 6e-2)),
    "road": ("road", (1e-2, 3e-2)),
    "vera": ("vera", (1e-2, 3e-2)),
}
_ADAPTER = SHIPPED / "smollm2-135m"
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
KEYS = ("task", "method", "seed", "steps", "batch", "rows")


@dataclass(frozen=True)
class Budget:
    """The budget of every run."""

    steps: int
    batch: int
    rows: int  # most rows of the test split
    max_length: int  # tokens; longer training rows are left out
    tokens: int  # most tokens of an answer


@dataclass(frozen=True)
class Bench:
    """Runs the jobs of this benchmark.

    Attributes:
        data: Folder of the data sets.
        shared: Checkpoint of the shared adapter.
        budget: The budget of every run.
        rates: Results of the runs that choose learning rates.
    """

    data: Path
    shared: Path
    budget: Budget
    rates: Lines

    def run(self, job: Record) -> Record:
        """Learn a task with a method and measure it on test rows."""
        name, task = job["method"], job["task"]
        if name == "base":
            model, tokenizer = METHODS["lora-1"].open(self.shared)
            with model.disable_adapter():
                return self._measure(model, tokenizer, task)
        rate = self.rate(METHODS[name].family)
        model, tokenizer = self._learned(job, rate, job["steps"])
        trained = checkpoint.get_vectors(model) if isinstance(METHODS[name], Lime) else None
        with tempfile.TemporaryDirectory() as folder:
            stored = METHODS[name].store(model, Path(folder))
        found = {"rate": rate, **asdict(stored), **self._measure(model, tokenizer, task)}
        if name == "lime" and trained is not None:  # the cost of storing fewer bits
            rows = self._rows(task, "test")
            for bits, vectors in (("32", trained), ("4", four_bits(trained))):
                checkpoint.set_vectors(model, vectors)
                found[f"loss_{bits}_bits"] = loss(model, tokenizer, rows)
        return found

    def run_rate(self, job: Record) -> Record:
        """The loss on validation rows after training with one learning rate."""
        model, tokenizer = self._learned(job, job["rate"], job["steps"])
        return {"valid_loss": loss(model, tokenizer, self._rows(job["task"], "valid"))}

    def rate(self, family: str) -> float:
        """The better of a family's learning rates, measured on first use.

        The geometric mean of the two tasks' losses decides, because one loss is ten times the other.
        """
        method, rates = RATES[family]
        batch, rows = self.budget.batch, self.budget.rows
        fixed = {"method": method, "seed": 0, "steps": RATE_STEPS, "batch": batch, "rows": rows}
        jobs = {rate: [{"task": task, **fixed, "rate": rate} for task in RATE_TASKS] for rate in rates}
        run_missing(self.rates, [job for some in jobs.values() for job in some], self.run_rate)

        def mean(rate: float) -> float:
            found = [record for job in jobs[rate] if (record := self.rates.find(job)) is not None]
            return math.fsum(math.log(record["valid_loss"]) for record in found) / len(found)

        return min(rates, key=mean)

    def _learned(self, job: Record, rate: float, steps: int) -> tuple[Any, Any]:
        torch.manual_seed(job["seed"])
        model, tokenizer = METHODS[job["method"]].open(self.shared)
        rows = read_rows(self.data / "skills" / job["task"] / "train.jsonl")
        examples = Examples(tokenizer, rows, self.budget.max_length)
        plan = replace(
            SKILL_PLAN,
            steps=steps,
            batch=job["batch"],
            vector_rate=rate,
            shared_rate=rate,
            weight_decay=0.0,
            optimizer=METHODS[job["method"]].optimizer,
            seed=job["seed"],
            save_every=10 * steps,
        )
        with tempfile.TemporaryDirectory() as folder, silence_libraries():
            fit(model, examples, None, Collator(pad_id(tokenizer)), plan, Path(folder))
        return model, tokenizer

    def _rows(self, task: str, split: str) -> list[Row]:
        return [row for row, _ in self._drawn(task, split)]

    def _drawn(self, task: str, split: str) -> list[tuple[Row, Record]]:
        """A fixed random sample of rows, each parsed and as in the file."""
        path = self.data / "skills" / task / f"{split}.jsonl"
        raw = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
        pairs = list(zip(read_rows(path), raw, strict=True))
        return random.Random(0).sample(pairs, min(self.budget.rows, len(pairs)))

    def _measure(self, model: Any, tokenizer: Any, task: str) -> Record:
        drawn = self._drawn(task, "test")
        rows, raw = [row for row, _ in drawn], [line for _, line in drawn]
        answers = Predictor(model, tokenizer).answers(rows, self.budget.tokens)
        metric = metric_of(task, raw)
        figures = {"metric": metric.name, "score": metric.score(answers, raw), "exact": exact(answers, raw)}
        return {**figures, "loss": loss(model, tokenizer, rows), "rows_measured": len(rows)}


def loss(model: Any, tokenizer: Any, rows: Sequence[Row]) -> float:
    """Mean loss of the right answers' tokens, including the end of turn."""
    return Answers(model, tokenizer).loss(rows, lambda _: None)


def jobs(tasks: Sequence[str], methods: Sequence[str], seeds: Sequence[int], budget: Budget) -> Iterator[Record]:
    """Every run, the most informative first."""
    fixed = {key: getattr(budget, key) for key in ("steps", "batch", "rows")}
    few, more = WAVES
    order = [
        (tasks[:few], methods[:TELLING]),
        (tasks[few:more], methods[:TELLING]),
        (tasks[:more], methods[TELLING:]),
        (tasks[more:], methods),
    ]
    for seed in seeds:
        for some, ways in order:
            for task in some:
                for method in ways:
                    yield {"task": task, "method": method, "seed": seed, **fixed}


@click.command()
@click.option("--data", type=_FOLDER, required=True, help="Folder with skills/TASK/{train,valid,test}.jsonl.")
@click.option("--shared", type=_FOLDER, default=_ADAPTER, help="The shared adapter.  [default: the shipped one]")
@click.option("-t", "--task", "tasks", multiple=True, type=click.Choice(TASKS))
@click.option("-k", "--method", "methods", multiple=True, type=click.Choice(["base", *METHODS]))
@click.option("--seed", "seeds", multiple=True, type=int, default=[0], show_default=True)
@click.option("--all", "everything", is_flag=True, help="Every task and method.")
@click.option("--minutes", type=float, help="Start no further run after this long.")
@click.option("--steps", default=160, show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--rows", default=100, show_default=True, help="Most test rows.")
@click.option("--max-length", default=384, show_default=True, help="Longer training rows are left out.")
@click.option("--tokens", default=96, show_default=True, help="Most tokens of an answer.")
@click.option("--results", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, help="Folder of results.")
def main(
    data: Path,
    shared: Path,
    tasks: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: tuple[int, ...],
    everything: bool,
    minutes: float | None,
    results: Path,
    **budget: int,
) -> None:
    """Run the tasks and methods that have no result yet."""
    if not everything and not (tasks and methods):
        raise click.UsageError("expected a --task and a --method, or --all")
    torch.set_num_threads(1)
    found = Budget(**budget)
    bench = Bench(data, shared, found, Lines(results / "skill-rates.jsonl", (*KEYS, "rate")))
    lines = Lines(results / "skills.jsonl", KEYS)
    count = run_missing(lines, jobs(tasks or TASKS, methods or ["base", *METHODS], seeds, found), bench.run, minutes)
    click.echo(f"{count} runs; {len(lines.read())} lines in {lines.path}")


if __name__ == "__main__":
    compile_between()
    main()
