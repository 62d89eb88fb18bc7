"""Scores of answers: exact match and F1."""

from __future__ import annotations

import pytest

from lime_edge.evaluation.metrics import f1, score


@pytest.mark.parametrize(
    ("answer", "reference", "wanted"),
    [
        ("a b c", "a b c", 1),
        ("c b a", "a b c", 1),
        ("a", "a b c", 0.5),
        ("a a", "a", 2 / 3),
        ("x", "a", 0),
        ("", "a", 0),
        ("", "", 1),
        ("a", "", 0),
        # slot F1: the reference is a JSON object
        ('{"b": 2, "a": 1}', '{"a": 1, "b": 2}', 1),
        ('{"a": 1}', '{"a": 1, "b": 2}', 2 / 3),
        ('{"a": 2, "b": 2}', '{"a": 1, "b": 2}', 0.5),
        ('{"a": {"y": 1, "x": 2}}', '{"a": {"x": 2, "y": 1}}', 1),
        ("no json", '{"a": 1}', 0),
        ("[1]", '{"a": 1}', 0),
        ("{}", "{}", 1),
        ("no json", "{}", 1),
        ("[" * 100_000, '{"a": 1}', 0),
        # token F1: a list or a number is not an object
        ("[1, 2]", "[1, 3]", 0.5),
        ("7", "7", 1),
    ],
)
def test_f1(answer: str, reference: str, wanted: float) -> None:
    assert f1(answer, reference) == pytest.approx(wanted)


def test_score_is_a_mean_over_rows() -> None:
    found = score([" yes\n", "no", "a b"], ["yes", "yes", "a c"])
    assert found.rows == 3
    assert found.exact == pytest.approx(1 / 3)
    assert found.f1 == pytest.approx((1 + 0 + 0.5) / 3)


def test_as_many_answers_as_references() -> None:
    with pytest.raises(ValueError, match="zip"):
        score(["a"], ["a", "b"])
