"""What ONNX Runtime GenAI needs beside a model to run the native operators.

It loads the library that genai_config.json names, from the model directory only. lime_edge.runtime
takes no part in this: it reads neither that entry nor that file. Knows nothing of how a graph is made.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lime_edge.contract.names import GENAI_CONFIG


def place_operators(directory: Path, library: Path) -> None:
    """Copy a library of native operators into a model directory and name it in genai_config.json.

    It is for the processor and system that it was compiled for. lime.json does not list it: it is a
    part of the machine, and the same model has the same digest with and without it.

    Args:
        directory: With the genai_config.json that the builder wrote.
        library: What `lime_edge.runtime.native.operators.installed` finds.
    """
    shutil.copyfile(library, directory / library.name)
    config = json.loads((directory / GENAI_CONFIG).read_text("utf-8"))
    config["model"]["decoder"]["session_options"]["custom_ops_library"] = library.name
    (directory / GENAI_CONFIG).write_text(json.dumps(config, indent=4), "utf-8")
