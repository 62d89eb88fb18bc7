"""Worker for llama.cpp through llama-cpp-python: a GGUF model, and the same model with a LoRA.

A step is one `llama_decode` of one token with its logits, without sampling; a prompt is one `llama_decode` with the
logits of its last token. Contexts have llama.cpp's default settings except for threads and size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp as llama

from .worker import Engine, serve


class Llama(Engine):
    """Further settings: ``model`` and ``adapter``, both GGUF files."""

    name = "llama.cpp"

    def __init__(self, settings: dict[str, Any]) -> None:
        llama.llama_backend_init()
        path = settings["model"].encode()
        self._model = _not_null(llama.llama_model_load_from_file(path, llama.llama_model_default_params()), path)
        path = settings["adapter"].encode()
        self._adapter = _not_null(llama.llama_adapter_lora_init(self._model, path), path)
        self._contexts = {name: self._context(settings) for name in ("no adapter", "LoRA")}
        adapters, scales = (llama.llama_adapter_lora_p_ctypes * 1)(self._adapter), (ctypes.c_float * 1)(1.0)
        if llama.llama_set_adapters_lora(self._contexts["LoRA"], adapters, 1, scales):
            raise RuntimeError("llama.cpp rejects the adapter")
        self._vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))

    def _context(self, settings: dict[str, Any]) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx = settings["positions"]
        params.n_threads = params.n_threads_batch = settings["threads"]
        return _not_null(llama.llama_init_from_model(self._model, params), b"a context")

    def variants(self) -> dict[str, str]:
        described = ctypes.create_string_buffer(128)
        llama.llama_model_desc(self._model, described, len(described))
        made = (
            f"llama-cpp-python {llama.__version__}, {described.value.decode()}, "
            f"{llama.llama_model_size(self._model) / 1e6:.0f} MB; llama_decode without sampling; "
            f"built with {llama.llama_print_system_info().decode().strip(' |')}"
        )
        return dict.fromkeys(self._contexts, made)

    def forget(self, variant: str) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self._contexts[variant]), False)

    def prompt(self, variant: str, ids: Sequence[int]) -> None:
        context, tokens = self._contexts[variant], (llama.llama_token * len(ids))(*ids)
        if llama.llama_decode(context, llama.llama_batch_get_one(tokens, len(ids))):
            raise RuntimeError("llama_decode failed")
        llama.llama_synchronize(context)

    def step(self, variant: str, token: int) -> None:
        self.prompt(variant, [token])

    def back(self, variant: str, length: int) -> None:
        if not llama.llama_memory_seq_rm(llama.llama_get_memory(self._contexts[variant]), 0, length, -1):
            raise RuntimeError("llama.cpp cannot truncate the cache")

    def logits(self, variant: str) -> Sequence[float]:
        return llama.llama_get_logits_ith(self._contexts[variant], -1)[: self._vocabulary]  # type: ignore[no-any-return]


def _not_null(pointer: Any, what: bytes) -> Any:
    if not pointer:
        raise RuntimeError(f"llama.cpp cannot create or load {what.decode()}")
    return pointer


if __name__ == "__main__":
    serve(Llama)
