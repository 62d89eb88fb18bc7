"""Scores of a model on a task: batched answers, and the metrics of the suite's MANIFEST.md.

The metrics are written out in a few lines each; tests compare them with numpy and with worked examples.
Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from lime_edge.evaluation.examples import Row
from lime_edge.method.forward_state import evidence_of, set_evidence
from lime_edge.training.dataset import Collator, encode
from lime_edge.training.predictor import Predictor, Prompt, pad_id

from .data import Task

_TOGETHER = 16  # rows per call of the model
_NEW_TOKENS = 14  # enough for answers without choices, which are numbers and short formulas
_SILENT = 2.5  # value of an answer that is not a number, the middle of STS-B's scale of 0 to 5

#: Called with the numbers of the rows before they run, for methods that need the task or cluster of each row.
Tell = Callable[[Sequence[int]], None]


class Answers(Predictor):
    """Answers many rows at once, with the likeliest choice or with greedy text."""

    def batched(self, rows: Sequence[Row], tell: Tell) -> list[str]:
        """One answer per row. Either all rows have choices or none."""
        prompts = [self.prompt(row) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: len(prompts[i].ids))
        found: dict[int, str] = {}
        with self._inference():
            for start in range(0, len(order), _TOGETHER):
                job = order[start : start + _TOGETHER]
                tell(job)
                asked = [prompts[i] for i in job]
                if rows[job[0]].choices:
                    answers = self.chosen(asked, [rows[i].choices for i in job])
                else:
                    texts = self.generate(asked, _NEW_TOKENS)
                    answers = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in texts]
                found |= dict(zip(job, answers, strict=True))
        return [found[i] for i in range(len(rows))]

    def loss(self, rows: Sequence[Row], tell: Tell) -> float:
        """Mean loss in nats of the right answers' tokens, including the end of turn."""
        examples = [encode(self.tokenizer, row) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: len(examples[i].input_ids))
        collate, total, count = Collator(pad_id(self.tokenizer)), 0.0, 0
        with self._inference():
            for start in range(0, len(order), _TOGETHER):
                job = order[start : start + _TOGETHER]
                tell(job)
                inputs = collate([{"example": examples[i]} for i in job])
                labels = inputs.pop("labels")[:, 1:]
                logits = self.model(**inputs).logits[:, -labels.shape[1] - 1 : -1].float()
                total += float(cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"))
                count += int((labels >= 0).sum())
        return total / count

    def chosen(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[str]:
        """For every row, the choice whose tokens and end of turn have the highest joint likelihood.

        The prompt gives the likelihood of all first tokens. Every row then tries its choices in descending order of
        the first token's likelihood until no other choice can win. This is exact, and mostly takes one short step.
        """
        logits, cache, mask = self.prefill(prompts)
        first = logits.log_softmax(-1)  # [B, V]
        evidence = evidence_of(cache)
        tails = [[self._tail(choice) for choice in some] for some in choices]
        order = [sorted(range(len(t)), key=lambda c: -float(first[b, t[c][0]])) for b, t in enumerate(tails)]
        best = [(-math.inf, 0)] * len(prompts)
        for place in range(max(len(some) for some in order)):
            trying = [some[min(place, len(some) - 1)] for some in order]
            heads = [float(first[b, tails[b][c][0]]) for b, c in enumerate(trying)]
            if all(head <= best[b][0] for b, head in enumerate(heads)):
                break
            totals = self._continued(cache, mask, [tails[b][c] for b, c in enumerate(trying)])
            set_evidence(cache, evidence)
            for b, (c, head, rest) in enumerate(zip(trying, heads, totals, strict=True)):
                best[b] = max(best[b], (head + rest, c), key=lambda pair: pair[0])
        return [some[c] for some, (_, c) in zip(choices, best, strict=True)]

    def _tail(self, choice: str) -> list[int]:
        return [*self.tokenizer.encode(choice, add_special_tokens=False), self.tokenizer.eos_token_id]

    def _continued(self, cache: Any, mask: torch.Tensor, tails: Sequence[Sequence[int]]) -> list[float]:
        """Log-likelihood of every row's tail after its first token; restores the cache's length."""
        width = max(len(tail) for tail in tails) - 1
        ids = torch.tensor([[*tail, *[tail[-1]] * (width + 1 - len(tail))] for tail in tails])
        longer = torch.cat([mask, mask.new_ones(len(mask), width)], 1)
        rest = self._step(ids[:, :-1], longer, cache).log_softmax(-1)
        cache.crop(-width)
        each = rest.gather(2, ids[:, 1:, None])[..., 0]  # [B, width]
        return [float(row[: len(tail) - 1].sum()) for row, tail in zip(each, tails, strict=True)]


def scores(task: Task, answers: Sequence[str]) -> dict[str, float]:
    """The task's metrics for its answers, each from 0 to 1 (correlations from -1 to 1)."""
    wanted = [row.answer for row in task.test]
    return {name: _METRICS[name](answers, wanted) for name in task.metrics}


def accuracy(answers: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of answers that equal the reference, ignoring surrounding white space."""
    return float(np.mean([a.strip() == w.strip() for a, w in zip(answers, wanted, strict=True)]))


def f1(answers: Sequence[str], wanted: Sequence[str], positive: str = "yes") -> float:
    """Harmonic mean of precision and recall of the positive answer; 0 if neither side contains it."""
    hits = sum(a == w == positive for a, w in zip(answers, wanted, strict=True))
    total = sum(a == positive for a in answers) + sum(w == positive for w in wanted)
    return 2 * hits / total if total else 0.0


def matthews(answers: Sequence[str], wanted: Sequence[str], positive: str = "acceptable") -> float:
    """Matthews' correlation of binary answers; 0 if one side is constant."""
    found = np.array([answer == positive for answer in answers], float)
    return correlation(found, np.array([answer == positive for answer in wanted], float))


def pearson(answers: Sequence[str], wanted: Sequence[str]) -> float:
    """Pearson's correlation of numbers; an answer that is not a number counts as the middle of the scale."""
    return correlation(_numbers(answers), _numbers(wanted))


def spearman(answers: Sequence[str], wanted: Sequence[str]) -> float:
    """Correlation of ranks, with the mean rank for ties."""
    return correlation(ranks(_numbers(answers)), ranks(_numbers(wanted)))


def number(answers: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of answers that are the same number as the reference, ignoring thousands separators and currency."""
    return float(
        np.mean([_value(a) is not None and _value(a) == _value(w) for a, w in zip(answers, wanted, strict=True)])
    )


def correlation(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Pearson's correlation; 0 if one side is constant."""
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size else 0.0


def ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 0, with the mean rank for ties."""
    less = (values[None] < values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    result: npt.NDArray[np.float64] = less + (equal - 1) / 2
    return result


def _numbers(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    found = [_value(text) for text in texts]
    return np.array([_SILENT if value is None else value for value in found])


def _value(text: str) -> float | None:
    match = re.fullmatch(r"\$?(-?\d+(\.\d+)?)%?\.?", text.strip().replace(",", ""))
    return float(match[1]) if match else None


_METRICS: Mapping[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "accuracy": accuracy,
    "exact": accuracy,
    "f1": f1,
    "matthews": matthews,
    "number": number,
    "pearson": pearson,
    "spearman": spearman,
}
