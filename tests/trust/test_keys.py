"""Public keys: fingerprints, curves and their hashes, and refusals."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lime_edge.errors import PolicyError
from lime_edge.skills.package import write_skill
from lime_edge.trust.keys import KEY_LIMIT, PublicKey, read_key
from lime_edge.trust.policy import Signer, TrustPolicy
from tests.support.faults.malformed import manifest, vectors
from tests.support.signatures import Pair, bundle, key_table, pair, policy, publisher, statement


def test_the_fingerprint_is_the_hash_of_the_public_file(tmp_path: Path) -> None:
    public = pair("acme").write(tmp_path)[1]
    key = read_key(public)
    assert (key.id, key.curve) == (hashlib.sha256(public.read_bytes()).hexdigest(), "secp256r1")
    loose = public.read_bytes().replace(b"\n", b"\r\n")
    assert PublicKey.from_pem(loose) == key  # hashed in the form that openssl writes


@pytest.mark.parametrize(
    ("name", "key"),
    [("secp256k1", ec.generate_private_key(ec.SECP256K1())), ("RSAPublicKey", rsa.generate_private_key(65537, 2048))],
)
def test_keys_of_another_kind_are_refused_by_name(
    name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    with pytest.raises(PolicyError, match=f"the key is of kind {name}; expected an elliptic curve"):
        PublicKey.of(key.public_key())


def test_files_without_a_public_key_are_refused(tmp_path: Path) -> None:
    private = pair("acme").write(tmp_path)[0]
    (tmp_path / "text.pub").write_text("no key")
    (tmp_path / "huge.pub").write_bytes(b"x" * (KEY_LIMIT + 1))
    for path, message in (
        (private, "cannot be used: this is a private key"),
        (tmp_path / "text.pub", "cannot be used: not a public key in PEM form"),
        (tmp_path / "huge.pub", "cannot be read: it has more than 16384 bytes"),
        (tmp_path / "none.pub", "cannot be read: No such file"),
    ):
        with pytest.raises(PolicyError, match=message) as caught:
            read_key(path)
        assert str(path) in str(caught.value)


def test_every_curve_is_verified_with_its_own_hash(tmp_path: Path) -> None:
    data = write_skill(tmp_path / "legal.lime", manifest(name="legal"), vectors()).path.read_bytes()
    for number, curve in enumerate((ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())):
        key = Pair(curve)
        path = tmp_path / f"{number}.toml"
        path.write_text(policy(publisher("acme", ["*"], key_table(key))), "utf-8")
        found = TrustPolicy.read(path).admit(data, bundle(key, statement(data, "legal.lime")), "legal.lime")
        assert found.signer == Signer("acme", key.id)
        assert np.isfinite(next(iter(found.skill.tensors.values()))).all()


def test_a_changed_message_does_not_verify() -> None:
    key, other = pair("acme"), pair("other")
    signature = key.private.sign(b"message", ec.ECDSA(hashes.SHA256()))
    assert key.public.verifies(signature, b"message")
    assert not key.public.verifies(signature, b"Message")
    assert not key.public.verifies(signature[:-1], b"message")
    assert not other.public.verifies(signature, b"message")
