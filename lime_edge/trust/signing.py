"""Signs a package with a private key, offline: writes `NAME.lime.sig` in the format of OpenSSF Model Signing.

The model-signing library makes the signature. It is kept only after our own verifier accepts it.
Normative page: docs/trust.md.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lime_edge.common.extras import require_extra
from lime_edge.common.files import read_bounded, reason, write_file
from lime_edge.errors import PolicyError, SkillError, SkillTrustError
from lime_edge.skills.package import decode_skill, read_package

from .keys import KEY_LIMIT, PublicKey
from .signature_file import signature_path
from .sigstore_bundle import Bundle

_FILE_LIMIT = 64 * 2**20  # bytes of a file that is no package


def sign_skill(
    path: str | os.PathLike[str],
    key: str | os.PathLike[str],
    password: str | None = None,
    output: str | os.PathLike[str] | None = None,
) -> tuple[Path, PublicKey]:
    """Sign the bytes and the file name of a package.

    Args:
        path: The .lime file.
        key: Private key in PEM form: P-256, P-384 or P-521.
        password: Password of the key; None if it has none.
        output: Path of the signature file; None means the package's path followed by ``.sig``.

    Returns:
        The path of the signature file, and the public half of the key.

    Raises:
        SkillFormatError: The package is not valid; only valid packages are signed.
        SkillTrustError: The new signature does not verify; nothing is written.
        PolicyError: The key cannot be used.
        SkillError: The signature cannot be written.
        MissingExtraError: `model-signing` is not installed.
    """
    data, target = read_package(path), signature_path(path) if output is None else Path(output)
    decode_skill(data, path)
    return _write_signature(data, Path(path).name, target, key, password)


def sign_file(
    path: str | os.PathLike[str], key: str | os.PathLike[str], password: str | None = None
) -> tuple[Path, PublicKey]:
    """Sign the bytes and the name of a file that is no package, such as the index of a catalogue.

    Args and errors as in `sign_skill`.

    Returns:
        The path of the signature file, and the public half of the key.
    """
    try:
        data = read_bounded(path, _FILE_LIMIT)
    except (OSError, ValueError) as error:
        raise SkillError(f"{path} cannot be signed: {reason(error)}") from error
    return _write_signature(data, Path(path).name, signature_path(path), key, password)


def _write_signature(
    data: bytes, name: str, target: Path, key: str | os.PathLike[str], password: str | None
) -> tuple[Path, PublicKey]:
    public = _public_half(key, password)
    signature = _sign(data, name, Path(key), password)
    if faults := Bundle.parse(signature).faults(public, data, name):
        raise SkillTrustError("the signature made by model-signing does not verify: nothing was written", faults)
    try:
        write_file(target, signature)
    except OSError as error:
        raise SkillError(f"{target} cannot be written: {error.strerror or error}") from error
    return target, public


def _sign(data: bytes, name: str, key: Path, password: str | None) -> bytes:
    """Sign a private copy of `data`, so that the bytes that were validated are the bytes that are signed."""
    with require_extra("sign"):
        from model_signing import hashing, signing
    config = signing.Config().set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
    # The parameter is annotated as str, but cryptography, which receives it, expects bytes.
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
    except (
        OSError,
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
    ) as error:  # TypeError: a superfluous or missing password
        message = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise PolicyError(f"the private key {path} cannot be used: {message}") from error


def _secret(password: str | None) -> bytes | None:
    return None if password is None else password.encode()
