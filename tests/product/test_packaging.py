"""What is installed, which room may import which, and how large files and folders may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import lime_edge
from tests.support import rooms
from tests.support.paths import ROOT
from tests.support.rooms import FULLER, INITS, LIBRARIES, ROOMS, TESTED_ELSEWHERE, TWICE, room_of
from tests.tools import architecture

SOURCES = rooms.sources()
ARROWS = rooms.arrows()
INSIDE = {(a, b) for a, b in ARROWS if b in SOURCES}
HEAVY = ("torch", "transformers", "peft", "accelerate", "onnx", "onnx_ir", "onnxscript", "optimum", "gguf")
CODE = ("lime_edge", "exporters", "runtime", "tests", "benchmarks")
LINES, BOXES = 400, 20  # most lines of a file, most entries of a folder


def _room_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = defaultdict(set)
    for importer, name in INSIDE:
        one, other = room_of(importer), room_of(name)
        if one is not None and other is not None and one != other:
            graph[one].add(other)
    return graph


def test_the_walk_sees_imports() -> None:
    assert ("lime_edge.skills.package", "lime_edge.skills.manifest") in ARROWS
    assert ("lime_edge.skills.package", "os") in ARROWS
    assert ("lime_edge.runtime.runtime", "lime_edge.contract.model") in ARROWS
    assert ("lime_edge.cli.commands", "lime_edge.cli.packages.store") in ARROWS


def test_every_module_has_a_room_and_every_room_has_modules() -> None:
    above = {"lime_edge", "lime_edge.__main__"}
    assert {module for module in SOURCES if room_of(module) is None} == above
    assert {room_of(module) for module in SOURCES} - {None} == set(ROOMS)
    assert {other for may in ROOMS.values() for other in may} <= set(ROOMS)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    room = room_of(module)
    found = {room_of(name) for importer, name in INSIDE if importer == module}
    if room is None:
        return  # lime_edge itself: its lazy names; nothing imports it but the version
    assert found - {room, "errors", None} <= set(ROOMS[room])


def test_only_the_command_line_and_reports_ask_for_the_version() -> None:
    assert {room_of(importer) for importer, name in INSIDE if name == "lime_edge"} <= {"cli", "reports"}


def test_every_arrow_of_the_table_is_used() -> None:
    used = _room_graph()
    assert {room: set(may) - used[room] for room, may in ROOMS.items() if set(may) - used[room]} == {}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_stays_in_its_rooms_even_inside_functions(library: str) -> None:
    assert {room_of(importer) for importer, name in ARROWS if name == library} <= set(LIBRARIES[library])


def test_no_cycles_between_files_or_rooms() -> None:
    files: dict[str, set[str]] = defaultdict(set)
    for importer, name in INSIDE:
        files[importer].add(name)
    assert rooms.cycles(files) == []
    assert rooms.cycles(_room_graph()) == []


def test_nobody_imports_the_command_line() -> None:
    assert {room_of(importer) for importer, name in INSIDE if room_of(name) == "cli"} <= {"cli", None}


def test_rooms_import_nothing_in_their_init() -> None:
    found = {
        module
        for module, path in SOURCES.items()
        if path.name == "__init__.py" and len(ast.parse(path.read_text("utf-8")).body) > 1
    }
    assert found == set(INITS)
    bare = [m for m, path in SOURCES.items() if path.name == "__init__.py" and not rooms.described(m[10:] or "runtime")]
    assert bare == []


def test_imports_are_absolute_across_rooms_and_relative_within() -> None:
    for module, path in SOURCES.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2, f"{module}: from {'.' * node.level}{node.module}"
                inside = node.level == 0 and (node.module or "").rpartition(".")[0] == package
                assert not inside, f"{module}: from {node.module}, which is in its own folder"


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


def test_files_are_short() -> None:
    code = [path for path in _tracked() if path.suffix in (".py", ".cpp", ".h", ".inc", ".cu", ".cuh")]
    assert len(code) > 300
    assert [path.name for path in code if path.read_text("utf-8").count("\n") > LINES] == []


def test_folders_are_small() -> None:
    folders: dict[Path, set[str]] = defaultdict(set)
    for path in _tracked():
        inside = path.relative_to(ROOT)
        for depth in range(1, len(inside.parts)):
            if inside.parts[depth] != "__init__.py":
                folders[Path(*inside.parts[:depth])].add(inside.parts[depth])
    code = {folder for folder in folders if folder.parts[0] in CODE}
    assert {str(folder) for folder in code if len(folders[folder]) > BOXES} == set(FULLER)


def test_base_names_stand_once_or_for_a_reason() -> None:
    names = Counter(module.rpartition(".")[2] for module in SOURCES if not module.endswith("__main__"))
    assert {name for name, count in names.items() if count > 1 and name != "lime_edge"} == set(TWICE)


def _test_files(module: str) -> list[Path]:
    inside = module.split(".")[1:]
    folder = ROOT.joinpath("tests", *inside[:-1])
    return [*folder.glob(f"test_{inside[-1]}.py"), *folder.glob(f"test_{inside[-1]}_*.py")]


def test_the_test_of_a_module_can_be_guessed() -> None:
    modules = [m for m, path in SOURCES.items() if path.name not in ("__init__.py", "__main__.py")]
    assert {module for module in modules if not _test_files(module)} == set(TESTED_ELSEWHERE)
    assert all((ROOT / path).is_file() for path in TESTED_ELSEWHERE.values())


def test_the_architecture_page_is_current() -> None:
    assert architecture.PAGE.read_text("utf-8") == architecture.page(), "python -m tests.tools.architecture"


def test_the_readme_shows_every_room() -> None:
    tree = (ROOT / "README.md").read_text("utf-8").partition("## Files")[2].partition("## ")[0]
    top = {room for room in ROOMS if "." not in room and room != "errors"}
    assert {room for room in top if not re.search(rf"^\s*{room}/\s", tree, re.MULTILINE)} == set()


def test_folders_are_imported_as_parts_of_the_package() -> None:
    files = [path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")]
    names = {(str(path), name) for path in files for name in rooms.imports("", path)}
    names |= ARROWS
    assert not [arrow for arrow in names if arrow[1].partition(".")[0] in ("exporters", "runtime")]


@pytest.mark.parametrize("folder", ["exporters", "runtime"])
def test_symlinks_lead_to_the_folders(folder: str) -> None:
    link = ROOT / "lime_edge" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("module", ["lime_edge", "lime_edge.runtime", "lime_edge.skills.package", "lime_edge.cli"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_loads_the_errors_alone() -> None:
    code = "import sys, lime_edge; print(sorted(name for name in sys.modules if name.startswith('lime_edge')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['lime_edge', 'lime_edge.errors']"


def test_public_names() -> None:
    assert lime_edge.__all__ == ["LimeConfig", "LimeError", "Runtime", "Skill", "read_skill"]
    for name in lime_edge.__all__:
        assert getattr(lime_edge, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'pickle'"):
        lime_edge.pickle  # noqa: B018


def test_version_and_changelog_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert project["version"] == lime_edge.__version__ == newest[1]


def test_the_base_install_depends_on_nothing_heavy() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in project["dependencies"]}
    assert names == {
        "click",
        "filelock",
        "jinja2",
        "numpy",
        "onnxruntime",
        "platformdirs",
        "rich",
        "safetensors",
        "tokenizers",
    }
    optional = project["optional-dependencies"].values()
    everything = [*project["dependencies"], *(requirement for extra in optional for requirement in extra)]
    assert not [requirement for requirement in everything if "smollm2" in requirement]
