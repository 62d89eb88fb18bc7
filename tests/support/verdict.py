"""An independent check of accepted packages, by the safetensors library and docs/skill-format.md.

It uses the results of our reader, but none of its code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

Array = npt.NDArray[Any]

_NAME = re.compile(r"(expert|gain|shift|rank|prefix)\.([A-Za-z0-9_][A-Za-z0-9_./-]{0,199})", re.ASCII)
_KEYS = "activation adapter author backbone backbone_name bounds created description digest experts format golden "
_KEYS += "license metrics modules name prompt routing version"


def wrongly_accepted(path: Path, name: str, digest: str, tensors: Mapping[str, Array]) -> list[str]:
    """The reasons why an accepted package should have been refused; empty if there are none.

    Args:
        path: The package.
        name, digest: Name and digest according to our reader.
        tensors: Dequantised vectors according to our reader.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata()
            stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        return [f"safetensors does not open it: {error}"]
    if metadata is None or list(metadata) != ["lime"]:
        return [f"metadata is {metadata!r:.80}"]
    text = metadata["lime"]
    manifest = json.loads(text)
    faults = [*_document_faults(text, manifest), *_stored_faults(stored, manifest, tensors)]
    if (manifest["name"], manifest["digest"]) != (name, digest):
        faults.append("name or digest differ from the manifest")
    if _digest(text, manifest["digest"], stored) != digest:
        faults.append("the digest does not match the content")
    return faults


def _digest(text: str, digest: str, stored: Mapping[str, Array]) -> str:
    sha = hashlib.sha256(text.replace(f'"digest":"{digest}",', "").encode() + b"\n")
    for name, array in sorted(stored.items()):
        rows, columns = array.shape
        sha.update(f'["{name}","{array.dtype}",[{rows},{columns}]]\n'.encode() + array.tobytes())
    return sha.hexdigest()


def _document_faults(text: str, manifest: dict[str, Any]) -> Iterator[str]:
    if text != json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False):
        yield "the manifest is not canonical"
    if sorted(manifest.keys() - {"centroid"}) != _KEYS.split():
        yield f"the keys are {sorted(manifest)}"
    if type(manifest["format"]) is not int or manifest["format"] != 1:
        yield "the format is not 1"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", manifest["name"], re.ASCII):
        yield "the name is invalid"
    for value in _numbers(manifest):
        if not abs(value) <= 1e9 and value > 2**40:
            yield f"the manifest contains {value}"


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif isinstance(value, int | float):
        yield value


def _stored_faults(stored: Mapping[str, Array], manifest: dict[str, Any], ours: Mapping[str, Array]) -> Iterator[str]:
    """Faults of names, types, shapes and numbers; dequantises in another way than our reader."""
    values = {name: array for name, array in stored.items() if not name.endswith(".scale")}
    if len({array.dtype for array in values.values()}) != 1 or set(values) != set(ours):
        yield f"it contains {sorted(values)} of { ({str(a.dtype) for a in values.values()}) }, not {sorted(ours)}"
        return
    if {name.split(".")[0] for name in values} != manifest["bounds"].keys():
        yield "the kinds in bounds are not the kinds of the tensors"
        return
    for name, array in values.items():
        if _NAME.fullmatch(name) is None or len(array) != manifest["experts"]:
            yield f"{name!r} has the shape {array.shape}"
        exact = array.astype(np.float64)
        if array.dtype == np.int8:
            scale = stored[name + ".scale"].astype(np.float64)
            exact *= scale[:, np.arange(array.shape[1]) // 32]
            if (array == -128).any() or (scale < 0).any() or scale.shape[1] != -(-array.shape[1] // 32):
                yield f"{name} breaks a rule of int8"
        if not np.abs(exact).max() <= manifest["bounds"][name.split(".")[0]]:
            yield f"{name} reaches {np.abs(exact).max()}"
        if not np.array_equal(exact, ours[name]):
            yield f"{name} was read as other numbers"
    if extra := [key for key in stored if key.endswith(".scale") and key[:-6] not in values]:
        yield f"{extra} have no vectors"
