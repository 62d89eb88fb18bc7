"""Describes the store and what its commands did, as plain JSON values and as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lime_edge.common.formatting import short, size
from lime_edge.common.semver import precedence
from lime_edge.errors import LimeError
from lime_edge.skills.package import read_skill
from lime_edge.store.catalogue import Listed
from lime_edge.store.index import InstalledSkill
from lime_edge.store.store import CleanupResult, Installed, Store
from lime_edge.store.transfer import Update
from lime_edge.trust.signature_file import signature_path

from .describe import Report, describe_skill
from .tables import Table


def describe_store(store: Store) -> Report:
    """One line for each installed skill."""
    entries = store.list()
    columns = ("skill", "version", "size", "signed", "from", "description")
    document = {"store": str(store.path), "skills": [_document(store, entry) for entry in entries]}
    if not entries:
        return document, [Table("", [(f"no skills are installed in {store.path}", "")])]
    return document, [Table("", [_line(store, entry) for entry in entries], columns, (2,))]


def describe_installed(store: Store, name: str) -> Report:
    """One skill: its package, and the versions that are installed."""
    installed, entry = store.info(name), store.entry(name.partition("@")[0])
    document, tables = describe_skill(read_skill(installed.path))
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
    before = f", previously {', '.join(entry.history)}" if entry.history else ""
    history = Table(f"installed: {entry.current} in use{before}", rows, columns, (1,))
    return {**document, "installed": _document(store, entry)}, [*tables, history]


def describe_installs(done: Sequence[Installed]) -> Report:
    """What `pull` installed."""
    rows = [(skill.name, skill.version, _change(skill), f"sha256={skill.held.blob}") for skill in done]
    document = {"installed": [_plain(skill) for skill in done]}
    return document, [Table("", rows, ("skill", "version", "change", "pin"))]


def describe_catalogue(place: str, found: Sequence[Listed]) -> Report:
    """The skills of a catalogue that a search found."""
    columns = ("skill", "version", "size", "signed with", "licence", "for", "description")
    rows = [
        (
            one.name,
            one.version,
            size(one.bytes),
            short(one.signer) or "not signed",
            one.license,
            one.backbone_name or short(one.backbone),
            one.description,
        )
        for one in found
    ]
    document = {"index": place, "skills": [asdict(one) for one in found]}
    return document, [Table("", rows, columns, (2,))] if rows else [Table("", [("no skill matches", "")])]


def describe_updates(done: Sequence[Update]) -> Report:
    """What `update` did."""
    rows = [(skill.name, skill.before, skill.after, skill.note or "updated") for skill in done]
    return {"updates": [asdict(skill) for skill in done]}, [Table("", rows, ("skill", "before", "now", "note"))]


def describe_freed(store: Store, freed: CleanupResult) -> Report:
    """What `gc` removed."""
    return asdict(freed), [Table("", [("removed", f"{freed.files} files, {size(freed.size)}, from {store.path}")])]


def _change(skill: Installed) -> str:
    if not skill.changed:
        return "already installed"
    if skill.before is None:
        return "installed"
    return f"replaces {skill.before}" if skill.before != skill.version else "reference recorded"


def _document(store: Store, entry: InstalledSkill) -> dict[str, Any]:
    return {
        "name": entry.name,
        "current": entry.current,
        "history": list(entry.history),
        "versions": {version: _plain(store.held(entry, version)) for version in sorted(entry.versions, key=precedence)},
    }


def _plain(skill: Installed) -> dict[str, Any]:
    return {**asdict(skill), "path": str(skill.path), "signed": signature_path(skill.path).is_file()}


def _line(store: Store, entry: InstalledSkill) -> list[str]:
    current = store.held(entry)
    signed = "yes" if signature_path(current.path).is_file() else "no"
    return [entry.name, entry.current, size(current.held.size), signed, current.held.origin, _description(current.path)]


def _description(path: Path) -> str:
    try:
        return read_skill(path).manifest.description
    except LimeError as error:
        return f"cannot be used: {error}"
