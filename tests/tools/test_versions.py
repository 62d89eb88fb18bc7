"""`tests.tools.versions`: the installed onnxruntime passes its checks, and the checks find faults."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime.native import operators
from tests.support.paths import ROOT
from tests.tools import versions


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        operators.installed()
    except ConfigError as error:
        pytest.skip(str(error))
    return versions.prepare(tmp_path_factory.mktemp("versions") / "prepared")


def checked(folder: Path) -> Any:
    command = [sys.executable, str(Path(versions.__file__).with_name("version_check.py")), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_installed_version_passes(prepared: Path) -> None:
    found = checked(prepared)
    assert found["faults"] == []
    assert 0 < found["difference"] < 1e-5
    assert (found["onnxruntime"], found["answers"]) == (metadata.version("onnxruntime"), 8)


def test_faults_are_found(prepared: Path) -> None:
    """An operator with invalid skill ids, the plain graph of another model, and a file that is no skill."""
    feed = dict(np.load(prepared / "operators" / "one.npz"))
    feed["skill_ids"] += 100
    np.savez(prepared / "operators" / "one.npz", **feed)
    plain = prepared / "fp32" / "plain"
    plain.rename(prepared / "fp32" / "away")
    (prepared / "int4" / "plain").rename(plain)
    (prepared / "int4" / "skill.lime").write_bytes(b"none")
    faults = checked(prepared)["faults"]
    assert [fault.split(",")[0].split(":")[0] for fault in faults] == ["same_operators", "fp32", "fp32", "same_answers"]
    assert "logits of the base differ" in faults[1]


def test_the_oldest_version_is_the_one_that_is_claimed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (bound,) = (need for need in project["dependencies"] if need.startswith("onnxruntime"))
    oldest = versions.VERSIONS[0]
    assert bound == f"onnxruntime>={oldest.removesuffix('.0')}"
    numbers = [tuple(map(int, version.split("."))) for version in (*versions.VERSIONS, metadata.version("onnxruntime"))]
    assert numbers == sorted(set(numbers))
