"""A catalogue of skills on any static host: index.json beside the packages, and how it is written, read and searched.

The index is untrusted. It only says where a package is and which SHA-256 it must have; what is fetched is checked as
any other skill. A signature over the index keeps its host from hiding or exchanging entries. See docs/catalogue.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from lime_edge.common.digests import canonical_json
from lime_edge.common.files import read_bounded, reason, write_file
from lime_edge.common.semver import precedence
from lime_edge.common.strict_json import Check, bounded, load_json, number, record, sequence, show, text, whole
from lime_edge.contract.names import SIGNATURE_SUFFIX, SKILL_SUFFIX
from lime_edge.errors import ConfigError, FetchError, SkillError
from lime_edge.skills.manifest import DIGEST, NAME, VERSION
from lime_edge.skills.package import Skill, decode_skill, read_package
from lime_edge.store.remote.https import USUAL, Limits, fetch_small
from lime_edge.store.remote.references import url_fault
from lime_edge.trust.policy import TrustPolicy
from lime_edge.trust.signature_file import SIGNATURE_LIMIT, read_signature, signature_path
from lime_edge.trust.sigstore_bundle import Bundle

CATALOGUE_FORMAT = 1
INDEX_FILE = "index.json"
INDEX_LIMIT = 8 * 2**20  # bytes
_SKILLS_LIMIT = 10_000


@dataclass(frozen=True)
class Listed:
    """One version of a skill in a catalogue.

    Attributes:
        file: Where the package is, relative to index.json.
        bytes, sha256: Size and SHA-256 of the file.
        digest: Digest of the skill, as in its manifest.
        backbone, adapter, modules: The digests that a model must have.
        signer: Fingerprint of the key that its signature names; empty without one. Nobody has verified it.
        metrics: As in the manifest.
    """

    name: str
    version: str
    file: str
    bytes: int
    sha256: str
    digest: str
    backbone: str
    backbone_name: str
    adapter: str
    modules: str
    license: str
    author: str
    created: str
    description: str
    signer: str
    metrics: list[dict[str, Any]]

    def matches(self, words: Sequence[str]) -> bool:
        """Whether every word occurs in the name, the description, the author, the licence or the backbone's name."""
        texts = (self.name, self.description, self.author, self.license, self.backbone_name)
        whole_text = " ".join(texts).casefold()
        return all(word.casefold() in whole_text for word in words)


def write_catalogue(skills: Path, output: Path) -> list[Listed]:
    """Write index.json, a page and copies of the packages with their signatures.

    Args:
        skills: A folder with .lime files, at any depth. Every one must be valid.
        output: The folder to create or to renew. Files of earlier versions stay, so that their addresses keep working.

    Raises:
        SkillError: Names every file that is not a valid skill, and versions that stand there twice; nothing is written.
        ConfigError: There are no skills, or `output` cannot be written.
    """
    found, faults = [], []
    for path in sorted(skills.rglob(f"*{SKILL_SUFFIX}")):
        try:
            data = read_package(path)
            found.append((decode_skill(data, path), data, read_signature(signature_path(path))))
        except SkillError as error:
            faults += [f"{error.message}: {fault}" for fault in error.faults] or [error.message]
    names = [(skill.name, skill.manifest.version) for skill, _, _ in found]
    faults += [
        f"{name} {version} is there twice" for name, version in sorted(set(names)) if names.count((name, version)) > 1
    ]
    if faults:
        raise SkillError(f"{skills} cannot become a catalogue", bounded(faults))
    if not found:
        raise ConfigError(f"{skills} has no {SKILL_SUFFIX} files; expected at least one skill")
    listed = sorted(
        (_listed(skill, data, signature) for skill, data, signature in found),
        key=lambda one: (one.name, precedence(one.version)),
    )
    files = {one.sha256: one.file for one in listed}
    try:
        for _, data, signature in found:
            target = output / files[hashlib.sha256(data).hexdigest()]
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, data)
            if signature is not None:
                write_file(signature_path(target), signature)
        document = {"format": CATALOGUE_FORMAT, "skills": [asdict(one) for one in listed]}
        write_file(output / "index.html", (Path(__file__).parent / "catalogue.html").read_bytes())
        write_file(output / INDEX_FILE, canonical_json(document) + b"\n")
        signature_path(output / INDEX_FILE).unlink(missing_ok=True)  # it was over the old index
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {reason(error)}") from error
    return listed


def read_catalogue(place: str, trust: TrustPolicy | None = None, limits: Limits = USUAL) -> list[Listed]:
    """Fetch and validate an index.

    Args:
        place: An https: URL, or a folder; with or without ``index.json`` at its end.
        trust: With a policy that requires signatures, the index must have one (index.json.sig) of an accepted key.
        limits: Of the transfer.

    Raises:
        ConfigError: The address cannot be used.
        FetchError: There is no index, or it is invalid; names every fault.
        SkillTrustError: The policy refuses the index.
    """
    data, signature = _fetch(place, limits)
    if trust is not None:
        trust.vouch(data, signature, INDEX_FILE)
    try:
        document = load_json(data)
    except ValueError as error:
        raise FetchError(f"the index of {place} is not strict JSON: {error}") from error
    if isinstance(document, dict) and document.get("format") not in (None, CATALOGUE_FORMAT):
        version = show(document["format"])
        raise FetchError(
            f"the index of {place} has format {version}; this lime-edge reads {CATALOGUE_FORMAT}: update it"
        )
    if faults := [*_INDEX("index", document)]:
        raise FetchError(f"the index of {place} is invalid", bounded(faults))
    return [Listed(**entry) for entry in document["skills"]]


def search(catalogue: Sequence[Listed], words: Sequence[str]) -> list[Listed]:
    """The newest version of each skill that matches all words, by name."""
    newest: dict[str, Listed] = {}
    for one in sorted(catalogue, key=lambda found: precedence(found.version)):
        newest[one.name] = one
    return [newest[name] for name in sorted(newest) if newest[name].matches(words)]


def reference_of(place: str, catalogue: Sequence[Listed], wanted: str) -> str:
    """A pinned reference to a skill of a catalogue, for `pull`.

    Args:
        place: As for `read_catalogue`.
        catalogue: From there.
        wanted: ``NAME`` for the newest version, or ``NAME@VERSION``.

    Raises:
        ConfigError: The catalogue lacks it; the message names what it has.
    """
    name, _, version = wanted.partition("@")
    found = [one for one in catalogue if one.name == name and version in ("", one.version)]
    if not found:
        has = sorted(
            {one.name for one in catalogue} if not version else {f"{one.name}@{one.version}" for one in catalogue}
        )
        raise ConfigError(f"the catalogue {place} has no skill {show(wanted)}; it has {', '.join(bounded(has))}")
    best = max(found, key=lambda one: precedence(one.version))
    folder = _folder(place)
    where = urljoin(folder, best.file) if "://" in folder else Path(os.path.abspath(folder), best.file).as_uri()
    return f"{where}#sha256={best.sha256}"


def _listed(skill: Skill, data: bytes, signature: bytes | None) -> Listed:
    manifest, sha256 = skill.manifest, hashlib.sha256(data).hexdigest()
    return Listed(
        name=manifest.name,
        version=manifest.version,
        file=f"skills/{manifest.name}/{manifest.version.replace('+', '_')}/{manifest.name}{SKILL_SUFFIX}",
        bytes=len(data),
        sha256=sha256,
        digest=manifest.digest,
        backbone=manifest.backbone,
        backbone_name=manifest.backbone_name,
        adapter=manifest.adapter,
        modules=manifest.modules,
        license=manifest.license,
        author=manifest.author,
        created=manifest.created,
        description=manifest.description,
        signer="" if signature is None else Bundle.parse(signature).key_id,
        metrics=[dict(metric) for metric in manifest.metrics],
    )


def _fetch(place: str, limits: Limits) -> tuple[bytes, bytes | None]:
    folder = _folder(place)
    if "://" not in folder:
        try:
            path = Path(folder) / INDEX_FILE
            return read_bounded(path, INDEX_LIMIT), read_signature(signature_path(path))
        except (OSError, ValueError) as error:
            raise FetchError(f"{place} has no index that can be read: {reason(error)}") from error
    if fault := url_fault(urlsplit(folder)):
        raise ConfigError(f"the catalogue {show(place)} cannot be used: {fault}")
    url = urljoin(folder, INDEX_FILE)
    data = fetch_small(url, INDEX_LIMIT, limits)
    if data is None:
        raise FetchError(f"{url} does not exist; expected what `lime-edge index` writes")
    return data, fetch_small(url + SIGNATURE_SUFFIX, SIGNATURE_LIMIT, limits)


def _folder(place: str) -> str:
    """The address of the folder, which ends in a slash."""
    place = place.removesuffix(INDEX_FILE)
    return place if place.endswith("/") else f"{place}/"


_FILE = text(300, least=1, pattern=r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*", what="a relative path")
_METRIC = record(
    {
        "dataset": DIGEST,
        "name": text(64, least=1),
        "split": text(64, least=1),
        "rows": whole(1, 2**40),
        "skill": number(-1e9, 1e9),
        "base": number(-1e9, 1e9),
        "date": text(10),
    },
    {"lora": number(-1e9, 1e9)},
)
_ENTRY: dict[str, Check] = {
    "name": NAME,
    "version": VERSION,
    "file": _FILE,
    "bytes": whole(1, 2**28),
    **dict.fromkeys(("sha256", "digest", "backbone", "adapter", "modules"), DIGEST),
    "backbone_name": text(200),
    "license": text(200, least=1),
    "author": text(200),
    "created": text(10, least=10),
    "description": text(4000, controls="\n\t"),
    "signer": text(64, pattern="([0-9a-f]{64})?", what="a fingerprint"),
    "metrics": sequence(_METRIC, 64),
}
_INDEX = record({"format": whole(1, CATALOGUE_FORMAT), "skills": sequence(record(_ENTRY), _SKILLS_LIMIT)})
