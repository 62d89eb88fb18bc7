"""The commands of the store, and running skills by the names under which they are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.errors import MissingExtraError
from lime_edge.store.lookup import find_skill
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull
from lime_edge.trust.signature_file import signature_path
from tests.support.cli_models import exported, facts, learned, lime
from tests.support.servers.faulty_server import file, serving
from tests.support.store_case import package, sha256, signature_of


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIME_EDGE_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source.lime", "1.0.0")


def write(path: Path, version: str, name: str = "tiny") -> Path:
    data = package(name, version)
    path.write_bytes(data)
    signature_path(path).write_bytes(signature_of(data))
    return path


def test_the_life_of_a_skill(source: Path, store: Path, tmp_path: Path) -> None:
    assert f"no skills are installed in {store}"[:40] in lime("list").output
    other = write(tmp_path / "other.lime", "3.0.0", "other")
    done = facts("pull", source, other)["installed"]
    assert [(one["name"], one["version"], one["changed"], one["signed"]) for one in done] == [
        ("tiny", "1.0.0", True, True),
        ("other", "3.0.0", True, True),
    ]
    write(source, "1.1.0")
    updates = {one["name"]: one for one in facts("update")["updates"]}
    assert (updates["tiny"]["before"], updates["tiny"]["after"]) == ("1.0.0", "1.1.0")
    assert updates["other"]["note"] == "up to date"
    listed = {skill["name"]: skill for skill in facts("list")["skills"]}
    assert listed["tiny"]["versions"].keys() == {"1.0.0", "1.1.0"}
    assert (listed["tiny"]["current"], listed["tiny"]["history"]) == ("1.1.0", ["1.0.0"])
    assert lime("rollback", "tiny").output == "tiny 1.0.0 is in use instead of 1.1.0\n"
    assert lime("rollback", "tiny", "--to", "1.0.0").output == "tiny 1.0.0 is already in use\n"
    found = facts("info", "tiny")
    assert (found["version"], found["installed"]["current"]) == ("1.0.0", "1.0.0")
    assert facts("info", "tiny@1.1.0")["version"] == "1.1.0"
    assert "1.0.0 in use" in lime("info", "tiny").output
    assert lime("remove", "tiny@1.1.0").output == "tiny 1.1.0 removed\n"
    assert lime("remove", "other").output == "other 3.0.0 removed\n"
    assert facts("gc")["files"] == 4
    assert [skill["name"] for skill in facts("list")["skills"]] == ["tiny"]


def test_pull_over_http_with_a_pin(store: Path) -> None:
    with serving() as server:
        server.routes["/x.lime"] = file(package())
        result = lime("pull", f"{server.url}/x.lime#sha256={sha256(package())}")
    assert result.exit_code == 0, result.output
    assert "installed" in result.output
    assert Store(store).get("tiny").read_bytes() == package()


def test_errors_are_messages(source: Path, tmp_path: Path) -> None:
    lime("pull", write(tmp_path / "new.lime", "2.0.0"))
    for args, message in (
        (("pull", source), "is older than 2.0.0, which is in use"),
        (("pull", tmp_path / "missing.lime"), "does not exist"),
        (("pull", "ftp://x/y"), "is not a reference scheme"),
        (("info", "nothing"), "no skill named 'nothing' is installed; installed are: 'tiny'"),
        (("remove", "nothing"), "no skill named 'nothing'"),
        (("rollback", "tiny"), "no version before 2.0.0"),
        (("push", "tiny", "https://example.org/x"), "cannot be pushed to"),
        (("push", "tiny", "oci://example.org/x:1", "--card"), "cannot hold a model card"),
        (("push", "tiny", f"{tmp_path}/x.lime#sha256={'0' * 64}"), "cannot be pushed to"),
        (("card", "nothing"), "no skill named 'nothing'"),
        (("card", "nothing.lime"), "there is no file 'nothing.lime'"),
        (("card", "tiny", "-o", tmp_path / "no" / "x"), "cannot be written"),
    ):
        result = lime(*args)
        assert (result.exit_code, message in result.output) == (1, True), (args, result.output)
    assert lime("pull", source, "--allow-downgrade").exit_code == 0


def test_an_update_that_fails_says_so_and_ends_with_1(source: Path) -> None:
    lime("pull", source)
    source.unlink()
    result = lime("update")
    assert result.exit_code == 1
    assert "does not exist" in " ".join(result.output.split())


def test_push_prints_a_reference_that_can_be_pulled(source: Path, tmp_path: Path) -> None:
    lime("pull", source)
    pin = lime("push", "tiny", tmp_path / "copy.lime").output.strip()
    assert pin.endswith(f"copy.lime#sha256={sha256(package())}")
    assert facts("pull", pin)["installed"][0]["changed"]  # the pinned reference replaces the path
    assert facts("update")["updates"][0]["note"].startswith("pinned")


def test_card_of_a_name_and_of_a_file(source: Path, tmp_path: Path) -> None:
    lime("pull", source)
    card = lime("card", "tiny").output
    assert card.startswith("---\n")
    assert lime("card", source, "-o", tmp_path / "README.md").exit_code == 0
    assert (tmp_path / "README.md").read_text("utf-8") == card


def test_a_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    for module in ("requests", "oras.container", "huggingface_hub", "huggingface_hub.errors"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    for reference in ("https://example.org/x", "oci://example.org/x:1", "hf://a/b/c"):
        with pytest.raises(MissingExtraError, match=r"pip install 'lime-edge\[hub\]'"):
            pull(Store(store), reference)


def test_skills_are_found_in_the_model_then_as_files_then_installed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lime("pull", source)
    installed = Store().get("tiny")
    model = tmp_path / "model"
    (model / "skills").mkdir(parents=True)
    assert find_skill(model, "tiny") == find_skill(model, "tiny@1.0.0") == installed
    Path("tiny").write_bytes(b"")
    assert find_skill(model, "tiny") == Path("tiny")
    (model / "skills" / "tiny.lime").write_bytes(b"")
    assert find_skill(model, "tiny") == model / "skills" / "tiny.lime"
    result = lime("run", model, "x", "--skill", "none-such")
    assert result.exit_code == 1


def test_run_with_an_installed_skill(tmp_path: Path) -> None:
    """The answers equal those with the package file."""
    model, file_ = exported()[0], learned()[0]
    (tmp_path / "bare").mkdir()
    for path in model.iterdir():
        if path.name != "skills":
            (tmp_path / "bare" / path.name).symlink_to(path)
    lime("pull", file_)
    version = facts("info", "odd")["version"]
    wanted = lime("run", model, "Say 3", "--skill", file_, "--max-new-tokens", "8").output
    for name in ("odd", f"odd@{version}"):
        result = lime("run", tmp_path / "bare", "Say 3", "--skill", name, "--max-new-tokens", "8")
        assert (result.exit_code, result.output) == (0, wanted)
    result = lime("run", tmp_path / "bare", "Say 3", "--skill", "odd@9.9.9")
    assert "version '9.9.9' of skill 'odd' is not installed" in result.output
