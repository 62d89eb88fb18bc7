"""Which library of native operators the runtime uses, which it refuses, and the reason that it reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime import Runtime
from lime_edge.runtime.native import compiler, operators
from tests.support.runtime_models import exported, skill

DESCRIBE = 'extern "C" __attribute__((visibility("default"))) const char* LimeOperatorsDescribe() {{ return "{}"; }}\n'
QUICK = ("-O0",)


def library(folder: Path, text: str) -> Path:
    """Compile C++ source in the same way as the operators."""
    folder.mkdir()
    (folder / "source.cpp").write_text(text, "utf-8")
    return compiler.compile_operators(folder, folder / "source.cpp", QUICK)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiler.compile_operators(tmp_path_factory.mktemp("native"), flags=QUICK)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder that replaces the one where the installed library is looked for."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.setattr(operators, "FOLDER", folder)
    return folder


def test_the_installed_library_is_taken(native: Path, install: Path) -> None:
    shutil.copy(native, install)
    made = Runtime.load(exported(), threads=1)
    assert made.operators.library == install / compiler.LIBRARY
    assert made.operators.cpu in ("avx512", "avx2", "neon", "generic")
    assert str(made.operators) == f"native, {made.operators.cpu}"
    functions = Runtime.load(exported(), threads=1, operators=None)
    assert (functions.operators.native, functions.operators.reason) == (False, "native operators were not requested")


def test_a_named_library_is_taken(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(native.parent)
    for named in (native, str(native), native.name):  # dlopen would search other folders for a plain name
        assert Runtime.load(exported(), threads=1, operators=named).operators.library == native


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_native_and_function_answer_alike(precision: str, native: Path) -> None:
    directory = exported(precision=precision)
    answers = []
    for library in (native, None):
        made = Runtime.load(directory, threads=1, operators=library)
        made.load_skill(skill(directory, "legal"))
        answers.append(
            [made.generate("Hello, is it so?", name, max_new_tokens=16).token_ids for name in (None, "legal")]
        )
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[0][1]


def test_without_a_library_the_functions_run(install: Path) -> None:
    found = Runtime.load(exported(), threads=1).operators
    assert not found.native
    assert "not built at install: no C++ compiler, or it failed" in found.reason
    assert operators.BUILD in str(found)


def test_another_device_has_no_use_for_it() -> None:
    assert operators.choose("auto", "cuda").reason == "the native operators support the CPU only; the device is cuda"


FAULTS = {
    "another version": (DESCRIBE.format("99 generic"), "has version '99'; expected '1'"),
    "another library": ("int nothing;\n", "LimeOperatorsDescribe"),
    "says nothing": (DESCRIBE.format(""), "has version ''"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unfit_library(fault: str, tmp_path: Path, install: Path) -> None:
    text, message = FAULTS[fault]
    found = library(tmp_path / "made", text)
    with pytest.raises(ConfigError, match=message):
        Runtime.load(exported(), threads=1, operators=found)
    shutil.copy(found, install)
    made = Runtime.load(exported(), threads=1)
    assert not made.operators.native
    assert message in made.operators.reason


def test_a_library_of_other_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library built before an edit of the sources is refused. One that does not name its sources is accepted."""
    stale = library(tmp_path / "stale", DESCRIBE.format("1 generic 0123456789ab"))
    silent = library(tmp_path / "silent", DESCRIBE.format("1 generic"))
    monkeypatch.setattr(operators, "FOLDER", stale.parent)
    assert "were built from other sources" in operators.choose("auto", "cpu").reason
    monkeypatch.setattr(operators, "FOLDER", silent.parent)
    assert operators.choose("auto", "cpu") == operators.Operators(silent, "generic")


def test_a_file_that_is_no_library(install: Path) -> None:
    """A damaged file, or a library for another machine."""
    (install / compiler.LIBRARY).write_bytes(b"\x7fELF nothing")
    with pytest.raises(ConfigError, match="is not a library of LiME operators for this machine"):
        Runtime.load(exported(), threads=1, operators=install / compiler.LIBRARY)
    assert "for this machine" in Runtime.load(exported(), threads=1).operators.reason


def test_a_library_that_onnxruntime_refuses(tmp_path: Path, install: Path) -> None:
    """It registers nothing. If the caller names it, that is an error; if it is installed, the functions run instead."""
    found = library(tmp_path / "made", DESCRIBE.format("1 generic"))
    with pytest.raises(ModelError, match="cannot load"):
        Runtime.load(exported(), threads=1, operators=found)
    shutil.copy(found, install)
    made = Runtime.load(exported(), threads=1)
    assert not made.operators.native
    assert "cannot load" in made.operators.reason
    assert np.isfinite(made.choose("Hello", ["yes", "no"]).scores["yes"])


def test_a_library_in_a_model_directory_is_never_loaded(tmp_path: Path, install: Path) -> None:
    """An untrusted model that brings a library, which creates a file when it is loaded, and a config that names it."""
    mark = tmp_path / "mark"
    text = f'#include <cstdio>\nstatic void* left = std::fopen("{mark}", "w");\n' + DESCRIBE.format("1 generic")
    model = shutil.copytree(exported(), tmp_path / "model")
    shutil.copy(library(tmp_path / "made", text), model)
    config = json.loads((model / "genai_config.json").read_text("utf-8"))
    config["model"]["decoder"]["session_options"]["custom_ops_library"] = compiler.LIBRARY
    (model / "genai_config.json").write_text(json.dumps(config), "utf-8")
    assert not Runtime.load(model, threads=1).operators.native
    assert not mark.exists()
    Runtime.load(model, threads=1, operators=None)
    assert not mark.exists()
    operators.describe(model / compiler.LIBRARY)  # loading the library does create the file
    assert mark.exists()
