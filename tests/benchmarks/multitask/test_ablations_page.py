"""docs/ablations.md is current: its tables are those of the results."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from benchmarks.harness.result_lines import RESULTS
from benchmarks.multitask import ablations_page
from tests.support.paths import DOCS


def test_the_pages_are_those_of_the_lines(tmp_path: Path) -> None:
    name = ablations_page.DOCUMENT.name
    (tmp_path / name).write_text((DOCS / name).read_text("utf-8"), "utf-8")
    arguments = ["--results", str(RESULTS), "--document", str(tmp_path / name)]
    done = CliRunner().invoke(ablations_page.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_text("utf-8") == (DOCS / name).read_text("utf-8")
