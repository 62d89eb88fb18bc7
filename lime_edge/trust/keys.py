"""Public keys that verify signatures: PEM of one of three curves, named by a fingerprint.

Only a key that the caller trusts ever comes here; nothing of a signature does but its numbers. Knows nothing of
bundles, policies or skills. The curves and their hashes are those of OpenSSF Model Signing's key mode.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lime_edge.common.extras import require_extra
from lime_edge.common.files import read_bounded, reason
from lime_edge.errors import PolicyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

KEY_LIMIT = 16 * 2**10  # bytes of a PEM file

_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out KEY; openssl pkey -in KEY -pubout -out PUB"


@dataclass(frozen=True)
class PublicKey:
    """Verifies what one private key signed.

    Attributes:
        id: SHA-256, in hex, of the PEM form that `openssl pkey -pubout` writes: `sha256sum PUB` says the same, and so
            does the hint in a bundle of Model Signing.
        curve: One of secp256r1 (P-256), secp384r1, secp521r1.
    """

    id: str
    curve: str
    _key: EllipticCurvePublicKey = field(repr=False, compare=False)

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Read a public key.

        Raises:
            PolicyError: Not a public key in PEM, or of a kind that is not taken.
            MissingExtraError: `cryptography` is not installed.
        """
        with require_extra("sign"):
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives import serialization
        if b"PRIVATE KEY" in pem:
            raise PolicyError("a private key stands where its public half belongs: openssl pkey -in KEY -pubout")
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise PolicyError(f"not a public key in PEM form ({error}); make a pair: {_MAKE}") from error
        return cls.of(key)

    @classmethod
    def of(cls, key: Any) -> PublicKey:
        """From a key of `cryptography`; raises PolicyError where it is of a kind that is not taken."""
        from cryptography.hazmat.primitives import serialization

        curve = getattr(getattr(key, "curve", None), "name", type(key).__name__.lstrip("_"))
        if curve not in _HASHES:
            raise PolicyError(f"a key of the kind {curve}; expected an elliptic curve of {', '.join(_HASHES)}: {_MAKE}")
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = key.public_bytes(serialization.Encoding.PEM, form)
        return cls(hashlib.sha256(pem).hexdigest(), curve, key)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the private half signed the message (ECDSA, with the hash that belongs to the curve)."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            self._key.verify(signature, message, ec.ECDSA(getattr(hashes, _HASHES[self.curve])()))
        except InvalidSignature:
            return False
        return True


def read_key(path: str | os.PathLike[str]) -> PublicKey:
    """The public key in a PEM file.

    Raises:
        PolicyError: It cannot be read, or is no such key.
    """
    try:
        pem = read_bounded(path, KEY_LIMIT)
    except (OSError, ValueError) as error:
        raise PolicyError(f"the key {path} cannot be read: {reason(error)}") from error
    try:
        return PublicKey.from_pem(pem)
    except PolicyError as error:
        raise PolicyError(f"the key {path} cannot be used: {error.message}") from error
