"""Pushes to, pulls from and updates from an OCI registry: the one of the test suite, or a real one.

`python -m tests.tools.registry_round` starts Debian's `docker-registry` (apt-get install docker-registry) and runs the
round against it; `python -m tests.tools.registry_round HOST:PORT` uses a registry that already runs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from lime_edge.store.store import Store
from lime_edge.store.transfer import pull, push, update
from lime_edge.trust.signature_file import read_signature, signature_path
from tests.support.store_case import package, sha256, signature_of

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""
_PORT = 5917


def go_round(host: str, folder: Path) -> str:
    """Run one round; returns the pinned reference of the last push.

    Raises:
        AssertionError, LimeError: The registry or the store misbehaves.
    """
    store, tag = Store(folder / "store"), f"oci://{host}/skills/tiny:latest"
    files = {version: _write(folder / f"{version}.lime", package(version=version)) for version in ("1.0.0", "1.1.0")}
    pin = push(str(files["1.0.0"]), tag)
    assert pin == f"{tag}#sha256={sha256(package(version='1.0.0'))}"
    found = pull(store, pin)
    assert found.path.read_bytes() == package(version="1.0.0")
    assert read_signature(signature_path(found.path)) == signature_of(package(version="1.0.0"))
    assert update(store)[0].note.startswith("pinned")
    pull(store, tag)
    assert update(store)[0].note == "up to date"
    pin = push(str(files["1.1.0"]), tag)
    done = update(store)[0]
    assert (done.before, done.after, done.failed) == ("1.0.0", "1.1.0", False), done
    assert store.get("tiny").read_bytes() == package(version="1.1.0")
    return pin


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    signature_path(path).write_bytes(signature_of(data))
    return path


def main() -> None:
    """Run the round and print the version of the registry and the last reference."""
    with tempfile.TemporaryDirectory() as work:
        if len(sys.argv) > 1:
            print(go_round(sys.argv[1], Path(work)))
            return
        config = Path(work) / "config.yml"
        config.write_text(_CONFIG.format(root=Path(work) / "registry", port=_PORT), "utf-8")
        version = subprocess.run(["docker-registry", "--version"], capture_output=True, text=True, check=True).stdout
        with subprocess.Popen(["docker-registry", "serve", str(config)]) as server:
            try:
                _wait(f"http://127.0.0.1:{_PORT}/v2/")
                print(version.strip(), go_round(f"127.0.0.1:{_PORT}", Path(work)), sep="\n")
            finally:
                server.terminate()


def _wait(url: str) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


if __name__ == "__main__":
    main()
