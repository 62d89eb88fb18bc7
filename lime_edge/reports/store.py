"""What the store holds, described: documents of plain JSON values, and the tables that say the same to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lime_edge.common.formatting import short, size
from lime_edge.common.semver import precedence
from lime_edge.errors import LimeError
from lime_edge.skills.package import read_skill
from lime_edge.store.index import InstalledSkill
from lime_edge.store.store import CleanupResult, Installed, Store
from lime_edge.store.transfer import Update
from lime_edge.trust.signature_file import signature_path

from .describe import Report, describe_skill
from .tables import Table


def describe_store(store: Store) -> Report:
    """Every installed skill in a line."""
    entries = store.list()
    columns = ("skill", "version", "size", "signed", "from", "description")
    document = {"store": str(store.path), "skills": [_document(store, entry) for entry in entries]}
    if not entries:
        return document, [Table("", [(f"no skills are installed in {store.path}", "")])]
    return document, [Table("", [_line(store, entry) for entry in entries], columns, (2,))]


def describe_installed(store: Store, name: str) -> Report:
    """One skill: what the store knows of it, and what its package says."""
    found, entry = store.info(name), store.entry(name.partition("@")[0])
    document, tables = describe_skill(read_skill(found.path))
    rows = [
        (
            f"{'* ' if version == entry.current else ''}{version}",
            size(held.size),
            held.installed,
            short(held.blob),
            held.origin,
        )
        for version, held in sorted(entry.versions.items(), key=lambda pair: precedence(pair[0]))
    ]
    columns = ("version", "size", "installed", "SHA-256", "from")
    before = f", before it {', '.join(entry.history)}" if entry.history else ""
    history = Table(f"installed: {entry.current} in use{before}", rows, columns, (1,))
    return {**document, "installed": _document(store, entry)}, [*tables, history]


def describe_installs(done: Sequence[Installed]) -> Report:
    """What `pull` installed."""
    rows = [(one.name, one.version, _what(one), f"sha256={one.held.blob}") for one in done]
    document = {"installed": [_plain(one) for one in done]}
    return document, [Table("", rows, ("skill", "version", "what was done", "pin"))]


def describe_updates(done: Sequence[Update]) -> Report:
    """What `update` did."""
    rows = [(one.name, one.before, one.after, one.note or "updated") for one in done]
    return {"updates": [asdict(one) for one in done]}, [Table("", rows, ("skill", "before", "now", "note"))]


def describe_freed(store: Store, freed: CleanupResult) -> Report:
    """What `gc` removed."""
    return asdict(freed), [Table("", [("removed", f"{freed.files} files, {size(freed.size)}, from {store.path}")])]


def _what(one: Installed) -> str:
    if not one.changed:
        return "was there"
    if one.before is None:
        return "installed"
    return f"in place of {one.before}" if one.before != one.version else "reference noted"


def _document(store: Store, entry: InstalledSkill) -> dict[str, Any]:
    return {
        "name": entry.name,
        "current": entry.current,
        "history": list(entry.history),
        "versions": {version: _plain(store.held(entry, version)) for version in sorted(entry.versions, key=precedence)},
    }


def _plain(one: Installed) -> dict[str, Any]:
    return {**asdict(one), "path": str(one.path), "signed": signature_path(one.path).is_file()}


def _line(store: Store, entry: InstalledSkill) -> list[str]:
    found = store.held(entry, entry.current)
    signed = "yes" if signature_path(found.path).is_file() else "no"
    return [entry.name, entry.current, size(found.held.size), signed, found.held.origin, _description(found.path)]


def _description(path: Path) -> str:
    try:
        return read_skill(path).manifest.description
    except LimeError as error:
        return f"cannot be used: {error}"
