"""The LoRA of every task in the formats of the rivals: the graph with a task's adapter is PEFT's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from benchmarks.engines.rival_files import ALPHA, RANK, TARGETS
from benchmarks.requests.rival_adapters import RivalAdapters
from lime_edge.training.quiet import silence_libraries
from tests.support.runtime_models import HEAD, exported, scratch


def _lora(model: Path, target: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS))
    with silence_libraries():
        made: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), config)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    made.save_pretrained(target)
    return target


def test_every_task_has_its_adapter_on_one_graph(tmp_path: Path) -> None:
    exported()  # creates the model
    model = scratch() / "llama"
    loras = {task: _lora(model, tmp_path / task, seed) for seed, task in enumerate(("one", "two"))}
    adapters = RivalAdapters(tmp_path / "work", loras, model, "fp32", tmp_path / "model.gguf")
    adapters.work.mkdir()
    settings = adapters.settings("genai")
    assert list(settings["adapters"]) == ["one", "two"]
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 3
    session = ort.InferenceSession(str(Path(settings["graph"]) / "model.onnx"), quiet, ["CPUExecutionProvider"])
    ids = np.arange(5, 12)[None]
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(7)[None]}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values"):
            feeds[value.name] = np.zeros((1, value.shape[1], 0, HEAD), np.float32)
    feeds = {value.name: feeds[value.name] for value in session.get_inputs() if value.name in feeds}
    found = []
    for task, lora in loras.items():
        options = ort.RunOptions()
        adapter = ort.LoraAdapter()
        adapter.Load(settings["adapters"][task])
        options.add_active_adapter(adapter)
        found.append(session.run(["logits"], feeds, options)[0])
        with silence_libraries():
            base: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
            wanted = PeftModel.from_pretrained(base, str(lora))
        with torch.inference_mode():
            logits: Any = wanted(input_ids=torch.from_numpy(ids)).logits
        np.testing.assert_allclose(found[-1], logits.numpy(), atol=2e-3)
    assert not np.allclose(found[0], found[1], atol=1e-2)
    files = adapters.settings("llama")["adapters"]
    assert [Path(file).is_file() for file in files.values()] == [True, True]
