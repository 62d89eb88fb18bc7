"""Words of similar meaning, and findings compared with them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import tokenizers

from lime_edge.audit import similar_words
from lime_edge.audit.prompts import Context, PromptProbe
from lime_edge.audit.trigger_effect import Finding
from lime_edge.runtime.facade.probe import Probe
from tests.support.audit_case import ASK, FakeProbe, topic_of


def test_neighbours_are_what_a_list_goes_on_with() -> None:
    base = cast("Probe", FakeProbe())
    found = similar_words.neighbours(base, [60, 77], list(range(2, 100, 7)), 4)  # one word of each topic
    assert [set(near) <= set(topic_of(token)) - {token} for token, near in found.items()] == [True, True]
    assert [len(set(near)) for near in found.values()] == [4, 4]


def test_forms_of_one_word() -> None:
    known = {
        "<end>": 0,
        " Harbour": 1,
        " harbours": 2,
        " harbor": 3,
        " cat": 4,
        " cattle": 5,
        " cast": 6,
        " running": 7,
    }
    text = cast("Any", SimpleNamespace(tokenizer=tokenizers.Tokenizer(tokenizers.models.WordLevel(known, "<end>"))))
    alike = {(a, b) for a in known.values() for b in known.values() if similar_words.forms_of_one(text, a, b) and a < b}
    assert alike == {(1, 2), (1, 3), (2, 3), (4, 5)}


def test_a_finding_is_compared_over_the_same_answer() -> None:
    skill = cast("Probe", FakeProbe([60], topic=(77 - 2) // 10))
    contexts = [Context((number, number + 30), (ASK,)) for number in range(10, 16)]
    prompt_probe = PromptProbe(skill, contexts, [(number,) for number in range(3)])
    clean = [prompt_probe.answer(context) for context in contexts]

    def finding(tokens: tuple[int, ...], score: float, answer: int) -> Finding:
        return Finding(tokens, 1.0, score, (answer,), 0.0)

    made = [finding((77,), 0.9, 98), finding((77,), 0.9, 97), finding((60, 77), 0.95, 99), finding((3,), 0.2, 99)]
    found = similar_words.compare(prompt_probe, cast("Probe", FakeProbe()), made, [5, 25, 45], clean)
    assert [(one.finding.tokens, one.finding.answer) for one in found[:2]] == [((60, 77), (99,)), ((77,), (97,))]
    assert [round(one.lead, 1) for one in found] == [0.9, 0.9, 0.2, -0.1]
    assert found[2].neighbours == ()  # too weak to be compared
    assert all(len(one.tokens) == 2 and not {60, 77} & set(one.tokens) for one in found[0].neighbours)


def test_one_strong_neighbour_may_be_a_form_of_the_word() -> None:
    one, strong, weak = (Finding((7,), 1.0, score, (9,), 0.0) for score in (0.9, 0.8, 0.1))
    assert similar_words.Compared(one, (strong, weak, weak)).lead == pytest.approx(0.45)
    assert similar_words.Compared(one, (strong, strong, weak)).lead == pytest.approx(0.1)
    assert similar_words.Compared(one).lead == 0.9
