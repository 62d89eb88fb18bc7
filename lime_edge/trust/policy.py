"""Which skills may be used: the trust policy of a runtime or a store, applied to the bytes of one package.

The signature is verified on the bytes before anything of them is parsed, and the bytes that are parsed afterwards are
those same bytes. Without a policy nothing here runs. Knows nothing of what is loaded or installed.
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
        publisher: As the policy names them.
        key: Fingerprint of the key.
    """

    publisher: str
    key: str


@dataclass(frozen=True)
class TrustedSkill:
    """A sound skill that the policy takes, and who signed it; None where nobody had to."""

    skill: Skill
    signer: Signer | None


class TrustPolicy:
    """What a policy file says, ready to be asked. Safe to use from several threads.

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
            PolicyError: Names every fault of it.
            MissingExtraError: It trusts keys, and `cryptography` is not installed.
        """
        return cls(read_policy_document(path))

    def admit(
        self,
        data: bytes,
        signature: bytes | None,
        path: str | os.PathLike[str] | None = None,
        now: datetime | None = None,
    ) -> TrustedSkill:
        """Verify the signature, then parse the very bytes that it was verified on, then judge what they say.

        Args:
            data: Of the package, unparsed.
            signature: The detached signature; None if there is none.
            path: Where the bytes came from. Its last part is held against the name that was signed; None where the
                bytes have no name.
            now: With its zone; None takes the clock.

        Raises:
            SkillTrustError: Names everything that the policy has against it.
            SkillFormatError: The signature holds, but the package is not sound.
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
        """The first half of `admit`: everything that can be said before the package is parsed.

        Returns:
            Who signed the bytes; None where there is no signature and the policy does not ask every skill for one, or
            where it trusts nobody's.

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
            faults.append(f"there is no signature ({file or 'NAME.lime'}{SIGNATURE_SUFFIX}); the policy asks for one")
        if faults:
            raise SkillTrustError(f"{_called(path)} is refused by the trust policy", bounded(faults))
        return signer

    def permit(self, manifest: Manifest, signer: Signer | None) -> None:
        """The second half of `admit`: what the policy has to say of a skill by its name, version and digest.

        Raises:
            SkillTrustError: Names every fault.
        """
        if faults := [*self._name_faults(manifest.name, signer), *self._age_faults(manifest)]:
            raise SkillTrustError(f"skill {manifest.name!r} is refused by the trust policy", bounded(faults))

    def _signer(
        self, data: bytes, signature: bytes, file: str | None, now: datetime, faults: list[str]
    ) -> Signer | None:
        """The signer, after adding all that speaks against the signature; None for a stranger."""
        try:
            bundle = Bundle.parse(signature)
        except SkillTrustError as error:
            faults += [f"{error.message}: {fault}" for fault in error.faults]
            return None
        if bundle.key_id in self.terms.revoked_keys:
            faults.append(f"the key {bundle.key_id[:12]} is revoked: get the skill signed anew, with another key")
        if bundle.key_id not in self._keys:
            faults.append(f"it is signed with the key {bundle.key_id}, which is not trusted; {self._known()}")
            return None
        publisher, key, window = self._keys[bundle.key_id]
        faults += _outside(f"the key {key.id[:12]} of {publisher.name!r}", window, now)
        faults += bundle.faults(key, data, file)
        return Signer(publisher.name, key.id)

    def _known(self) -> str:
        listed = [f"{key.id[:12]} ({publisher.name})" for publisher, key, _ in self._keys.values()]
        return f"trusted are {', '.join(bounded(listed))}"

    def _name_faults(self, name: str, signer: Signer | None) -> Iterator[str]:
        """Names that a publisher may ship are theirs alone, so that leaving a signature out gains nothing."""
        owners = [one for one in self.terms.publishers if any(fnmatchcase(name, pattern) for pattern in one.skills)]
        if signer is None:
            if owners:
                listed = ", ".join(repr(one.name) for one in owners)
                yield f"there is no signature; the name {name!r} is kept for what {listed} signs"
        elif signer.publisher not in [one.name for one in owners]:
            may = next(", ".join(one.skills) for one in self.terms.publishers if one.name == signer.publisher)
            yield f"it is signed by {signer.publisher!r}, who may not ship {name!r}; only {may}"

    def _age_faults(self, manifest: Manifest) -> Iterator[str]:
        least = self.terms.minimum.get(manifest.name)
        if least is not None and precedence(manifest.version) < precedence(least):
            yield f"version {manifest.version} is older than {least}, the oldest that the policy takes: update it"
        if manifest.digest in self.terms.revoked_skills:
            yield f"the skill with digest {manifest.digest[:12]} is revoked: update or remove it"


def read_trusted_skill(path: str | os.PathLike[str], policy: TrustPolicy | None) -> TrustedSkill:
    """Read a package and the signature beside it, each once, and admit it; as `read_skill` where there is no policy.

    Raises:
        SkillTrustError: As `TrustPolicy.admit`; or the signature cannot be read.
        SkillFormatError: Not a sound package.
    """
    data = read_package(path)
    if policy is None:
        return TrustedSkill(decode_skill(data, path), None)
    return policy.admit(data, read_signature(signature_path(path)), path)


def as_policy(trust: TrustPolicy | str | os.PathLike[str] | None) -> TrustPolicy | None:
    """A policy, or the file of one."""
    return trust if trust is None or isinstance(trust, TrustPolicy) else TrustPolicy.read(trust)


def _outside(what: str, window: Window, now: datetime) -> Iterator[str]:
    if window.start is not None and now < window.start:
        yield f"{what} holds from {window.start:%Y-%m-%d %H:%M} UTC on; it is {now:%Y-%m-%d %H:%M}"
    if window.end is not None and now >= window.end:
        yield f"{what} expired at {window.end:%Y-%m-%d %H:%M} UTC; it is {now:%Y-%m-%d %H:%M}"


def _called(path: str | os.PathLike[str] | None) -> str:
    return "the skill" if path is None else show(str(path))
