"""The benchmark of loading signed skills: both ways are measured, and the policy requires the signatures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed import trust
from lime_edge.errors import SkillTrustError
from lime_edge.trust.policy import TrustPolicy
from lime_edge.trust.signature_file import signature_path
from tests.benchmarks.support.speed_runs import measured


def test_loading_signed_skills_is_measured(tmp_path: Path) -> None:
    found = measured(trust.main, tmp_path, "--loaded", "1,2", "--loads", "2")
    calls = {(one["call"], one["loaded"]): one["calls"] for one in found["figures"]}
    assert calls == {(way, count): 2 for way in ("load_skill", "load_skill, signed") for count in (1, 2)}
    assert list(found["ratios"]) == ["1", "2"]
    policy = TrustPolicy.read(tmp_path / "policy.toml")
    path = tmp_path / "copies" / "copy-0.lime"
    with pytest.raises(SkillTrustError, match="there is no signature"):
        policy.admit(path.read_bytes(), None, path)
    signer = policy.admit(path.read_bytes(), signature_path(path).read_bytes(), path).signer
    assert signer is not None
    assert signer.publisher == "acme"
