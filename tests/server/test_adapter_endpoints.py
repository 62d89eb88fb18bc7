"""Loading skills by request: off by default, and never a file outside the folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.runtime import Runtime
from lime_edge.server.adapter_endpoints import below
from tests.server.served import Answer, ask, chat, running, shared
from tests.support.runtime_models import exported, runtime, skill
from tests.support.signatures import key_table, pair, policy, publisher, signed


def load(url: str, name: str, path: str) -> Answer:
    return ask(url, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})


def unload(url: str, name: str) -> Answer:
    return ask(url, "/v1/unload_lora_adapter", {"lora_name": name})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "adapters"
    (folder / "inner").mkdir(parents=True)
    shutil.copy(skill(exported(), "legal"), folder / "inner" / "legal.lime")
    shutil.copy(skill(exported(), "legal"), tmp_path / "secret.lime")
    os.symlink(tmp_path / "secret.lime", folder / "link.lime")
    os.symlink(folder / "inner" / "legal.lime", folder / "inside.lime")
    os.symlink(folder / "loop.lime", folder / "loop.lime")
    (folder / "broken.lime").write_bytes(b"x" * 50)
    (folder / "text.txt").write_text("x", "utf-8")
    return folder


def test_it_is_off() -> None:
    with running() as url:
        for refused in (load(url, "other", "legal.lime"), unload(url, "legal")):
            assert (refused.status, refused.json["error"]["code"]) == (403, "not_allowed")


def test_load_use_and_unload(root: Path) -> None:
    made = runtime(exported())
    with running(made, adapters=root) as url:
        loaded = load(url, "mine", "inner/legal.lime")
        assert (loaded.status, loaded.data) == (200, b"Success: LoRA adapter 'mine' added successfully.")
        assert chat(url, "mine").status == 200
        again = load(url, "mine", "inner/legal.lime")
        assert (again.status, again.json["error"]["code"]) == (400, "already_loaded")
        assert load(url, "inside", "inside.lime").status == 200  # a link that stays inside
        assert unload(url, "mine").status == 200
        assert chat(url, "mine").status == 404
        assert unload(url, "mine").status == 404


def test_path_tricks(root: Path) -> None:
    made = runtime(exported())
    bad = (
        "../secret.lime",
        "inner/../../secret.lime",
        str(root.parent / "secret.lime"),
        "link.lime",
        "loop.lime",
        "none.lime",
        "text.txt",
        "inner",
        "inner/.lime",
        "./",
        "legal.lime\0",
        "\0",
        "a" * 4000 + ".lime",
        "a/" * 1000 + "b.lime",
        "~/secret.lime",
        "file:///etc/passwd",
        f"file://{root}/inner/legal.lime",
        "%2e%2e/secret.lime",
        "..\\secret.lime",
        "https://localhost:1/legal.lime",
        "hf://a/b/c.lime",
        "oci://localhost/a:1",
    )
    with running(made, adapters=root) as url:
        answers = {place: load(url, "x", place) for place in bad}
        assert {place: one.status for place, one in answers.items() if one.status not in (403, 404)} == {}
        known = "there is no skill 'none.lime' in the folder of this server; expected the name of a .lime file"
        assert answers["none.lime"].json["error"]["message"] == known
        assert answers["link.lime"].json["error"]["message"] == known.replace("none", "link")
        assert load(url, "x", "broken.lime").status == 400
        for name in ("tiny", "auto", "tiny:x", "A", "a b", "../x", ""):
            assert load(url, name, "inner/legal.lime").status == 400
    assert made.skills() == []


PARTS = st.sampled_from(["..", ".", "skills", "model.onnx", "legal.lime", "", "\0"])


@given(st.text(max_size=30) | st.lists(PARTS).map("/".join))
def test_no_text_leads_outside(place: str) -> None:
    found = below(exported().parent, place)
    assert found is None or found.is_relative_to(exported().parent.resolve())


def test_references_are_fetched_only_if_allowed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIME_EDGE_STORE", str(tmp_path / "store"))
    made = runtime(exported())
    with running(made, references=True) as url:
        assert load(url, "x", "inner/legal.lime").status == 404  # there is no folder
        unreachable = load(url, "x", "https://localhost:1/legal.lime")
        assert (unreachable.status, unreachable.json["error"]["type"]) == (400, "invalid_request_error")
    assert made.skills() == []


def test_a_policy_reserves_names(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(policy(publisher("acme", ["legal"], key_table(pair("acme")))), "utf-8")
    signed(root / "inner" / "legal.lime", pair("acme"))
    made = Runtime.load(exported(), threads=1, trust=file)
    with running(made, adapters=root) as url:
        other: Any = load(url, "mine", "inner/legal.lime")
        assert (other.status, other.json["error"]["code"]) == (403, "skill_refused")
        assert load(url, "legal", "inner/legal.lime").status == 200
        assert load(url, "inside", "inside.lime").status == 403
    assert [info.name for info in made.skills()] == ["legal"]
    assert len(shared().skills()) == 2
