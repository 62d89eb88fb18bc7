"""Reads an exported model directory and validates it before anything runs.

All faults of the directory are collected and raised at once.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lime_edge.common.strict_json import show
from lime_edge.contract.model import ModelContract
from lime_edge.contract.model_files import file_faults
from lime_edge.contract.names import GENAI_CONFIG, MODEL_JSON, TOKENIZER_FILE, WEB_JSON
from lime_edge.errors import ModelError


@dataclass(frozen=True)
class Names:
    """Names of the graph's inputs and outputs; %d in the KV names stands for the layer."""

    input_ids: str
    attention_mask: str
    position_ids: str  # not every graph has this input
    past_key: str
    past_value: str
    logits: str
    present_key: str
    present_value: str


@dataclass(frozen=True)
class ModelDirectory:
    """A validated model directory."""

    path: Path
    contract: ModelContract
    graph: Path
    names: Names
    layers: int
    kv_heads: int
    head_size: int
    context_length: int
    eos_ids: tuple[int, ...]
    shared_buffer: bool  # past and present share one buffer


def read_directory(path: Path, verify: bool) -> ModelDirectory:
    """Read lime.json and genai_config.json and check the files that they name.

    Args:
        path: The model directory.
        verify: Hash the weights as well as the graph.

    Raises:
        ModelError: Names every missing or changed file and every wrong setting.
    """
    if not os.path.isdir(path):
        raise ModelError(f"{path} is not a directory; expected what `lime-edge export` writes")
    faults: list[str] = []
    contract = _contract(path, faults)
    config = _config(path, faults)
    if not (path / TOKENIZER_FILE).is_file():
        faults.append(f"{TOKENIZER_FILE} is missing")
    if contract is not None:
        faults += file_faults(path, contract, verify)
    found = None
    if contract is not None and config is not None:
        found = _described(path, contract, config, faults)
    if faults or found is None:
        raise ModelError(f"{path} cannot be used: export or copy the directory again", faults)
    return found


def _contract(path: Path, faults: list[str]) -> ModelContract | None:
    try:
        return ModelContract.from_json((path / MODEL_JSON).read_text("utf-8"))
    except FileNotFoundError:
        faults.append(f"{MODEL_JSON} is missing: lime-edge did not export this directory")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{MODEL_JSON} cannot be read: {error}")
    except ModelError as error:
        faults += [error.message, *error.faults]
    return None


def _config(path: Path, faults: list[str]) -> dict[str, Any] | None:
    try:
        config = json.loads((path / GENAI_CONFIG).read_text("utf-8"))
        if isinstance(config, dict):
            return config
        faults.append(f"{GENAI_CONFIG} holds {type(config).__name__}; expected an object")
    except FileNotFoundError:
        web = f": it was exported for {WEB_JSON}, which lime-edge-web reads; export without --target web"
        faults.append(f"{GENAI_CONFIG} is missing{web if (path / WEB_JSON).is_file() else ''}")
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{GENAI_CONFIG} cannot be read: {error}")
    return None


def _described(path: Path, contract: ModelContract, config: dict[str, Any], faults: list[str]) -> ModelDirectory | None:
    """The graph as genai_config.json describes it; None, and a fault, if the description is incomplete."""
    try:
        model = config["model"]
        decoder = model["decoder"]
        eos = model["eos_token_id"]
        found = ModelDirectory(
            path=path,
            contract=contract,
            graph=path / str(decoder["filename"]),
            names=_names(decoder["inputs"], decoder["outputs"]),
            layers=_size(decoder["num_hidden_layers"]),
            kv_heads=_size(decoder["num_key_value_heads"]),
            head_size=_size(decoder["head_size"]),
            context_length=_size(model["context_length"]),
            eos_ids=_token_ids(eos if isinstance(eos, list) else [eos]),
            shared_buffer=bool(config.get("search", {}).get("past_present_share_buffer", True)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        faults.append(f"{GENAI_CONFIG} does not describe a decoder: {type(error).__name__}: {error}")
        return None
    if found.graph.name not in dict(contract.files):
        faults.append(
            f"{GENAI_CONFIG} names the graph {found.graph.name!r}; {MODEL_JSON} lists {', '.join(dict(contract.files))}"
        )
    return found


def _names(inputs: dict[str, str], outputs: dict[str, str]) -> Names:
    return Names(
        input_ids=str(inputs["input_ids"]),
        attention_mask=str(inputs["attention_mask"]),
        position_ids=str(inputs.get("position_ids", "position_ids")),
        past_key=_layered(inputs["past_key_names"]),
        past_value=_layered(inputs["past_value_names"]),
        logits=str(outputs["logits"]),
        present_key=_layered(outputs["present_key_names"]),
        present_value=_layered(outputs["present_value_names"]),
    )


def _layered(name: str) -> str:
    if str(name).count("%") != 1 or "%d" not in name:
        raise ValueError(f"{name!r} has no placeholder %d for the layer")
    return name


def _token_ids(values: list[Any]) -> tuple[int, ...]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise ValueError(f"eos_token_id {show(value)} is not a token id")
    if not values:
        raise ValueError("eos_token_id is empty")
    return tuple(values)


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**24:
        raise ValueError(f"{show(value)} is not a valid size")
    return value
