"""Compares the files of a model directory with their sizes and digests in lime.json."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .model import ModelContract
from .names import MODEL_JSON


def file_digest(file: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_faults(directory: Path, contract: ModelContract, weights: bool = True) -> list[str]:
    """Every file that is missing, truncated or changed.

    Args:
        directory: The model directory.
        contract: Its lime.json. Models exported by an early version list no sizes; then only digests are compared.
        weights: Hash the weights as well as graphs and settings, which takes about a second for each gigabyte.
    """
    found = (_fault(directory / name, name, digest, contract, weights) for name, digest in contract.files)
    return [fault for fault in found if fault]


def _fault(file: Path, name: str, digest: str, contract: ModelContract, weights: bool) -> str | None:
    """What is wrong with one file; its size is compared first, which takes no time."""
    if Path(name).name != name:
        return f"{MODEL_JSON} names {name!r}; expected a plain file name"
    if not file.is_file():
        return f"{name} is missing"
    try:
        size, expected = file.stat().st_size, dict(contract.sizes).get(name)
        if expected is not None and size != expected:
            what = "is truncated" if size < expected else "was changed"
            return f"{name} has {size:,} bytes; expected {expected:,}: the file {what}: copy the directory again"
        found = file_digest(file) if weights or file.suffix in (".onnx", ".json") else digest
    except OSError as error:
        return f"{name} cannot be read: {error.strerror or error}"
    if found != digest:
        return f"{name} has digest {found[:12]}, {MODEL_JSON} says {digest[:12]}: the file was changed or damaged"
    return None
