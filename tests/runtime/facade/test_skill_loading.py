"""Packages that cannot be loaded: the reason is named, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import (
    ConfigError,
    LimeError,
    SkillFormatError,
    SkillMismatchError,
    SkillProofError,
)
from lime_edge.runtime import Runtime
from lime_edge.skills.draft_table import DraftTable
from lime_edge.skills.interface import Interface
from lime_edge.skills.package import read_skill
from tests.support.faults.malformed import MALFORMED
from tests.support.runtime_models import answer_ids, exported, runtime, skill


@pytest.fixture
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


def test_a_failed_load_changes_nothing(made: Runtime, tmp_path: Path) -> None:
    made.use_skill("legal")
    before, row_count, answer = made.skills(), made._bank.in_use, answer_ids(made)
    broken = tmp_path / "broken.lime"
    broken.write_bytes(b"no")
    stopping = {"generation": {}, "stop": ["\n<|im_end|>"]}
    cases: list[tuple[Any, dict[str, Any], type[LimeError], str]] = [
        (broken, {}, SkillFormatError, "not a skill package"),
        (tmp_path / "nope.lime", {}, SkillFormatError, "does not exist"),
        (skill(exported(), "far", adapter="c" * 64), {}, SkillMismatchError, "shared adapter cccc"),
        (skill(exported(), "odd", prompt=stopping), {}, SkillMismatchError, "never becomes text"),
        (skill(exported(), "x"), {"name": 10**5000}, ConfigError, "a whole number of 16610 bits cannot be used"),
        (skill(exported(), "loud", size=9.0), {}, SkillMismatchError, "limit|reach|allow"),
        (skill(exported(), "legal"), {}, ConfigError, "a skill named 'legal' is already loaded: pass replace=True"),
        (skill(exported(), "x"), {"name": "brief"}, ConfigError, "replace=True, or load it under another name"),
        (skill(exported(), "x"), {"name": "\n"}, ConfigError, "expected printable text"),
        (skill(exported(), "legal"), {"prove": True, "replace": True}, SkillProofError, "no golden prompts"),
    ]
    for path, arguments, error, message in cases:
        with pytest.raises(error, match=message):
            made.load_skill(path, **arguments)
    assert (made.skills(), made._bank.in_use, made.active_skill) == (before, row_count, "legal")
    assert answer_ids(made) == answer


def test_a_skill_may_declare_any_temperature_in_the_range(made: Runtime) -> None:
    declared = {"generation": {"temperature": 1e-307, "max_new_tokens": 3}, "stop": ["<|endoftext|>"]}
    made.load_skill(skill(exported(), "cold", prompt=declared))
    assert made.generate("Hello", "cold", seed=1).text == made.generate("Hello", "cold", temperature=0).text


def test_after_every_malformed_package_the_runtime_answers_as_before(made: Runtime, tmp_path: Path) -> None:
    made.use_skill("legal")
    before, answer, path = made.skills(), answer_ids(made), tmp_path / "bad.lime"
    ways: list[dict[str, Any]] = [{}, {"name": "legal", "replace": True}]
    for case in MALFORMED:
        path.write_bytes(case.make())
        for arguments in ways:
            with pytest.raises(SkillFormatError):
                made.load_skill(path, **arguments)
        assert (made.skills(), made.active_skill, answer_ids(made)) == (before, "legal", answer), case.name


def test_limits_can_be_set(made: Runtime) -> None:
    strict = Runtime(made._graph, made._text, {"gain": 0.1})
    with pytest.raises(SkillMismatchError, match="gain"):
        strict.load_skill(made.skills()[0].path)
    with pytest.raises(ConfigError) as caught:
        Runtime.load(exported(), max_value={"gain": 0, "bias": 1.0})  # type: ignore[dict-item]
    assert len(caught.value.faults) == 2
    with pytest.raises(
        ConfigError, match="max_value of shift is 70000; this model stores skills in float16: at most 65504"
    ):
        Runtime.load(exported(precision="int4"), max_value={"shift": 7e4})


def test_a_package_of_format_1_answers_as_one_of_format_2() -> None:
    """With the same vectors and the same system text."""
    interface = Interface(system="Be brief.")
    answers = []
    for version in (1, 2):
        path = skill(exported(), "legal", format=version, interface=interface)
        assert read_skill(path).manifest.format == version
        made = Runtime.load(exported(), threads=1)
        made.load_skill(path)
        answers.append(answer_ids(made, skill="legal"))
    assert answers[0] == answers[1] != answer_ids(made)


def test_a_draft_table_must_fit_the_vocabulary(made: Runtime) -> None:
    table = DraftTable.build([[5, 6, 10**6]] * 3)
    with pytest.raises(SkillMismatchError) as caught:
        made.load_skill(skill(exported(), "drafted", draft=table))
    assert caught.value.faults == ("the draft table has the token 1000000; the vocabulary has 300",)


def test_a_draft_table_changes_no_answer_and_saves_steps() -> None:
    found = runtime(exported(), "plain").generate("Hello", "plain", max_new_tokens=40, speculate=False)
    answer = [token for token in found.token_ids if token < 300]
    made = runtime(exported())
    made.load_skill(skill(exported(), "plain", draft=DraftTable.build([answer] * 3)))
    drafted = made.generate("Hello", "plain", max_new_tokens=40)
    assert drafted.token_ids == found.token_ids
    assert drafted.timings.accepted_tokens > 0
