"""Ablations: small multi-task trainings that differ from a reference in one choice of the method.

    python -m benchmarks.multitask.ablations --data DIR --minutes 60    # continues with the missing runs

Every run trains one adapter on six text tasks, with the same rows in the same order, and adds a line to
benchmarks/results/ablations.jsonl. `python -m benchmarks.multitask.ablations_page` makes docs/ablations.md from these
lines. Paper: LiME (arXiv 2604.02338), section on ablations.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.harness.compiled_backbone import compile_between
from benchmarks.harness.result_lines import RESULTS, Lines, Record, run_missing
from lime_edge.contract.routing import Routing
from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.method.config import ATTENTION, LimeConfig
from lime_edge.method.registry import VARIANTS
from lime_edge.method.variants import LimeLora
from lime_edge.training import backbone, checkpoint
from lime_edge.training.dataset import Collator, Examples
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.predictor import pad_id
from lime_edge.training.quiet import silence_libraries
from lime_edge.training.trainer import fit
from lime_edge.training.training_rows import pick

from .scores import Answers, accuracy

TASKS = (
    "glue/sst2",
    "glue/cola",
    "glue/qqp",
    "commonsense_reasoning/boolq",
    "commonsense_reasoning/csqa",
    "high_level_reasoning/strategyqa",
)
KEYS = ("ablation", "value", "seed", "steps", "batch")
REFERENCE = "reference"
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class Trailing(LimeLora):
    """Routes by the last E outputs instead of the first."""

    def routed_by(self) -> slice:
        return slice(-self.lime_config[self.adapter].routing.experts, None)


class Scattered(LimeLora):
    """Routes by E random outputs, fixed for each width."""

    def routed_by(self) -> Tensor:
        count = self.lime_config[self.adapter].routing.experts
        return torch.randperm(self.out_features, generator=torch.Generator().manual_seed(self.out_features))[:count]


#: Ablation -> value -> changes to the reference (E = 4, Auto Top-K, window 1, leading features, token scale).
ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "window": {str(n): {"window": n} for n in (2, 3, 4)},
    "selection": {
        "hard, k=1": {"mode": "hard", "top_k": 1},
        "hard, k=2": {"mode": "hard", "top_k": 2},
        "hard, k=4": {"mode": "hard", "top_k": 4},
        "soft, k=2": {"mode": "soft"},
        "auto, theta=0.8": {"theta": 0.8},
        "auto, soft": {"mode": "auto_soft"},
    },
    "experts": {str(e): {"experts": e} for e in (1, 2, 3, 5, 8)},
    "gamma": {str(g): {"gamma": g} for g in (0.0, 0.3, 0.5, 1.0)},
    "features": {"trailing": {"base": "trailing"}, "scattered": {"base": "scattered"}},
    "scale": {"batch": {"routing_scale": "batch"}},
    "shared vector": {"on": {"shared_vector": True}},
}
#: The reference's value in each ablation.
OURS = {
    "window": "1",
    "selection": "auto, theta=0.5",
    "experts": "4",
    "gamma": "0.7",
    "features": "leading",
    "scale": "token",
    "shared vector": "off",
}


def config(changes: Mapping[str, Any], rank: int) -> LimeConfig:
    """The reference configuration with some changes, of routing constants or of other fields."""
    VARIANTS.update(trailing=Trailing, scattered=Scattered)
    constants = {name: value for name, value in changes.items() if hasattr(Routing(), name)}
    rest = {name: value for name, value in changes.items() if name not in constants}
    return LimeConfig(
        r=rank,
        alpha=2.0 * rank,
        kinds=("expert",),
        target_modules=list(ATTENTION),
        routing=replace(Routing(), **constants),
        **rest,
    )


def jobs(seeds: int, steps: int, batch: int) -> Iterator[Record]:
    """Every run in order: seed by seed, the reference first, then one value of each ablation after the other."""
    for seed in range(seeds):
        common = {"seed": seed, "steps": steps, "batch": batch}
        yield {"ablation": REFERENCE, "value": REFERENCE, **common}
        for place in range(max(map(len, ABLATIONS.values()))):
            for name, values in ABLATIONS.items():
                if place < len(values):
                    yield {"ablation": name, "value": list(values)[place], **common}


def run(job: Record, data: Path, rank: int, rows: int) -> Record:
    """Train an adapter on the backbone and measure it on test rows."""
    torch.manual_seed(job["seed"])
    net, tokenizer = backbone.load(backbone.resolve(backbone.DEFAULT), backbone.training_dtype())
    changes = {} if job["ablation"] == REFERENCE else ABLATIONS[job["ablation"]][job["value"]]
    model = checkpoint.wrap(net, config(changes, rank))
    train = [row for task in TASKS for row in read_rows(data / task / "train.jsonl")]
    plan = TrainingPlan(
        steps=job["steps"], batch=job["batch"], seed=job["seed"], vector_rate=5e-3, shared_rate=2e-3, save_every=10**6
    )
    with tempfile.TemporaryDirectory() as folder, silence_libraries():
        fit(model, Examples(tokenizer, train, 192), None, Collator(pad_id(tokenizer)), plan, Path(folder))
    tests = {task: pick(read_rows(data / task / "test.jsonl"), rows, 0) for task in TASKS}
    return _measured(model, tokenizer, tests)


def _measured(model: Any, tokenizer: Any, tests: Mapping[str, list[Row]]) -> Record:
    answers = Answers(model, tokenizer)
    losses = {task: answers.loss(rows, lambda _: None) for task, rows in tests.items()}
    shares = {
        task: accuracy(answers.batched(rows, lambda _: None), [row.answer for row in rows])
        for task, rows in tests.items()
    }
    return {
        "loss": sum(losses.values()) / len(losses),
        "accuracy": sum(shares.values()) / len(shares),
        "losses": losses,
        "accuracies": shares,
    }


@click.command()
@click.option("--data", type=_FOLDER, required=True, help="Folder with CATEGORY/TASK/{train,test}.jsonl.")
@click.option("--minutes", type=float, help="Start no further run after this long.")
@click.option("--seeds", default=2, show_default=True)
@click.option("--steps", default=40, show_default=True)
@click.option("--batch", default=8, show_default=True)
@click.option("--rank", default=2, show_default=True, help="Rank of the shared adapter; 2 in the paper.")
@click.option("--rows", default=50, show_default=True, help="Test rows of each task.")
@click.option("--results", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, help="Folder of results.")
def main(
    data: Path, minutes: float | None, seeds: int, steps: int, batch: int, rank: int, rows: int, results: Path
) -> None:
    """Run the ablations that have no result yet."""
    torch.set_num_threads(1)
    lines = Lines(results / "ablations.jsonl", KEYS)
    count = run_missing(lines, jobs(seeds, steps, batch), lambda job: run(job, data, rank, rows), minutes)
    click.echo(f"{count} runs; {len(lines.read())} lines in {lines.path}")


if __name__ == "__main__":
    compile_between()
    main()
