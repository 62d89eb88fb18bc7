"""The checks behind `lime-edge verify`: package, signature, binding to a model, golden prompts.

Each check gives one verdict: it holds, it fails, or it was not requested. The package is parsed even if its signature
fails, so that all faults are reported; golden prompts run only if every other check holds. Keys and policies need
`cryptography`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lime_edge.contract.model import read_contract
from lime_edge.contract.model_files import file_faults
from lime_edge.contract.names import MODEL_JSON
from lime_edge.errors import SkillError, SkillMismatchError, SkillTrustError
from lime_edge.reports.describe import Report
from lime_edge.reports.tables import Table
from lime_edge.skills.compatibility import check_skill
from lime_edge.skills.package import Skill, decode_skill, read_package
from lime_edge.trust.keys import PublicKey, read_key
from lime_edge.trust.policy import TrustPolicy
from lime_edge.trust.signature_file import read_signature, signature_path
from lime_edge.trust.sigstore_bundle import Bundle

if TYPE_CHECKING:
    from lime_edge.runtime import Runtime

_WORDS = {True: "yes", False: "NO", None: "not requested"}


@dataclass(frozen=True)
class Verdict:
    """Result of one check.

    Attributes:
        about: Name of the check.
        holds: Whether it holds; None if it was not requested.
        said: Short explanation.
        faults: Every reason why it fails.
    """

    about: str
    holds: bool | None
    said: str
    faults: tuple[str, ...] = ()

    @classmethod
    def refused(cls, about: str, error: SkillError) -> Verdict:
        """The check failed with this error."""
        return cls(about, False, error.message, error.faults)


@dataclass(frozen=True)
class Asked:
    """A request to verify a package; a check whose field is None is not made.

    Attributes:
        skill: The package; or an exported model, of which only the files are verified.
        signature: Its detached signature; None is the file beside the package.
        judge: Public key of the expected signer, or policy that has to admit the package.
        model: Exported model that the skill has to fit and to reproduce its golden prompts on.
    """

    skill: Path
    signature: Path | None = None
    judge: PublicKey | TrustPolicy | None = None
    model: Path | None = None


@dataclass(frozen=True)
class Findings:
    """The verdicts on one package, whose bytes were read once.

    Attributes:
        asked: The request.
        sha256: SHA-256 of the file, hex; of a model, the digest of its graph.
        verdicts: One for each check.
    """

    asked: Asked
    sha256: str
    verdicts: tuple[Verdict, ...]

    @property
    def hold(self) -> bool:
        """Whether every requested check holds."""
        return not any(verdict.holds is False for verdict in self.verdicts)

    def describe(self) -> Report:
        """The verdicts as plain JSON values and as a table."""
        document = {
            "file": str(self.asked.skill),
            "sha256": self.sha256,
            "holds": self.hold,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }
        rows = [
            (one.about, _WORDS[one.holds], "\n".join([one.said, *(f"- {fault}" for fault in one.faults)]))
            for one in self.verdicts
        ]
        return document, [Table(str(self.asked.skill), rows, ("verdict", "holds", "why"))]


def judge(key: Path | None, trust: Path | None) -> PublicKey | TrustPolicy | None:
    """Read the key or the policy; None if neither is given.

    Raises:
        PolicyError: The file cannot be read or is invalid.
    """
    return read_key(key) if key is not None else TrustPolicy.read(trust) if trust is not None else None


def verify(asked: Asked) -> Findings:
    """Verify one package, or the files of an exported model.

    Raises:
        SkillFormatError: The file cannot be read.
        ModelError: The model cannot be read.
    """
    if (asked.skill / MODEL_JSON).is_file():
        return _verify_model(asked)
    data = read_package(asked.skill)
    soundness, skill = _soundness(data, asked.skill)
    verdicts = [soundness, _signature(data, skill, asked)]
    if asked.model is not None:
        verdicts.append(_binding(skill, asked.model))
        verdicts.append(_golden(skill, asked.skill, asked.model, verdicts))
    return Findings(asked, hashlib.sha256(data).hexdigest(), tuple(verdicts))


def _verify_model(asked: Asked) -> Findings:
    """Verify the files of a model directory. lime.json itself is not signed."""
    contract = read_contract(asked.skill)
    faults = file_faults(asked.skill, contract)
    said = "some cannot be used: copy the directory again" if faults else "all match their digests in lime.json"
    return Findings(asked, contract.graph_digest, (Verdict("files", not faults, said, tuple(faults)),))


def _soundness(data: bytes, path: Path) -> tuple[Verdict, Skill | None]:
    try:
        skill = decode_skill(data, path)
    except SkillError as error:
        return Verdict.refused("package", error), None
    bounds = ", ".join(f"|{kind}| <= {bound:g}" for kind, bound in skill.manifest.bounds.items())
    said = f"{skill.name} {skill.manifest.version}, sound; digest {skill.digest[:12]}, {bounds}"
    return Verdict("package", True, said), skill


def _signature(data: bytes, skill: Skill | None, asked: Asked) -> Verdict:
    about, path = "signature", signature_path(asked.skill) if asked.signature is None else asked.signature
    try:
        signature = read_signature(path)
        if isinstance(asked.judge, PublicKey):
            return Verdict(about, True, _by_key(asked.judge, data, signature, asked.skill, path))
        if asked.judge is not None:
            return Verdict(about, True, _by_policy(asked.judge, data, signature, asked.skill, skill))
    except SkillTrustError as error:
        return Verdict.refused(about, error)
    reason = "the package has none" if signature is None else f"{path} was not verified: give --key or --trust"
    return Verdict(about, None, reason)


def _by_key(key: PublicKey, data: bytes, signature: bytes | None, skill: Path, path: Path) -> str:
    if signature is None:
        raise SkillTrustError("not signed", [f"the signature {path} does not exist"])
    if faults := Bundle.parse(signature).faults(key, data, skill.name):
        raise SkillTrustError("the signature is invalid", faults)
    return f"signed with the key {key.id}"


def _by_policy(policy: TrustPolicy, data: bytes, signature: bytes | None, path: Path, skill: Skill | None) -> str:
    signer = policy.vouch(data, signature, path)
    if skill is not None:
        policy.permit(skill.manifest, signer)
    if signer is None:
        return "the policy admits it without a signature"
    return f"the policy admits it: signed by {signer.publisher} with the key {signer.key}"


def _binding(skill: Skill | None, model: Path) -> Verdict:
    contract = read_contract(model)
    if skill is None:
        return Verdict("binding", False, "not checked: the package is not sound")
    try:
        check_skill(skill, contract)
    except SkillMismatchError as error:
        return Verdict.refused("binding", error)
    name = f"{contract.backbone_name} ({contract.precision})"
    return Verdict("binding", True, f"backbone, shared adapter, module table and routing match {name} exactly")


def _golden(skill: Skill | None, path: Path, model: Path, before: Sequence[Verdict]) -> Verdict:
    about = "golden prompts"
    if skill is None or any(verdict.holds is False for verdict in before):
        return Verdict(about, False, "not run: a check above fails")
    from lime_edge.runtime import Runtime

    try:
        return Verdict(about, True, _prove(Runtime.load(model, verify=True), path, skill))
    except SkillError as error:
        return Verdict.refused(about, error)


def _prove(runtime: Runtime, path: Path, skill: Skill) -> str:
    info = runtime.load_skill(path, prove=True)
    if info.digest != skill.digest:
        raise SkillTrustError(f"{path} changed while it was being verified; try again")
    return f"all {len(skill.manifest.golden)} are reproduced on this machine, on {runtime.device}"
