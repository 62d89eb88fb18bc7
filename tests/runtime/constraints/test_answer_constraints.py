"""One compilation for many rows; mutated specifications are refused by name and never cost more than their bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from lime_edge.runtime.constraints import answer_constraints
from lime_edge.runtime.constraints.answer_constraints import AnswerConstraints
from lime_edge.runtime.constraints.answer_spec import AnswerSpec
from tests.support.runtime_models import tiny_text

from .mutated_specs import check, documents
from .walks import VOCABULARY, constraints, walk


def test_free_text_has_no_constraint() -> None:
    assert constraints().constrain(AnswerSpec("text")) is None


def test_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return real(*arguments)

        return call

    for name in ("open_tokenizer", "Grammar", "encode"):
        monkeypatch.setattr(answer_constraints, name, counted(name, getattr(answer_constraints, name)))
    made = AnswerConstraints(tiny_text(), VOCABULARY)
    for answers in (AnswerSpec("regex", "ab"), ["yes", "no"], {"type": "null"}) * 3:
        row = made.constrain(AnswerSpec.of(answers))
        assert row is not None
        assert walk(row, 0)[0] in ("ab", "yes", "no", "null")
    assert calls == ["open_tokenizer", "Grammar", "encode", "Grammar"]


@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
@given(documents())
def test_mutated_specifications(document: object) -> None:
    check(document)
