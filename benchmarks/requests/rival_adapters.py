"""The files of the rivals: the LoRA of every task, as ORT-GenAI and llama.cpp load it.

benchmarks/requests/train_rivals.py trains the LoRAs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines.rival_files import (
    build_with_lora,
    builder_matrices,
    open_inputs,
    whole,
    write_gguf,
    write_onnx_adapter,
)
from lime_edge.exporters.genai_builder import Precision

# The engines' own defaults or recommendations.
NGRAM = {"ngram_size": 2, "max_draft_tokens": 4}
LOOKUP = 2  # drafted tokens; 2 is what llama-cpp-python recommends for CPUs


@dataclass(frozen=True)
class RivalAdapters:
    """Makes the files, and keeps them in `work` for later runs.

    Args:
        work: Folder for the files.
        loras: PEFT folder of each task.
        model: The backbone in the Hugging Face layout.
        precision: Precision of the graph for ORT-GenAI.
        gguf: The backbone for llama.cpp.
    """

    work: Path
    loras: Mapping[str, Path]
    model: Path
    precision: Precision
    gguf: Path | None

    def settings(self, rival: str) -> dict[str, Any]:
        """Make a rival's files and return the settings with which its worker loads them."""
        if rival == "genai":
            adapters = {task: str(self._onnx_adapter(task)) for task in self.loras}
            return {"graph": str(self._graph()), "adapters": adapters, "ngram": NGRAM}
        adapters = {task: str(self._gguf_adapter(task)) for task in self.loras}
        return {"model": str(self.gguf), "adapters": adapters, "drafted": LOOKUP}

    def _graph(self) -> Path:
        """The graph with LoRA matrices as inputs."""
        target = self.work / f"requests-{self.precision}"
        if not target.is_dir():
            with whole(target) as made:
                build_with_lora(next(iter(self.loras.values())), self.model, made, self.precision)
                open_inputs(made)
        return target

    def _onnx_adapter(self, task: str) -> Path:
        target = self.work / f"{task}.onnx_adapter"
        if not target.is_file():
            write_onnx_adapter(builder_matrices(self.loras[task]), target)
        return target

    def _gguf_adapter(self, task: str) -> Path:
        target = self.work / f"{task}.gguf"
        if not target.is_file():
            unfinished = target.with_suffix(".part")
            write_gguf(self.loras[task], self.model, unfinished)
            unfinished.rename(target)
        return target
