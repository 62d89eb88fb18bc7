"""lime-edge: one small on-device language model, many skills, switched in microseconds.

Importing this package loads neither torch nor onnxruntime: public names are resolved on first use.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import LimeError

if TYPE_CHECKING:
    from lime_edge.method.config import LimeConfig
    from lime_edge.skills.package import Skill, read_skill

    from .runtime import Runtime

# Unless told not to, onnxruntime stores a device ID and usage events and sends them, and huggingface_hub describes the
# machine in every request. Both read these variables when they are imported, so they are set before any of our modules.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")  # a value that the user has set is kept

__version__ = "0.1.0"
__all__ = ["LimeConfig", "LimeError", "Runtime", "Skill", "read_skill"]

_HOMES = {
    "LimeConfig": ".method.config",
    "Runtime": ".runtime",
    "Skill": ".skills.package",
    "read_skill": ".skills.package",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
