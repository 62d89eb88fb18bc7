"""A table of attacks: what a stranger or a dishonest publisher can do to a package and its signature."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from lime_edge.skills.package import read_skill
from lime_edge.trust.signature_file import signature_path
from tests.support import runtime_models as models
from tests.support.signatures import Pair, bundle, day, key_table, pair, policy, publisher, signed, statement

ACME, NEXT, STRANGER, OTHER = (pair(name) for name in ("acme", "next", "stranger", "other"))


def usual(*more: str, head: str = "", **times: str) -> str:
    """The text of a policy: acme may ship legal and brief*, others may ship their-*."""
    return policy(
        publisher("acme", ["legal", "brief*"], key_table(ACME, **times)),
        publisher("others", ["their-*"], key_table(OTHER)),
        *more,
        head=head,
    )


@dataclass(frozen=True)
class Scene:
    """A folder with a package legal.lime and its signature."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "legal.lime"

    @property
    def signature(self) -> Path:
        return signature_path(self.path)

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    def forge(self, key: Pair = ACME, name: str = "legal.lime", **changes: Any) -> None:
        """Sign the current file, with other values at the given paths of the statement; ``a__b`` means key b of a."""
        changed: Any = statement(self.data, name)
        for where, value in changes.items():
            target = changed
            *path, last = where.split("__")
            for step in path:
                target = target[int(step) if step.isdigit() else step]
            target[int(last) if last.isdigit() else last] = value
        self.signature.write_bytes(bundle(key, changed))

    def rebundle(self, change: Callable[[Any], Any]) -> None:
        """Change the bundle around the valid signature."""
        document = json.loads(self.signature.read_bytes())
        changed = change(document)
        self.signature.write_text(json.dumps(document if changed is None else changed), "utf-8")


Attack = Callable[[Scene], str | None]
ATTACKS: dict[str, tuple[Attack, str]] = {}


def attack(message: str) -> Callable[[Attack], Attack]:
    """Add a function to the table, with a pattern for the refusal.

    The function changes the scene. It returns the text of a policy, or None for `usual()`.
    """

    def add(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (function, message)
        return function

    return add


def flip(scene: Scene, at: int) -> None:
    """Flip one bit of the package's byte at `at`."""
    data = bytearray(scene.data)
    data[at] ^= 1
    scene.path.write_bytes(data)


@attack("over a file with SHA-256 .* it was changed or written again")
def byte_of_a_tensor_changed(scene: Scene) -> None:
    flip(scene, -1)


@attack("over a file with SHA-256")
def byte_of_the_header_changed(scene: Scene) -> None:
    flip(scene, 20)


@attack("over a file with SHA-256")
def file_cut_short(scene: Scene) -> None:
    scene.path.write_bytes(scene.data[:-2])


@attack("over a file with SHA-256")
def repacked(scene: Scene) -> None:
    """Same manifest and tensors, hence the same digest, in other container bytes."""
    import safetensors

    digest = read_skill(scene.path).digest
    with safetensors.safe_open(scene.path, "np") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    before = scene.data
    scene.path.write_bytes(save(dict(reversed(tensors.items())), metadata))
    assert scene.data != before
    assert read_skill(scene.path).digest == digest


@attack("it was signed as 'brief.lime', the file is called 'legal.lime'")
def file_renamed(scene: Scene) -> None:
    shutil.copy(signed(models.skill(models.exported(), "brief"), ACME), scene.path)
    scene.forge(name="brief.lime")


@attack("the signature belongs to another file\n.*it was signed as 'brief.lime'")
def signature_of_another_skill(scene: Scene) -> None:
    other = signed(models.skill(models.exported(), "brief"), ACME)
    shutil.copy(signature_path(other), scene.signature)


@attack("which is not trusted; trusted keys are [0-9a-f]{12} .acme., [0-9a-f]{12} .others.")
def another_key(scene: Scene) -> None:
    scene.forge(STRANGER)


@attack("was not made by the key .* that it names, or was changed afterwards")
def another_key_under_a_trusted_name(scene: Scene) -> None:
    scene.forge(STRANGER)
    scene.rebundle(lambda b: b["verificationMaterial"]["publicKey"].update(hint=ACME.id))


@attack("unknown key 'rawBytes'")
def key_brought_along(scene: Scene) -> None:
    scene.forge(STRANGER)
    scene.rebundle(lambda b: b["verificationMaterial"]["publicKey"].update(rawBytes=STRANGER.pem, hint=ACME.id))


@attack("lacks the key 'hint'")
def key_not_named(scene: Scene) -> None:
    scene.rebundle(lambda b: b["verificationMaterial"]["publicKey"].clear())


@attack("the key .* of 'acme' is valid only from")
def key_not_yet_valid(scene: Scene) -> str:
    return usual(from_=day(1))


@attack("the key .* of 'acme' expired at")
def key_no_longer_valid(scene: Scene) -> str:
    return usual(until=day(-1))


@attack("the key .* is revoked: have the skill signed again")
def key_revoked(scene: Scene) -> str:
    return usual(f'[revoked]\nkeys = ["{ACME.id}"]')


@attack("the trust policy expired at")
def policy_expired(scene: Scene) -> str:
    return usual(head=f"expires = {day(-1)}")


@attack("the skill with digest .* is revoked: update or remove it")
def skill_revoked(scene: Scene) -> str:
    return usual(f'[revoked]\nskills = ["{read_skill(scene.path).digest}"]')


@attack("version 1.0.0 is older than 1.0.1, the oldest that the policy accepts")
def version_below_the_least(scene: Scene) -> str:
    return usual('[minimum]\nlegal = "1.0.1"')


@attack("there is no signature .legal.lime.sig.; the policy requires one")
def signature_stripped(scene: Scene) -> None:
    scene.signature.unlink()


@attack("there is no signature; the name 'legal' is reserved for skills signed by 'acme'")
def signature_stripped_where_none_is_asked_for(scene: Scene) -> str:
    scene.signature.unlink()
    return usual().replace("require_signatures = true", "require_signatures = false")


@attack("signed by 'others', who may not ship 'legal'; only their-")
def name_of_another_publisher(scene: Scene) -> None:
    scene.forge(OTHER)


@attack("'verificationMaterial', 'dsseEnvelope'|lacks the key 'mediaType'")
def empty_object(scene: Scene) -> None:
    scene.signature.write_bytes(b"{}")


@attack("signed with a certificate .certificate.; only keys are supported")
def sigstore_bundle_without_a_key(scene: Scene) -> None:
    scene.rebundle(lambda b: b.update(verificationMaterial={"certificate": {"rawBytes": "AA=="}, "tlogEntries": []}))


@attack("signed with a certificate .x509CertificateChain.")
def certificate_chain(scene: Scene) -> None:
    scene.rebundle(lambda b: b.update(verificationMaterial={"x509CertificateChain": {"certificates": []}}))


@attack("it signs a message .cosign sign-blob.")
def bundle_of_cosign(scene: Scene) -> None:
    scene.rebundle(lambda b: {"mediaType": b["mediaType"], "messageSignature": {"signature": "AA=="}})


@attack("mediaType is 'application/vnd.dev.sigstore.bundle.v0.2")
def older_bundle(scene: Scene) -> None:
    scene.rebundle(lambda b: b.update(mediaType="application/vnd.dev.sigstore.bundle.v0.2+json"))


@attack("payloadType is 'text/plain'")
def other_payload_type(scene: Scene) -> None:
    scene.signature.write_bytes(bundle(ACME, statement(scene.data, "legal.lime"), kind="text/plain"))


@attack("not a bundle: (Unterminated|Expecting)")
def signature_cut_short(scene: Scene) -> None:
    scene.signature.write_bytes(scene.signature.read_bytes()[:-40])


@attack("not a bundle: Expecting value")
def signature_empty(scene: Scene) -> None:
    scene.signature.write_bytes(b"")


@attack("it has more than 65536 bytes")
def signature_huge(scene: Scene) -> None:
    with open(scene.signature, "ab") as file:
        file.truncate(2**33)  # sparse: it must not be read


@attack("not a bundle: 'utf-8' codec")
def signature_no_text(scene: Scene) -> None:
    scene.signature.write_bytes(bytes(range(256)))


@attack("not a bundle: nested too deeply|not a bundle: .*expected at most")
def signature_nested(scene: Scene) -> None:
    scene.signature.write_bytes(b"[" * 60_000)


@attack("not a bundle: key 'hint' appears twice")
def two_hints(scene: Scene) -> None:
    text = scene.signature.read_text("utf-8")
    scene.signature.write_text(text.replace('{"hint"', f'{{"hint": "{STRANGER.id}", "hint"'), "utf-8")


@attack("it is a symbolic link; expected the file itself")
def signature_linked(scene: Scene) -> None:
    real = scene.signature.rename(scene.folder / "elsewhere.sig")
    scene.signature.symlink_to(real)


@attack("it is not a regular file")
def signature_a_pipe(scene: Scene) -> None:
    scene.signature.unlink()
    os.mkfifo(scene.signature)


@attack("signatures is a list of 2")
def two_signatures(scene: Scene) -> None:
    scene.rebundle(lambda b: b["dsseEnvelope"]["signatures"].insert(0, b["dsseEnvelope"]["signatures"][0]))


@attack("signatures is a list of 0")
def no_signature(scene: Scene) -> None:
    scene.rebundle(lambda b: b["dsseEnvelope"]["signatures"].clear())


@attack("was not made by the key")
def signature_of_zeros(scene: Scene) -> None:
    """A verifier that does not reject r = s = 0 accepts it for every message."""
    scene.rebundle(lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="MAYCAQACAQA="))


@attack("sig is .*expected base64")
def signature_in_web_form(scene: Scene) -> None:
    scene.rebundle(lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="-_-_"))


@attack("the signed statement is not strict JSON")
def statement_no_json(scene: Scene) -> None:
    scene.signature.write_bytes(bundle(ACME, b"legal.lime"))


@attack("statement lacks the key '_type'")
def statement_empty(scene: Scene) -> None:
    scene.signature.write_bytes(bundle(ACME, {}))


@attack("subject is a list of 2")
def two_subjects(scene: Scene) -> None:
    one = statement(scene.data, "legal.lime")["subject"][0]
    scene.forge(subject=[one, one])


@attack("subject is a list of 0")
def no_subject(scene: Scene) -> None:
    scene.forge(subject=[])


@attack("digest has the unknown key 'md5'")
def weak_hash_of_the_subject(scene: Scene) -> None:
    scene.forge(subject__0__digest={"md5": "0" * 32})


@attack("algorithm is 'md5'; expected one of sha256")
def weak_hash_of_the_file(scene: Scene) -> None:
    scene.forge(predicate__resources__0__algorithm="md5")


@attack("hash_type is 'blake2'")
def another_hash(scene: Scene) -> None:
    scene.forge(predicate__serialization__hash_type="blake2")


@attack("method is 'shards'")
def statement_of_shards(scene: Scene) -> None:
    scene.forge(predicate__serialization={"method": "shards", "hash_type": "sha256", "allow_symlinks": False})


@attack("resources is a list of 0")
def no_resources(scene: Scene) -> None:
    scene.forge(predicate__resources=[])


@attack("resources is a list of 2")
def another_resource_beside(scene: Scene) -> None:
    resource = statement(scene.data, "legal.lime")["predicate"]["resources"][0]
    scene.forge(predicate__resources=[resource, {**resource, "name": "legal.lime"}])


@attack("name is 'legal.lime'; expected one of [.]")
def statement_of_a_folder(scene: Scene) -> None:
    scene.forge(predicate__resources__0__name="legal.lime")


@attack("its digest does not match its resources")
def subject_of_other_resources(scene: Scene) -> None:
    scene.forge(subject__0__digest={"sha256": "0" * 64})


@attack("ignore_paths excludes the signed file itself")
def signed_file_left_out(scene: Scene) -> None:
    scene.forge(predicate__serialization__ignore_paths=[".git", "./"])


@attack("allow_symlinks is 'yes'; expected true or false")
def links_allowed_in_words(scene: Scene) -> None:
    scene.forge(predicate__serialization__allow_symlinks="yes")


@attack("predicateType is 'https://model_signing/Digests/v0.1'")
def form_before_1_0(scene: Scene) -> None:
    """That format has several subjects and no digest over them."""
    current = statement(scene.data, "legal.lime")
    subject = [{"name": ".", "digest": {"sha256": current["predicate"]["resources"][0]["digest"]}}]
    scene.forge(subject=subject, predicateType="https://model_signing/Digests/v0.1")


@attack("_type is 'https://in-toto.io/Statement/v0.1'")
def older_statement(scene: Scene) -> None:
    scene.forge(_type="https://in-toto.io/Statement/v0.1")


@attack("predicate has the unknown key 'condition'")
def statement_that_says_more(scene: Scene) -> None:
    scene.forge(predicate__condition="only on Sundays")
