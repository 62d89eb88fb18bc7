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
_DRAFT = {"draft.tokens": "int32", "draft.contexts": "uint16", "draft.next": "uint16", "draft.probability": "uint8"}


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
    draft, route = ({k: stored.pop(k) for k in sorted(stored) if k.startswith(kind)} for kind in ("draft", "route"))
    faults = [*_document_faults(text, manifest), *_stored_faults(stored, manifest, tensors)]
    faults += [*_draft_faults(draft, manifest.get("draft")), *_route_faults(route, manifest.get("route"))]
    stored |= {**draft, **route}
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
    new = manifest["format"] == 2
    optional = {"made", "draft", "route"} if new else {"centroid"}
    if sorted(manifest.keys() - optional) != sorted(_KEYS.split() + ["interface"] * new):
        yield f"the keys are {sorted(manifest)}"
    if type(manifest["format"]) is not int or manifest["format"] not in (1, 2):
        yield "the format is neither 1 nor 2"
    if sorted(manifest["prompt"]) != ["generation", "stop"] + ["system"] * (not new):
        yield f"the prompt has {sorted(manifest['prompt'])}"
    if new:
        yield from _interface_faults(manifest["interface"])
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


def _interface_faults(interface: dict[str, Any]) -> Iterator[str]:
    """Faults of the interface, by the table of docs/skill-format.md."""
    shape = {key: sorted(interface[key]) for key in ("input", "answers")}
    if sorted(interface) != ["answers", "examples", "input", "modality"]:
        yield f"the interface has {sorted(interface)}"
    if shape != {"input": ["prefix", "suffix", "system"], "answers": ["kind", "value"]}:
        yield f"the interface has {shape}"
    wrapped, answers = interface["input"], interface["answers"]
    lengths = [len(wrapped["prefix"]), len(wrapped["suffix"]), len(wrapped["system"] or "") // 5]
    if max(lengths) > 20_000 or len(interface["examples"]) > 3 or interface["modality"] != ["text"]:
        yield f"the interface has texts of {lengths}, or {interface['modality']}"
    if any(not isinstance(text, str) or not 1 <= len(text) <= 2000 for text in interface["examples"]):
        yield "an example is no text, empty or too long"
    if not _answers_hold(answers["kind"], answers["value"]):
        yield f"the answers are {answers!r:.200}"


def _answers_hold(kind: str, value: Any) -> bool:
    if kind == "choices":
        texts = isinstance(value, list) and all(isinstance(text, str) and 1 <= len(text) <= 1000 for text in value)
        return texts and 1 <= len(value) == len(set(value)) <= 1000
    if kind == "schema":
        return len(value) <= 2**16 and isinstance(json.loads(value), dict) and _depth(json.loads(value)) <= 32
    return (kind == "regex" and 1 <= len(value) <= 4096) or (kind == "text" and value is None)


def _depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max((_depth(inner) for inner in (value.values() if isinstance(value, dict) else value)), default=0)


def _draft_faults(tensors: Mapping[str, Array], meta: Any) -> Iterator[str]:
    """Faults of a draft table, one entry after another."""
    if not tensors and meta is None:
        return
    types = {name: str(array.dtype) for name, array in tensors.items()}
    if types != _DRAFT or sum(array.nbytes for array in tensors.values()) > 65_536:
        yield f"the draft table has {types}, or is too large"
        return
    ids, contexts, following, levels = (tensors[name].tolist() for name in _DRAFT)
    if meta != {"order": len(contexts[0]) + 1, "entries": len(contexts)} or not 2 <= meta["order"] <= 6:
        yield f"the manifest says {meta} of the draft table"
    if not len(contexts) == len(following) == len(levels) or {len(row) for row in ids + following + levels} != {1}:
        yield "the tensors of the draft table do not fit each other"
        return
    known = {0: None} | {index + 1: row[0] for index, row in enumerate(ids)}
    read = [[known.get(index, -1) for index in row] for row in [*contexts, *following]]
    if ids != sorted({row[0]: row for row in ids}.values()) or ids[0][0] < 0 or any(-1 in row for row in read):
        yield "the draft table has no token of that number, or its tokens do not rise"
    seen = {token for row in read for token in row}
    if (
        seen - {None} != {row[0] for row in ids}
        or [None] in read
        or contexts != sorted(map(list, {*map(tuple, contexts)}))
    ):
        yield "the draft table has unused tokens, no next token, or entries that are not sorted"
    if any(None in row[next((i for i, token in enumerate(row) if token is not None), 0) :] for row in read):
        yield "the draft table has a context that is empty or has a gap"
    if [0] in levels:
        yield "the draft table has a probability of 0"


def _route_faults(tensors: Mapping[str, Array], meta: Any) -> Iterator[str]:
    if not tensors and meta is None:
        return
    if set(tensors) != {"route.centroids"} or meta is None:
        yield f"the manifest says {meta} of {sorted(tensors)}"
        return
    centroids = tensors["route.centroids"]
    if centroids.dtype != np.float16 or len(centroids) > 4 or not np.isfinite(centroids).all():
        yield "the centroids break a rule"
    if type(meta["layer"]) is not int or not 0 <= meta["layer"] <= 1000 or meta["pooling"] not in ("mean", "last"):
        yield f"the route is {meta}"
