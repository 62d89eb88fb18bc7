"""Exported directories of tiny models: against the builder's own graph and against PyTorch with the definition."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from transformers import AutoModelForCausalLM

from lime_edge.contract.model import ModelContract
from lime_edge.contract.routing import Routing
from lime_edge.exporters import AdaptedModule, AdapterWeights, Precision, export
from lime_edge.exporters.adapt_graph import adapt_graph
from lime_edge.exporters.genai_builder import build_backbone
from lime_edge.exporters.weights.projections import module_place
from lime_edge.runtime.native import operators
from tests import reference
from tests.support.operator_case import clear_of_limits
from tests.support.tiny import ARCHITECTURES, tiny_model

Array = npt.NDArray[Any]

EVERY = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
HEAD = 16  # head size of the tiny models
TOLERANCE = 1e-4  # of the largest logit; fp32 against float64, through all layers


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def backbones(home: Path) -> dict[str, Path]:
    return {name: tiny_model(name, home / name) for name in ARCHITECTURES}


def load_torch(backbone: Path) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float64)
    return model.eval()


def make_adapter(backbone: Path, names: tuple[str, ...] = EVERY, seed: int = 0, **others: Any) -> AdapterWeights:
    """A random shared adapter for every linear module of those names."""
    rng = np.random.default_rng(seed)
    modules: list[AdaptedModule] = []
    for name, module in load_torch(backbone).named_modules():
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in names:
            rank = 2 + len(modules) % 3
            a = rng.standard_normal((rank, module.in_features), np.float32) / np.float32(8)
            b = rng.standard_normal((module.out_features, rank), np.float32) / np.float32(4)
            modules.append(AdaptedModule(name, a, b, 0.5 + rank))
    return AdapterWeights(**{"modules": tuple(modules[::-1]), "routing": Routing(experts=2), **others})


@dataclass
class Exported:
    """An exported directory, and what was put into it."""

    path: Path
    contract: ModelContract
    adapter: AdapterWeights
    backbone: Path

    def session(self) -> ort.InferenceSession:
        return make_session(self.path)

    def skills(self, count: int = 2, seed: int = 1) -> list[dict[str, Array]]:
        """Random vectors ``<kind>.<module>``."""
        rng = np.random.default_rng(seed)
        table = self.contract.table
        shapes = {f"{k}.{m.name}": m.shape(k, table.experts) for m in table.modules for k in table.kinds_of(m.name)}
        size = {"expert": 1.0, "gain": 0.1, "shift": 0.1, "rank": 1.0}
        return [
            {name: (rng.standard_normal(s) * size[name.split(".")[0]]).astype(np.float32) for name, s in shapes.items()}
            for _ in range(count)
        ]

    def bank(self, skills: list[dict[str, Array]]) -> Array:
        return self.contract.table.bank(skills, np.float32 if self.contract.precision == "fp32" else np.float16)[0]

    def ids(self, rows: Any) -> Array:
        """The ids of the rows of `bank`: its skills have as many experts as the model."""
        return -np.array(rows) if self.contract.routing.experts > 1 else np.array(rows)


def make_export(backbone: Path, output: Path, precision: Precision = "fp32", **others: Any) -> Exported:
    adapter = make_adapter(backbone, **others)
    contract = export(adapter, backbone, output, precision, overwrite=True)
    return Exported(output, contract, adapter, backbone)


def make_session(
    path: Path, level: Any = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, library: Path | None = None
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    if library is not None:
        options.register_custom_ops_library(str(library))
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = level
    return ort.InferenceSession(path / "model.onnx", options, providers=["CPUExecutionProvider"])


def run(
    session: ort.InferenceSession, ids: Array, past: dict[str, Array] | None = None, **fed: Array
) -> dict[str, Any]:
    """One call; every output by name. `past` is what an earlier call returned."""
    before = next((v.shape[2] for k, v in (past or {}).items() if k.startswith("present.")), 0)
    rows, tokens = ids.shape
    feed: dict[str, Array] = {"input_ids": ids, "attention_mask": np.ones((rows, before + tokens), np.int64)}
    for wanted in session.get_inputs():
        if wanted.name == "position_ids":
            feed["position_ids"] = np.broadcast_to(np.arange(before, before + tokens), ids.shape)
        elif wanted.name.startswith("past_key_values."):
            dtype = np.float16 if wanted.type == "tensor(float16)" else np.float32
            empty = np.zeros((rows, wanted.shape[1], 0, HEAD), dtype)
            feed[wanted.name] = past[wanted.name.replace("past_key_values", "present")] if past else empty
    feed |= {f"lime.{name}": value for name, value in fed.items()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def prompt(rows: int = 2, tokens: int = 7, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(3, 290, (rows, tokens))


def oracle(exported: Exported, ids: Array, skills: list[dict[str, Array] | None]) -> Array:
    """Logits of the Hugging Face model in float64 whose adapted modules are the definition, row by row."""
    model, routing = load_torch(exported.backbone), exported.adapter.routing
    table = exported.contract.table

    def hook_for(own: AdaptedModule) -> Any:
        a, b = own.a.astype(np.float64), own.b.astype(np.float64)

        def hook(module: Any, args: tuple[torch.Tensor, ...], _: torch.Tensor) -> torch.Tensor:
            bias = None if module.bias is None else module.bias.numpy()
            rows = []
            for x, skill in zip(args[0].numpy(), skills, strict=True):
                vectors: dict[str, Array] = (
                    {k: skill[f"{k}.{own.name}"].astype(np.float64) for k in table.kinds_of(own.name)} if skill else {}
                )
                out, logits = reference.lime_linear(x, module.weight.numpy(), bias, a, b, own.scale, vectors, routing)
                rows.append(out)
                mean = reference.window_mean(logits, np.zeros((0, routing.experts)), routing.window)
                assert skill is None or all(clear_of_limits(row, routing) for row in mean), "take another seed"
            return torch.from_numpy(np.stack(rows))

        return hook

    modules = dict(model.named_modules())
    for own in exported.adapter.modules:
        modules[own.name].register_forward_hook(hook_for(own))
    with torch.no_grad():
        logits: Array = model(torch.from_numpy(ids)).logits.numpy()
    return logits


def error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_a_skill_every_bit_is_the_builders(
    architecture: str, precision: Precision, backbones: dict[str, Path], tmp_path: Path
) -> None:
    backbone = backbones[architecture]
    build_backbone(backbone, tmp_path / "plain", precision)
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


@pytest.mark.parametrize(
    "names", [("q_proj", "v_proj"), ("k_proj", "o_proj"), ("q_proj",), ("down_proj",)], ids="+".join
)
def test_only_some_projections_adapted(names: tuple[str, ...], backbones: dict[str, Path], tmp_path: Path) -> None:
    exported = make_export(backbones["qwen2"], tmp_path / "out", names=names)
    skills = exported.skills(1)
    found = run(exported.session(), prompt(1), bank=exported.bank(skills), skill_ids=exported.ids([[1]]))["logits"]
    assert error(found, oracle(exported, prompt(1), [*skills])) < TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_steps_continue_a_prefill(precision: Precision, backbones: dict[str, Path], tmp_path: Path) -> None:
    routing, kinds = Routing(experts=3, window=3, mode="auto_soft"), ("expert", "shift", "rank")
    exported = make_export(backbones["llama"], tmp_path / "out", precision, routing=routing, kinds=kinds)
    session, skills, tokens = exported.session(), exported.skills(), prompt(2, 8)
    bank, ids = exported.bank(skills), exported.ids([[1], [2]])
    whole = run(session, tokens, bank=bank, skill_ids=ids)
    columns = len(exported.contract.table.modules) * routing.experts
    assert whole["lime.evidence"].shape == (2, 8, columns)
    past = np.zeros((2, 2, columns + 1), np.float32)
    cache: dict[str, Array] | None = None
    for start, end in ((0, 4), (4, 5), (5, 6), (6, 7), (7, 8)):
        cache = run(session, tokens[:, start:end], cache, past_evidence=past, bank=bank, skill_ids=ids)
        new = np.concatenate([cache["lime.evidence"], np.ones((2, end - start, 1), np.float32)], axis=2)
        past = np.concatenate([past, new], axis=1)[:, -2:]
        # int4 rounds activations per call too, so that only the definition's own part is exact
        assert error(cache["logits"], whole["logits"][:, start:end]) < (TOLERANCE if precision == "fp32" else 2e-2)
    if precision == "fp32":
        assert error(whole["logits"], oracle(exported, tokens, [*skills])) < TOLERANCE


def test_a_block_that_its_vectors_do_not_fill(backbones: dict[str, Path], tmp_path: Path) -> None:
    routing = Routing(experts=1)  # 96 of 128 floats
    exported = make_export(backbones["llama"], tmp_path / "out", names=("gate_proj",), kinds=("gain",), routing=routing)
    skills = exported.skills(1)
    found = run(exported.session(), prompt(1), bank=exported.bank(skills), skill_ids=exported.ids([[1]]))["logits"]
    assert error(found, oracle(exported, prompt(1), [*skills])) < TOLERANCE


@pytest.mark.parametrize("native", [False, True], ids=["function", "native"])
@pytest.mark.parametrize("routing", [Routing(experts=1), Routing(experts=3, window=2)], ids=["one", "routed"])
def test_the_gain_alone_of_some_projections(
    routing: Routing, native: bool, backbones: dict[str, Path], tmp_path: Path
) -> None:
    names, kinds = ("o_proj", "up_proj", "down_proj"), ("expert", "gain", "shift", "rank")
    given: dict[str, Any] = {"names": names, "kinds": kinds, "routing": routing}
    whole = make_export(backbones["llama"], tmp_path / "whole", **given)
    exported = make_export(backbones["llama"], tmp_path / "out", **given, gain_only=("up_proj", "down_proj"))
    table = exported.contract.table
    assert table.digest == whole.contract.table.digest  # the same skills fit, if they hold no more
    numbers = sum(math.ceil(m.out_features / 64) * 64 for m in table.modules if m.name in table.gain_only)
    full = sum(math.ceil((3 * m.out_features + m.rank) / 64) * 64 for m in table.modules if "o_proj" in m.name)
    assert table.segment == numbers + full < whole.contract.table.segment
    held = ir.load(exported.path / "model.onnx")
    assert {node.op_type for node in held.graph if node.domain == "ai.lime"} == {
        "LimeLinear1",
        "LimeGainTimes1",
        "LimeGain1",
    }
    assert not [node for node in held.graph if str(node.name).endswith("/mlp/Mul")]  # the node of up does its product

    library = operators.installed().library if native else None
    assert (library is None) is not native
    skills, ids = exported.skills(), exported.ids([[1], [2], [0]])
    found = run(make_session(exported.path, library=library), prompt(3), bank=exported.bank(skills), skill_ids=ids)
    assert error(found["logits"], oracle(exported, prompt(3), [*skills, None])) < TOLERANCE
    same = run(whole.session(), prompt(3), bank=whole.bank(skills), skill_ids=ids)
    assert error(found["logits"], same["logits"].astype(np.float64)) < TOLERANCE
    assert found["logits"][2].tobytes() == same["logits"][2].tobytes()  # the base, bit for bit


def test_half_precision(backbones: dict[str, Path], tmp_path: Path) -> None:
    """On a CPU onnxruntime computes fp16 in fp32 and rounds between nodes, not always between the same."""
    build_backbone(backbones["llama"], tmp_path / "plain", "fp16")
    routing = Routing(experts=2, mode="auto_soft")
    exported = make_export(backbones["llama"], tmp_path / "out", "fp16", routing=routing)
    session, skills = exported.session(), exported.skills(1)
    expected = run(make_session(tmp_path / "plain"), prompt(1))["logits"].astype(np.float64)
    assert error(run(session, prompt(1))["logits"], expected) < 2e-3  # two units of fp16
    bank = exported.bank(skills)
    found = run(session, prompt(1), bank=bank, skill_ids=exported.ids([[1]]))["logits"]
    assert found.dtype == np.float16
    assert error(found, oracle(exported, prompt(1), [*skills])) < 1e-2


def test_phi_3_in_half_precision_joins_what_the_graph_separates(backbones: dict[str, Path], tmp_path: Path) -> None:
    routing = Routing(experts=2, mode="auto_soft")
    exported = make_export(backbones["phi3"], tmp_path / "out", "fp16", routing=routing)
    skills = exported.skills(1)
    bank = exported.bank(skills)
    found = run(exported.session(), prompt(1), bank=bank, skill_ids=exported.ids([[1]]))["logits"]
    assert error(found, oracle(exported, prompt(1), [*skills])) < 1e-2


def test_modules_are_listed_in_graph_order(backbones: dict[str, Path], tmp_path: Path) -> None:
    exported = make_export(backbones["llama"], tmp_path / "out")
    order = ("q", "k", "v", "o", "gate", "up", "down")
    names = [(i, f"{part}_proj") for i in range(2) for part in order]
    assert [module_place(m.name) for m in exported.contract.table.modules] == names
    nodes = [node for node in ir.load(exported.path / "model.onnx").graph if node.domain == "ai.lime"]
    parts = [size for node in nodes for size in node.attributes["parts"].as_ints()]
    assert parts == [m.out_features for m in exported.contract.table.modules]
    offsets = [node.attributes["bank_offset"].as_int() for node in nodes]
    firsts = {exported.contract.table.offsets["expert", m.name] for m in exported.contract.table.modules}
    assert offsets == sorted(offsets)
    assert set(offsets) < firsts


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


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
    assert (exported.contract.backbone_name, exported.contract.precision) == ("tiny", "int4")
    assert not any(str(tmp_path).encode() in content for content in files.values())
    model = onnx.load(exported.path / "model.onnx")
    for node in model.graph.node:
        if node.op_type == "SimplifiedLayerNormalization":
            node.domain = "com.microsoft"  # the builder puts it where the checker does not find it
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
    """Neither torch by the import, nor a root logger set up by the builder's quantizer."""
    code = f"""
import logging, pathlib, sys
import numpy as np
from lime_edge.contract import Routing
from lime_edge.exporters import AdaptedModule, AdapterWeights, export
assert not {{"torch", "transformers", "onnxruntime"}} & set(sys.modules)
module = AdaptedModule("model.layers.0.mlp.up_proj", np.ones((1, 64), "f"), np.ones((96, 1), "f"), 1.0)
adapter = AdapterWeights((module,), Routing())
export(adapter, pathlib.Path({str(backbones["llama"])!r}), pathlib.Path({str(tmp_path / "out")!r}))
assert (logging.getLogger().handlers, logging.getLogger().level) == ([], logging.WARNING)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("names", [EVERY, ("q_proj", "v_proj")], ids=["every", "some"])
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_a_second_run_of_the_surgeries_changes_nothing(
    architecture: str, names: tuple[str, ...], backbones: dict[str, Path], tmp_path: Path
) -> None:
    names = names if architecture == "llama" else EVERY
    adapter = make_adapter(backbones[architecture], names, routing=Routing(experts=2, window=2))
    build_backbone(backbones[architecture], tmp_path / "plain", "fp32")
    model = ir.load(tmp_path / "plain" / "model.onnx")
    table = adapt_graph(model, adapter)
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    assert adapt_graph(model, adapter) == table
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once


def test_onnxruntime_genai_runs_the_directory(backbones: dict[str, Path], tmp_path: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    build_backbone(backbones["llama"], tmp_path / "plain", "int4")
    exported = make_export(backbones["llama"], tmp_path / "out", "int4")
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


def test_bad_skills_are_errors(backbones: dict[str, Path], tmp_path: Path) -> None:
    exported = make_export(backbones["llama"], tmp_path / "out", names=("o_proj",))
    session, bank = exported.session(), exported.bank(exported.skills())
    with pytest.raises(InvalidArgument, match="out of data bounds"):
        run(session, prompt(1), bank=bank, skill_ids=exported.ids([[3]]))
    with pytest.raises(InvalidArgument, match="Got invalid dimensions"):
        run(session, prompt(1), bank=bank[:, :-64], skill_ids=exported.ids([[1]]))
