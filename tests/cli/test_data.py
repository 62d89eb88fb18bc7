"""`lime-edge data` on good and bad files, with and without a tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.cli_models import backbone, data, facts, fails, lime, python, trained, write_rows


def test_data_describes_files_and_folders() -> None:
    found = facts("data", data())
    assert [Path(one["file"]).name for one in found["files"]] == ["train.jsonl", "valid.jsonl", "test.jsonl"]
    assert found["files"][1]["labels"] == {"yes": 2, "no": 2}
    assert len(found["overlap"]) == 1  # the test rows of this task are training rows
    assert facts("data", data() / "valid.jsonl")["files"] == [found["files"][1]]


def test_data_counts_tokens_as_model_checkpoint_and_backbone(model: Path) -> None:
    file = data() / "valid.jsonl"
    places = (model, trained()[0], backbone())
    counted = [facts("data", file, "-m", place, "--max-length", "30")["files"][0] for place in places]
    assert counted[0] == counted[1] == counted[2]
    assert counted[0]["lengths"]["unit"] == "tokens"
    assert "max_length" not in facts("data", file)["files"][0]


def test_data_reports_faults_and_then_fails(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "answer": "a"}, {"prompt": "p", "anwser": "a"}])
    result = lime("data", path, "--json", tmp_path / "facts.json")
    assert result.exit_code == 1
    assert "did you mean 'answer'?" in " ".join(result.stdout.split())
    assert json.loads((tmp_path / "facts.json").read_text("utf-8"))["files"][0]["bad"] == 1
    (tmp_path / "empty.jsonl").touch()
    assert lime("data", tmp_path / "empty.jsonl").exit_code == 1


def test_data_says_what_it_expects(tmp_path: Path) -> None:
    assert "cannot be read" in fails("data", tmp_path / "nowhere.jsonl")
    assert "holds no data" in fails("data", tmp_path)
    assert "has no tokenizer.json" in fails("data", data(), "-m", tmp_path)
    shutil.copy(trained()[0] / "adapter_config.json", tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}", "utf-8")
    assert "adapter_config.json cannot be read" in fails("data", data(), "-m", tmp_path)


def test_data_needs_the_base_install_only(model: Path) -> None:
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in ("torch", "transformers", "peft", "pyarrow"))
    code = f"import sys; {blocked}; from lime_edge.cli import main; main()"
    done = python(code, "data", data(), "-m", model)
    assert done.returncode == 0, done.stderr
    assert "length in tokens" in done.stdout
