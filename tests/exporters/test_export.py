"""Exported directories of tiny models: against the builder's own graph and against PyTorch with the definition."""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lime_edge.contract.model import ModelContract
from lime_edge.contract.routing import Routing
from lime_edge.errors import ExportError
from lime_edge.exporters import Precision, export
from lime_edge.exporters.genai_builder import build_backbone
from tests.exporters.export_case import (
    TOLERANCE,
    build_reference,
    contents,
    error,
    make_adapter,
    make_export,
    make_session,
    oracle,
    prompt,
    replaced,
    run,
)
from tests.support.tiny import ARCHITECTURES


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_a_skill_every_bit_is_the_builders(
    architecture: str, precision: Precision, backbones: dict[str, Path], tmp_path: Path
) -> None:
    backbone = backbones[architecture]
    build_reference(backbone, tmp_path / "plain", precision)
    exported = make_export(backbone, tmp_path / "out", precision)
    for level in (ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL):
        plain, session = make_session(tmp_path / "plain", level), make_session(tmp_path / "out", level)
        expected, nothing_fed = run(plain, prompt()), run(session, prompt())
        assert all(np.array_equal(expected[name], nothing_fed[name]) for name in expected)
        bank = exported.bank(exported.skills())
        mixed = run(session, prompt(), bank=bank, skill_ids=exported.ids([[0], [2]]))["logits"]
        assert np.array_equal(mixed[0], expected["logits"][0])
        assert not np.allclose(mixed[1], expected["logits"][1], atol=0.1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_skill_is_the_definition_on_the_hugging_face_model(
    architecture: str, backbones: dict[str, Path], tmp_path: Path
) -> None:
    exported = make_export(backbones[architecture], tmp_path / "out", seed=1)
    skills, ids = exported.skills(), exported.ids([[2], [0], [1]])
    found = run(exported.session(), prompt(3), bank=exported.bank(skills), skill_ids=ids)["logits"]
    assert error(found, oracle(exported, prompt(3), [skills[1], None, skills[0]])) < TOLERANCE


def test_half_precision(backbones: dict[str, Path], tmp_path: Path) -> None:
    """On a CPU, onnxruntime computes fp16 in fp32 and rounds between nodes; which ones depends on the graph."""
    build_backbone(backbones["llama"], tmp_path / "plain", "fp16")
    routing = Routing(experts=2, mode="auto_soft")
    exported = make_export(backbones["llama"], tmp_path / "out", "fp16", routing=routing)
    session, skills = exported.session(), exported.skills(1)
    expected = run(make_session(tmp_path / "plain"), prompt(1))["logits"].astype(np.float64)
    assert error(run(session, prompt(1))["logits"], expected) < 2e-3  # two units in the last place of fp16
    bank = exported.bank(skills)
    found = run(session, prompt(1), bank=bank, skill_ids=exported.ids([[1]]))["logits"]
    assert found.dtype == np.float16
    assert error(found, oracle(exported, prompt(1), [*skills])) < 1e-2


def test_the_directory_is_complete_and_says_what_it_holds(backbones: dict[str, Path], tmp_path: Path) -> None:
    exported = make_export(backbones["llama"], tmp_path / "out", "int4", backbone_name="tiny", adapter_digest="ab")
    files = contents(exported.path)
    assert set(files) == {
        "lime.json",
        "model.onnx",
        "model.onnx.data",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "config.json",
    }
    assert ModelContract.from_json(files["lime.json"].decode()) == exported.contract
    assert exported.contract.files == tuple(
        (name, hashlib.sha256(files[name]).hexdigest()) for name in ("model.onnx", "model.onnx.data")
    )
    assert dict(exported.contract.sizes) == {name: len(files[name]) for name, _ in exported.contract.files}
    assert (exported.contract.backbone_name, exported.contract.precision) == ("tiny", "int4")
    assert not any(str(tmp_path).encode() in content for content in files.values())
    model = onnx.load(exported.path / "model.onnx")
    for node in model.graph.node:
        if node.op_type == "SimplifiedLayerNormalization":
            node.domain = "com.microsoft"  # the checker does not know it in the domain that the builder gives
    onnx.checker.check_model(model)
    assert "ai.lime" in {entry.domain for entry in model.opset_import}


@pytest.mark.parametrize("precision", ["fp32", "int4", "fp16"])
def test_the_same_bytes_every_time(precision: Precision, backbones: dict[str, Path], tmp_path: Path) -> None:
    adapter = make_adapter(backbones["llama"], routing=Routing(experts=2, window=2))
    elsewhere = shutil.copytree(backbones["llama"], tmp_path / "elsewhere" / "copy")
    for number, backbone in enumerate((backbones["llama"], backbones["llama"], elsewhere)):
        export(adapter, backbone, tmp_path / str(number), precision)
    first, second, third = (contents(tmp_path / str(number)) for number in range(3))
    assert first == second
    assert first == third


def test_nothing_of_the_callers_is_changed(
    backbones: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone, adapter = backbones["gemma3"], make_adapter(backbones["gemma3"])
    arrays = [array for module in adapter.modules for array in (module.a, module.b)]
    before = [array.copy() for array in arrays], contents(backbone), list(sys.path)
    log = logging.getLogger()
    handlers = log.level, list(log.handlers)
    capfd.readouterr()
    export(adapter, backbone, tmp_path / "out", "int4")
    assert capfd.readouterr() == ("", "")
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before[0], strict=True))
    assert (contents(backbone), list(sys.path)) == before[1:]
    assert (log.level, list(log.handlers)) == handlers
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_fresh_process_stays_as_it_was(backbones: dict[str, Path], tmp_path: Path) -> None:
    """Importing loads no torch, and the builder's quantizer leaves the root logger unconfigured."""
    code = f"""
import logging, pathlib, sys
import numpy as np
from lime_edge.contract.routing import Routing
from lime_edge.exporters import AdaptedModule, AdapterWeights, export
assert not {{"torch", "transformers", "onnxruntime"}} & set(sys.modules)
module = AdaptedModule("model.layers.0.mlp.up_proj", np.ones((1, 64), "f"), np.ones((96, 1), "f"), 1.0)
adapter = AdapterWeights((module,), Routing())
export(adapter, pathlib.Path({str(backbones["llama"])!r}), pathlib.Path({str(tmp_path / "out")!r}))
assert (logging.getLogger().handlers, logging.getLogger().level) == ([], logging.WARNING)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("architecture", ["llama", "mistral"], ids=["tied", "untied"])
def test_onnxruntime_genai_runs_the_directory(architecture: str, backbones: dict[str, Path], tmp_path: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    build_reference(backbones[architecture], tmp_path / "plain", "int4")
    exported = make_export(backbones[architecture], tmp_path / "out", "int4")
    produced = []
    for path in (tmp_path / "plain", exported.path):
        model = genai.Model(str(path))
        settings = genai.GeneratorParams(model)
        settings.set_search_options(max_length=12, min_length=12, do_sample=False)
        generator = genai.Generator(model, settings)
        generator.append_tokens(prompt(1)[0].astype(np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        produced.append(list(generator.get_sequence(0)))
    assert len(produced[0]) == 12
    assert produced[0] == produced[1]


_EXPORT = """
import os, pathlib, sys
import numpy as np
from lime_edge.contract.routing import Routing
from lime_edge.exporters import AdaptedModule, AdapterWeights, export
module = AdaptedModule("model.layers.0.mlp.up_proj", np.ones((1, 64), "f"), np.ones((96, 1), "f"), 1.0)
sys.modules["lime_edge.exporters.export"].put_in_place = lambda *_: os.kill(os.getpid(), 9)
export(AdapterWeights((module,), Routing()), pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_what_a_killed_export_left_is_collected_by_the_next(backbone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", _EXPORT, str(backbone), str(out)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert (folder / "made" / "model.onnx.data").is_file()
    export(make_adapter(backbone, ("o_proj",)), backbone, out, "int4")
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_that_cannot_be_written(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ir, "save", full)
    with pytest.raises(ExportError, match=r"out cannot be written: No space left on device"):
        export(make_adapter(backbone, ("o_proj",)), backbone, tmp_path / "out", "fp32")
    assert not list(tmp_path.iterdir())


def test_all_faults_at_once(backbone: Path, tmp_path: Path) -> None:
    adapter = replaced(make_adapter(backbone), name="lm_head", b=np.full((64, 1), np.nan, np.float32))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    with pytest.raises(ExportError) as caught:
        export(replace(adapter, routing_scale="batch"), backbone, tmp_path / "out", "int3")  # type: ignore[arg-type]
    for fault in ("'batch'", "expected [r, D]", "not finite", "lm_head: not a", "is not empty", "precision is 'int3'"):
        assert fault in str(caught.value)
    assert len(caught.value.faults) == 6
    assert contents(tmp_path / "out") == {"precious": b"mine"}


def test_only_an_exported_directory_is_overwritten(backbone: Path, tmp_path: Path) -> None:
    adapter, out = make_adapter(backbone, ("o_proj",)), tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(ExportError, match="holds no exported model"):
        export(adapter, backbone, out, "fp32", overwrite=True)
    (out / "precious").unlink()
    export(adapter, backbone, out, "fp32")  # an empty directory is allowed
    (out / "skills").mkdir()
    with pytest.raises(ExportError, match="is not empty"):
        export(adapter, backbone, out, "fp32")
    assert export(adapter, backbone, out, "int4", overwrite=True).precision == "int4"
    assert not (out / "skills").exists()
    with pytest.raises(ExportError, match="is not a directory"):
        export(adapter, backbone, out / "lime.json", "fp32")
