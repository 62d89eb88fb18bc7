"""Worker for whole requests to llama.cpp: a LoRA for each adapter, and prompt lookup from llama-cpp-python.

Every adapter has a context of its own, whose cache keeps what the next prompt has in common with the last. The library
is called directly: the class `Llama` of llama-cpp-python computes the logits of all prompt tokens where it drafts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp as llama
import numpy as np
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from .requests_worker import Answered, RequestEngine, RequestWorker, common_length
from .worker import serve

PLAIN, LOOKUP = "LoRA", "LoRA, prompt lookup"


class Llama(RequestEngine):
    """Further settings: ``model`` (GGUF file), ``drafted`` (tokens that prompt lookup drafts)."""

    def __init__(self, settings: dict[str, Any]) -> None:
        llama.llama_backend_init()
        path = settings["model"].encode()
        self._model = _not_null(llama.llama_model_load_from_file(path, llama.llama_model_default_params()), path)
        self._ends = frozenset(settings["ends"])
        self._vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        self._drafted = settings["drafted"]
        self._lookup = LlamaPromptLookupDecoding(num_pred_tokens=self._drafted)
        self._batch = llama.llama_batch_init(self._drafted + 1, 0, 1)
        self._contexts: dict[tuple[str, str], Any] = {}
        self._known: dict[tuple[str, str], list[int]] = {}  # tokens in the cache
        for name, file in settings["adapters"].items():
            lora = _not_null(llama.llama_adapter_lora_init(self._model, file.encode()), file)
            for variant in (PLAIN, LOOKUP):
                self._contexts[variant, name] = self._context(lora, settings)
                self._known[variant, name] = []

    def _context(self, lora: Any, settings: dict[str, Any]) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx = settings["positions"]
        params.n_threads = params.n_threads_batch = settings["threads"]
        context = _not_null(llama.llama_init_from_model(self._model, params), "a context")
        adapters, scales = (llama.llama_adapter_lora_p_ctypes * 1)(lora), (ctypes.c_float * 1)(1.0)
        if llama.llama_set_adapters_lora(context, adapters, 1, scales):
            raise RuntimeError("llama.cpp rejects the adapter")
        return context

    def variants(self) -> dict[str, str]:
        described = ctypes.create_string_buffer(128)
        llama.llama_model_desc(self._model, described, len(described))
        made = f"llama-cpp-python {llama.__version__}, {described.value.decode()}, llama_decode, likeliest token"
        return {PLAIN: made, LOOKUP: f"{made}; LlamaPromptLookupDecoding, {self._drafted} drafted tokens"}

    def forget(self, variant: str, adapter: str) -> None:
        self._known[variant, adapter] = []

    def answer(self, variant: str, adapter: str, ids: Sequence[int], most: int) -> Answered:
        context, known = self._contexts[variant, adapter], self._known[variant, adapter]
        kept = min(common_length(known, ids), len(ids) - 1)
        _cut(context, kept)
        rest = (llama.llama_token * (len(ids) - kept))(*ids[kept:])
        if llama.llama_decode(context, llama.llama_batch_get_one(rest, len(rest))):
            raise RuntimeError("llama_decode failed")
        found = Answered([self._likeliest(context, -1)], len(ids) - kept, 0)
        tokens = found.tokens
        while tokens[-1] not in self._ends and len(tokens) < most:
            draft = self._draft([*ids, *tokens])[: most - len(tokens) - 1] if variant == LOOKUP else []
            self._run(context, [tokens[-1], *draft], len(ids) + len(tokens) - 1)
            found.steps += 1
            found.drafted += len(draft)
            for at, drafted in enumerate([*draft, None]):
                tokens.append(self._likeliest(context, at))
                if tokens[-1] != drafted or tokens[-1] in self._ends:
                    break
                found.accepted += 1
            _cut(context, len(ids) + len(tokens) - 1)
        self._known[variant, adapter] = [*ids, *tokens[:-1]]
        return found

    def _draft(self, ids: list[int]) -> list[int]:
        drafted: list[int] = self._lookup(np.array(ids, np.intc)).tolist()
        return drafted

    def _run(self, context: Any, tokens: Sequence[int], position: int) -> None:
        """Run tokens with the logits of each."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at] = token, position + at
            batch.n_seq_id[at], batch.seq_id[at][0], batch.logits[at] = 1, 0, True
        if llama.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")

    def _likeliest(self, context: Any, at: int) -> int:
        logits = llama.llama_get_logits_ith(context, at)
        return int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())


def _cut(context: Any, length: int) -> None:
    if not llama.llama_memory_seq_rm(llama.llama_get_memory(context), 0, length, -1):
        raise RuntimeError("llama.cpp cannot truncate the cache")


def _not_null(pointer: Any, what: object) -> Any:
    if not pointer:
        raise RuntimeError(f"llama.cpp cannot create or load {what!r}")
    return pointer


if __name__ == "__main__":
    serve(Llama, RequestWorker)
