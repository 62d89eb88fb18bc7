"""Skills on a local Hugging Face Hub, through the command line and the installed client of the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.servers.hub_server import Hub, hub
from tests.support.store_case import package, sha256, signature_of

REPO = "someone/skills"


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub(REPO) as made:
        made.commit({"deep/tiny.lime": package(), "deep/tiny.lime.sig": signature_of(package())})
        yield made


def lime(served: Hub, tmp_path: Path, *args: str, fails: bool = False) -> Any:
    """Run a command in a separate process: the Hub's client reads its settings when it is imported."""
    environment = {
        **os.environ,
        "LIME_EDGE_STORE": str(tmp_path / "store"),
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": served.server.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_of_no_use",
        "HF_HUB_DISABLE_XET": "1",
    }
    code = "from lime_edge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else json.loads(done.stdout) if "--json" in args else done.stdout


def test_pull_and_update(served: Hub, tmp_path: Path) -> None:
    """The signature is fetched, too; `main` may change, a commit may not."""
    reference = f"hf://{REPO}/deep/tiny.lime"
    (first,) = lime(served, tmp_path, "pull", reference, "--json")["installed"]
    assert (first["version"], first["signed"]) == ("1.0.0", True)
    commit = next(iter(served.commits))
    served.commit({"deep/tiny.lime": package(version="1.1.0")})
    (moved,) = lime(served, tmp_path, "update", "--json")["updates"]
    assert (moved["before"], moved["after"], moved["failed"]) == ("1.0.0", "1.1.0", False)
    old = f"{reference}@{commit}#sha256={sha256(package())}"
    assert "is older than 1.1.0" in lime(served, tmp_path, "pull", old, fails=True)
    lime(served, tmp_path, "pull", old, "--allow-downgrade")
    (kept,) = lime(served, tmp_path, "update", "--json")["updates"]
    assert (kept["after"], kept["note"].split(":")[0]) == ("1.0.0", "pinned")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (f"hf://{REPO}/missing.lime", "no such file"),
        (f"hf://{REPO}/deep/tiny.lime@v9", "cannot be fetched"),
        ("hf://someone/else/tiny.lime", "cannot be fetched"),
    ],
)
def test_what_cannot_be_had(served: Hub, tmp_path: Path, reference: str, message: str) -> None:
    assert message in lime(served, tmp_path, "pull", reference, fails=True)


def test_push_with_a_card(served: Hub, tmp_path: Path) -> None:
    path = tmp_path / "tiny.lime"
    path.write_bytes(package(version="2.0.0"))
    pin = lime(served, tmp_path, "push", str(path), f"hf://{REPO}/new.lime", "--card").strip()
    files = list(served.commits.values())[-1]
    assert files["new.lime"] == path.read_bytes()
    assert files["README.md"].startswith(b"---\n")
    assert "deep/tiny.lime" in files
    (found,) = lime(served, tmp_path, "pull", pin, "--json")["installed"]
    assert (found["version"], found["signed"]) == ("2.0.0", False)
