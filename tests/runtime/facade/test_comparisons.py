"""A skill against another: the figures are those of separate runs, and a shadow compares exactly its share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError, StoppedError, UnknownSkillError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.choice_scores import log_softmax
from lime_edge.runtime.facade.comparisons import Shadow
from tests.support.runtime_models import Plain, exported, skill

ACTIVATIONS = {"always": "always", "reply": "response"}
FILES = {name: skill(exported(), name, activation=activation) for name, activation in ACTIVATIONS.items()}


def runtime(**arguments: Any) -> Runtime:
    made = Runtime.load(exported(), threads=1, **arguments)
    for path in FILES.values():
        made.load_skill(path)
    return made


@pytest.mark.parametrize(
    ("name", "against"), [("always", None), ("reply", "always"), ("always", "reply"), (None, None)]
)
def test_the_figures_are_those_of_two_separate_runs(name: str | None, against: str | None) -> None:
    made = runtime()
    found = made.compare("is it so?", name, against, max_new_tokens=40)
    assert found.against is not None
    assert found.answer.token_ids == made.generate("is it so?", name, max_new_tokens=40).token_ids
    assert found.against.token_ids == made.generate("is it so?", against, max_new_tokens=40).token_ids
    tokens = made._text.tokens("is it so?")
    whole = [*tokens.ids.tolist(), *found.answer.token_ids]
    rows = [
        np.stack([log_softmax(row) for row in _plain(one)(whole, tokens.boundary)[len(tokens.ids) - 1 : -1]])
        for one in (name, against)
    ]
    divergences = np.sum(np.exp(rows[0]) * (rows[0] - rows[1]), -1)
    np.testing.assert_allclose(found.divergences, divergences, atol=1e-4)
    assert found.divergence == pytest.approx(divergences.mean(), abs=1e-4)
    assert found.agreement == pytest.approx(np.mean(rows[0].argmax(-1) == rows[1].argmax(-1)))
    if name == against:
        assert found.divergence < 1e-9
        assert found.agreement == 1


def _plain(name: str | None) -> Plain:
    return Plain(exported(), None if name is None else FILES[name], ACTIVATIONS.get(name or "", "always"))


def test_faults() -> None:
    made = runtime()
    with pytest.raises(UnknownSkillError):
        made.compare("Hello", "always", "nobody")
    with pytest.raises(ConfigError, match="compare takes one prompt and one skill"):
        made.compare(["Hello", "you"], "always")  # type: ignore[list-item]
    with pytest.raises(StoppedError):
        made.compare("Hello", "always", timeout=0)


def test_a_shadow_compares_its_share_and_reports() -> None:
    made = runtime(shadow=0.25)
    assert made.shadow_report().rows == 0
    for _ in range(3):
        made.generate(["Hello", "you"], "always", max_new_tokens=4)
    made.generate("Hello", None, max_new_tokens=4)  # the base is not compared
    made.generate(["a", "b"], ["always", "reply"], max_new_tokens=4)
    report = made.shadow_report()
    assert (report.compared, report.rows) == (2, 2)
    expected = made.compare("you", "always", max_new_tokens=4)
    assert 0 <= report.agreement <= 1
    assert report.divergence > 0
    assert report.alarm == (report.agreement < 0.5)
    one = runtime(shadow=1)
    one.generate("you", "always", max_new_tokens=4)
    assert one.shadow_report().divergence == pytest.approx(expected.divergence, abs=1e-5)
    assert one.shadow_report().agreement == expected.agreement


def test_a_blend_is_compared_too() -> None:
    made = runtime(shadow=1)
    made.load_skill(skill(exported(), "other", activation="always"))
    made.generate("Hello", {"always": 0.5, "other": 0.25}, max_new_tokens=3)
    assert made.shadow_report().compared == 1


@pytest.mark.parametrize("share", [-1, 1.5, "x", True, float("nan")])
def test_a_share_that_is_none(share: Any) -> None:
    with pytest.raises(ConfigError, match=r"shadow is .*; expected a number from 0"):
        Runtime.load(exported(), shadow=share)


def test_the_window_of_a_report_is_bounded_and_raises_an_alarm() -> None:
    shadow = Shadow(1)
    for _ in range(300):
        shadow.add(1.0, 0.25)
    report = shadow.report()
    assert (report.compared, report.rows, report.alarm) == (300, 256, True)
    for _ in range(256):
        shadow.add(0.0, 1.0)
    assert not shadow.report().alarm
