"""Files that other engines load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFReader

from benchmarks.engines import rival_files
from tests.support.runtime_models import HEAD, LAYERS, exported, scratch


def test_the_lora_for_llama_cpp(tmp_path: Path) -> None:
    """Names and shapes are those of llama.cpp; transformers' reader of GGUF files undoes the rotary order."""
    from safetensors.numpy import load_file
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    exported()  # creates the model
    files = rival_files.Files(tmp_path, scratch() / "llama", tmp_path, "fp32", tmp_path / "model.gguf")
    settings = files.settings("llama")
    reader = GGUFReader(settings["adapter"])
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.type"].contents() == "lora"
    assert reader.fields["adapter.lora.alpha"].contents() == rival_files.ALPHA
    written = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(written) == LAYERS * 4 * 2
    source = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    processor: Any = LlamaTensorProcessor()  # type: ignore[no-untyped-call]
    prefix = "base_model.model.model.layers.1.self_attn"
    for ours, theirs, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)):
        b = written[f"blk.1.{ours}.weight.lora_b"]
        assert b.shape == (heads * HEAD, rival_files.RANK)
        undone = processor._reverse_permute_weights(b, heads, heads)
        np.testing.assert_array_equal(undone, source[f"{prefix}.{theirs}.lora_B.weight"])
    np.testing.assert_array_equal(written["blk.1.attn_output.weight.lora_a"], source[f"{prefix}.o_proj.lora_A.weight"])
    assert gguf.Keys.General.ARCHITECTURE in reader.fields
