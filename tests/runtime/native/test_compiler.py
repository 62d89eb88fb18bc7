"""Compiling the native operators: the choice of the compiler, the flags, and the state after a failure."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lime_edge.runtime.native import compiler
from lime_edge.runtime.native.compiler import CompilerError, compile_operators, find_compiler

ANSWER = 'extern "C" __attribute__((visibility("default"))) int answer() { return ANSWER; }\n'


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source that only compiles with the caller's flags."""
    for name in ("CXX", "CXXFLAGS", "LDFLAGS"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "source.cpp"
    path.write_text(ANSWER, "utf-8")
    return path


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}", "utf-8")
    path.chmod(0o755)
    return path


def test_flags_of_the_caller_and_of_the_environment(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compile_operators(tmp_path / "one", source, ["-DANSWER=1"])
    assert made == tmp_path / "one" / compiler.LIBRARY
    assert ctypes.CDLL(str(made)).answer() == 1
    monkeypatch.setenv("CXXFLAGS", "-DANSWER=2 -DUNUSED='a b'")
    assert ctypes.CDLL(str(compile_operators(tmp_path / "two", source))).answer() == 2
    assert list(made.parent.iterdir()) == [made]


def test_the_first_compiler_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(CompilerError, match=r"no C\+\+ compiler: looked for \$CXX, c\+\+, g\+\+, clang\+\+"):
        find_compiler()
    clang = executable(tmp_path / "bin" / "clang++", "")
    assert find_compiler() == [str(clang)]
    gcc = executable(tmp_path / "bin" / "g++", "")
    assert find_compiler() == [str(gcc)]


def test_cxx_comes_first(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = tmp_path / "arguments"
    wrapper = executable(
        tmp_path / "bin" / "mine", f"import sys; open({str(arguments)!r}, 'w').write(' '.join(sys.argv[1:]))"
    )
    monkeypatch.setenv("CXX", f"{wrapper} -first 'a b'")
    with pytest.raises(CompilerError, match="cannot be made"):  # the wrapper writes no library
        compile_operators(tmp_path / "out", source)
    assert arguments.read_text("utf-8").startswith("-first a b -std=c++17 -O3 ")


def test_the_digest_tells_sources_apart(tmp_path: Path) -> None:
    folder = shutil.copytree(compiler.FOLDER, tmp_path / "native")
    assert compiler.sources_digest(folder) == compiler.sources_digest()
    (folder / "kernel.inc").write_text((folder / "kernel.inc").read_text("utf-8") + "\n", "utf-8")
    assert compiler.sources_digest(folder) != compiler.sources_digest()
    (folder / "kernel.inc").unlink()
    assert compiler.sources_digest(folder) != compiler.sources_digest()


def test_nothing_ties_the_library_to_this_machine() -> None:
    assert not [flag for flag in compiler._FLAGS if flag.startswith(("-m", "-fast", "-Ofast", "-ffast"))]


def test_a_failure_says_why_and_leaves_what_was_there(source: Path, tmp_path: Path) -> None:
    made = compile_operators(tmp_path / "out", source, ["-DANSWER=1"])
    before = made.read_bytes()
    with pytest.raises(CompilerError) as caught:
        compile_operators(tmp_path / "out", source)
    assert "failed (1)" in str(caught.value)
    assert "ANSWER" in str(caught.value).partition("\n")[2]
    assert list(made.parent.iterdir()) == [made]
    assert made.read_bytes() == before


def test_a_compiler_that_is_not_there(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no" / "compiler"))
    with pytest.raises(CompilerError, match=r"cannot be made: .*No such file or directory"):
        compile_operators(tmp_path / "out", source)


def test_a_folder_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompilerError, match="cannot be made"):
        compile_operators(tmp_path / "file", source, ["-DANSWER=1"])


def test_it_needs_the_standard_library_only(tmp_path: Path) -> None:
    """setup.py loads the file in an environment that has setuptools only."""
    copy = shutil.copy(Path(compiler.__file__), tmp_path / "alone.py")
    subprocess.run([sys.executable, "-I", "-S", str(copy)], check=True)
