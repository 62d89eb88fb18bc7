"""Worker for whole requests to ONNX Runtime GenAI: a LoRA for each adapter, and its own n-gram speculation.

Every adapter has a Generator of its own, whose cache is rewound to what the next prompt has in common with the last.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import onnxruntime_genai as og

from .requests_worker import Answered, RequestEngine, RequestWorker, common_length
from .worker import serve

PLAIN, NGRAM = "LoRA", "LoRA, ngram"
_COUNTED = ("target_forward_passes", "standard_fallback_steps", "draft_tokens_proposed", "draft_tokens_accepted")


class GenAI(RequestEngine):
    """Further settings: ``graph`` (directory), ``ngram`` (options of the speculation)."""

    def __init__(self, settings: dict[str, Any]) -> None:
        config = og.Config(settings["graph"])
        options = {"intra_op_num_threads": settings["threads"]}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = og.Model(config)
        self._adapters = og.Adapters(self._model)
        self._ends, self._ngram = frozenset(settings["ends"]), settings["ngram"]
        self._generators: dict[tuple[str, str], Any] = {}
        self._known: dict[tuple[str, str], list[int]] = {}  # tokens in the cache
        for name, file in settings["adapters"].items():
            self._adapters.load(file, name)
            for variant in (PLAIN, NGRAM):
                self._generators[variant, name] = self._generator(variant, name, settings["positions"])
                self._known[variant, name] = []

    def _generator(self, variant: str, adapter: str, positions: int) -> Any:
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=positions, do_sample=False)
        if variant == NGRAM:
            params.set_speculative_options(**self._ngram)
        generator = og.Generator(self._model, params)
        generator.set_active_adapter(self._adapters, adapter)
        return generator

    def variants(self) -> dict[str, str]:
        made = f"onnxruntime-genai {og.__version__}, generate_next_token with greedy search"
        return {PLAIN: made, NGRAM: f"{made}, speculative options {self._ngram}"}

    def forget(self, variant: str, adapter: str) -> None:
        self._known[variant, adapter] = []

    def answer(self, variant: str, adapter: str, ids: Sequence[int], most: int) -> Answered:
        generator, known = self._generators[variant, adapter], self._known[variant, adapter]
        kept = min(common_length(known, ids), len(ids) - 1)
        before = generator.get_speculative_stats() if variant == NGRAM else None
        generator.rewind_to(kept)
        generator.append_tokens(list(ids[kept:]))
        tokens: list[int] = []
        while len(tokens) < most:
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
            if tokens[-1] in self._ends:
                break
        self._known[variant, adapter] = [*ids, *tokens[:-1]]
        if before is None:
            return Answered(tokens, len(ids) - kept, len(tokens) - 1)
        stats = generator.get_speculative_stats()
        done = {name: stats[name] - before[name] for name in _COUNTED}
        steps = done["target_forward_passes"] + done["standard_fallback_steps"]
        return Answered(tokens, len(ids) - kept, steps, done["draft_tokens_proposed"], done["draft_tokens_accepted"])


if __name__ == "__main__":
    serve(GenAI, RequestWorker)
