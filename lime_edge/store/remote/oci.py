"""Fetches skills from OCI registries and pushes them, with the oras library. Needs the extra `hub`.

One artifact is one skill: a layer with the package, and optionally a layer with its signature. Media types and limits:
docs/store.md. Credentials are those that `oras login` or `docker login` stored.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lime_edge.common.extras import require_extra
from lime_edge.common.strict_json import load_json, record, show, text, whole
from lime_edge.contract.names import SIGNATURE_SUFFIX, SKILL_SUFFIX
from lime_edge.errors import FetchError, LimeError

from .https import CutError, Limits, Pace, Progress, arriving, bounded_body, session
from .references import Reference, is_local

ARTIFACT = "application/vnd.lime-edge.skill.v1"
SKILL = "application/vnd.lime-edge.skill.v1.safetensors"
SIGNATURE = "application/vnd.lime-edge.skill.signature.v1"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}",
    "size": 2,
}
_MANIFEST_LIMIT = 2**20  # bytes


def fetch_oci(
    reference: Reference, signature_limit: int, limits: Limits, progress: Progress | None = None
) -> tuple[bytes, bytes | None]:
    """Fetch a package and its signature; None if there is no signature.

    Raises:
        FetchError: The artifact is missing, is not a skill, or does not match its digest.
    """
    registry, container = _open(reference, limits)
    try:
        layers = _layers(_manifest(registry, container, reference, limits), reference)
        data = _blob(registry, container, layers[SKILL], limits.size, limits, progress)
        signed = layers.get(SIGNATURE)
        return data, None if signed is None else _blob(registry, container, signed, signature_limit, limits)
    except CutError as error:
        raise FetchError(f"{reference} cannot be fetched: {error}") from error


def push_oci(reference: Reference, data: bytes, signature: bytes | None, title: str, version: str) -> None:
    """Upload a skill under a tag.

    Args:
        reference: An oci: reference with a tag.
        data, signature: The package and, if there is one, its signature.
        title, version: Annotations of the artifact; the title also names the files.

    Raises:
        FetchError: The registry refuses the upload or cannot be reached.
    """
    registry, container = _open(reference, Limits())
    try:
        registry.auth.load_configs(container)
        with tempfile.TemporaryDirectory() as work:
            layers = [_upload(registry, container, Path(work) / f"{title}{SKILL_SUFFIX}", data, SKILL)]
            if signature is not None:
                layers.append(
                    _upload(
                        registry,
                        container,
                        Path(work) / f"{title}{SKILL_SUFFIX}{SIGNATURE_SUFFIX}",
                        signature,
                        SIGNATURE,
                    )
                )
            _upload(registry, container, Path(work) / "config.json", b"{}", str(_EMPTY["mediaType"]))
        about = {"org.opencontainers.image.title": title, "org.opencontainers.image.version": version}
        head = {"schemaVersion": 2, "mediaType": _MANIFEST, "artifactType": ARTIFACT}
        _check_accepted(
            registry.upload_manifest({**head, "config": _EMPTY, "layers": layers, "annotations": about}, container)
        )
    except LimeError:
        raise
    except Exception as error:  # of requests, of jsonschema, and ValueErrors of oras
        raise FetchError(f"{reference} cannot be pushed: {error}") from error


def _open(reference: Reference, limits: Limits) -> tuple[Any, Any]:
    with require_extra("hub"):
        import oras.container
        import oras.provider
    local = is_local(urlsplit(f"//{reference.host}").hostname)
    registry: Any = oras.provider.Registry(reference.host, insecure=local)
    client = session()
    client.cookies = registry.session.cookies  # its policy refuses all cookies
    client.request = functools.partial(client.request, timeout=limits.silence)  # type: ignore[method-assign]
    registry.session = registry.auth.session = client
    # Without the decorator of oras that retries: it sleeps for two minutes in total.
    registry.do_request = functools.partial(inspect.unwrap(type(registry).do_request), registry)
    return registry, oras.container.Container(reference.place, reference.host)


def _manifest(registry: Any, container: Any, reference: Reference, limits: Limits) -> Any:
    """The manifest, bounded and checked against the digest of the reference, if any; oras does neither."""
    registry.auth.load_configs(container)
    url, headers = f"{registry.prefix}://{container.manifest_url()}", {"Accept": _MANIFEST}
    with arriving(lambda: registry.do_request(url, "GET", headers=headers, stream=True), limits) as (head, body):
        _check_status(head.status_code, reference)
        data = bounded_body(body, _MANIFEST_LIMIT, Pace(limits))
    _check_digest(data, reference.revision if container.digest else "", f"the manifest of {reference}")
    try:
        return load_json(data)
    except ValueError as error:
        raise FetchError(f"the manifest of {reference} is not strict JSON: {error}") from error


def _layers(manifest: Any, reference: Reference) -> dict[str, dict[str, Any]]:
    """The layers of a skill by media type; raises FetchError if the artifact is not a skill."""
    kind = manifest.get("artifactType") if isinstance(manifest, dict) else None
    if kind != ARTIFACT:
        raise FetchError(f"{reference} is an artifact of type {show(kind)}; expected {ARTIFACT}")
    layers = manifest.get("layers")
    if not isinstance(layers, list) or [fault for layer in layers for fault in _LAYER("a layer", layer)]:
        raise FetchError(f"{reference} has the layers {show(layers)}; expected mediaType, size and digest of each")
    kinds = [layer["mediaType"] for layer in layers]
    if sorted(kinds) not in ([SKILL], sorted([SKILL, SIGNATURE])):
        raise FetchError(f"{reference} has layers {show(kinds)}; expected one {SKILL} and at most one {SIGNATURE}")
    return dict(zip(kinds, layers, strict=True))


def _blob(
    registry: Any, container: Any, layer: dict[str, Any], limit: int, limits: Limits, progress: Progress | None = None
) -> bytes:
    digest, size = layer["digest"], layer["size"]
    if size > limit:
        raise FetchError(f"{container} has a layer of {size} bytes; expected at most {limit}")
    with arriving(lambda: registry.get_blob(container, digest, stream=True), limits) as (head, body):
        _check_status(head.status_code, f"{container}: blob {digest}")
        data = bounded_body(body, size, Pace(limits), size, progress)
    _check_digest(data, digest, f"a layer of {container}")
    return data


def _check_digest(data: bytes, expected: str, what: str) -> None:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if expected and digest != expected:
        raise FetchError(f"{what} has {digest}; expected {expected}")


def _check_status(status: int, what: object) -> None:
    if status != 200:
        raise FetchError(f"{what} cannot be fetched: the registry answers {status}")


def _upload(registry: Any, container: Any, path: Path, data: bytes, kind: str) -> dict[str, Any]:
    with require_extra("hub"):
        import oras.oci
    path.write_bytes(data)
    layer: dict[str, Any] = oras.oci.NewLayer(str(path), media_type=kind)
    _check_accepted(registry.upload_blob(str(path), container, layer))
    return {**layer, "annotations": {"org.opencontainers.image.title": path.name}}


def _check_accepted(response: Any) -> None:
    if response.status_code not in (200, 201, 202):
        raise FetchError(f"the registry answers {response.status_code}: {show(response.text[:300])}")


def _anything(where: str, value: Any) -> Iterator[str]:
    yield from ()


_LAYER = record(
    {"mediaType": text(255), "size": whole(1, 2**40), "digest": text(71, pattern="sha256:[0-9a-f]{64}")},
    {"annotations": _anything},
)
