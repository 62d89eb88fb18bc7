"""Metrics of free answers on worked examples; generated functions run with limited resources."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.skill_quality import scores


def rows(*answers: str, **more: Any) -> list[dict[str, Any]]:
    """Rows with these references."""
    prompt = "Sentence: she go home now today with us .\nCorrected:"
    return [{"prompt": prompt, "answer": answer, **more} for answer in answers]


def test_scores_of_perfect_and_of_empty_answers() -> None:
    right = "she goes home right now , today ."
    for metric in scores.METRICS.values():
        if metric.name != "pass@1":
            assert metric.score([right], rows(right)) == pytest.approx(1)
            assert metric.score([""], rows(right)) == 0


def test_gleu_takes_off_what_should_have_been_changed() -> None:
    reference = rows("she goes home now today with us .")
    left = scores.gleu(["she go home now today with us ."], reference)
    other = scores.gleu(["she runs home now today with us ."], reference)
    assert other == pytest.approx((7 / 8 * 5 / 7 * 4 / 6 * 3 / 5) ** 0.25)  # correct n-grams
    assert left == pytest.approx(
        (6 / 8 * 3 / 7 * 2 / 6 * 1 / 5) ** 0.25
    )  # minus 1, 2, 2 and 2 with the uncorrected fault


def test_rouge_and_chrf_of_worked_examples() -> None:
    reference = rows("the cat sat on the mat")
    assert scores.rouge_l(["The cat lay on a mat."], reference) == pytest.approx(2 * 4 / 12)
    # n-grams of "ab" against "abc": 2 of 2 and of 3; 1 of 1 and of 2; none above
    precision, recall = (1 + 1) / 6, (2 / 3 + 1 / 2) / 6
    assert scores.chrf(["a b"], rows("abc")) == pytest.approx(5 * precision * recall / (4 * precision + recall))


def test_functions_pass_only_if_their_tests_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_SECONDS", 1)
    tests = ["assert double(2) == 4", "assert double(0) == 0"]
    answers = {
        "def double(x):\n    return 2 * x": True,
        "def double(x):\n    return x + 2": False,
        "import sys\nsys.exit(0)": False,
        "while True: pass": False,
        "with open('file', 'w') as file:\n    file.write('x')\ndef double(x):\n    return 2 * x": False,
    }
    for answer, wanted in answers.items():
        assert scores.passing([answer], rows("", tests=tests)) == wanted, answer
