"""What is installed and who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import lime_edge
from tests.support.paths import ROOT

HOMES = {
    "lime_edge": ROOT / "lime_edge",
    "lime_edge.exporters": ROOT / "exporters",
    "lime_edge.runtime": ROOT / "runtime",
}
HEAVY = ("torch", "transformers", "peft", "accelerate", "onnx", "onnx_ir", "onnxscript", "optimum", "gguf")
#: Modules of the base install, and what they may import of the package.
BASE = {
    "errors": set[str](),
    "checks": set[str](),
    "contract": {"errors"},
    "disk": set[str](),
    "manifest": {"checks", "contract", "errors"},
    "container": {"checks", "contract"},
    "vectors": {"checks", "contract", "errors"},
    "plan": {"container", "contract", "vectors"},
    "large": {"contract", "vectors"},
    "package": {"checks", "container", "contract", "disk", "errors", "large", "manifest", "plan", "vectors"},
    "extras": {"errors"},
    "semver": set[str](),
    "keys": {"errors", "extras"},
    "bundle": {"checks", "errors", "keys", "manifest"},
    "policy": {"checks", "errors", "keys", "manifest"},
    "trust": {"bundle", "checks", "errors", "keys", "manifest", "package", "policy", "semver"},
}
RUNTIME_MAY = {"errors", "contract", "package", "semver", "trust"}


def _sources() -> dict[str, Path]:
    """Every module of the product by dotted name; the symlinks in lime_edge are not followed."""
    found = {}
    for package, home in HOMES.items():
        for path in home.rglob("*.py"):
            inside = path.relative_to(home)
            if inside.parts[0] in ("exporters", "runtime"):
                continue
            parts = [package, *inside.with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(module: str, path: Path) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it: ``from .a import b`` gives a and a.b."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            origin = (base + (node.module or "")).rstrip(".")
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


SOURCES = _sources()
MODULES = set(SOURCES)
#: (importer, imported module of the product or top-level name of another distribution)
ARROWS = {
    (module, name if name in MODULES else name.partition(".")[0])
    for module, path in SOURCES.items()
    for name in _imports(module, path)
    if name in MODULES or not name.startswith("lime_edge")
}


def _leaf(module: str) -> str:
    """``lime_edge.contract.model`` -> ``contract``; of a package inside, its own name."""
    return module.split(".")[1] if "." in module else ""


def test_the_walk_sees_imports() -> None:
    assert ("lime_edge.skills.package", "lime_edge.skills.manifest") in ARROWS
    assert ("lime_edge.skills.package", "os") in ARROWS
    assert any(
        importer.startswith("lime_edge.runtime.") and name == "lime_edge.contract.model" for importer, name in ARROWS
    )


def test_runtime_knows_only_errors_contract_package_and_trust() -> None:
    others = {
        (importer, name)
        for importer, name in ARROWS
        if _leaf(importer) == "runtime"
        and name.startswith("lime_edge.")
        and _leaf(name) not in {*RUNTIME_MAY, "runtime"}
    }
    assert not others


def test_the_base_knows_no_heavy_library_even_inside_functions() -> None:
    base = {f"lime_edge.{name}" for name in BASE}
    heavy = {arrow for arrow in ARROWS if (arrow[0] in base or _leaf(arrow[0]) == "runtime") and arrow[1] in HEAVY}
    assert not heavy


@pytest.mark.parametrize("name", BASE)
def test_the_base_modules_stand_on_each_other_only(name: str) -> None:
    found = {_leaf(other) for importer, other in ARROWS if importer == f"lime_edge.{name}" and "lime_edge." in other}
    assert found <= BASE[name]


def test_nobody_imports_the_command_line() -> None:
    allowed = {"cli", "__main__"}
    assert not [arrow for arrow in ARROWS if _leaf(arrow[1]) == "cli" and _leaf(arrow[0]) not in allowed]


def test_folders_are_imported_as_parts_of_the_package() -> None:
    files = [path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")]
    names = {(str(path), name) for path in files for name in _imports("", path)}
    names |= ARROWS
    assert not [arrow for arrow in names if arrow[1].partition(".")[0] in ("exporters", "runtime")]


@pytest.mark.parametrize("folder", ["exporters", "runtime"])
def test_symlinks_lead_to_the_folders(folder: str) -> None:
    link = ROOT / "lime_edge" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("module", ["lime_edge", "lime_edge.runtime", "lime_edge.skills.package"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
