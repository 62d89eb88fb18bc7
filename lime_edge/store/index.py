"""The index of the store: which versions of which skills are installed, which one is in use, and which were before.

An index is a value: every change gives a new one. What it holds is checked when it is read, for its digests become
paths. Knows nothing of files and locks (store.py). Format: docs/store.md.
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
_KEPT = 100  # steps back that are remembered


@dataclass(frozen=True)
class InstalledVersion:
    """One version of a skill in the store."""

    blob: str  # SHA-256 of the file's bytes
    digest: str  # of the skill, as its manifest has it
    size: int  # bytes of the file
    origin: str  # the reference that it was pulled from; empty for a file that was handed over
    installed: str  # UTC, to the second


@dataclass(frozen=True)
class InstalledSkill:
    """All versions of one skill; `history` holds those in use before `current`, the latest last."""

    name: str
    current: str
    history: tuple[str, ...]
    versions: Mapping[str, InstalledVersion]

    @property
    def held(self) -> InstalledVersion:
        """The version in use."""
        return self.versions[self.current]

    def use(self, version: str) -> InstalledSkill:
        """With another version in use, the present one remembered."""
        if version == self.current:
            return self
        return replace(self, current=version, history=(*self.history, self.current)[-_KEPT:])

    def back(self) -> InstalledSkill:
        """One step back in the history.

        Raises:
            SkillVersionError: Nothing was in use before.
        """
        if not self.history:
            raise SkillVersionError(
                f"skill {self.name!r} has no version before {self.current}; held are {self.known()}"
            )
        return replace(self, current=self.history[-1], history=self.history[:-1])

    def with_version(self, version: str, held: InstalledVersion) -> InstalledSkill:
        """With one more version, not in use yet."""
        return replace(self, versions={**self.versions, version: held})

    def without_version(self, version: str) -> InstalledSkill:
        """Forget a version that is not in use.

        Raises:
            SkillVersionError: It is in use.
        """
        if version == self.current:
            raise SkillVersionError(
                f"version {version} of skill {self.name!r} is in use; roll back first, or remove the skill as a whole"
            )
        left = [*(one for one in self.history if one != version), self.current]
        # What lay on both sides of it may be the same version now: no step at all.
        steps = [one for one, following in pairwise(left) if one != following]
        versions = {key: held for key, held in self.versions.items() if key != version}
        return replace(self, versions=versions, history=tuple(steps))

    def find(self, version: str) -> InstalledVersion:
        """Raises UnknownSkillError that names the versions held."""
        if version not in self.versions:
            raise UnknownSkillError(
                f"version {show(version)} of skill {self.name!r} is not installed; held are {self.known()}"
            )
        return self.versions[version]

    def same_as(self, version: str) -> str | None:
        """The version held that is neither older nor newer than `version`: the same, or another build of it."""
        return next((one for one in self.versions if precedence(one) == precedence(version)), None)

    def known(self) -> str:
        """The versions for people, oldest first."""
        return ", ".join(sorted(self.versions, key=precedence))


Index = dict[str, InstalledSkill]


def write_index(index: Index) -> bytes:
    """The bytes of an index; the same entries give the same bytes."""
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
    """Raises StoreError: damaged, or made by another version of lime-edge."""
    try:
        document = load_json(data)
    except ValueError as error:
        raise StoreError(f"the index of the store is no JSON: {error}", [_HINT]) from error
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        raise StoreError(
            f"the store has format {show(document['format'])}; this lime-edge reads {FORMAT}: update lime-edge, "
            "or set LIME_EDGE_STORE to another folder"
        )
    if faults := list(_INDEX("index", document)):
        raise StoreError("the index of the store is damaged", bounded([*faults, _HINT]))
    return {name: _entry(name, found) for name, found in document["skills"].items()}


_HINT = "move index.json away and install the skills again; their files stay in blobs/ meanwhile"


def _entry(name: str, found: Mapping[str, Any]) -> InstalledSkill:
    versions = {version: InstalledVersion(**held) for version, held in found["versions"].items()}
    return InstalledSkill(name, found["current"], tuple(found["history"]), versions)


def _skill(where: str, value: Any) -> Iterator[str]:
    faults = list(_SKILL(where, value))
    yield from faults
    if not faults:
        for version in (value["current"], *value["history"]):
            if version not in value["versions"]:
                yield f"{where} names version {show(version)}, which it does not hold"


_HELD = record(
    {
        "blob": DIGEST,
        "digest": DIGEST,
        "size": whole(1, 2**40),
        "origin": text(4000),
        "installed": text(20, least=20),
    }
)
_SKILL = record({"current": VERSION, "history": sequence(VERSION, _KEPT), "versions": mapping(VERSION, _HELD)})
_INDEX = record({"format": whole(FORMAT, FORMAT), "skills": mapping(NAME, _skill)})
