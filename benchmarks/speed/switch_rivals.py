"""The process in which switch.py measures one other engine: prints the seconds of every call as one line of JSON.

Arguments are the engine's name and the settings as JSON. Only the standard library is imported at the top, so that
each engine needs nothing but its own package.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CALLS = 200  # switches for each number of adapters
POSITIONS = 512  # capacity of the cache that a switch creates or clears

Calls = dict[str, Any]  # engine, call, loaded, seconds


def measure(
    engine: str, load: tuple[str, Callable[[str], Any]], switch: tuple[str, Callable[[str], Any]], counts: list[int]
) -> Iterator[Calls]:
    """Load more and more adapters, and switch between the loaded ones.

    Args:
        engine: Name and version of the engine.
        load, switch: Name of the call, and the call, which takes the name of an adapter.
        counts: Numbers of adapters, ascending.
    """
    names: list[str] = []
    for count in counts:
        seconds = []
        while len(names) < count:
            names.append(f"adapter-{len(names)}")
            seconds.append(_timed(load[1], names[-1]))
        yield {"engine": engine, "call": load[0], "loaded": count, "seconds": seconds}
        chosen = random.Random(count).choices(names, k=CALLS)
        yield {
            "engine": engine,
            "call": switch[0],
            "loaded": count,
            "seconds": [_timed(switch[1], name) for name in chosen],
        }


def peft(settings: dict[str, Any]) -> Iterator[Calls]:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(settings["threads"])
    base: Any = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, settings["adapter"], adapter_name="first")
    yield from measure(
        f"PEFT {peft.__version__}",
        ("load_adapter", lambda name: model.load_adapter(settings["adapter"], name)),
        ("set_adapter", model.set_adapter),
        settings["counts"],
    )


def genai(settings: dict[str, Any]) -> Iterator[Calls]:
    import onnxruntime_genai as og

    config = og.Config(settings["model"])
    options = {"intra_op_num_threads": settings["threads"]}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    model = og.Model(config)
    adapters = og.Adapters(model)
    context = json.loads((Path(settings["model"]) / "genai_config.json").read_text("utf-8"))["model"]["context_length"]

    def switch(name: str) -> Any:
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=min(POSITIONS, context))
        generator = og.Generator(model, params)
        generator.set_active_adapter(adapters, name)
        return generator

    yield from measure(
        f"ORT-GenAI {og.__version__}",
        ("Adapters.load", lambda name: adapters.load(settings["adapter"], name)),
        ("new Generator, set_active_adapter", switch),
        settings["counts"],
    )


def llama(settings: dict[str, Any]) -> Iterator[Calls]:
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda *_: None)  # llama.cpp logs every switch
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = POSITIONS, settings["threads"], settings["threads"]
    model = llama_cpp.llama_model_load_from_file(settings["model"].encode(), llama_cpp.llama_model_default_params())
    context = llama_cpp.llama_init_from_model(model, params)
    loaded: dict[str, Any] = {}

    def load(name: str) -> None:
        loaded[name] = llama_cpp.llama_adapter_lora_init(model, settings["adapter"].encode())
        if not loaded[name]:
            raise RuntimeError("llama.cpp rejects the adapter")

    def switch(name: str) -> None:
        adapters, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded[name]), (ctypes.c_float * 1)(1.0)
        if llama_cpp.llama_set_adapters_lora(context, adapters, 1, scales):
            raise RuntimeError("llama.cpp fails to switch to the adapter")
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)

    yield from measure(
        f"llama.cpp ({llama_cpp.__version__})",
        ("llama_adapter_lora_init", load),
        ("llama_set_adapters_lora, cache cleared", switch),
        settings["counts"],
    )


def _timed(call: Callable[[str], Any], name: str) -> float:
    began = time.perf_counter()
    result = call(name)
    seconds = time.perf_counter() - began
    del result  # after the clock is read: freeing the previous generator is no part of a switch
    return seconds


if __name__ == "__main__":
    found = list({"peft": peft, "genai": genai, "llama": llama}[sys.argv[1]](json.loads(sys.argv[2])))
    print(json.dumps(found), flush=True)
