"""The multi-task comparison: metrics, batches, batched answers, a killed run, a whole run on a tiny suite, tables."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from benchmarks.multitask import run, tables
from benchmarks.multitask.data import TASKS, Budget, Item, Task, batches, read
from benchmarks.multitask.methods import METHODS, REPEATED, Facts, plan
from benchmarks.multitask.scores import Answers, accuracy, f1, matthews, number, pearson, ranks, scores, spearman
from benchmarks.multitask.train_loop import OutOfTimeError, Run
from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Row
from lime_edge.training.dataset import Collator, encode
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.predictor import Predictor
from lime_edge.training.trainer import parameter_groups
from tests.support.tiny_training import backbone, backbone_dir, scratch, tokenizer, wrapped, write_rows

BUDGET = Budget(steps=4, batch=6, max_length=200, test_rows=3)


@cache
def suite() -> Path:
    """All tasks of the suite, a few short rows each."""
    for category, names in TASKS.items():
        for name in names:
            for split, count in (("train", 8), ("valid", 3), ("test", 4)):
                rows: list[dict[str, Any]] = []
                for i in range(count):
                    prompt, answer = f"{name} {split} {i}" + "x" * (i % 4), ("yes", "no")[i % 2]
                    free = name in ("stsb", "gsm8k", "math_problems")
                    rows.append({"prompt": prompt, "answer": str(i) if free else answer})
                    rows[-1]["choices"] = None if free else ["yes", "no"]
                write_rows(scratch() / "suite" / category / name / f"{split}.jsonl", rows)
    return scratch() / "suite"


def test_metrics_on_worked_examples() -> None:
    said, wanted = ["yes", "no", "yes", "yes"], ["yes", "yes", "no", "yes"]
    assert accuracy(said, wanted) == 0.5
    assert f1(said, wanted) == pytest.approx(2 * (2 / 3) * (2 / 3) / (4 / 3))
    assert f1(["no"], ["no"]) == 0.0
    good = ["acceptable", "unacceptable"]
    # tp 2, tn 1, fp 1, fn 1
    found = [good[i] for i in (0, 0, 0, 1, 1)]
    real = [good[i] for i in (0, 0, 1, 0, 1)]
    assert matthews(found, real) == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
    assert matthews([good[0]] * 4, [good[0], good[1]] * 2) == 0.0
    assert number(["1,200", "$5", "3.0", "four", "7"], ["1200", "5", "3", "4", "8"]) == 0.6


def test_correlations_are_numpys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 30) / 2, rng.integers(0, 6, 30) / 2
    texts = [[f"{v}" for v in side] for side in (x, y)]
    assert pearson(*texts) == pytest.approx(np.corrcoef(x, y)[0, 1])
    np.testing.assert_array_equal(ranks(np.array([3.0, 1.0, 3.0, 2.0])), [2.5, 0, 2.5, 1])
    assert spearman(*texts) == pytest.approx(np.corrcoef(ranks(x), ranks(y))[0, 1])
    assert spearman(["1", "2", "9"], ["2", "4", "5"]) == pytest.approx(1)
    assert pearson(["what", "5"], ["0", "5"]) == pytest.approx(1)  # 2.5 and 5


def test_batches_are_fixed_by_the_seed_and_hold_every_task_alike() -> None:
    tasks = read(suite(), 3)
    assert len(tasks) == 21
    assert all(len(task.test) == 3 for task in tasks)
    budget = Budget(steps=7, batch=6, max_length=200)
    made = batches(tasks, tokenizer(), budget, 5)
    assert made == batches(tasks, tokenizer(), budget, 5)
    assert made != batches(tasks, tokenizer(), budget, 6)
    assert [len(batch) for batch in made] == [6] * 7
    counts = np.bincount([item.task for batch in made for item in batch], minlength=21)
    assert counts.tolist() == [2] * 21
    with pytest.raises(DataError, match="are longer than 5 tokens"):
        batches(tasks, tokenizer(), Budget(2, 6, max_length=5), 0)
    with pytest.raises(DataError) as caught:
        read(suite() / "glue", 3)
    assert len(caught.value.faults) == 42


def test_batched_answers_are_those_of_one_row_at_a_time() -> None:
    model = wrapped("llama")
    prompts = ["a", "which of these", "say it", "much longer than the others are"]
    choices = [("yes", "no"), ("lime", "lemon", "no way at all"), ("yes", "yes and no"), ("a", "b", "c", "d")]
    rows = [
        Row(({"role": "user", "content": prompt},), some[0], some)
        for prompt, some in zip(prompts, choices, strict=True)
    ]
    told: list[int] = []
    found = Answers(model, tokenizer()).batched(rows, told.extend)
    assert found == Predictor(model, tokenizer()).answers(rows, 4)
    assert len(set(found)) > 1
    assert sorted(told) == [0, 1, 2, 3]
    free = [Row(row.messages, "1") for row in rows]
    assert Answers(model, tokenizer()).batched(free, told.extend) == Predictor(model, tokenizer()).answers(free, 14)


def test_a_task_is_scored_by_its_metrics() -> None:
    rows = [Row(({"role": "user", "content": "x"},), answer) for answer in ("yes", "no")]
    assert scores(Task("qqp", "glue", ("accuracy", "f1"), (), rows), ["yes", "yes"]) == {
        "accuracy": 0.5,
        "f1": pytest.approx(2 / 3),
    }


def trained(method: str, state: Path, stamp: str = "s", deadline: float | None = None) -> Run:
    tasks = read(suite(), 3)
    made = batches(tasks, tokenizer(), BUDGET, 1)
    torch.manual_seed(1)
    net = backbone()
    model = METHODS[method].build(net, Facts(21, [[3], [4]], 1)).model
    groups = [
        group | {"top": group["lr"]}
        for group in parameter_groups(model, TrainingPlan(shared_rate=1e-2, vector_rate=1e-2))
    ]
    collator = Collator(2)

    def collate(items: Any) -> dict[str, Any]:
        return collator([{"example": item.example} for item in items])

    def tell(items: Any) -> None:
        if hasattr(model, "set_rows"):
            cast(Any, model).set_rows(torch.tensor([item.task for item in items]), None)

    return Run(model, net, groups, made, collate, tell, 1, state, stamp, deadline)


@pytest.mark.parametrize("method", ["lime-lora", "more", "lora"])
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path: Path, method: str) -> None:
    whole = trained(method, tmp_path / "whole")
    wanted = whole.fit(lambda text: None)
    path = tmp_path / "killed"
    for left in range(4):  # the clock stops it after every step
        piece = trained(method, path, deadline=0.0)
        if left < 3:
            with pytest.raises(OutOfTimeError):
                piece.fit(lambda text: None)
    found = piece.fit(lambda text: None)
    assert found.losses == wanted.losses
    assert found.tokens == wanted.tokens
    theirs = dict(whole.model.named_parameters())
    for name, parameter in piece.model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name
    with pytest.raises(ValueError, match="of another run"):
        trained(method, path, stamp="other").fit(lambda text: None)


def asked(out: Path, *more: str) -> Any:
    options = ["--data", suite(), "--out", out, "--model", backbone_dir(), "--steps", 2, "--batch", 3, "--test-rows", 2]
    return CliRunner().invoke(run.main, [*map(str, options), *more], catch_exceptions=False)


def test_a_whole_run_and_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "runs.jsonl"
    for method in ("lime-lora", "mocle", "prompt-tuning", "moelora"):
        said = asked(out, "--method", method)
        assert said.exit_code == 0, said.output
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [line["method"] for line in lines] == ["lime-lora", "mocle", "prompt-tuning", "moelora"]
    assert all(len(line["scores"]) == 21 and line["tokens"] == lines[0]["tokens"] for line in lines)
    assert not any(out.with_suffix(".work").iterdir())
    assert run._finished(out) >= {("lime-lora", 0), ("mocle", 0)}

    monkeypatch.setattr(run, "plan", lambda: [("lime-lora", 0)])
    assert asked(out, "--all").exit_code == 0  # nothing is missing
    assert asked(out).exit_code == 2

    page = tmp_path / "results.md"
    names = ("multitask", "multitask pairs", "multitask tasks", "by another script")
    page.write_text("".join(f"<!-- begin {name} -->\nkept\n<!-- end {name} -->\n" for name in names), "utf-8")
    command = [str(out), "--document", str(page)]
    assert CliRunner().invoke(tables.main, command, catch_exceptions=False).exit_code == 0
    text = page.read_text("utf-8")
    assert text.count("kept") == 1
    assert "| LiME-LoRA - MoELoRA |" in text
    assert (tmp_path / "results" / "multitask.svg").stat().st_size > 1000
    lines[0]["budget"]["steps"] = 9
    out.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert "several budgets" in CliRunner().invoke(tables.main, command).output


def test_a_run_out_of_time_says_so_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    assert asked(out, "--method", "lora", "--minutes", "0.0001").exit_code == run._LATE
    assert not out.exists()
    assert asked(out, "--method", "lora").exit_code == 0
    assert len(out.read_text("utf-8").splitlines()) == 1


def test_categories_are_means_of_tasks() -> None:
    line: dict[str, Any] = {
        "scores": {task: {"accuracy": 0.5} for some in TASKS.values() for task in some},
        "losses": {task: 0.25 for some in TASKS.values() for task in some},
        "budget": {"test_rows": 100},
    }
    line["losses"]["rte"] = 2.35
    line["scores"]["qqp"] = {"accuracy": 0.6, "f1": 0.8}
    row = tables.Row("x", [line])
    assert row.category("glue") == [pytest.approx(100 * (7 * 0.5 + 0.7) / 8)]
    assert row.error("vision_benchmark") == pytest.approx(5)
    assert row.loss() == [pytest.approx(0.25 + 2.1 / 21)]


def test_a_gap_of_losses_counts_where_the_tasks_agree() -> None:
    ours = {"a": 1.2, "b": 2.3, "c": 0.4}
    assert tables._loss_gap(ours, {"a": 1.1, "b": 2.2, "c": 0.3}) == "+0.100 (noise 0.000) **above**"
    assert "above" not in tables._loss_gap(ours, {"a": 1.5, "b": 2.2, "c": 0.1})


def test_the_loss_is_that_of_the_answers_alone() -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(backbone_dir())  # in evaluation already
    asks = tokenizer()
    rows = read(suite(), 3)[0].test
    found = Answers(model, asks).loss(rows, lambda job: None)
    total = count = 0.0
    for row in rows:  # one at a time, all logits
        example = encode(asks, row)
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            said = model(input_ids=ids).logits[0].log_softmax(-1)
        for place in range(example.answer_start, ids.shape[1]):
            total -= float(said[place - 1, ids[0, place]])
            count += 1
    assert found == pytest.approx(total / count, abs=1e-5)


def test_the_plan_runs_everything_once_and_the_four_three_times() -> None:
    order = plan()
    assert len(set(order)) == len(order) == len(METHODS) + 2 * len(REPEATED)
    assert [name for name, _ in order[:4]] == list(REPEATED)


def test_items_are_comparable() -> None:
    """Batches are compared in these tests; an identity would make that a test of nothing."""
    (one, *_), *_ = batches(read(suite(), 3), tokenizer(), BUDGET, 1)
    assert one == Item(one.task, one.example)
