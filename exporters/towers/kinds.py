"""Which checkpoints take pictures, and the precisions of their towers; without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from lime_edge.common.strict_json import load_json
from lime_edge.errors import ExportError

VisionPrecision = Literal["int8", "fp32"]

VISION_PRECISIONS: tuple[VisionPrecision, ...] = get_args(VisionPrecision)
OWN_FAMILY = "lime_vision"  # the one whose configuration has no part for the tower


def sees(directory: Path) -> bool:
    """Whether a checkpoint takes pictures, by its config.json alone; False if that cannot be read."""
    try:
        config = config_json(directory)
    except ExportError:
        return False
    return "vision_config" in config or config.get("model_type") == OWN_FAMILY


def config_json(directory: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        ExportError: It is missing, or not an object of JSON.
    """
    path = directory / "config.json"
    try:
        found = load_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ExportError(f"{path} holds {type(found).__name__}; expected an object")
    return found
