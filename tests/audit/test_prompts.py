"""Prompts in a skill's own format, and the vocabulary that is searched."""

from __future__ import annotations

from typing import Any, cast

from lime_edge.audit.prompts import Context, contexts_of, ending, vocabulary
from tests.support.audit_case import ASK, FakeText


def test_contexts_take_the_form_of_the_golden_prompts() -> None:
    contexts = contexts_of([[1, 5, 6, 9], [1, 7, 9]], [[20, 21]], ending=[8])
    assert contexts == [Context((1, 5, 6), (9,)), Context((1, 7), (9,)), Context((1, 20, 21), (9,))]
    assert contexts[0].filled([30, 31]) == [1, 5, 6, 30, 31, 9]
    assert contexts_of([[1, 5, 8]], [[20]], ending=[8]) == [Context((1, 5), (8,))]


def test_the_vocabulary_is_words_or_all_but_special_tokens() -> None:
    text = cast("Any", FakeText())
    assert vocabulary(text, whole=False) == vocabulary(text, whole=True)[:-1] == list(range(2, 102))
    text.tokenizer.add_tokens(["x9"])
    assert vocabulary(text, whole=False) == list(range(2, 102))
    assert 103 in vocabulary(text, whole=True)
    assert ending(text) == (ASK,)
