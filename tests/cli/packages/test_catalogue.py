"""The options of `index` and `search`; what they do is tested in tests/store/test_catalogue.py."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from lime_edge.cli import main
from tests.support.store_case import package


def test_search_needs_a_catalogue_and_takes_it_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "a.lime").write_bytes(package("a", "1.0.0"))
    site = tmp_path / "site"
    assert CliRunner().invoke(main, ["index", str(tmp_path), "-o", str(site)]).exit_code == 0
    assert CliRunner().invoke(main, ["search"]).exit_code == 2
    found = CliRunner().invoke(main, ["search"], env={"LIME_EDGE_INDEX": str(site)})
    assert found.exit_code == 0
    assert "1.0.0" in found.output
    nothing = CliRunner().invoke(main, ["search", "absent", "--index", str(site)])
    assert (nothing.exit_code, "no skill matches" in nothing.output) == (0, True)


def test_a_folder_without_skills_is_an_error_and_not_a_traceback(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["index", str(tmp_path), "-o", str(tmp_path / "site")])
    assert ran.exit_code == 1
    assert "has no .lime files" in ran.output
