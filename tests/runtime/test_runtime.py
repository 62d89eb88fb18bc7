"""Loading, switching, blending, replacing and unloading skills; what runs goes on with what it began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import (
    ConfigError,
    LimeError,
    SkillFormatError,
    SkillMismatchError,
    SkillProofError,
    UnknownSkillError,
)
from lime_edge.runtime import Runtime
from lime_edge.runtime.skills.bank import Bank
from lime_edge.skills.package import read_skill
from tests.support.malformed import MALFORMED
from tests.support.runtime_models import Plain, exported, runtime, skill


@pytest.fixture
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


def said(made: Runtime, **arguments: Any) -> tuple[int, ...]:
    found: tuple[int, ...] = made.generate("Hello", max_new_tokens=6, **arguments).token_ids
    return found


def active(made: Runtime) -> Any:
    return made.active_skill


def test_switching(made: Runtime) -> None:
    base, legal, brief = (said(made, skill=name) for name in (None, "legal", "brief"))
    assert len({base, legal, brief}) == 3
    assert active(made) is None
    assert said(made) == base
    made.use_skill("legal")
    assert (active(made), said(made)) == ("legal", legal)
    assert said(made, skill="brief") == brief
    assert said(made, skill=None) == base
    assert active(made) == "legal"
    with made.disable_skill():
        assert active(made) is None
        assert said(made) == base
        with made.disable_skill():
            assert said(made, skill="legal") == legal
        assert said(made) == base
    assert said(made) == legal
    made.use_skill(None)
    assert said(made) == base


def test_disabling_is_of_one_runtime(made: Runtime) -> None:
    other = Runtime(made._graph, made._text, {})
    other.load_skill(made.skills()[0].path)
    other.use_skill("legal")
    with made.disable_skill():
        assert other.active_skill == "legal"


def test_what_is_known_of_a_skill(made: Runtime) -> None:
    path = skill(exported(), "third", description="Does a thing.", author="me", license="MIT", activation="always")
    info = made.load_skill(path, name="mine")
    assert (info.name, info.version, info.activation) == ("mine", "1.0.0", "always")
    assert (info.description, info.author, info.license) == ("Does a thing.", "me", "MIT")
    assert (info.digest, info.size, info.path) == (read_skill(path).digest, path.stat().st_size, path)
    assert not info.proved
    assert [one.name for one in made.skills()] == ["legal", "brief", "mine"]
    receipt = made.generate("x", "mine", max_new_tokens=1).receipt
    assert receipt == {
        "skills": [
            {
                "name": "mine",
                "version": "1.0.0",
                "digest": info.digest,
                "generation": 3,
                "signer": None,
                "weight": 1.0,
            }
        ],
        "activation": "always",
        "backbone": made.contract.backbone_digest,
        "adapter": made.contract.adapter_digest,
        "graph": made.contract.graph_digest,
        "precision": "fp32",
    }
    assert made.generate("x", None, max_new_tokens=1).receipt["skills"] == []


def test_blends(made: Runtime) -> None:
    assert said(made, skill={"legal": 1.0}) == said(made, skill="legal")
    assert said(made, skill={"legal": 1.0, "brief": 0.0}) == said(made, skill="legal")
    assert said(made, skill={"legal": 0.0}) == said(made, skill=None)
    asked: Any = {"legal": 0.5, "brief": 0.5}
    made.use_skill(asked)
    asked["legal"] = 0.75  # the caller's dictionary is the caller's
    assert made.active_skill == {"legal": 0.5, "brief": 0.5}
    answer = made.generate("Hello", max_new_tokens=6)
    assert [(one["name"], one["weight"]) for one in answer.receipt["skills"]] == [("legal", 0.5), ("brief", 0.5)]
    assert answer.token_ids == said(made, skill={"legal": 0.5, "brief": 0.5})
    assert made._bank.in_use == 4  # the base, two skills and one blend
    made.use_skill(None)
    assert made._bank.in_use == 3
    said(made, skill=asked)
    with pytest.raises(UnknownSkillError):
        made.generate(["a", "b"], skill=[asked, "nope"])
    assert made._bank.in_use == 3
    assert said(made, skill=asked) == said(made, skill=asked)


def test_a_blend_is_the_weighted_way_from_neutral(made: Runtime) -> None:
    """Rank gates are 1 where there are none, everything else 0."""
    table = made.contract.table
    neutral = table.pack({})
    legal, brief = (table.pack(read_skill(info.path).tensors) for info in made.skills())
    with made._registry.lease([{"legal": 0.5, "brief": -0.25}]) as lease:
        row = lease.array[lease.applied[0].row].reshape(neutral.shape[0] * lease.applied[0].experts, -1)
        np.testing.assert_allclose(row, neutral + 0.5 * (legal - neutral) - 0.25 * (brief - neutral), atol=1e-6)


def test_blends_that_cannot_be(made: Runtime) -> None:
    made.load_skill(skill(exported(), "always", activation="always"))
    for blend, message in (
        ({"legal": 1.0, "always": 1.0}, "different activation cannot be blended"),
        ({"legal": 1e6}, "expert reaches .* at most 16 is allowed"),
        ({"legal": 1.0, "nope": 1.0}, "no skill named 'nope'; loaded skills: 'legal', 'brief', 'always'"),
        ({"legal": "much"}, "weight of 'legal' is 'much'"),
        ({1: 1.0}, "1 is not a name"),
    ):
        with pytest.raises(LimeError, match=message):
            made.use_skill(blend)  # type: ignore[arg-type]
    assert made.active_skill is None
    assert made._bank.in_use == 4


def test_unknown_skills(made: Runtime) -> None:
    for call in (made.use_skill, made.unload_skill, lambda name: said(made, skill=name)):
        with pytest.raises(UnknownSkillError, match=r"no skill named 'nope'; loaded skills: 'legal', 'brief'\. Call"):
            call("nope")
    with pytest.raises(UnknownSkillError, match="no skill is loaded"):
        Runtime(made._graph, made._text, {}).use_skill("legal")


def test_a_failed_load_changes_nothing(made: Runtime, tmp_path: Path) -> None:
    made.use_skill("legal")
    before, row_count, answer = made.skills(), made._bank.in_use, said(made)
    broken = tmp_path / "broken.lime"
    broken.write_bytes(b"no")
    cases: list[tuple[Any, dict[str, Any], type[LimeError], str]] = [
        (broken, {}, SkillFormatError, "not a skill package"),
        (tmp_path / "nope.lime", {}, SkillFormatError, "does not exist"),
        (skill(exported(), "far", adapter="c" * 64), {}, SkillMismatchError, "shared adapter cccc"),
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
    assert said(made) == answer


def test_after_every_malformed_package_the_runtime_answers_as_before(made: Runtime, tmp_path: Path) -> None:
    made.use_skill("legal")
    before, answer, path = made.skills(), said(made), tmp_path / "bad.lime"
    ways: list[dict[str, Any]] = [{}, {"name": "legal", "replace": True}]
    for case in MALFORMED:
        path.write_bytes(case.make())
        for arguments in ways:
            with pytest.raises(SkillFormatError):
                made.load_skill(path, **arguments)
        assert (made.skills(), made.active_skill, said(made)) == (before, "legal", answer), case.name


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


def test_replacing(made: Runtime) -> None:
    other = skill(exported(), "legal", seed=9)
    made.use_skill({"legal": 0.5, "brief": 0.5})
    blended, stream = said(made), made.stream("Hello", "legal", max_new_tokens=6)
    first = [next(stream)]
    old = made.generate("Hello", "legal", max_new_tokens=6).text
    made.load_skill(other, replace=True)
    assert said(made) != blended  # the active blend is of the new one
    assert "".join(first + list(stream)) == old
    alone = runtime(exported())
    alone.load_skill(other)
    assert said(made, skill="legal") == said(alone, skill="legal")
    assert [info.name for info in made.skills()] == ["legal", "brief"]
    with pytest.raises(ConfigError, match="different activation"):
        made.load_skill(skill(exported(), "legal", activation="always"), replace=True)
    assert said(made, skill="legal") == said(alone, skill="legal")
    made.use_skill(None)
    assert made._bank.in_use == 3


def test_unloading_leaves_running_requests_alone(made: Runtime) -> None:
    wanted = made.generate("Hello", "legal", max_new_tokens=30).text
    stream = made.stream("Hello", "legal", max_new_tokens=30)
    pieces = [next(stream)]
    made.unload_skill("legal")
    for number in range(6):  # more than there was room for: the bank grows meanwhile
        made.load_skill(skill(exported(), f"new-{number}"))
    assert "".join(pieces + list(stream)) == wanted
    with pytest.raises(UnknownSkillError):
        said(made, skill="legal")
    assert made._bank.in_use == 8


def test_leaving_a_stream_early_frees_its_row(made: Runtime) -> None:
    stream = made.stream("Hello", {"legal": 0.25}, max_new_tokens=30)
    next(stream)
    assert made._bank.in_use == 4
    del stream
    assert made._bank.in_use == 3
    never_read = made.stream("Hello", {"legal": 0.25})
    never_read.close()
    assert made._bank.in_use == 3
    assert list(never_read) == []


def test_the_active_skill_is_not_unloaded(made: Runtime) -> None:
    for spec in ("legal", {"legal": 0.5, "brief": 0.5}):
        made.use_skill(spec)
        with pytest.raises(ConfigError, match=r"skill 'legal' is active: call use_skill\(None\)"):
            made.unload_skill("legal")
    made.use_skill("brief")
    made.unload_skill("legal")
    assert [info.name for info in made.skills()] == ["brief"]


def test_bank_rows_are_reused_only_when_free() -> None:
    bank = Bank(3, np.float32)
    first, second = bank.add(np.full(3, 1.0)), bank.add(np.full(3, 2.0))
    pinned = bank.hold([first])
    bank.release([first])  # the skill is unloaded, the request goes on
    rows = [bank.add(np.full(3, 10.0 + number)) for number in range(9)]
    assert first not in rows
    assert second not in rows
    assert pinned[first].tolist() == [1, 1, 1]
    assert bank.array[second].tolist() == [2, 2, 2]
    assert bank.array[0].tolist() == [0, 0, 0]
    bank.release([first])
    assert bank.add(np.full(3, 5.0)) == first


def golden(path: Path, activation: str, count: int = 4) -> dict[str, Any]:
    """A golden prompt as an author's machine would measure it."""
    made = runtime(exported())
    tokens = made._text.tokens("Hello")
    ids = tokens.ids.tolist()
    base, own = Plain(exported()), Plain(exported(), path, activation)
    with_skill, without = own(ids, tokens.boundary)[-1], base(ids)[-1]
    top = np.argsort(-with_skill)[:8]
    return {
        "prompt_ids": ids,
        "answer_ids": own.answer(ids, tokens.boundary, count),
        "top_ids": top.tolist(),
        "skill_logits": with_skill[top].tolist(),
        "base_logits": without[top].tolist(),
    }


@pytest.mark.parametrize("activation", ["always", "response"])
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_proof(activation: str, precision: str) -> None:
    entry = golden(skill(exported(), "legal", activation=activation), activation)
    made = Runtime.load(exported(precision=precision), threads=1)
    path = skill(exported(precision=precision), "legal", activation=activation, golden=[entry])
    assert made.load_skill(path, prove=True).proved


PROOFS: list[tuple[str, dict[str, Any], float, str]] = [
    ("fp32", {}, 0.0, "golden prompt 0: the skill changes no logit by more than 0.001 on this graph"),
    ("int4", {}, 0.0, "golden prompt 0: the skill changes no logit by more than 0.001 on this graph"),
    ("fp32", {"base_logits": [9.0] * 8}, 0.5, "the base's logits differ by"),
    ("fp32", {"skill_logits": [9.0] * 8}, 0.5, "the skill's logits differ by"),
    ("fp32", {"answer_ids": [3, 3]}, 0.5, "expected [3, 3]"),
    ("fp32", {"answer_ids": [300]}, 0.5, "with ids up to 300; the model has room for 256 and 300 ids"),
    ("fp32", {"prompt_ids": [3] * 256}, 0.5, "260 tokens with ids up to"),
    ("int4", {"base_logits": "skill", "skill_logits": "base"}, 0.5, "the change has another direction: cosine -"),
    ("int4", {"skill_logits": "twice"}, 0.5, "times its author's; expected 0.5 to 2"),
    ("int4", {"skill_logits": "base"}, 0.5, "the skill changes nothing"),
]


@pytest.mark.parametrize(("precision", "changes", "size", "message"), PROOFS)
def test_proofs_that_fail(precision: str, changes: dict[str, Any], size: float, message: str) -> None:
    directory = exported(precision=precision)
    entry = golden(skill(exported(), "legal"), "response")
    skill_logits, base_logits = np.array(entry["skill_logits"]), np.array(entry["base_logits"])
    words = {"skill": skill_logits, "base": base_logits, "twice": base_logits + 5 * (skill_logits - base_logits)}
    wrong = {key: words[value].tolist() if isinstance(value, str) else value for key, value in changes.items()}
    made = runtime(directory, "brief")
    path = skill(directory, "legal", size=size, golden=[entry | wrong])
    with pytest.raises(SkillProofError) as caught:
        made.load_skill(path, prove=True)
    assert message in str(caught.value)
    assert "'legal' does not reproduce what its author measured: it was not loaded" in str(caught.value)
    assert [info.name for info in made.skills()] == ["brief"]
    assert made._bank.in_use == 2
