"""Reads the form of answers from a file: the option `--answers FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lime_edge.common.files import reason
from lime_edge.common.strict_json import load_json, show
from lime_edge.errors import ConfigError

if TYPE_CHECKING:
    from lime_edge.runtime import AnswerSpec

_LIMIT = 2**20  # bytes of the file


def read_answers(path: Path) -> AnswerSpec:
    """Read a JSON file: a JSON schema, a list of choices, or ``{"kind": ..., "value": ...}`` as in a manifest.

    Raises:
        ConfigError: The file cannot be read, or names every fault of its content.
    """
    from lime_edge.runtime import AnswerSpec

    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise ValueError(f"it has more than {_LIMIT} bytes")
        document = load_json(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON that can be used: {error}") from error
    if not isinstance(document, dict | list):
        raise ConfigError(f"{path} holds {show(document)}; expected a JSON schema, or a list of choices")
    try:
        if isinstance(document, dict) and document.keys() == {"kind", "value"}:
            return AnswerSpec(document["kind"], document["value"])
        return AnswerSpec.of(document)
    except ConfigError as error:
        raise ConfigError(f"{path} does not say what answers look like", error.faults or [error.message]) from error
