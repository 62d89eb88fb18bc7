"""Metrics on worked examples and against numpy; batched answers against single ones; the loss of answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.multitask.data import Task, read
from benchmarks.multitask.scores import Answers, accuracy, f1, matthews, number, pearson, ranks, scores, spearman
from lime_edge.evaluation.examples import Row
from lime_edge.training.dataset import encode
from lime_edge.training.predictor import Predictor
from tests.benchmarks.support.suite import suite
from tests.support.tiny_training import backbone_dir, tokenizer, wrapped


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


def test_the_loss_is_that_of_the_answers_alone() -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(backbone_dir())  # in evaluation mode already
    asks = tokenizer()
    rows = read(suite(), 3)[0].test
    found = Answers(model, asks).loss(rows, lambda job: None)
    total = count = 0.0
    for row in rows:  # one row at a time, with all logits
        example = encode(asks, row)
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            said = model(input_ids=ids).logits[0].log_softmax(-1)
        for place in range(example.answer_start, ids.shape[1]):
            total -= float(said[place - 1, ids[0, place]])
            count += 1
    assert found == pytest.approx(total / count, abs=1e-5)
