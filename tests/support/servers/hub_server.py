"""A local server with the part of the Hugging Face Hub's API that serves files and accepts commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.servers.faulty_server import Request, Server, serving

_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_CALL = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<call>preupload|commit)/(?P<revision>[^/]+)")


@dataclass
class Hub:
    """One repository with its history.

    Attributes:
        commits: Commit -> files by name; `main` is the last commit.
    """

    server: Server
    repo: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add files in a new commit; returns its name."""
        last = next(reversed(self.commits.values()), {})
        name = hashlib.sha1(str(len(self.commits)).encode()).hexdigest()
        self.commits[name] = {**last, **files}
        return name

    def handle(self, request: Request) -> None:
        """Answer one request."""
        if request.path == "/api/validate-yaml":
            request.read_body()
            return self._json(request, {"errors": [], "warnings": []})
        if (match := _CALL.fullmatch(request.path)) and match["repo"] == self.repo:
            return self._take(request, match["call"])
        match = _FILE.fullmatch(request.path)
        commit = next(reversed(self.commits)) if match and match["revision"] == "main" else match and match["revision"]
        if match is None or match["repo"] != self.repo or commit not in self.commits:
            return request.answer(404, X_Error_Code="RevisionNotFound" if match else "RepoNotFound")
        data = self.commits[commit].get(match["file"])
        if data is None:
            return request.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        return request.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=commit)

    def _take(self, request: Request, call: str) -> None:
        body = request.read_body()
        if call == "preupload":
            names = [entry["path"] for entry in json.loads(body)["files"]]
            plain = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._json(request, {"files": plain})
        entries = [json.loads(line) for line in body.splitlines()]
        files = {e["value"]["path"]: base64.b64decode(e["value"]["content"]) for e in entries if e["key"] == "file"}
        commit = self.commit(files)
        found = {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{self.repo}/commit/{commit}"}
        return self._json(request, {**found, "hookOutput": ""})

    def _json(self, request: Request, document: object) -> None:
        request.answer(200, json.dumps(document).encode(), Content_Type="application/json")


@contextmanager
def hub(repo: str) -> Iterator[Hub]:
    """Run a hub for the duration of the block."""
    with serving() as server:
        made = Hub(server, repo)
        server.rest = made.handle
        yield made
