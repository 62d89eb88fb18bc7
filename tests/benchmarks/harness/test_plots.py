"""docs/performance.md: a place for every generated table and plot, and the same bytes from the same files."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from benchmarks.harness.plots import DOCUMENT, main
from benchmarks.harness.result_lines import RESULTS
from tests.benchmarks.support.result_files import documents


def test_the_page_has_a_place_for_everything(tmp_path: Path) -> None:
    """The page has blocks for these tables and shows every plot that is drawn."""
    page = tmp_path / "performance.md"
    page.write_text(DOCUMENT.read_text("utf-8"), "utf-8")
    words = [*map(str, documents(tmp_path)), "--document", str(page)]
    drawn = []
    for _ in range(2):
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        drawn.append({path.name: path.read_bytes() for path in (tmp_path / "performance").iterdir()})
    assert drawn[0] == drawn[1]  # deterministic
    assert drawn[0].keys() == {"decode.svg", "decode-rivals.svg", "roofline.svg"}
    shown = set(re.findall(r"\(performance/(.*?\.svg)\)", page.read_text("utf-8")))
    assert drawn[0].keys() <= shown
    assert "**missed**" in page.read_text("utf-8")


def test_the_page_is_that_of_the_results(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(DOCUMENT.read_text("utf-8"), "utf-8")
    words = [*map(str, sorted(RESULTS.glob("*.json"))), "--document", str(page)]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert page.read_text("utf-8") == DOCUMENT.read_text("utf-8")
