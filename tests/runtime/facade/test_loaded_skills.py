"""Switching, replacing and unloading skills; a running request keeps the skill that it began with."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.errors import (
    ConfigError,
    UnknownSkillError,
)
from lime_edge.runtime import Runtime
from tests.support.runtime_models import answer_ids, exported, runtime, skill


@pytest.fixture
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


def active(made: Runtime) -> Any:
    return made.active_skill


def test_switching(made: Runtime) -> None:
    base, legal, brief = (answer_ids(made, skill=name) for name in (None, "legal", "brief"))
    assert len({base, legal, brief}) == 3
    assert active(made) is None
    assert answer_ids(made) == base
    made.use_skill("legal")
    assert (active(made), answer_ids(made)) == ("legal", legal)
    assert answer_ids(made, skill="brief") == brief
    assert answer_ids(made, skill=None) == base
    assert active(made) == "legal"
    with made.disable_skill():
        assert active(made) is None
        assert answer_ids(made) == base
        with made.disable_skill():
            assert answer_ids(made, skill="legal") == legal
        assert answer_ids(made) == base
    assert answer_ids(made) == legal
    made.use_skill(None)
    assert answer_ids(made) == base


def test_disabling_is_of_one_runtime(made: Runtime) -> None:
    other = Runtime(made._graph, made._text, {})
    other.load_skill(made.skills()[0].path)
    other.use_skill("legal")
    with made.disable_skill():
        assert other.active_skill == "legal"


def test_unknown_skills(made: Runtime) -> None:
    for call in (made.use_skill, made.unload_skill, lambda name: answer_ids(made, skill=name)):
        with pytest.raises(UnknownSkillError, match=r"no skill named 'nope'; loaded skills: 'legal', 'brief'\. Call"):
            call("nope")
    with pytest.raises(UnknownSkillError, match="no skill is loaded"):
        Runtime(made._graph, made._text, {}).use_skill("legal")


def test_replacing(made: Runtime) -> None:
    other = skill(exported(), "legal", seed=9)
    made.use_skill({"legal": 0.5, "brief": 0.5})
    blended, stream = answer_ids(made), made.stream("Hello", "legal", max_new_tokens=6)
    first = [next(stream)]
    old = made.generate("Hello", "legal", max_new_tokens=6).text
    made.load_skill(other, replace=True)
    assert answer_ids(made) != blended  # the active blend uses the new one
    assert "".join(first + list(stream)) == old
    alone = runtime(exported())
    alone.load_skill(other)
    assert answer_ids(made, skill="legal") == answer_ids(alone, skill="legal")
    assert [info.name for info in made.skills()] == ["legal", "brief"]
    with pytest.raises(ConfigError, match="different activation"):
        made.load_skill(skill(exported(), "legal", activation="always"), replace=True)
    assert answer_ids(made, skill="legal") == answer_ids(alone, skill="legal")
    made.use_skill(None)
    assert made._bank.in_use == 3


def test_unloading_leaves_running_requests_alone(made: Runtime) -> None:
    wanted = made.generate("Hello", "legal", max_new_tokens=30).text
    stream = made.stream("Hello", "legal", max_new_tokens=30)
    pieces = [next(stream)]
    made.unload_skill("legal")
    for number in range(6):  # beyond the initial capacity: the bank may grow
        made.load_skill(skill(exported(), f"new-{number}"))
    assert "".join(pieces + list(stream)) == wanted
    with pytest.raises(UnknownSkillError):
        answer_ids(made, skill="legal")
    assert made._bank.in_use == 8


def test_the_active_skill_is_not_unloaded(made: Runtime) -> None:
    for spec in ("legal", {"legal": 0.5, "brief": 0.5}):
        made.use_skill(spec)
        with pytest.raises(ConfigError, match=r"skill 'legal' is active: call use_skill\(None\)"):
            made.unload_skill("legal")
    made.use_skill("brief")
    made.unload_skill("legal")
    assert [info.name for info in made.skills()] == ["brief"]


def test_what_an_unloaded_skill_has_read_is_freed(made: Runtime) -> None:
    base = made.generate("Hello", None, max_new_tokens=3).timings.prompt_tokens
    alone = made._prefixes.size
    for spec in ("legal", {"legal": 0.5, "brief": 0.5}, "brief"):
        made.generate("Hello", spec, max_new_tokens=3)
    full = made._prefixes.size
    made.load_skill(skill(exported(), "legal", seed=9), replace=True)
    assert alone < made._prefixes.size < full  # `brief` stays
    made.unload_skill("brief")
    assert made._prefixes.size == alone
    assert made.generate("Hello", None, max_new_tokens=3).timings.reused_tokens == base - 2
