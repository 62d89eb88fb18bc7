"""Every file of the corpus is refused with its own reason, in bounded time and memory."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner

from lime_edge.errors import SkillFormatError
from lime_edge.skills.package import read_skill
from tests.skills.format_2_cases import FORMAT_2
from tests.support.faults.malformed import MALFORMED, Case, valid_package
from tests.tools.corpus import CORPUS, PLACES, main, write_corpus

#: Bytes allowed in addition to twice the file: a parsed header of at most 8 MB, and its faults.
CONSTANT = 64 * 2**20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


def test_the_corpus_is_large_and_has_no_twins(corpus: Path) -> None:
    index = json.loads((corpus / "index.json").read_text("utf-8"))
    assert sorted(index) == sorted(path.name for path in corpus.iterdir() if path.name != "index.json")
    assert len(index) == len(CORPUS) + len(PLACES) >= 200
    assert len({case.name for case in CORPUS}) == len(CORPUS)
    assert len({case.make() for case in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("case", CORPUS[len(MALFORMED) + len(FORMAT_2) :], ids=lambda case: case.name)
def test_every_file_is_refused_with_its_reason(tmp_path: Path, case: Case) -> None:
    found = refused(tmp_path / "bad.lime", case.make())
    assert len(found) == len(case.faults), found
    for fragment in case.faults:
        assert any(fragment in fault for fault in found), (fragment, found)


def refused(path: Path, data: bytes) -> tuple[str, ...]:
    """The faults of a file that must not be taken, within twice its size and a constant."""
    path.write_bytes(data)
    size = len(data)
    del data
    tracemalloc.start()
    try:
        with pytest.raises(SkillFormatError) as caught:
            read_skill(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * size + CONSTANT, f"{peak / 2**20:.0f} MB"
    assert len(str(caught.value)) < 20_000
    return caught.value.faults or (caught.value.message,)


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_package_is_refused(corpus: Path, name: str) -> None:
    with pytest.raises(SkillFormatError) as caught:
        read_skill(corpus / name)
    assert re.search(PLACES[name][1], str(caught.value))


def test_a_link_to_a_package_is_followed(tmp_path: Path) -> None:
    """Who may create links in a folder may also create packages there, so links need no refusal."""
    (tmp_path / "real.lime").write_bytes(valid_package())
    (tmp_path / "once.lime").symlink_to("real.lime")
    (tmp_path / "twice.lime").symlink_to("once.lime")
    assert read_skill(tmp_path / "twice.lime").digest == read_skill(tmp_path / "real.lime").digest


def test_the_command_writes_to_an_empty_folder_only(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    found = CliRunner().invoke(main, [str(tmp_path)])
    assert found.exit_code == 1
    assert "is not empty" in found.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
