"""`lime-edge sign` and `verify`: exit codes, the report, and options that exclude each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lime_edge.trust.signature_file import signature_path
from tests.support.cli_models import facts, fails, learned, lime
from tests.support.signatures import pair


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copy(learned()[0], tmp_path))


def test_sign_and_verify(package: Path, tmp_path: Path, model: Path) -> None:
    private, public = pair("acme").write(tmp_path)
    result = lime("sign", package, "--key", private)
    assert result.exit_code == 0
    assert pair("acme").id in result.stdout.replace("\n", "")
    found = facts("verify", package, "--key", public, "--model", model)
    assert found["holds"]
    assert [one["about"] for one in found["verdicts"]] == ["package", "signature", "binding", "golden prompts"]


def test_a_failed_check_gives_exit_code_1_and_the_whole_report(package: Path, tmp_path: Path) -> None:
    stranger = pair("stranger").write(tmp_path)[1]
    result = lime("verify", package, "--key", stranger)
    assert result.exit_code == 1
    assert all(word in result.stdout for word in ("package", "yes", "signature", "NO", "not signed"))


def test_the_signature_can_be_written_elsewhere(package: Path, tmp_path: Path) -> None:
    private, public = pair("acme").write(tmp_path)
    lime("sign", package, "--key", private, "-o", tmp_path / "apart.sig")
    assert not signature_path(package).exists()
    assert facts("verify", package, "--key", public, "--signature", tmp_path / "apart.sig")["holds"]


def test_options_that_make_no_sense_together(package: Path) -> None:
    assert "exclude each other" in fails("verify", package, "--key", "k", "--trust", "p", code=2)
    assert "proves nothing" in fails("verify", package, "--signature", "s", code=2)
