"""Builds the plain backbone graph with ONNX Runtime GenAI's model builder.

The builder runs on a local directory, without output and without network access.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import inspect
import io
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from lime_edge.contract.names import GENAI_CONFIG
from lime_edge.errors import ExportError, MissingExtraError

Precision = Literal["int4", "fp16", "fp32"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_PACKAGE = "onnxruntime_genai.models"
_OPTIONS = [
    "hf_token=false",
    # Layers with a sliding window keep the whole cache, too: reusing a prefix after a switch of skills needs
    # positions that a ring buffer has overwritten.
    "windowed_kv_cache=false",
]
# Searched scales, and 8 bits for the output embedding and the layers that the builder calls mixed, where 4 bits harm
# a small model most. The error of SmolLM2-135M against fp32 is less than half of that with plain rounding. The search
# only accepts matrices of whole blocks of 64; other models are rounded plainly.
_SEARCHED = ["algo_config=k_quant", "matmul_mixed_precision=last_matmul:int8,mixed_layers:int8"]
_SEARCHABLE = 64


def build_backbone(backbone: Path, output: Path, precision: Precision, options: Sequence[str] = ()) -> None:
    """Write the backbone's optimised decoder graph, without LiME operators; any execution provider runs it.

    Args:
        backbone: Local directory in the Hugging Face layout; only read.
        output: Directory to fill with model.onnx, model.onnx.data, genai_config.json and tokenizer files.
        precision: Precision of the weights; activations are fp16 in ``fp16`` and fp32 otherwise.
        options: Further options of the builder, ``key=value``.

    Raises:
        MissingExtraError: onnxruntime-genai is not installed.
        ExportError: The builder failed; the message ends with the builder's output.
        OSError: The disk is full.
    """
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as cache, _builder() as builder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about the builder's own code
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                _run(builder, str(backbone.resolve()), str(output), precision, str(Path(cache) / "builder"), options)
        except Exception as error:  # the builder raises any class, including bare Exception
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            tail = "\n".join(printed.getvalue().splitlines()[-20:])
            raise ExportError(
                f"ONNX Runtime GenAI's model builder failed on {backbone} as {precision}: "
                f"{type(error).__name__}: {error}\n{tail}"
            ) from error


def builds(architecture: str) -> bool:
    """Whether the builder supports a model class such as "LlamaForCausalLM".

    The builder exposes no list of architectures, so this searches the source of its dispatch function.

    Raises:
        MissingExtraError: onnxruntime-genai is not installed.
    """
    with _builder() as builder:
        return f'"{architecture}"' in inspect.getsource(inspect.unwrap(builder.create_model))


def _run(builder: Any, backbone: str, output: str, precision: str, cache: str, more: Sequence[str]) -> None:
    # For "cpu" the builder writes fp16 graphs without GroupQueryAttention, which cannot share a cache buffer.
    # Its graphs for "cuda" run on the CPU provider unchanged.
    where = (None, backbone, output, precision, "cuda" if precision == "fp16" else "cpu", cache)
    searched = precision == "int4" and _searchable(Path(backbone))
    options = builder.parse_extra_options(*where, [*_OPTIONS, *(_SEARCHED if searched else []), *more])
    _flatten_rope(options["hf_details"]["hf_config"])
    builder.create_model(*where, **options)
    if precision == "fp16":
        _remove_provider(Path(output) / GENAI_CONFIG)


def _searchable(backbone: Path) -> bool:
    config = json.loads((backbone / "config.json").read_text("utf-8"))
    config = config.get("text_config", config)
    return all(config.get(key, 1) % _SEARCHABLE == 0 for key in ("hidden_size", "intermediate_size"))


def _remove_provider(path: Path) -> None:
    """Remove the execution provider from genai_config.json, so that whoever opens the directory chooses one."""
    config = json.loads(path.read_text("utf-8"))
    config["model"]["decoder"]["session_options"]["provider_options"] = []
    path.write_text(json.dumps(config, indent=4), "utf-8")


def _flatten_rope(config: Any) -> None:
    """Convert Gemma 3's rope settings to the flat form that the builder reads.

    transformers 5 keeps them per kind of layer; the builder only knows the older names. `config` is the builder's own
    copy; the weights are loaded with a different one.
    """
    if config.model_type not in ("gemma3_text", "gemma3") or "full_attention" not in config.rope_parameters:
        return
    kinds = dict(config.rope_parameters)
    config.rope_theta = kinds["full_attention"]["rope_theta"]
    config.rope_local_base_freq = kinds["sliding_attention"]["rope_theta"]
    config.rope_parameters = dict(kinds["full_attention"])


@contextlib.contextmanager
def _builder() -> Iterator[Any]:
    """Import the builder module, and undo its changes to the process afterwards.

    It imports its neighbours by bare names, so its folder is on sys.path inside the context. Its quantizer configures
    the root logger.
    """
    path, root = list(sys.path), logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    spec = importlib.util.find_spec("onnxruntime_genai")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("exporting needs onnxruntime-genai: pip install 'lime-edge[export]'")
    sys.path.insert(0, str(Path(spec.submodule_search_locations[0]) / "models"))
    logging.disable(logging.WARNING)  # the quantizer logs a line for every node, and onnx_ir a warning for tied tables
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(f"{_PACKAGE}.builder")
        yield module
    finally:
        sys.path[:] = path
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)
