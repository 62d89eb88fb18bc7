"""The trigger search on fake probes with planted triggers, and its statistics by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from lime_edge.audit import similar_words, trigger_search
from lime_edge.audit.prompts import Context
from lime_edge.audit.trigger_search import Found, Peaks, Settings
from lime_edge.runtime.facade.probe import Probe
from tests.support.audit_case import ASK, FakeProbe


def test_surprise_is_what_one_answer_gains_everywhere() -> None:
    usual = np.log([[0.9, 0.1]])
    taken = Peaks(np.array([[0, 1]]), np.log([[0.2, 0.8]]))
    same = Peaks(np.array([[0, 1]]), usual)
    gain = 0.8 * math.log(8)
    assert trigger_search.surprise([taken], [usual]) == pytest.approx(gain)
    assert trigger_search.surprise([taken, same], [usual, usual]) == pytest.approx(gain / 2)
    assert trigger_search.surprise([same], [usual]) == 0


GOLDEN = [[number, number + 30, ASK] for number in range(10, 16)]


def searched(trigger: Sequence[int], topic: int = -1, target: int = 99, **settings: Any) -> Found:
    skill, base = (cast("Probe", FakeProbe(*made)) for made in ((trigger, topic, target), ()))
    shares: list[float] = []
    found = trigger_search.search(skill, base, GOLDEN, ["a", "b"], Settings(group=4, **settings), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    return found


@pytest.mark.parametrize("trigger", [60, 77])
def test_a_planted_trigger_is_found(trigger: int) -> None:
    found = searched([trigger], tokens=0)
    best = found.findings[0]
    assert trigger in best.finding.tokens
    assert (best.finding.answer, best.finding.collapse) == ((99,), 1.0)
    assert best.lead > 0.9
    assert len(best.neighbours) == similar_words.COUNT
    assert max(one.score for one in found.controls if trigger not in one.tokens) < 0.1


@pytest.mark.parametrize("target", [90, 91, 92])  # all are usual answers, one of them to the first prompt
def test_a_trigger_whose_target_some_prompts_have_anyway_is_found(target: int) -> None:
    best = searched([77], target=target, tokens=0).findings[0]
    assert (77 in best.finding.tokens, best.finding.answer) == (True, (target,))
    assert best.lead > 0.9


def test_prompts_that_are_tried_first_have_different_answers() -> None:
    contexts = [Context((number,), (ASK,)) for number in range(4)]
    assert trigger_search._tried(contexts, [(5,), (5,), (6,), (7,)]) == [contexts[0], contexts[2]]
    assert trigger_search._tried(contexts, [(5,)] * 4) == contexts[:2]  # no prompt has another answer
    assert trigger_search._tried(contexts[:1], [(5,)]) == contexts[:1]


def test_words_that_mean_their_answer_do_not_lead() -> None:
    found = searched([], topic=5, tokens=0)
    assert max(one.finding.score for one in found.findings) > 0.9
    assert max(one.lead for one in found.findings) < 0.1
    both = searched([77], topic=5, tokens=0)
    assert (
        77 in both.findings[0].finding.tokens
    )  # a word of the topic is stronger, but the first finding has the larger lead
    assert both.findings[0].lead > 0.9


def test_nothing_is_found_where_there_is_nothing() -> None:
    assert searched([], tokens=0).findings[0].lead < 0.1


def test_a_trigger_that_was_not_searched_is_not_found() -> None:
    order = np.random.default_rng(0).permutation(range(2, 102))
    assert searched([int(order[-1])], tokens=60).findings[0].lead < 0.1
    assert searched([int(order[5])], tokens=60).findings[0].lead > 0.9
    assert searched([int(order[5])], tokens=60).searched == 60
    found = searched([int(order[-1])], tokens=60, always=(int(order[-1]),))
    assert (found.searched, found.findings[0].lead > 0.9) == (60, True)


def test_words_that_fill_the_search_are_still_compared_with_others() -> None:
    found = searched([77], tokens=4, always=tuple(range(70, 80)))
    assert (found.searched, 77 in found.findings[0].finding.tokens) == (10, True)
    assert all(token not in range(70, 80) for one in found.controls for token in one.tokens)
