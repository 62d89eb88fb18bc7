"""What a build makes, where a C++ compiler is there and where none is: names, contents, and that it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lime_edge.runtime.native import compiler
from tests.support.paths import ROOT
from tests.support.runtime_models import exported

NATIVE = "lime_edge/runtime/native/"
LIBRARY = NATIVE + compiler.LIBRARY
ANSWER = """
import json, sys
from lime_edge.runtime import Runtime
made = Runtime.load(sys.argv[1], threads=1)
print(json.dumps([made.operators.native, list(made.generate("Hello, is it so?", max_new_tokens=8).token_ids)]))
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's own files, beside what an editable install of another platform left."""
    folder = tmp_path_factory.mktemp("sources")
    skipped = shutil.ignore_patterns("__pycache__", compiler.LIBRARY)
    for name in ("lime_edge", "exporters", "runtime"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skipped)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in {"lime_operators.dll", "liblime_operators.dylib", "liblime_operators.so"} - {compiler.LIBRARY}:
        (folder / "runtime" / "native" / name).write_bytes(b"another platform's")
    return folder


def environment(**changes: str) -> dict[str, str]:
    """This one without a word about compilers, but quick; what setup.py imports leaves no bytecode in the sources."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CXX", "LDFLAGS", "PYTHONPATH")}
    return {**kept, "CXXFLAGS": "-O0", "PYTHONDONTWRITEBYTECODE": "1", **changes}


def wheel(sources: Path, output: Path, **changes: str) -> tuple[Path, str]:
    """Build with pip, and what it said."""
    command = [sys.executable, "-m", "pip", "-v", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(output), str(sources)],
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = output.glob("*.whl")
    return made, done.stdout + done.stderr


@pytest.fixture(scope="module")
def with_compiler(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel(sources, tmp_path_factory.mktemp("with"))[0]


@pytest.fixture(scope="module")
def without_compiler(sources: Path, with_compiler: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """After `with_compiler`, whose build folder is still there."""
    assert (sources / "build").is_dir()
    return wheel(sources, tmp_path_factory.mktemp("without"), PATH=str(sources / "nothing"))


def contents(made: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(made).namelist() if ".dist-info/" not in name}


def expected(sources: Path) -> set[str]:
    """Every file of the three folders, nested ones included; but no library, no symlink and nothing for browsers."""
    found = set()
    for folder, inside in (("lime_edge", ""), ("exporters", "lime_edge/"), ("runtime", "lime_edge/")):
        for home, _, files in os.walk(sources / folder):  # does not follow links
            found |= {inside + (Path(home) / name).relative_to(sources).as_posix() for name in files}
    found = {name for name in found if not name.startswith("lime_edge/runtime/web/")}
    return {name for name in found if not name.endswith((".so", ".dylib", ".dll"))}


def told(made: Path, home: Path, *command: str) -> Any:
    """What a process that finds nothing of ours but the unpacked wheel prints."""
    if not home.exists():
        zipfile.ZipFile(made).extractall(home)
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        env=environment(PYTHONPATH=str(home)),
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_with_a_compiler(sources: Path, with_compiler: Path, tmp_path: Path) -> None:
    python, abi, platform = with_compiler.stem.split("-")[2:]
    assert (python, abi) == ("py3", "none")
    assert platform != "any"
    assert contents(with_compiler) == expected(sources) | {LIBRARY}
    says = zipfile.ZipFile(with_compiler).read("lime_edge-0.1.0.dist-info/WHEEL").decode()
    assert "Root-Is-Purelib: false" in says
    found = told(with_compiler, tmp_path / "site", "-m", "lime_edge", "doctor", "--json")["operators"]
    assert found["native"]
    assert Path(found["library"]) == tmp_path / "site" / LIBRARY


def test_without_a_compiler(sources: Path, without_compiler: tuple[Path, str], tmp_path: Path) -> None:
    made, said = without_compiler
    assert made.name.endswith("-py3-none-any.whl")
    assert contents(made) == expected(sources)
    assert "WITHOUT THE NATIVE OPERATORS: no C++ compiler" in said
    assert "Root-Is-Purelib: true" in zipfile.ZipFile(made).read("lime_edge-0.1.0.dist-info/WHEEL").decode()
    found = told(made, tmp_path / "site", "-m", "lime_edge", "doctor", str(exported()), "--json")
    for facts in (found["operators"], found["model"]["operators"]):
        assert not facts["native"]
        assert "`lime-edge doctor --build`" in facts["reason"]


def test_both_run_and_answer_alike(with_compiler: Path, without_compiler: tuple[Path, str], tmp_path: Path) -> None:
    native, answer = told(with_compiler, tmp_path / "with", "-c", ANSWER, str(exported()))
    function, same = told(without_compiler[0], tmp_path / "without", "-c", ANSWER, str(exported()))
    assert (native, function) == (True, False)
    assert answer == same


def test_doctor_builds_what_the_install_could_not(without_compiler: tuple[Path, str], tmp_path: Path) -> None:
    command = ("-m", "lime_edge", "doctor", "--build", "--json")
    assert told(without_compiler[0], tmp_path / "site", *command)["operators"]["native"]
    assert (tmp_path / "site" / LIBRARY).is_file()


def test_a_compiler_that_fails(sources: Path, tmp_path: Path) -> None:
    made, said = wheel(sources, tmp_path, CXXFLAGS="--no-such-flag")
    assert contents(made) == expected(sources)
    assert "WITHOUT THE NATIVE OPERATORS" in said
    assert "--no-such-flag" in said.partition("failed (")[2]


def backend(sources: Path, call: str, output: Path) -> Path:
    """What a function of the build backend makes."""
    code = f"from setuptools import build_meta; print('made', build_meta.{call}({str(output)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=sources, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return output / done.stdout.rpartition("made ")[2].strip()


def test_an_editable_install_has_the_library_in_place(sources: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sources, tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("build"))
    made = backend(copy, "build_editable", tmp_path / "dist")
    assert (copy / "runtime" / "native" / compiler.LIBRARY).is_file()
    assert not [name for name in contents(made) if "native" in name]


def test_a_wheel_of_the_source_distribution_is_the_same(
    sources: Path, without_compiler: tuple[Path, str], tmp_path: Path
) -> None:
    packed = backend(sources, "build_sdist", tmp_path / "dist")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (folder,) = (tmp_path / "unpacked").iterdir()
    made, _ = wheel(folder, tmp_path / "again", PATH=str(tmp_path / "nothing"))
    assert contents(made) == contents(without_compiler[0])
