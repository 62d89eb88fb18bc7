"""The verdicts on a package, check by check."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from lime_edge.audit.verify import Asked, Findings, judge, verify
from lime_edge.errors import ModelError, SkillFormatError
from tests.support.cli_models import exported, learned
from tests.support.runtime_models import exported as other_model
from tests.support.signatures import key_table, pair, policy, publisher, signed


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copy(learned()[0], tmp_path))


def answers(findings: Findings) -> dict[str, bool | None]:
    return {verdict.about: verdict.holds for verdict in findings.verdicts}


def test_only_requested_checks_are_made(package: Path) -> None:
    findings = verify(Asked(package))
    assert answers(findings) == {"package": True, "signature": None}
    assert findings.hold
    assert findings.sha256 == hashlib.sha256(package.read_bytes()).hexdigest()
    signed(package, pair("acme"))
    assert "was not verified" in verify(Asked(package)).verdicts[1].said


def test_all_checks_hold(package: Path) -> None:
    signed(package, pair("acme"))
    findings = verify(Asked(package, judge=pair("acme").public, model=exported()[0]))
    assert answers(findings) == {"package": True, "signature": True, "binding": True, "golden prompts": True}
    document, (table,) = findings.describe()
    assert (document["holds"], [row[1] for row in table.rows]) == (True, ["yes"] * 4)


def test_a_wrong_signature_stops_the_golden_prompts(package: Path) -> None:
    signed(package, pair("stranger"))
    findings = verify(Asked(package, judge=pair("acme").public, model=exported()[0]))
    assert answers(findings) == {"package": True, "signature": False, "binding": True, "golden prompts": False}
    assert "not run" in findings.verdicts[3].said
    assert not findings.hold


def test_a_skill_of_another_model_does_not_bind(package: Path) -> None:
    findings = verify(Asked(package, model=other_model()))
    assert answers(findings) == {"package": True, "signature": None, "binding": False, "golden prompts": False}
    assert findings.verdicts[2].faults


def test_a_damaged_package_fails_every_check_on_a_model(package: Path) -> None:
    package.write_bytes(package.read_bytes()[:-1])
    findings = verify(Asked(package, model=exported()[0]))
    assert answers(findings) == {"package": False, "signature": None, "binding": False, "golden prompts": False}


def test_a_policy_may_admit_an_unsigned_package(package: Path, tmp_path: Path) -> None:
    acme = publisher("acme", ["legal"], key_table(pair("acme")))
    for required, holds in ((False, True), (True, False)):
        (tmp_path / "policy.toml").write_text(policy(acme, required=required), "utf-8")
        assert verify(Asked(package, judge=judge(None, tmp_path / "policy.toml"))).hold is holds


def test_missing_files_are_errors(package: Path, tmp_path: Path) -> None:
    with pytest.raises(SkillFormatError):
        verify(Asked(tmp_path / "none.lime"))
    with pytest.raises(ModelError):
        verify(Asked(package, model=tmp_path))


def test_the_files_of_a_model(package: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(exported()[0], tmp_path / "model")
    findings = verify(Asked(copied))
    assert (answers(findings), findings.hold) == ({"files": True}, True)
    with (copied / "model.onnx.data").open("r+b") as file:
        file.write(b"changed")
    findings = verify(Asked(copied))
    assert (answers(findings), findings.hold) == ({"files": False}, False)
    assert "model.onnx.data has digest" in findings.verdicts[0].faults[0]
    with pytest.raises(ModelError, match=r"model\.onnx\.data has digest"):
        verify(Asked(package, model=copied))
