"""A local OCI registry after the distribution specification: blobs, monolithic uploads, manifests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.support.servers.faulty_server import Request, Server, serving

_PATH = re.compile(r"/v2/(?P<name>[a-z0-9/._-]+)/(?P<kind>blobs|manifests)/(?P<what>[A-Za-z0-9:._-]+/?)")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Registry:
    """The contents of a registry.

    Attributes:
        host: ``127.0.0.1:PORT``.
        blobs: Data by ``name@digest``.
        manifests: Data by ``name@digest`` and by ``name:tag``.
    """

    server: Server
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.server.url.removeprefix("http://")

    def handle(self, request: Request) -> None:
        """Answer one request."""
        parts = urlsplit(request.path)
        match = _PATH.fullmatch(parts.path)
        if match is None:
            return request.answer(200 if parts.path == "/v2/" else 404)
        name, kind, what = match["name"], match["kind"], match["what"]
        if request.command == "POST":
            return request.answer(202, Location=f"/v2/{name}/blobs/session-1?state=a")
        if request.command == "PUT":
            return self._put(request, name, kind, what, parts.query)
        found = (self.blobs if kind == "blobs" else self.manifests).get(_key(name, what))
        if found is None:
            return request.answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"unknown"}]}')
        kinds = {"blobs": "application/octet-stream", "manifests": _MANIFEST}
        return request.answer(200, found, Content_Type=kinds[kind], Docker_Content_Digest=digest_of(found))

    def _put(self, request: Request, name: str, kind: str, what: str, query: str) -> None:
        data = request.read_body()
        digest = digest_of(data)
        if kind == "blobs":
            if parse_qs(query) != {"state": ["a"], "digest": [digest]}:
                return request.answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
            self.blobs[_key(name, digest)] = data
        else:
            document = json.loads(data)
            wanted = [document["config"]["digest"], *(layer["digest"] for layer in document["layers"])]
            if not all(_key(name, one) in self.blobs for one in wanted) or document["mediaType"] != _MANIFEST:
                return request.answer(400, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
            self.manifests[_key(name, what)] = self.manifests[_key(name, digest)] = data
        return request.answer(201, Location=request.path, Docker_Content_Digest=digest)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _key(name: str, what: str) -> str:
    return f"{name}@{what}" if what.startswith("sha256:") else f"{name}:{what}"


@contextmanager
def registry() -> Iterator[Registry]:
    """Run a registry for the duration of the block."""
    with serving() as server:
        made = Registry(server)
        server.rest = made.handle
        yield made
