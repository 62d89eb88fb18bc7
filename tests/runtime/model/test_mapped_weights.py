"""Models mapped from a prepacked copy: the same bits, created once, rebuilt when outdated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime import Runtime
from lime_edge.runtime.model import mapped_weights
from lime_edge.runtime.model.session import SessionSettings, open_session
from tests.support.paths import ROOT
from tests.support.runtime_models import PROMPTS, exported, skill

pytestmark = pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < mapped_weights._OLDEST,
    reason="this onnxruntime does not save such copies correctly",
)
FILES = {"model.onnx", "model.onnx.data", "mapped.json"}


def opened(model: Path, folder: Path) -> Runtime:
    made = Runtime.load(model, threads=1, mapped=folder)
    made.load_skill(skill(model, "legal"))
    return made


def answers(made: Runtime) -> Any:
    found = made.generate(PROMPTS, ["legal", None, "legal", None], max_new_tokens=12)
    return [answer.token_ids for answer in found], made.choose("Hello", ["yes", "no"], "legal").scores


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize("operators", ["auto", None])
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_the_same_bits_from_a_copy_made_once(tmp_path: Path, precision: str, operators: str | None) -> None:
    model, folder = exported(precision=precision), tmp_path / "deep" / "copy"
    plain = Runtime.load(model, threads=1, operators=operators)
    plain.load_skill(skill(model, "legal"))
    wanted, seen = answers(plain), []
    for _ in range(2):
        made = Runtime.load(model, threads=1, operators=operators, mapped=folder)
        made.load_skill(skill(model, "legal"))
        assert answers(made) == wanted
        seen.append(written(folder))
    assert seen[0] == seen[1]
    assert seen[0].keys() == FILES
    assert os.listdir(folder.parent) == ["copy"]


def cut(folder: Path) -> None:
    """Write a new file: truncating a mapped one would end the processes that have it mapped."""
    (folder / "model.onnx.data").unlink()
    (folder / "model.onnx.data").write_bytes(b"short")


def graph_gone(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def stamp_empty(folder: Path) -> None:
    (folder / "mapped.json").write_text("{}")


def foreign(folder: Path) -> None:
    text = (folder / "mapped.json").read_text()
    (folder / "mapped.json").write_text(text.replace('"key": "', '"key": "0'))


@pytest.mark.parametrize("change", [cut, foreign, graph_gone, stamp_empty])
def test_a_copy_that_does_not_fit_is_made_anew(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = tmp_path / "copy"
    before = opened(exported(), folder)  # still has the copy mapped
    wanted, made = answers(before), written(folder)
    change(folder)
    assert answers(opened(exported(), folder)) == wanted
    assert written(folder).keys() == FILES
    assert written(folder)["model.onnx"] != made["model.onnx"]
    assert answers(before) == wanted
    assert os.listdir(tmp_path) == ["copy"]


def test_what_a_copy_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shutil.copytree(exported(), tmp_path / "model") / "model.onnx"
    library = tmp_path / "library.so"
    library.write_bytes(b"1")
    keys = [mapped_weights._key(model, None), mapped_weights._key(model, library)]
    library.write_bytes(b"2")
    keys.append(mapped_weights._key(model, library))
    weights = tmp_path / "model" / "model.onnx.data"
    data = bytearray(weights.read_bytes())
    data[0] ^= 1
    weights.write_bytes(data)
    keys.append(mapped_weights._key(model, None))
    model.write_bytes(model.read_bytes() + b"\0")
    keys.append(mapped_weights._key(model, None))
    monkeypatch.setattr(mapped_weights, "_processor", lambda: ["another"])
    keys.append(mapped_weights._key(model, None))
    monkeypatch.setattr(ort, "__version__", "0")
    keys.append(mapped_weights._key(model, None))
    assert len(set(keys)) == len(keys)
    assert mapped_weights._key(model, None) == keys[-1]


def test_old_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "__version__", "1.30.2")
    with pytest.raises(ConfigError, match=r"mapped needs onnxruntime 1.31 or later; this is 1.30.2"):
        Runtime.load(exported(), threads=1, mapped=tmp_path / "copy")
    assert not os.listdir(tmp_path)


def test_folders_that_cannot_be_taken(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, message in (
        ("full", "holds other files; expected a folder for this copy alone"),
        ("file", "holds other files"),
        ("file/below", "cannot be written"),
        ("n" * 300, "cannot be read: File name too long"),
    ):
        with pytest.raises(ConfigError, match=message):
            Runtime.load(exported(), threads=1, mapped=tmp_path / name)
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="works on the CPU only; the device is cuda"):
        open_session(exported() / "model.onnx", SessionSettings(operators=None, mapped=tmp_path / "new"), "cuda")


def test_a_broken_graph_leaves_no_copy(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no")
    with pytest.raises(ModelError):
        open_session(broken, SessionSettings(operators=None, mapped=tmp_path / "copy"))
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    session = open_session(exported() / "model.onnx", SessionSettings("cpu", 1, mapped=tmp_path / "copy"))
    assert "logits" in [value.name for value in session.get_outputs()]
    assert written(tmp_path / "copy").keys() == FILES


def flipped(folder: Path) -> None:
    """The size of the file stays."""
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 255
    (folder / "model.onnx.data").unlink()
    (folder / "model.onnx.data").write_bytes(data)


def test_verify_finds_a_damaged_copy(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    wanted = answers(opened(exported(), folder))
    flipped(folder)
    damaged = written(folder)
    opened(exported(), folder)
    assert written(folder) == damaged  # trusted
    made = Runtime.load(exported(), threads=1, mapped=folder, verify=True)
    made.load_skill(skill(exported(), "legal"))
    assert answers(made) == wanted
    assert written(folder) != damaged
    sound = written(folder)
    Runtime.load(exported(), threads=1, mapped=folder, verify=True)
    assert written(folder) == sound


def test_the_slower_of_two_processes_uses_the_copy_of_the_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process is faster at each of the steps at which this one looks at the folder."""
    rival, wanted = tmp_path / "rival", answers(opened(exported(), tmp_path / "first"))
    shutil.copytree(tmp_path / "first", rival)
    replace = os.replace
    for step in range(3):
        folder, moves = tmp_path / f"copy{step}", iter(range(9))

        def move(source: Any, target: Any, folder: Path = folder, moves: Any = moves, step: int = step) -> None:
            if next(moves) == step and not folder.exists():
                shutil.copytree(rival, folder)
            replace(source, target)

        monkeypatch.setattr(os, "replace", move)
        if step == 2:
            shutil.copytree(rival, folder)
            stamp_empty(folder)  # outdated: both replace it
            monkeypatch.setattr(mapped_weights, "_replace", vanishing(mapped_weights._replace))
        assert answers(opened(exported(), folder)) == wanted
        assert written(folder).keys() == FILES
    assert sorted(os.listdir(tmp_path)) == ["copy0", "copy1", "copy2", "first", "rival"]


def vanishing(replace: Callable[[Path, Path, Path], None]) -> Callable[[Path, Path, Path], None]:
    """Another process moves the outdated copy away first."""

    def run(folder: Path, made: Path, before: Path) -> None:
        shutil.rmtree(folder)
        replace(folder, made, before)

    return run


START = """
import sys
from pathlib import Path
from lime_edge.runtime.model.session import SessionSettings, open_session
print("ready", flush=True)
sys.stdin.readline()
settings = SessionSettings("cpu", 1, mapped=Path(sys.argv[2]))
session = open_session(Path(sys.argv[1]), settings)
print(len(session.get_outputs()), flush=True)
"""


def test_processes_that_start_together_share_one_copy(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, str(exported() / "model.onnx"), str(tmp_path / "copy")]
    pipe = subprocess.PIPE
    starts = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) for _ in range(4)]
    try:
        for process in starts:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in starts:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in starts:
            out, error = process.communicate(timeout=120)
            assert (process.returncode, error) == (0, "")
            assert int(out) > 0
    finally:
        for process in starts:
            process.kill()
    assert os.listdir(tmp_path) == ["copy"]
    assert written(tmp_path / "copy").keys() == FILES
