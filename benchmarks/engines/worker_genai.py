"""Worker for ONNX Runtime GenAI: the plain graph, and the same backbone with a LoRA, baked in or switchable.

A step is one `generate_next_token` with greedy search; a prompt is one `append_tokens`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import onnxruntime_genai as og

from .worker import Engine, serve


class GenAI(Engine):
    """Further settings: ``graphs`` (directories) and ``adapters`` (files), both by variant."""

    name = "ORT-GenAI"

    def __init__(self, settings: dict[str, Any]) -> None:
        self._generators, self._models, self._adapters = {}, {}, {}
        for variant, directory in settings["graphs"].items():
            config = og.Config(directory)
            options = {"intra_op_num_threads": settings["threads"]}
            config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
            model = self._models[variant] = og.Model(config)
            params = og.GeneratorParams(model)
            params.set_search_options(max_length=settings["positions"], do_sample=False)
            generator = self._generators[variant] = og.Generator(model, params)
            if file := settings.get("adapters", {}).get(variant):
                adapters = self._adapters[variant] = og.Adapters(model)
                adapters.load(file, variant)
                generator.set_active_adapter(adapters, variant)

    def variants(self) -> dict[str, str]:
        made = f"onnxruntime-genai {og.__version__}, its generate_next_token with greedy search included"
        return dict.fromkeys(self._generators, made)

    def forget(self, variant: str) -> None:
        self._generators[variant].rewind_to(0)

    def prompt(self, variant: str, ids: Sequence[int]) -> None:
        self._generators[variant].append_tokens(list(ids))

    def step(self, variant: str, token: int) -> None:
        self._generators[variant].generate_next_token()

    def back(self, variant: str, length: int) -> None:
        self._generators[variant].rewind_to(length)

    def logits(self, variant: str) -> Sequence[float]:
        found: list[float] = self._generators[variant].get_logits()[0, -1].tolist()
        return found

    def greedy(self, variant: str, count: int) -> list[int]:
        generator = self._generators[variant]
        for _ in range(count):
            generator.generate_next_token()
        return [int(token) for token in generator.get_sequence(0)[-count:]]


if __name__ == "__main__":
    serve(GenAI)
