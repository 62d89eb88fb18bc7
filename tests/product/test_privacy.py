"""The product sends nothing about its use, and writes nothing that it does not name."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import rooms, runtime_models
from tests.support.paths import ROOT

#: Variables that lime_edge/__init__.py sets, and the libraries that read one of them when they are imported.
SETTINGS = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
LIBRARIES = {"onnxruntime", "onnxruntime_genai", "huggingface_hub", "transformers", "hf_xet"}
#: Everything that lime-edge, its libraries or a shell may use to place files.
PLACES = ("LIME_EDGE_CACHE", "LIME_EDGE_STORE", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")

ANSWER = """
import sys
from lime_edge import Runtime
runtime = Runtime.load(sys.argv[1], threads=1)
runtime.generate("hello", max_new_tokens=3)
"""
EVERYTHING = """
from tests.support import cli_models
model, _ = cli_models.exported()  # train, learn, export
assert cli_models.lime("run", model, "hello", "--skill", "odd", "--max-new-tokens", "3").exit_code == 0
assert cli_models.lime("eval", model, cli_models.data(), "--rows", "2", "--max-new-tokens", "3").exit_code == 0
"""


def _python(code: str, *args: object, **environment: str) -> str:
    """Run code in a process that has none of `SETTINGS` and `PLACES` but those in `environment`; returns its output."""
    kept = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, *PLACES)}
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(
        command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", [ANSWER, EVERYTHING], ids=["answer", "train, learn, export, run, eval"])
def test_no_file_is_left_in_the_home_folder(code: str, tmp_path: Path) -> None:
    _python(code, runtime_models.exported() if code is ANSWER else "", HOME=str(tmp_path))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_value_that_the_user_has_set_is_kept() -> None:
    code = f"import os, lime_edge; print(*(os.environ[name] for name in {SETTINGS}))"
    assert _python(code).split() == ["1", "1"]
    assert _python(code, ORT_DISABLE_TELEMETRY="0").split() == ["0", "1"]


def test_every_package_that_imports_such_a_library_imports_lime_edge_first() -> None:
    """Python imports a package before its modules, so a package's `__init__` runs before their imports."""
    importing = {module for module, library in rooms.arrows() if library in LIBRARIES}
    assert {module.partition(".")[0] for module in importing} == {"lime_edge"}
    assert {"lime_edge.runtime.model.session", "lime_edge.reports.doctor"} <= importing
    for path in (ROOT / "examples").glob("*.py"):
        tops = [name.partition(".")[0] for name in rooms.imports("", path)]
        assert next((name for name in tops if name in {*LIBRARIES, "lime_edge"}), "lime_edge") == "lime_edge", path
    for folder in ("benchmarks", "tests"):
        files = list((ROOT / folder).rglob("*.py"))
        found = [
            str(path) for path in files if LIBRARIES & {name.partition(".")[0] for name in rooms.imports("", path)}
        ]
        assert not found or _first_import(ROOT / folder / "__init__.py") == "lime_edge", found


def _first_import(path: Path) -> str:
    body = ast.parse(path.read_text("utf-8")).body
    return next((node.names[0].name for node in body if isinstance(node, ast.Import)), "")
