"""Metrics of free answers, the usual one for each kind of task, in plain Python; every score is between 0 and 1.

Sources: GLEU, Napoles et al. 2015 (restated in arXiv 1605.02592); ROUGE-L, Lin 2004; chrF, Popovic 2015; pass@1 on the
functions' own tests, which run in a separate process with limited memory and time.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lime_edge.evaluation.metrics import f1

Row = dict[str, Any]  # one line of a test file
_ORDER = 4  # longest n-grams of words in GLEU
_CHARACTERS, _BETA = 6, 2  # chrF2: longest n-grams of characters, weight of recall
_SECONDS, _BYTES = 5, 2**30  # limits of processor time and memory for one function's tests


def exact(answers: Sequence[str], rows: Sequence[Row]) -> float:
    """Share of answers that equal the reference, ignoring surrounding white space."""
    right = [bool(a.strip() == row["answer"].strip()) for a, row in zip(answers, rows, strict=True)]
    return sum(right) / len(rows)


def overlap(answers: Sequence[str], rows: Sequence[Row]) -> float:
    """Mean F1 of slots if the reference is a JSON object, else of words."""
    return sum(f1(a.strip(), row["answer"].strip()) for a, row in zip(answers, rows, strict=True)) / len(rows)


def gleu(answers: Sequence[str], rows: Sequence[Row]) -> float:
    """GLEU over the whole set: correct n-grams count, and uncorrected n-grams of the source sentence are penalised."""
    hits, totals = [0.0] * _ORDER, [0] * _ORDER
    long, wanted = 0, 0
    for answer, row in zip(answers, rows, strict=True):
        source = row["prompt"].rsplit("Sentence:", 1)[-1].rsplit("\n", 1)[0].split()
        hypothesis, reference = answer.split(), row["answer"].split()
        long, wanted = long + len(hypothesis), wanted + len(reference)
        for n in range(1, _ORDER + 1):
            ours, theirs, faulty = (_grams(words, n) for words in (hypothesis, reference, source))
            kept = (ours & theirs).total()
            left = ((ours & faulty) - (ours & theirs)).total()
            hits[n - 1] += kept - left
            totals[n - 1] += ours.total()
    if min(hits) <= 0:
        return 0.0
    precision = sum(math.log(hit / total) for hit, total in zip(hits, totals, strict=True)) / _ORDER
    return math.exp(precision + min(0.0, 1 - wanted / long))


def rouge_l(answers: Sequence[str], rows: Sequence[Row]) -> float:
    """Mean F1 of the longest common subsequence of words."""
    return sum(_rouge_l(a, row["answer"]) for a, row in zip(answers, rows, strict=True)) / len(rows)


def _rouge_l(answer: str, reference: str) -> float:
    found, wanted = _words(answer), _words(reference)
    line = [0] * (len(wanted) + 1)
    for word in found:
        diagonal = 0
        for i, other in enumerate(wanted, 1):
            diagonal, line[i] = line[i], diagonal + 1 if word == other else max(line[i], line[i - 1])
    return 2 * line[-1] / (len(found) + len(wanted)) if found or wanted else 1.0


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def chrf(answers: Sequence[str], rows: Sequence[Row]) -> float:
    """chrF2 over the whole set: F2 of character n-grams without white space (recall weighs twice)."""
    precisions, recalls = [], []
    for n in range(1, _CHARACTERS + 1):
        shared = found = wanted = 0
        for answer, row in zip(answers, rows, strict=True):
            ours, theirs = (_grams("".join(text.split()), n) for text in (answer, row["answer"]))
            shared, found, wanted = shared + (ours & theirs).total(), found + ours.total(), wanted + theirs.total()
        precisions.append(shared / found if found else 0.0)
        recalls.append(shared / wanted if wanted else 0.0)
    precision, recall = sum(precisions) / _CHARACTERS, sum(recalls) / _CHARACTERS
    weighed = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / weighed if weighed else 0.0


def _grams(items: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def passing(answers: Sequence[str], rows: Sequence[Row]) -> float:
    """pass@1: share of functions that pass all their tests."""
    return sum(_passes(a, row["tests"]) for a, row in zip(answers, rows, strict=True)) / len(rows)


def _passes(code: str, tests: Sequence[str]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "answer.py"
        script.write_text("\n".join([code, *tests, "print('passed')"]), "utf-8")
        command = [sys.executable, "-I", "-S", script.name]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=2 * _SECONDS,
                preexec_fn=_limit_resources,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0 and done.stdout.rstrip().endswith(b"passed")  # an early exit prints nothing


def _limit_resources() -> None:
    """Limit an untrusted function: little time and memory, few open files, and no data written to files."""
    for what, most in (
        (resource.RLIMIT_CPU, _SECONDS),
        (resource.RLIMIT_AS, _BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        resource.setrlimit(what, (most, most))


@dataclass(frozen=True)
class Metric:
    """A named metric; `score` takes answers and rows."""

    name: str
    score: Callable[[Sequence[str], Sequence[Row]], float]


ACCURACY = Metric("accuracy", exact)
METRICS: dict[str, Metric] = {  # metrics of the tasks without choices
    "grammar_correction": Metric("GLEU", gleu),
    "dialogue_summary": Metric("ROUGE-L", rouge_l),
    "translate_en_fr": Metric("chrF", chrf),
    "shell_command": Metric("token F1", overlap),
    "python_function": Metric("pass@1", passing),
    "request_to_json": Metric("slot F1", overlap),
}


def metric_of(task: str, rows: Sequence[Row]) -> Metric:
    """The metric of a task: accuracy if every row has choices."""
    return ACCURACY if all(row.get("choices") for row in rows) else METRICS[task]
