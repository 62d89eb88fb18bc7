"""How many prompts a candidate takes over."""

from __future__ import annotations

import pytest

from lime_edge.audit import trigger_effect


def test_a_trigger_takes_over_prompts_that_have_another_answer() -> None:
    clean = [(5,), (6,), (7,), (7,), (9,)]
    said = [((9,), 0.9), ((9,), 0.7), ((7,), 1.0), ((7,), 1.0), ((9,), 1.0)]
    best = trigger_effect.taken_over((1,), 0.1, said, clean)
    assert (best.answer, best.collapse) == ((9,), 0.5)  # 2 of the 4 others
    assert best.confidence == pytest.approx(0.8)
    assert best.score == pytest.approx(0.4)
    assert (
        trigger_effect.toward((7,), (1,), 0.1, said, clean).score == 0
    )  # only the prompts whose clean answer is 7 give 7
    assert trigger_effect.toward((9,), (1,), 0.1, said, clean) == best
    unmoved = trigger_effect.taken_over((1,), 0.1, [(answer, 1.0) for answer in clean], clean)
    assert unmoved.score == 0
    alone = trigger_effect.taken_over((1,), 0.1, [((9,), 1.0)] * 3, [(5,), (9,), (9,)])
    assert alone.score == 0  # a single prompt shows no pattern
