"""Public keys that verify signatures: elliptic-curve keys in PEM form, identified by a fingerprint.

Every key comes from the caller, who trusts it; a signature never supplies one. The three curves and their hashes are
those of OpenSSF Model Signing's key mode.
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
    """Verifies the signatures of one private key.

    Attributes:
        id: Fingerprint: SHA-256 (hex) of the PEM form that `openssl pkey -pubout` writes, which `sha256sum PUB` prints
            and a bundle of Model Signing carries as its hint.
        curve: secp256r1 (P-256), secp384r1 or secp521r1.
    """

    id: str
    curve: str
    _key: EllipticCurvePublicKey = field(repr=False, compare=False)

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Parse a public key.

        Raises:
            PolicyError: Not a public key in PEM form, or of an unsupported kind.
            MissingExtraError: `cryptography` is not installed.
        """
        with require_extra("sign"):
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives import serialization
        if b"PRIVATE KEY" in pem:
            raise PolicyError("this is a private key; expected its public half: openssl pkey -in KEY -pubout")
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise PolicyError(f"not a public key in PEM form ({error}); make a key pair: {_MAKE}") from error
        return cls.of(key)

    @classmethod
    def of(cls, key: Any) -> PublicKey:
        """Wrap a public key of `cryptography`.

        Raises:
            PolicyError: The key is of an unsupported kind.
        """
        from cryptography.hazmat.primitives import serialization

        curve = getattr(getattr(key, "curve", None), "name", type(key).__name__.lstrip("_"))
        if curve not in _HASHES:
            raise PolicyError(f"the key is of kind {curve}; expected an elliptic curve, {', '.join(_HASHES)}: {_MAKE}")
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = key.public_bytes(serialization.Encoding.PEM, form)
        return cls(hashlib.sha256(pem).hexdigest(), curve, key)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the private half of this key signed the message (ECDSA, with the hash of the curve)."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            self._key.verify(signature, message, ec.ECDSA(getattr(hashes, _HASHES[self.curve])()))
        except InvalidSignature:
            return False
        return True


def read_key(path: str | os.PathLike[str]) -> PublicKey:
    """Read a public key from a PEM file.

    Raises:
        PolicyError: The file cannot be read, or contains no supported public key.
    """
    try:
        pem = read_bounded(path, KEY_LIMIT)
    except (OSError, ValueError) as error:
        raise PolicyError(f"the key {path} cannot be read: {reason(error)}") from error
    try:
        return PublicKey.from_pem(pem)
    except PolicyError as error:
        raise PolicyError(f"the key {path} cannot be used: {error.message}") from error
