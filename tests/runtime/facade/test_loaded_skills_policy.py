"""Another trust policy while a runtime answers: what it refuses is unloaded, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.errors import PolicyError, SkillTrustError, UnknownSkillError
from tests.support.runtime_models import answer_ids, exported, runtime, skill
from tests.support.signatures import key_table, pair, policy, publisher, signed

ACME = publisher("acme", ["legal"], key_table(pair("acme")))


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_stricter_policy_unloads_what_it_refuses(tmp_path: Path) -> None:
    made = runtime(exported())
    made.load_skill(signed(skill(exported(), "legal"), pair("acme")))
    made.load_skill(skill(exported(), "brief"))
    legal = answer_ids(made, skill="legal")
    made.use_skill("brief")
    stream = made.stream("Hello", "brief", max_new_tokens=6)
    first = next(stream)
    refused = made.use_policy(written(tmp_path, policy(ACME)))
    assert list(refused) == ["brief"]
    assert "there is no signature" in refused["brief"]
    assert made.trust is not None
    assert made.active_skill is None  # the base takes the place of a refused skill
    assert [info.name for info in made.skills()] == ["legal"]
    assert answer_ids(made, skill="legal") == legal
    assert first + "".join(stream) == stream.generation.text  # what runs goes on
    with pytest.raises(SkillTrustError):
        made.load_skill(skill(exported(), "brief"))
    digest = made.skills()[0].digest
    assert list(made.use_policy(written(tmp_path, policy(ACME, f'[revoked]\nskills = ["{digest}"]')))) == ["legal"]
    with pytest.raises(UnknownSkillError):
        answer_ids(made, skill="legal")
    assert made.use_policy(None) == {}
    made.load_skill(skill(exported(), "brief"))


def test_a_file_that_changed_cannot_be_verified_any_more(tmp_path: Path) -> None:
    made = runtime(exported(), "legal", "brief")
    legal, brief = (info.path for info in made.skills())
    legal.write_bytes(skill(exported(), "legal", seed=1).read_bytes())
    brief.unlink()
    refused = made.use_policy(written(tmp_path, policy(ACME, required=False)))
    assert sorted(refused) == ["brief", "legal"]
    assert made.skills() == []


def test_a_policy_with_faults_changes_nothing(tmp_path: Path) -> None:
    made = runtime(exported(), "legal")
    with pytest.raises(PolicyError):
        made.use_policy(written(tmp_path, "format = 1"))
    assert made.trust is None
    assert [info.name for info in made.skills()] == ["legal"]
