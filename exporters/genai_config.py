"""Adds the native operators to a model directory, for ONNX Runtime GenAI.

GenAI loads the library that genai_config.json names, from the model directory only. `lime_edge.runtime` ignores both
the entry and the library.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lime_edge.contract.names import GENAI_CONFIG


def place_operators(directory: Path, library: Path) -> None:
    """Copy a library of native operators into a model directory and name it in genai_config.json.

    The library only runs on the kind of system and processor that it was compiled for. lime.json does not list it: the
    digest of a model is the same with and without the library.

    Args:
        directory: Model directory with the genai_config.json that the builder wrote.
        library: The library, as `lime_edge.runtime.native.operators.installed` returns it.
    """
    shutil.copyfile(library, directory / library.name)
    config = json.loads((directory / GENAI_CONFIG).read_text("utf-8"))
    config["model"]["decoder"]["session_options"]["custom_ops_library"] = library.name
    (directory / GENAI_CONFIG).write_text(json.dumps(config, indent=4), "utf-8")
