"""A receipt compared with what is there: every part confirmed, or named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lime_edge.errors import ConfigError
from lime_edge.reports.receipt import check_receipt, read_receipt
from lime_edge.runtime import Runtime
from lime_edge.store.store import Store
from tests.support.paths import ROOT
from tests.support.route_case import routable, runtime
from tests.support.runtime_models import skill

SCHEMA = json.loads((ROOT / "docs" / "receipt.schema.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIME_EDGE_STORE", str(tmp_path / "store"))


def written(path: Path, receipt: Any) -> Path:
    path.write_text(json.dumps(receipt), "utf-8")
    return path


def test_receipts_of_a_runtime_fit_the_schema_and_are_confirmed(tmp_path: Path) -> None:
    made = runtime("legal")
    for info in made.skills():
        Store().install(info.path)
    session = made.session()
    session.append("law lease law lease")
    receipts = [
        made.generate("Hello", None, max_new_tokens=2).receipt,
        made.generate("law lease law law lease law", "auto", max_new_tokens=2).receipt,
        made.choose("Hello", ["yes", "no"], "legal").receipt,
        made.choose("law lease law", ["yes", "no"], "auto").receipt,
        session.generate("legal", max_new_tokens=2).receipt,
    ]
    session.append("and?")
    stream = session.stream(None, max_new_tokens=4, speculate=False)
    next(stream)
    stream.switch("legal")
    "".join(stream)
    receipts.append(stream.generation.receipt)
    assert receipts[-1]["switches"]
    for receipt in receipts:
        jsonschema.validate(json.loads(json.dumps(receipt)), SCHEMA)
        document, tables = check_receipt(read_receipt(written(tmp_path / "receipt.json", receipt)), routable())
        assert document["confirmed"], document
        assert tables


def test_what_is_not_here_is_named(tmp_path: Path) -> None:
    made = Runtime.load(routable(), threads=1)
    made.load_skill(skill(routable(), "legal", seed=7))
    receipt = dict(made.generate("Hello", "legal", max_new_tokens=1).receipt)
    receipt["graph"] = "0" * 64
    document, _ = check_receipt(read_receipt(written(tmp_path / "receipt.json", receipt)), routable())
    assert not document["confirmed"]
    wrong = {check["what"]: check["found"] for check in document["checks"] if not check["confirmed"]}
    assert wrong.keys() == {"graph", "skill legal 1.0.0"}
    assert "no skill with the digest" in wrong["skill legal 1.0.0"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as a receipt"):
        read_receipt(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="is not a receipt") as caught:
        read_receipt(written(tmp_path / "a", {"skills": 1}))
    assert len(caught.value.faults) > 3
