"""Compares a receipt with a model directory and with the skills that are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lime_edge.common.files import read_bounded, reason
from lime_edge.common.formatting import short
from lime_edge.common.strict_json import bounded, load_json
from lime_edge.contract.model import read_contract
from lime_edge.contract.receipt import receipt_faults
from lime_edge.errors import ConfigError, LimeError
from lime_edge.skills.package import read_skill
from lime_edge.store.lookup import skill_files
from lime_edge.store.store import Store

from .tables import Table

_LIMIT = 2**24  # bytes of a receipt


def read_receipt(path: Path) -> dict[str, Any]:
    """Read and validate an untrusted receipt.

    Raises:
        ConfigError: Names every fault.
    """
    try:
        document = load_json(read_bounded(path, _LIMIT))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a receipt: {reason(error)}") from error
    if faults := receipt_faults(document):
        raise ConfigError(f"{path} is not a receipt", bounded(faults))
    found: dict[str, Any] = document
    return found


def check_receipt(receipt: Mapping[str, Any], model: Path | None) -> tuple[dict[str, Any], list[Table]]:
    """What of a receipt can be confirmed here.

    Args:
        receipt: From `read_receipt`.
        model: The model directory, with its skills; None: installed skills alone.

    Returns:
        A document, whose ``"confirmed"`` says whether everything is as the receipt says, and its tables.
    """
    checks = list(_model_checks(receipt, model)) if model is not None else []
    known = dict(_digests(model))
    checks += [_skill_check(skill, known) for skill in _every_skill(receipt)]
    document = {
        "confirmed": all(check["confirmed"] for check in checks),
        "checks": checks,
        "route": receipt.get("route"),
        "tokens": receipt.get("tokens"),
    }
    rows = [(check["what"], "as in the receipt" if check["confirmed"] else check["found"]) for check in checks]
    tables = [Table("receipt", rows, ("what", "found"))]
    if route := receipt.get("route"):
        tables.append(Table("route", [("why", route["why"]), ("none", f"{route['none']:.1%}")]))
    return document, tables


def _model_checks(receipt: Mapping[str, Any], model: Path) -> Iterator[dict[str, Any]]:
    contract = read_contract(model)
    found = {
        "backbone": contract.backbone_digest,
        "adapter": contract.adapter_digest,
        "graph": contract.graph_digest,
        "precision": contract.precision,
    }
    for what, value in found.items():
        shown = value if what == "precision" else short(value)
        yield {"what": what, "confirmed": receipt[what] == value, "found": f"{shown} in {model}"}


def _skill_check(skill: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    place = known.get(skill["digest"])
    found = place or f"no skill with the digest {short(skill['digest'])} in the model directory or installed"
    return {"what": f"skill {skill['name']} {skill['version']}", "confirmed": place is not None, "found": found}


def _every_skill(receipt: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every skill that a receipt names, each digest once."""
    lists: list[Sequence[Mapping[str, Any]]] = [receipt["skills"], *receipt.get("past", [])]
    lists += [switch["skills"] for switch in receipt.get("switches", [])]
    found = {skill["digest"]: skill for skills in lists for skill in skills}
    return list(found.values())


def _digests(model: Path | None) -> Iterator[tuple[str, str]]:
    """Digests of the skills that are there, and where; packages of the directory that cannot be read are left out."""
    for entry in Store().list():
        for version, held in entry.versions.items():
            yield held.digest, f"{entry.name}@{version}, installed"
    for path in [] if model is None else skill_files(model):
        try:
            yield read_skill(path).digest, str(path)
        except LimeError:
            continue
