"""Fetches skills into the store and publishes them: `pull`, `update`, `push`. References: remote/references.py.

A skill is installed under the name in its manifest, never under a name from an address.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lime_edge.common.files import write_file
from lime_edge.contract.names import SIGNATURE_SUFFIX
from lime_edge.errors import ConfigError, FetchError, LimeError
from lime_edge.skills.package import decode_skill, read_package
from lime_edge.store.remote.https import USUAL, Limits, Progress, download, fetch_small
from lime_edge.store.remote.references import Reference, parse
from lime_edge.trust.signature_file import SIGNATURE_LIMIT, read_signature, signature_path

from .lookup import find_installed
from .store import Installed, Store, TrustCheck

Files = tuple[bytes, bytes | None]  # a package and its signature


@dataclass(frozen=True)
class Update:
    """The outcome of an update for one skill.

    Attributes:
        before, after: The versions in use before and after.
        note: Why the version did not change; empty if it did.
        failed: Whether the note is an error.
    """

    name: str
    before: str
    after: str
    note: str = ""
    failed: bool = False


def pull(
    store: Store,
    reference: str,
    trust: TrustCheck | None = None,
    allow_downgrade: bool = False,
    limits: Limits = USUAL,
    progress: Progress | None = None,
) -> Installed:
    """Fetch a skill, install it and use it from now on.

    Raises:
        ConfigError: The reference is invalid.
        FetchError: The file cannot be fetched, or does not match the pin of the reference.
        SkillError, StoreError: As in `Store.install`.
    """
    known = parse(reference)
    data, signature = fetch(store, known, limits, progress)
    return store.install(data, signature=signature, origin=known.text, trust=trust, allow_downgrade=allow_downgrade)


def update(
    store: Store,
    names: Sequence[str] = (),
    trust: TrustCheck | None = None,
    allow_downgrade: bool = False,
    limits: Limits = USUAL,
) -> list[Update]:
    """Fetch newer versions of installed skills from their references; a failure does not affect the other skills.

    Args:
        store: The store to update.
        names: The skills to update; empty means all.
        trust, allow_downgrade: As in `Store.install`.
        limits: Of each download.

    Raises:
        UnknownSkillError: A name is not installed; nothing was fetched.
    """
    entries = [store.entry(name) for name in names] if names else store.list()
    return [_update(store, entry.name, trust, allow_downgrade, limits) for entry in entries]


def push(name_or_file: str, reference: str, card: bool = False) -> str:
    """Copy an installed skill, or a file, and its signature to a reference.

    Args:
        name_or_file: ``NAME``, ``NAME@VERSION`` or a .lime file.
        reference: The target.
        card: Also write the repository's README.md (hf only).

    Returns:
        The reference with the pin of the package.

    Raises:
        ConfigError: The reference is invalid, pinned, or of a scheme that cannot be pushed to.
        FetchError: The target cannot be written, or the server refuses the upload.
    """
    known = parse(reference)
    if known.sha256 or known.scheme == "https" or (known.scheme == "oci" and not known.moving):
        raise ConfigError(f"{known} cannot be pushed to; expected file:, hf: or an oci: tag, without #sha256=")
    if card and known.scheme != "hf":
        raise ConfigError(f"{known} cannot hold a model card; only hf: references can")
    path = find_installed(name_or_file)
    files = read_package(path), read_signature(signature_path(path))
    _send(known, files, path, card)
    return f"{known}#sha256={hashlib.sha256(files[0]).hexdigest()}"


def fetch(store: Store, reference: Reference, limits: Limits = USUAL, progress: Progress | None = None) -> Files:
    """The files that a reference names, checked against its pin.

    Raises:
        FetchError: They cannot be fetched, or the package has another SHA-256.
    """
    files = _receive(store, reference, limits, progress)
    received = hashlib.sha256(files[0]).hexdigest()
    if reference.sha256 and received != reference.sha256:
        raise FetchError(f"{reference} cannot be used: the file has SHA-256 {received}, which does not match the pin")
    return files


def _receive(store: Store, reference: Reference, limits: Limits, progress: Progress | None) -> Files:
    if reference.scheme == "file":
        path = Path(reference.place)
        return read_package(path), read_signature(signature_path(path))
    if reference.scheme == "hf":
        from lime_edge.store.remote.hugging_face import fetch_hub

        return fetch_hub(reference, SIGNATURE_SUFFIX, SIGNATURE_LIMIT)
    if reference.scheme == "oci":
        from lime_edge.store.remote.oci import fetch_oci

        return fetch_oci(reference, SIGNATURE_LIMIT, limits, progress)
    path_part, mark, query = reference.place.partition("?")
    with store.partials.hold(reference.place) as partial:
        data = download(reference.place, partial, limits, progress)
    return data, fetch_small(path_part + SIGNATURE_SUFFIX + mark + query, SIGNATURE_LIMIT, limits)


def _update(store: Store, name: str, trust: TrustCheck | None, down: bool, limits: Limits) -> Update:
    entry = store.entry(name)
    before, origin = entry.current, entry.held.origin
    try:
        known = parse(origin) if origin else None
        if known is None or not known.moving:
            note = "pinned: pull another reference" if known else "installed without a reference: pull one"
            return Update(name, before, before, note)
        data, signature = fetch(store, known, limits)
        current = store.update(name, data, signature=signature, origin=origin, trust=trust, allow_downgrade=down)
    except LimeError as error:
        return Update(name, before, before, str(error), failed=True)
    if current.version != before:
        return Update(name, before, current.version)
    offered = decode_skill(data, origin).manifest.version
    note = "up to date" if offered == before else f"{offered} is installed but was rolled back; {before} stays in use"
    return Update(name, before, before, note)


def _send(reference: Reference, files: Files, path: Path, card: bool) -> None:
    skill = decode_skill(files[0], path)
    if reference.scheme == "file":
        target = Path(reference.place)
        try:
            if files[1] is not None:
                write_file(signature_path(target), files[1])
            write_file(target, files[0])
            if files[1] is None:
                signature_path(target).unlink(missing_ok=True)  # it belonged to the previous file
        except OSError as error:
            raise FetchError(f"{target} cannot be written: {error.strerror or error}") from error
    elif reference.scheme == "hf":
        from lime_edge.store.remote.hugging_face import push_hub

        from .model_card import card_of

        push_hub(reference, *files, SIGNATURE_SUFFIX, card_of(skill) if card else None)
    else:
        from lime_edge.store.remote.oci import push_oci

        push_oci(reference, *files, skill.name, skill.manifest.version)
