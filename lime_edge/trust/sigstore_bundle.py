"""The content of a signature file: a Sigstore bundle with one signed statement, in the format of OpenSSF Model Signing.

The bundle is untrusted. Its key fingerprint only selects one of the keys that the caller trusts; a bundle never
supplies a key. The statement is parsed only after its signature is verified, and strictly: one subject, one resource,
SHA-256, one file. Everything else that Model Signing can express (directories, shards, other hashes, links, ignored
paths, formats before 1.0) is refused by name, so that none of it can be mistaken for a signature over one file.
Normative page: docs/trust.md.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lime_edge.common.strict_json import Check, bounded, flag, load_json, one_of, record, sequence, show, text
from lime_edge.contract.names import SKILL_SUFFIX
from lime_edge.errors import SkillTrustError
from lime_edge.skills.manifest import DIGEST

from .keys import PublicKey
from .signature_file import SIGNATURE_LIMIT

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_WHOLE = "."  # Model Signing's resource name when the model is a single file


@dataclass(frozen=True)
class Bundle:
    """A signature and its statement, both unverified.

    Attributes:
        key_id: Fingerprint of the key that the bundle names.
        payload: The statement, not yet parsed.
        signature: Signature of the payload, DER.
    """

    key_id: str
    payload: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Parse a signature file without verifying it.

        Raises:
            SkillTrustError: Names every fault of the bundle.
        """
        try:
            if len(data) > SIGNATURE_LIMIT:
                raise ValueError(f"it has {len(data)} bytes; expected at most {SIGNATURE_LIMIT}")
            document = load_json(data)
        except ValueError as error:
            raise SkillTrustError("not a signature of Model Signing", [f"not a bundle: {error}"]) from error
        if faults := [*_bundle_faults(document)]:
            raise SkillTrustError("not a signature of Model Signing in key mode", bounded(faults))
        envelope = document["dsseEnvelope"]
        return cls(
            document["verificationMaterial"]["publicKey"]["hint"],
            base64.b64decode(envelope["payload"]),
            base64.b64decode(envelope["signatures"][0]["sig"]),
        )

    def faults(self, key: PublicKey, data: bytes, file: str | None) -> list[str]:
        """The reasons why this signature is not valid for a file; empty if it is valid.

        Args:
            key: A key that the caller trusts.
            data: The bytes of the file.
            file: The file name, which must be the signed name; None if the bytes have no name.
        """
        if self.key_id != key.id:
            return [f"the signature names the key {self.key_id[:12]}, not {key.id[:12]}"]
        if not key.verifies(self.signature, _signed_bytes(self.payload)):
            return [f"the signature was not made by the key {key.id[:12]} that it names, or was changed afterwards"]
        try:
            statement = load_json(self.payload)
        except ValueError as error:
            return [f"the signed statement is not strict JSON: {error}"]
        return [*_STATEMENT("statement", statement)] or [*_file_faults(statement, data, file)]


def _bundle_faults(document: Any) -> Iterator[str]:
    """Faults of a bundle; other kinds of bundles are named as such, instead of listing the keys that they lack."""
    if isinstance(document, dict):
        if "messageSignature" in document:
            yield "it signs a message (cosign sign-blob), not a model: sign with `lime-edge sign`"
            return
        material = document.get("verificationMaterial")
        for kind in ("certificate", "x509CertificateChain"):
            if isinstance(material, dict) and kind in material:
                yield f"it is signed with a certificate ({kind}); only keys are supported: sign with `lime-edge sign`"
                return
    yield from _BUNDLE("bundle", document)


def _signed_bytes(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, version 1."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _file_faults(statement: Any, data: bytes, file: str | None) -> Iterator[str]:
    """Compare a well-formed statement with the file."""
    (subject,), (resource,) = statement["subject"], statement["predicate"]["resources"]
    # The subject's digest is the SHA-256 of the concatenated digests of all resources.
    if hashlib.sha256(bytes.fromhex(resource["digest"])).hexdigest() != subject["digest"]["sha256"]:
        yield "the signed statement contradicts itself: its digest does not match its resources"
    found = hashlib.sha256(data).hexdigest()
    if found != resource["digest"]:
        yield (
            f"the signature is over a file with SHA-256 {resource['digest'][:12]}, this one has {found[:12]}: it was "
            "changed or written again after it was signed, or the signature belongs to another file"
        )
    # A file named by its own SHA-256, as in the store, makes no claim by its name.
    if file not in (None, subject["name"], f"{found}{SKILL_SUFFIX}"):
        yield f"it was signed as {show(subject['name'])}, the file is called {show(file)}: restore its name"


def _base64(limit: int) -> Check:
    def check(where: str, value: Any) -> Iterator[str]:
        try:
            if not isinstance(value, str) or not 0 < len(base64.b64decode(value, validate=True)) <= limit:
                raise ValueError(value)
        except ValueError:
            yield f"{where} is {show(value)}; expected base64 of 1 to {limit} bytes"

    return check


def _ignored(where: str, value: Any) -> Iterator[str]:
    """Ignored paths have no effect on a single file, but must not exclude the file itself."""
    yield from _PATHS(where, value)
    if isinstance(value, list) and any(isinstance(path, str) and path.strip("./\\") == "" for path in value):
        yield f"{where} excludes the signed file itself"


_PATHS = sequence(text(200), 64)
_BUNDLE = record(
    {
        "mediaType": one_of(MEDIA_TYPE),
        "verificationMaterial": record({"publicKey": record({"hint": DIGEST})}, {"tlogEntries": sequence(text(0), 0)}),
        "dsseEnvelope": record(
            {
                "payload": _base64(SIGNATURE_LIMIT),
                "payloadType": one_of(PAYLOAD_TYPE),
                "signatures": sequence(record({"sig": _base64(200)}, {"keyid": text(200)}), 1, least=1),
            }
        ),
    }
)
_STATEMENT = record(
    {
        "_type": one_of(STATEMENT_TYPE),
        "subject": sequence(record({"name": text(255, least=1), "digest": record({"sha256": DIGEST})}), 1, least=1),
        "predicateType": one_of(PREDICATE_TYPE),
        "predicate": record(
            {
                "resources": sequence(
                    record({"name": one_of(_WHOLE), "algorithm": one_of("sha256"), "digest": DIGEST}), 1, least=1
                ),
                "serialization": record(
                    {"method": one_of("files"), "hash_type": one_of("sha256"), "allow_symlinks": flag},
                    {"ignore_paths": _ignored},
                ),
            }
        ),
    }
)
