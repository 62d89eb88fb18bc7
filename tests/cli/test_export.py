"""`lime-edge export` of a tiny checkpoint."""

from __future__ import annotations

from pathlib import Path

from tests.support.cli_models import exported, fails, trained


def test_export(model: Path) -> None:
    document = exported()[1]
    assert (document["what"], document["precision"]) == ("model", "fp32")
    assert "is not empty" in fails("export", trained()[0], "-o", model)


def test_a_folder_of_something_else_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    assert "holds no exported model" in fails("export", trained()[0], "-o", tmp_path, "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
