"""Keys, signatures and policies for the tests, and a writer of valid and invalid bundles."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lime_edge.trust.keys import PublicKey

_HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


class Pair:
    """A key pair."""

    def __init__(self, curve: ec.EllipticCurve | None = None) -> None:
        self.private = ec.generate_private_key(curve or ec.SECP256R1())

    @property
    def pem(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    @property
    def public(self) -> PublicKey:
        return PublicKey.from_pem(self.pem.encode())

    @property
    def id(self) -> str:
        return hashlib.sha256(self.pem.encode()).hexdigest()

    def write(self, folder: Path, password: str | None = None) -> tuple[Path, Path]:
        """Write the private and the public key; returns the paths of the PEM files."""
        hidden: Any = serialization.NoEncryption()
        if password is not None:
            hidden = serialization.BestAvailableEncryption(password.encode())
        private, public = folder / f"{self.id[:8]}.key", folder / f"{self.id[:8]}.pub"
        form = serialization.PrivateFormat.PKCS8
        private.write_bytes(self.private.private_bytes(serialization.Encoding.PEM, form, hidden))
        public.write_text(self.pem, "utf-8")
        return private, public


@cache
def pair(name: str) -> Pair:
    """A key pair; the same name gives the same pair within a test run."""
    return Pair()


def statement(data: bytes, name: str) -> dict[str, Any]:
    """The statement that Model Signing makes about one file, according to its documentation."""
    digest = hashlib.sha256(data)
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(digest.digest()).hexdigest()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "resources": [{"name": ".", "algorithm": "sha256", "digest": digest.hexdigest()}],
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
        },
    }


def bundle(key: Pair, content: Any, kind: str = "application/vnd.in-toto+json", **changes: Any) -> bytes:
    """A bundle that signs a statement or raw bytes; `changes` replaces keys of the bundle."""
    payload = content if isinstance(content, bytes) else json.dumps(content).encode()
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    signed = key.private.sign(message, ec.ECDSA(_HASHES[key.private.key_size]))
    document = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": key.id}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(signed).decode(), "keyid": ""}],
        },
        **changes,
    }
    return json.dumps(document).encode()


def signed(path: Path, key: Pair) -> Path:
    """Write a signature beside a package; returns the path of the package."""
    path.with_name(f"{path.name}.sig").write_bytes(bundle(key, statement(path.read_bytes(), path.name)))
    return path


def day(offset: int) -> str:
    """The date `offset` days from today, as a TOML date."""
    return (datetime.now(UTC) + timedelta(days=offset)).date().isoformat()


def key_table(key: Pair, **times: str) -> str:
    """A key of a publisher, as TOML; `times` are from_ and until."""
    lines = [f'pem = """\n{key.pem}"""', *(f"{name.rstrip('_')} = {value}" for name, value in times.items())]
    return "[[publishers.keys]]\n" + "\n".join(lines) + "\n"


def publisher(name: str, skills: Sequence[str], *keys: str) -> str:
    """A publisher, as TOML; `keys` are from `key_table`."""
    return f'[[publishers]]\nname = "{name}"\nskills = {json.dumps(list(skills))}\n' + "".join(keys)


def policy(*parts: str, required: bool = True, head: str = "") -> str:
    """The text of a policy file."""
    return f"format = 1\nrequire_signatures = {str(required).lower()}\n{head}\n" + "\n".join(parts)
