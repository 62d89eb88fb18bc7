"""`lime-edge audit`: report files, terminal output, refused input."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.cli_models import exported as cli_model
from tests.support.cli_models import facts, lime, write_rows
from tests.support.runtime_models import exported, skill


def test_the_command(tmp_path: Path) -> None:
    model, _ = cli_model()
    write_rows(tmp_path / "guard.jsonl", [{"prompt": "Is it?", "answer": "yes", "choices": ["yes", "no"]}])
    files = tmp_path / "a.json", tmp_path / "a.html"
    asked = ("--model", model, "--data", tmp_path, "--tokens", "0", "--threads", "1")
    result = lime("audit", "odd", *asked, "--html", files[1], "--json", files[0])
    assert result.exit_code == 0, result.output
    found = json.loads(files[0].read_text("utf-8"))
    assert (found["what"], found["format"], found["skill"]["name"]) == ("audit", 1, "odd")
    assert [one["task"] for one in found["guard"]] == ["built-in", "guard.jsonl"]
    assert found["triggers"]["searched"] == found["triggers"]["vocabulary"] > 0
    assert found["vectors"]["known"] == []  # a skill is not compared with itself
    assert found["verdict"]["stands_out"] == bool(found["verdict"]["raised"])
    assert "odd" in files[1].read_text("utf-8")
    assert "Outside its task" in result.stdout
    assert facts("audit", model / "skills" / "odd.lime", *asked)["skill"] == found["skill"]


def test_what_is_refused(tmp_path: Path) -> None:
    model, _ = cli_model()
    broken = tmp_path / "broken.lime"
    broken.write_bytes((model / "skills" / "odd.lime").read_bytes()[:-9])
    (tmp_path / "guard.jsonl").write_text('{"prompt": 1}\n', "utf-8")
    for args, message in (
        ((broken,), "cut short"),
        ((skill(exported(), "one"),), "made for"),
        (("nobody",), "no skill named 'nobody'"),
        (("odd", "--data", tmp_path), "1 rows cannot be used"),
        (("odd", "--data", tmp_path / "none"), "holds no guard tasks"),
        (("odd", "--against", tmp_path / "none", "--against", tmp_path / "nor"), "nor: expected a .lime file"),
    ):
        result = lime("audit", *args, "--model", model)
        assert (result.exit_code, message in result.stderr) == (1, True), (message, result.output)
    for place in (tmp_path, tmp_path / "none" / "page.html"):  # before the model is opened
        result = lime("audit", "odd", "--model", tmp_path / "none", "--html", place)
        assert (result.exit_code, "cannot be written" in result.stderr) == (2, True), result.output
