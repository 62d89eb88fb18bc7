"""Signing one package: a detached `NAME.lime.sig` by OpenSSF Model Signing, with a private key, offline.

The library writes the statement and the signature; what it wrote is verified as a user's runtime will before it is
kept. Knows nothing of policies. Normative page: docs/trust.md.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lime_edge.common.extras import require_extra
from lime_edge.common.files import read_bounded, write_file
from lime_edge.errors import PolicyError, SkillError, SkillTrustError
from lime_edge.skills.package import decode_skill, read_package

from .keys import KEY_LIMIT, PublicKey
from .signature_file import signature_path
from .sigstore_bundle import Bundle


def sign_skill(
    path: str | os.PathLike[str],
    key: str | os.PathLike[str],
    password: str | None = None,
    output: str | os.PathLike[str] | None = None,
) -> tuple[Path, PublicKey]:
    """Sign a package as the file that it is now, its name included.

    Args:
        path: The .lime file.
        key: Private key in PEM form: P-256, P-384 or P-521.
        password: Of the key, where it has one.
        output: The signature; None takes the package's name with ``.sig`` after it.

    Returns:
        The signature's file, and the public half of the key.

    Raises:
        SkillFormatError: Not a sound package: nothing that nobody could load is signed.
        PolicyError: The key cannot be used.
        SkillError: The signature cannot be written.
        MissingExtraError: `model-signing` is not installed.
    """
    data, target = read_package(path), signature_path(path) if output is None else Path(output)
    decode_skill(data, path)
    public = _public_half(key, password)
    signature = _sign(data, Path(path).name, Path(key), password)
    if faults := Bundle.parse(signature).faults(public, data, Path(path).name):
        raise SkillTrustError("what model-signing wrote does not verify: nothing was kept", faults)
    try:
        write_file(target, signature)
    except OSError as error:
        raise SkillError(f"{target} cannot be written: {error.strerror or error}") from error
    return target, public


def _sign(data: bytes, name: str, key: Path, password: str | None) -> bytes:
    """The bundle over a copy that nobody else can change: what was read is what is signed."""
    with require_extra("sign"):
        from model_signing import hashing, signing
    config = signing.Config().set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
    # Annotated as a text, the password is handed to cryptography, which takes bytes.
    config.use_elliptic_key_signer(private_key=key, password=_secret(password))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        copy, signature = Path(folder) / "model" / name, Path(folder) / "signature"
        copy.parent.mkdir()
        copy.write_bytes(data)
        config.sign(copy, signature)
        return signature.read_bytes()


def _public_half(path: str | os.PathLike[str], password: str | None) -> PublicKey:
    with require_extra("sign"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
    try:
        key = serialization.load_pem_private_key(read_bounded(path, KEY_LIMIT), _secret(password))
        return PublicKey.of(key.public_key())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: a password too many, or few
        said = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise PolicyError(f"the private key {path} cannot be used: {said}") from error


def _secret(password: str | None) -> bytes | None:
    return None if password is None else password.encode()
