"""The index of the store: installed versions of each skill, the version in use, and the history of versions in use.

Entries are immutable; every change returns a new entry. Reading validates the whole index, because its digests become
file names. Files and locks are in store.py. Format: docs/store.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from lime_edge.common.digests import canonical_json
from lime_edge.common.semver import precedence
from lime_edge.common.strict_json import bounded, load_json, mapping, record, sequence, show, text, whole
from lime_edge.errors import SkillVersionError, StoreError, UnknownSkillError
from lime_edge.skills.manifest import DIGEST, NAME, VERSION

FORMAT = 1
_HISTORY_LIMIT = 100  # entries of the history of one skill


@dataclass(frozen=True)
class InstalledVersion:
    """One version of a skill in the store."""

    blob: str  # SHA-256 of the file's bytes
    digest: str  # the digest of the skill in its manifest
    size: int  # bytes of the file
    origin: str  # the reference that it was pulled from; empty if it was installed from bytes or a file
    installed: str  # UTC time, to the second


@dataclass(frozen=True)
class InstalledSkill:
    """All installed versions of one skill; `history` lists the versions used before `current`, the latest last."""

    name: str
    current: str
    history: tuple[str, ...]
    versions: Mapping[str, InstalledVersion]

    @property
    def held(self) -> InstalledVersion:
        """The version in use."""
        return self.versions[self.current]

    def use(self, version: str) -> InstalledSkill:
        """Use another version and append the current one to the history."""
        if version == self.current:
            return self
        return replace(self, current=version, history=(*self.history, self.current)[-_HISTORY_LIMIT:])

    def back(self) -> InstalledSkill:
        """Return to the last version in the history.

        Raises:
            SkillVersionError: The history is empty.
        """
        if not self.history:
            raise SkillVersionError(
                f"skill {self.name!r} has no version before {self.current}; installed versions: {self.known()}"
            )
        return replace(self, current=self.history[-1], history=self.history[:-1])

    def with_version(self, version: str, held: InstalledVersion) -> InstalledSkill:
        """Add or replace a version without using it."""
        return replace(self, versions={**self.versions, version: held})

    def without_version(self, version: str) -> InstalledSkill:
        """Remove a version that is not in use, also from the history.

        Raises:
            SkillVersionError: The version is in use.
        """
        if version == self.current:
            raise SkillVersionError(
                f"version {version} of skill {self.name!r} is in use; roll back first, or remove the skill as a whole"
            )
        remaining = [*(used for used in self.history if used != version), self.current]
        # The removal may leave equal neighbours; a rollback between them would change nothing.
        history = tuple(used for used, following in pairwise(remaining) if used != following)
        versions = {key: held for key, held in self.versions.items() if key != version}
        return replace(self, versions=versions, history=history)

    def find(self, version: str) -> InstalledVersion:
        """Raises UnknownSkillError, which names the installed versions."""
        if version not in self.versions:
            raise UnknownSkillError(
                f"version {show(version)} of skill {self.name!r} is not installed; installed versions: {self.known()}"
            )
        return self.versions[version]

    def same_as(self, version: str) -> str | None:
        """The installed version of equal precedence: `version` itself, or one that differs only in build metadata."""
        return next((known for known in self.versions if precedence(known) == precedence(version)), None)

    def known(self) -> str:
        """The installed versions as text, oldest first."""
        return ", ".join(sorted(self.versions, key=precedence))


Index = dict[str, InstalledSkill]


def write_index(index: Index) -> bytes:
    """Serialise an index; equal indices give equal bytes."""
    skills = {
        entry.name: {
            "current": entry.current,
            "history": list(entry.history),
            "versions": {version: asdict(held) for version, held in entry.versions.items()},
        }
        for entry in index.values()
    }
    return canonical_json({"format": FORMAT, "skills": skills})


def read_index(data: bytes) -> Index:
    """Parse and validate an index.

    Raises:
        StoreError: The index is damaged, or has a format that this version of lime-edge does not read.
    """
    try:
        document = load_json(data)
    except ValueError as error:
        raise StoreError(f"the index of the store is not strict JSON: {error}", [_HINT]) from error
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        raise StoreError(
            f"the store has format {show(document['format'])}; this lime-edge reads {FORMAT}: update lime-edge, "
            "or set LIME_EDGE_STORE to another folder"
        )
    if faults := list(_INDEX("index", document)):
        raise StoreError("the index of the store is damaged", bounded([*faults, _HINT]))
    return {name: _entry(name, fields) for name, fields in document["skills"].items()}


_HINT = "move index.json away and install the skills again; the files in blobs/ are kept"


def _entry(name: str, fields: Mapping[str, Any]) -> InstalledSkill:
    versions = {version: InstalledVersion(**held) for version, held in fields["versions"].items()}
    return InstalledSkill(name, fields["current"], tuple(fields["history"]), versions)


def _skill(where: str, value: Any) -> Iterator[str]:
    faults = list(_SKILL(where, value))
    yield from faults
    if not faults:
        for version in (value["current"], *value["history"]):
            if version not in value["versions"]:
                yield f"{where} names version {show(version)}, which is not among its versions"


_INSTALLED = record(
    {
        "blob": DIGEST,
        "digest": DIGEST,
        "size": whole(1, 2**40),
        "origin": text(4000),
        "installed": text(20, least=20),
    }
)
_SKILL = record(
    {"current": VERSION, "history": sequence(VERSION, _HISTORY_LIMIT), "versions": mapping(VERSION, _INSTALLED)}
)
_INDEX = record({"format": whole(FORMAT, FORMAT), "skills": mapping(NAME, _skill)})
