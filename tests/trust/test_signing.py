"""Signing, and interoperability: our command and OpenSSF Model Signing's accept each other's signatures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec

from lime_edge.cli.commands import main
from lime_edge.errors import PolicyError, SkillFormatError
from lime_edge.skills.package import write_skill
from lime_edge.trust.signature_file import signature_path
from lime_edge.trust.signing import sign_skill
from lime_edge.trust.sigstore_bundle import Bundle
from tests.support.faults.malformed import manifest, vectors
from tests.support.signatures import Pair, pair


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_skill(tmp_path / "legal.lime", manifest(name="legal"), vectors()).path


def theirs(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the `model_signing` command."""
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, words)], capture_output=True, text=True, check=False
    )


def ours(*words: str | Path) -> tuple[int, str]:
    """Run `lime-edge`; returns exit code and output."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_their_command_verifies_our_signature(package: Path, tmp_path: Path, curve: type[ec.EllipticCurve]) -> None:
    private, public = Pair(curve()).write(tmp_path)
    assert ours("sign", package, "--key", private)[0] == 0
    beside = signature_path(package)
    done = theirs("verify", "key", package, "--signature", beside, "--public_key", public)
    assert done.returncode == 0, done.stderr
    stranger = Pair(curve()).write(tmp_path)[1]
    assert theirs("verify", "key", package, "--signature", beside, "--public_key", stranger).returncode != 0
    changed = bytearray(package.read_bytes())
    changed[-1] ^= 1
    package.write_bytes(changed)
    assert theirs("verify", "key", package, "--signature", beside, "--public_key", public).returncode != 0


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1])
def test_we_verify_the_signature_of_their_command(package: Path, tmp_path: Path, curve: type[ec.EllipticCurve]) -> None:
    private, public = Pair(curve()).write(tmp_path)
    beside = signature_path(package)
    done = theirs("sign", "key", package, "--signature", beside, "--private_key", private)
    assert done.returncode == 0, done.stderr
    code, output = ours("verify", package, "--key", public)
    assert code == 0, output
    assert ours("verify", package, "--key", Pair(curve()).write(tmp_path)[1])[0] == 1
    changed = bytearray(package.read_bytes())
    changed[-1] ^= 1
    package.write_bytes(changed)
    code, output = ours("verify", package, "--key", public)
    assert code == 1
    assert "changed or written again" in output


def test_a_signature_is_over_the_file_and_its_name(package: Path, tmp_path: Path) -> None:
    private, _ = pair("acme").write(tmp_path)
    written, public = sign_skill(package, private)
    assert written == signature_path(package)
    bundle, data = Bundle.parse(written.read_bytes()), package.read_bytes()
    assert bundle.key_id == public.id == pair("acme").id
    assert bundle.faults(public, data, "legal.lime") == []
    assert bundle.faults(public, data, "other.lime") != []
    assert bundle.faults(public, data + b" ", "legal.lime") != []


def test_keys_with_a_password(package: Path, tmp_path: Path) -> None:
    private, public = Pair().write(tmp_path, password="a secret")
    with pytest.raises(PolicyError, match="cannot be used"):
        sign_skill(package, private)
    with pytest.raises(PolicyError, match="cannot be used"):
        sign_skill(package, private, "another")
    assert not signature_path(package).exists()
    sign_skill(package, private, "a secret")
    assert ours("verify", package, "--key", public)[0] == 0


def test_what_cannot_be_signed_is_not(package: Path, tmp_path: Path) -> None:
    private, public = pair("acme").write(tmp_path)
    with pytest.raises(PolicyError, match="cannot be used"):
        sign_skill(package, public)
    damaged = tmp_path / "damaged.lime"
    damaged.write_bytes(package.read_bytes()[:-1])
    with pytest.raises(SkillFormatError):
        sign_skill(damaged, private)
    assert not signature_path(damaged).exists()


def test_verify_says_no(package: Path, tmp_path: Path) -> None:
    public = pair("acme").write(tmp_path)[1]
    assert ours("verify", package)[0] == 0  # valid, and no signature was asked for
    code, output = ours("verify", package, "--key", public)
    assert code == 1
    assert "signature" in output
    assert ours("verify", tmp_path / "nothing.lime")[0] == 1
    assert ours("verify", package, "--key", public, "--trust", public)[0] == 2
