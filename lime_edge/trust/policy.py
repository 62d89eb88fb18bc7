"""Applies the trust policy of a runtime or a store to the bytes of one package.

The signature is verified before any byte of the package is parsed, and the parsed bytes are the verified bytes.
Normative page: docs/trust.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from lime_edge.common.semver import precedence
from lime_edge.common.strict_json import bounded, show
from lime_edge.contract.names import SIGNATURE_SUFFIX
from lime_edge.errors import SkillTrustError
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import Skill, decode_skill, read_package

from .keys import PublicKey
from .policy_file import PolicyDocument, Publisher, Window, read_policy_document
from .signature_file import read_signature, signature_path
from .sigstore_bundle import Bundle


@dataclass(frozen=True)
class Signer:
    """Who signed a skill.

    Attributes:
        publisher: Name of the publisher in the policy.
        key: Fingerprint of the key.
    """

    publisher: str
    key: str


@dataclass(frozen=True)
class TrustedSkill:
    """A valid skill that the policy accepts, and its signer; None if no signature was required."""

    skill: Skill
    signer: Signer | None


class TrustPolicy:
    """Decides by a policy document which skills are accepted. Thread-safe.

    Args:
        terms: From `read_policy_document`.
    """

    def __init__(self, terms: PolicyDocument) -> None:
        self.terms = terms
        self._keys: dict[str, tuple[Publisher, PublicKey, Window]] = {
            key.id: (publisher, key, window) for publisher in terms.publishers for key, window in publisher.keys
        }

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TrustPolicy:
        """Read a policy file.

        Raises:
            PolicyError: Names every fault of the file.
            MissingExtraError: The policy lists keys, and `cryptography` is not installed.
        """
        return cls(read_policy_document(path))

    def admit(
        self,
        data: bytes,
        signature: bytes | None,
        path: str | os.PathLike[str] | None = None,
        now: datetime | None = None,
    ) -> TrustedSkill:
        """Verify the signature, then parse the verified bytes, then check the manifest against the policy.

        Args:
            data: The bytes of the package, not yet parsed.
            signature: The detached signature; None if there is none.
            path: The file that the bytes came from. Its name must be the signed name; None if the bytes have no name.
            now: Time with a zone; None means the current time.

        Raises:
            SkillTrustError: Names every reason why the policy refuses the skill.
            SkillFormatError: The signature is valid, but the package is not.
        """
        signer = self.vouch(data, signature, path, now)
        skill = decode_skill(data, "a skill" if path is None else path)
        self.permit(skill.manifest, signer)
        return TrustedSkill(skill, signer)

    def vouch(
        self,
        data: bytes,
        signature: bytes | None,
        path: str | os.PathLike[str] | None = None,
        now: datetime | None = None,
    ) -> Signer | None:
        """The first half of `admit`: all checks that are made before the package is parsed. Same arguments.

        Returns:
            Who signed the bytes. None if there is no signature and the policy does not require one, or if the policy
            has no keys and requires no signature.

        Raises:
            SkillTrustError: Names every fault.
        """
        now = datetime.now(UTC) if now is None else now
        faults = [*_outside("the trust policy", self.terms.validity, now)]
        file = None if path is None else Path(path).name
        signer = None
        if signature is not None and self._keys:
            signer = self._signer(data, signature, file, now, faults)
        elif self.terms.require_signatures:
            faults.append(f"there is no signature ({file or 'NAME.lime'}{SIGNATURE_SUFFIX}); the policy requires one")
        if faults:
            raise SkillTrustError(f"{_called(path)} is refused by the trust policy", bounded(faults))
        return signer

    def permit(self, manifest: Manifest, signer: Signer | None) -> None:
        """The second half of `admit`: checks the name, the version and the digest of a skill.

        Raises:
            SkillTrustError: Names every fault.
        """
        if faults := [*self._name_faults(manifest.name, signer), *self._age_faults(manifest)]:
            raise SkillTrustError(f"skill {manifest.name!r} is refused by the trust policy", bounded(faults))

    def _signer(
        self, data: bytes, signature: bytes, file: str | None, now: datetime, faults: list[str]
    ) -> Signer | None:
        """The signer; None if the key is unknown. Faults of the signature are added to `faults`."""
        try:
            bundle = Bundle.parse(signature)
        except SkillTrustError as error:
            faults += [f"{error.message}: {fault}" for fault in error.faults]
            return None
        if bundle.key_id in self.terms.revoked_keys:
            faults.append(f"the key {bundle.key_id[:12]} is revoked: have the skill signed again with another key")
        if bundle.key_id not in self._keys:
            faults.append(f"it is signed with the key {bundle.key_id}, which is not trusted; {self._trusted_keys()}")
            return None
        publisher, key, window = self._keys[bundle.key_id]
        faults += _outside(f"the key {key.id[:12]} of {publisher.name!r}", window, now)
        faults += bundle.faults(key, data, file)
        return Signer(publisher.name, key.id)

    def _trusted_keys(self) -> str:
        listed = [f"{key.id[:12]} ({publisher.name})" for publisher, key, _ in self._keys.values()]
        return f"trusted keys are {', '.join(bounded(listed))}"

    def _name_faults(self, name: str, signer: Signer | None) -> Iterator[str]:
        """Names in a publisher's patterns require that publisher's signature, so removing a signature gains nothing."""
        owners = [one for one in self.terms.publishers if any(fnmatchcase(name, pattern) for pattern in one.skills)]
        if signer is None:
            if owners:
                listed = ", ".join(repr(one.name) for one in owners)
                yield f"there is no signature; the name {name!r} is reserved for skills signed by {listed}"
        elif signer.publisher not in [one.name for one in owners]:
            may = next(", ".join(one.skills) for one in self.terms.publishers if one.name == signer.publisher)
            yield f"it is signed by {signer.publisher!r}, who may not ship {name!r}; only {may}"

    def _age_faults(self, manifest: Manifest) -> Iterator[str]:
        least = self.terms.minimum.get(manifest.name)
        if least is not None and precedence(manifest.version) < precedence(least):
            yield f"version {manifest.version} is older than {least}, the oldest that the policy accepts: update it"
        if manifest.digest in self.terms.revoked_skills:
            yield f"the skill with digest {manifest.digest[:12]} is revoked: update or remove it"


def read_trusted_skill(path: str | os.PathLike[str], policy: TrustPolicy | None) -> TrustedSkill:
    """Read a package and the signature file beside it, each once, and apply the policy.

    Without a policy the signature is ignored, as by `read_skill`.

    Raises:
        SkillTrustError: The policy refuses the skill, or the signature cannot be read.
        SkillFormatError: The package is not valid.
    """
    data = read_package(path)
    if policy is None:
        return TrustedSkill(decode_skill(data, path), None)
    return policy.admit(data, read_signature(signature_path(path)), path)


def as_policy(trust: TrustPolicy | str | os.PathLike[str] | None) -> TrustPolicy | None:
    """The policy itself, or the one in the given file."""
    return trust if trust is None or isinstance(trust, TrustPolicy) else TrustPolicy.read(trust)


def _outside(what: str, window: Window, now: datetime) -> Iterator[str]:
    if window.start is not None and now < window.start:
        yield f"{what} is valid only from {window.start:%Y-%m-%d %H:%M} UTC; it is {now:%Y-%m-%d %H:%M}"
    if window.end is not None and now >= window.end:
        yield f"{what} expired at {window.end:%Y-%m-%d %H:%M} UTC; it is {now:%Y-%m-%d %H:%M}"


def _called(path: str | os.PathLike[str] | None) -> str:
    return "the skill" if path is None else show(str(path))
