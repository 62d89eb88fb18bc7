"""Makes the files that other engines load: one random LoRA (r = 8 on q, k, v and o) in each engine's format.

The weights are the same in all formats, so that the engines compute the same function. Speed does not depend on the
weights' values.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.exporters.genai_builder import Precision, build_backbone

RANK, ALPHA, TARGETS = 8, 16, ("q_proj", "k_proj", "v_proj", "o_proj")
_DEFAULTS = ("algo_config=default", "matmul_mixed_precision=")  # plain rounding to 4 bits, LoRA matrices included
SWITCHED = "LoRA, switchable"
_ADAPTER = "lora.onnx_adapter"
_SPREAD = 0.1  # standard deviation of B: large enough to tell the LoRA's effect from rounding errors
_LORA = re.compile(r"\.layers\.(\d+)\.self_attn\.(\w+)\.lora_([AB])\.")
_ROTATED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
_GGUF = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Files:
    """Makes the files a rival needs, and keeps them in `work` for later runs.

    Args:
        work: Folder for the files; existing ones are reused.
        model: The backbone in the Hugging Face layout.
        untouched: The builder's graph of it.
        precision: Precision of that graph and of the graphs with a LoRA.
        gguf: The backbone for llama.cpp.
    """

    work: Path
    model: Path
    untouched: Path
    precision: Precision
    gguf: Path | None

    def settings(self, rival: str) -> dict[str, Any]:
        """Make a rival's files and return the settings with which its worker loads them."""
        if rival == "genai":
            graphs = {"no adapter": self.untouched, "LoRA, baked in": self._graph("same"), SWITCHED: self._switchable()}
            if self.precision == "int4":
                graphs["LoRA, baked in, the builder's own int4"] = self._graph("own")
            adapters = {SWITCHED: str(graphs[SWITCHED] / _ADAPTER)}
            return {"graphs": {name: str(path) for name, path in graphs.items()}, "adapters": adapters}
        if rival == "peft":
            return {"model": str(self.model), "adapter": str(self._adapter()), "dtypes": ["float32", "bfloat16"]}
        return {"model": str(self.gguf), "adapter": str(self._gguf_adapter())}

    def _adapter(self) -> Path:
        """A PEFT LoRA with random weights."""
        target = self.work / "lora"
        if not (target / "adapter_config.json").is_file():
            with whole(target) as made:
                _write_adapter(self.model, made)
        return target

    def _graph(self, recipe: str) -> Path:
        """The builder's graph with the LoRA in it, by the "same" recipe as `untouched` or by the builder's "own"."""
        target = self.work / f"genai-lora-{self.precision}-{recipe}"
        if not (target / "genai_config.json").is_file():
            with whole(target) as made:
                if recipe == "same":
                    build_with_lora(self._adapter(), self.model, made, self.precision)
                else:
                    build_backbone(self.model, made, self.precision, [f"adapter_path={self._adapter()}", *_DEFAULTS])
        return target

    def _switchable(self) -> Path:
        """The "same" graph with LoRA matrices as inputs, zero by default, and the .onnx_adapter that fills them."""
        target = self.work / f"genai-lora-{self.precision}-switchable"
        if not (target / _ADAPTER).is_file():
            with whole(target) as made:
                shutil.copytree(self._graph("same"), made, dirs_exist_ok=True)
                write_onnx_adapter(open_inputs(made), made / _ADAPTER)
        return target

    def _gguf_adapter(self) -> Path:
        """The LoRA as a GGUF file for llama.cpp."""
        target = self.work / "lora.gguf"
        if not target.is_file():
            unfinished = target.with_suffix(".part")
            write_gguf(self._adapter(), self.model, unfinished)
            unfinished.rename(target)
        return target


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A temporary folder to fill; it is renamed to `target` once it is complete."""
    made = target.with_name(f"{target.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    yield made
    made.rename(target)


def _write_adapter(model: Path, target: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from lime_edge.training.quiet import silence_libraries

    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS))
    with silence_libraries():
        wrapped: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:  # PEFT starts it at zero, and the LoRA would do nothing
            parameter.data.normal_(0, _SPREAD)
    wrapped.save_pretrained(target)


def _unquantized(model: Path) -> list[str]:
    """A builder option that keeps the LoRA in float32.

    The searched int4 recipe crashes on matrices whose width is not a multiple of 64.
    """
    layers = json.loads((model / "config.json").read_text("utf-8"))["num_hidden_layers"]
    nodes = [
        f"/model/layers.{layer}/attn/{projection}/lora_{side}/MatMul"
        for layer in range(layers)
        for projection in TARGETS
        for side in "AB"
    ]
    return [f"nodes_to_exclude={','.join(nodes)}"]


def build_with_lora(adapter: Path, model: Path, target: Path, precision: Precision) -> None:
    """Build the graph of a backbone with a LoRA in it, by our recipe; the LoRA stays in float32."""
    build_backbone(model, target, precision, [f"adapter_path={adapter}", *_unquantized(model)])


def open_inputs(folder: Path) -> dict[str, Array]:
    """Turn a graph's LoRA matrices into optional inputs, zero by default; returns their values by input name."""
    import onnx_ir as ir

    model = ir.load(folder / "model.onnx")
    matrices: dict[str, Array] = {}
    for name, value in model.graph.initializers.items():
        if ".lora_" in name and value.const_value is not None:
            matrices[name] = np.ascontiguousarray(value.const_value.numpy())
            value.const_value = ir.tensor(np.zeros_like(matrices[name]), name=name)
            model.graph.inputs.append(value)
    with tempfile.TemporaryDirectory(dir=folder) as beside:  # saving reads the old weights while it writes the new ones
        ir.save(model, Path(beside) / "model.onnx", external_data="model.onnx.data")
        for path in Path(beside).iterdir():
            path.replace(folder / path.name)
    return matrices


def builder_matrices(adapter: Path) -> dict[str, Array]:
    """The matrices of a PEFT LoRA as the builder names and stores them: A transposed, B transposed and scaled."""
    from safetensors.numpy import load_file

    matrices = {}
    for name, array in load_file(adapter / "adapter_model.safetensors").items():
        layer, projection, side = _parts(name)
        scaled = array.T * (ALPHA / RANK if side == "B" else 1)
        key = f"model.layers.{layer}.attn.{projection}.lora_{side}.MatMul.weight"
        matrices[key] = np.ascontiguousarray(scaled, np.float32)
    return matrices


def _parts(name: str) -> tuple[str, str, str]:
    """Layer, projection and side of a LoRA matrix, from its name in a PEFT file."""
    found = _LORA.search(name)
    if found is None:
        raise ValueError(f"{name} is not a LoRA matrix of an attention projection")
    layer, projection, side = found.groups()
    return layer, projection, side


def write_onnx_adapter(matrices: Mapping[str, Array], target: Path) -> None:
    """Write the values of a graph's optional inputs as an .onnx_adapter file."""
    import onnxruntime as ort

    adapter = ort.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(1)
    adapter.set_parameters({name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in matrices.items()})
    adapter.export_adapter(str(target))


def write_gguf(adapter: Path, model: Path, target: Path) -> None:
    """Write a LoRA for llama.cpp: tensors ``NAME.lora_a`` [r, D] and ``NAME.lora_b`` [H, r], and alpha."""
    import gguf
    from safetensors.numpy import load_file

    heads = json.loads((model / "config.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(target, arch="llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(ALPHA))
    for name, array in load_file(adapter / "adapter_model.safetensors").items():
        layer, projection, side = _parts(name)
        if side == "B" and projection in _ROTATED:
            array = _interleaved(array, heads[_ROTATED[projection]])
        writer.add_tensor(f"blk.{layer}.{_GGUF[projection]}.weight.lora_{side.lower()}", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(array: Array, heads: int) -> Array:
    """Reorder rows of q or k for llama.cpp's rotary embedding: the two halves of a head become interleaved pairs."""
    halves = array.reshape(heads, 2, -1, array.shape[1])
    return halves.swapaxes(1, 2).reshape(array.shape)
