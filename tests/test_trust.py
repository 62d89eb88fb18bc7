"""Every attack on signatures, on a live runtime: refused in its own words, and what was loaded answers as before."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.numpy import save

from lime_edge.errors import SkillFormatError, SkillTrustError, SkillVersionError
from lime_edge.package import read_skill
from lime_edge.runtime import Runtime
from lime_edge.trust import Signer, TrustPolicy, signature_path

from . import runtime_models as models
from .signatures import Pair, bundle, day, key_table, pair, policy, publisher, signed, statement

ACME, NEXT, STRANGER, OTHER = (pair(name) for name in ("acme", "next", "stranger", "other"))


def usual(*more: str, head: str = "", **times: str) -> str:
    """Acme may ship legal and brief, the others what is theirs."""
    return policy(
        publisher("acme", ["legal", "brief*"], key_table(ACME, **times)),
        publisher("others", ["their-*"], key_table(OTHER)),
        *more,
        head=head,
    )


@dataclass(frozen=True)
class Scene:
    """A folder with a signed skill, and the policy that takes it."""

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
        """A signature over the file as it is, of a statement with other values at the given paths."""
        said: Any = statement(self.data, name)
        for where, value in changes.items():
            at = said
            *path, last = where.split("__")
            for step in path:
                at = at[int(step) if step.isdigit() else step]
            at[int(last) if last.isdigit() else last] = value
        self.signature.write_bytes(bundle(key, said))

    def rebundle(self, change: Callable[[Any], Any]) -> None:
        """The good signature in a changed bundle."""
        document = json.loads(self.signature.read_bytes())
        changed = change(document)
        self.signature.write_text(json.dumps(document if changed is None else changed), "utf-8")


Attack = Callable[[Scene], str | None]
ATTACKS: dict[str, tuple[Attack, str]] = {}


def attack(says: str) -> Callable[[Attack], Attack]:
    """One line of the table: what is done, and what is said to it. It returns another policy, or None for the usual."""

    def add(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (function, says)
        return function

    return add


def _flip(scene: Scene, at: int) -> None:
    data = bytearray(scene.data)
    data[at] ^= 1
    scene.path.write_bytes(data)


@attack("over a file with SHA-256 .* it was changed or packed anew")
def byte_of_a_tensor_changed(scene: Scene) -> None:
    _flip(scene, -1)


@attack("over a file with SHA-256")
def byte_of_the_header_changed(scene: Scene) -> None:
    _flip(scene, 20)


@attack("over a file with SHA-256")
def file_cut_short(scene: Scene) -> None:
    scene.path.write_bytes(scene.data[:-2])


@attack("over a file with SHA-256")
def packed_anew(scene: Scene) -> None:
    """The same manifest and tensors, so the same digest, in another container."""
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


@attack("which is not trusted; trusted are [0-9a-f]{12} .acme., [0-9a-f]{12} .others.")
def another_key(scene: Scene) -> None:
    scene.forge(STRANGER)


@attack("was not made by the key .* that it names, or was changed since")
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


@attack("the key .* of 'acme' holds from")
def key_not_yet_valid(scene: Scene) -> str:
    return usual(from_=day(1))


@attack("the key .* of 'acme' expired at")
def key_no_longer_valid(scene: Scene) -> str:
    return usual(until=day(-1))


@attack("the key .* is revoked: get the skill signed anew")
def key_revoked(scene: Scene) -> str:
    return usual(f'[revoked]\nkeys = ["{ACME.id}"]')


@attack("the trust policy expired at")
def policy_expired(scene: Scene) -> str:
    return usual(head=f"expires = {day(-1)}")


@attack("the skill with digest .* is revoked: update or remove it")
def skill_revoked(scene: Scene) -> str:
    return usual(f'[revoked]\nskills = ["{read_skill(scene.path).digest}"]')


@attack("version 1.0.0 is older than 1.0.1, the oldest that the policy takes")
def version_below_the_least(scene: Scene) -> str:
    return usual('[minimum]\nlegal = "1.0.1"')


@attack("there is no signature .legal.lime.sig.; the policy asks for one")
def signature_stripped(scene: Scene) -> None:
    scene.signature.unlink()


@attack("there is no signature; the name 'legal' is kept for what 'acme' signs")
def signature_stripped_where_none_is_asked_for(scene: Scene) -> str:
    scene.signature.unlink()
    return usual().replace("require_signatures = true", "require_signatures = false")


@attack("signed by 'others', who may not ship 'legal'; only their-")
def name_of_another_publisher(scene: Scene) -> None:
    scene.forge(OTHER)


@attack("'verificationMaterial', 'dsseEnvelope'|lacks the key 'mediaType'")
def empty_object(scene: Scene) -> None:
    scene.signature.write_bytes(b"{}")


@attack("signed with a certificate .certificate.; only keys are taken")
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


@attack("not a bundle: key 'hint' stands twice")
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
    """r = s = 0 holds for every message where it is not refused."""
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


@attack("its digest is not that of its resources")
def subject_of_other_resources(scene: Scene) -> None:
    scene.forge(subject__0__digest={"sha256": "0" * 64})


@attack("ignore_paths leaves out the signed file itself")
def signed_file_left_out(scene: Scene) -> None:
    scene.forge(predicate__serialization__ignore_paths=[".git", "./"])


@attack("allow_symlinks is 'yes'; expected true or false")
def links_allowed_in_words(scene: Scene) -> None:
    scene.forge(predicate__serialization__allow_symlinks="yes")


@attack("predicateType is 'https://model_signing/Digests/v0.1'")
def form_before_1_0(scene: Scene) -> None:
    """Its reader takes several subjects and no digest over them."""
    said = statement(scene.data, "legal.lime")
    subject = [{"name": ".", "digest": {"sha256": said["predicate"]["resources"][0]["digest"]}}]
    scene.forge(subject=subject, predicateType="https://model_signing/Digests/v0.1")


@attack("_type is 'https://in-toto.io/Statement/v0.1'")
def older_statement(scene: Scene) -> None:
    scene.forge(_type="https://in-toto.io/Statement/v0.1")


@attack("predicate has the unknown key 'condition'")
def statement_that_says_more(scene: Scene) -> None:
    scene.forge(predicate__condition="only on Sundays")


@pytest.fixture(scope="module")
def made() -> Runtime:
    return models.runtime(models.exported())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    shutil.copy(models.skill(models.exported(), "legal", seed=1), tmp_path / "legal.lime")
    signed(tmp_path / "legal.lime", ACME)
    return Scene(tmp_path)


def under(made: Runtime, text: str, folder: Path) -> Runtime:
    """A runtime on the same graph under a policy, with one skill loaded before."""
    path = folder / "policy.toml"
    path.write_text(usual(), "utf-8")
    found = Runtime(made._graph, made._text, {}, TrustPolicy.read(path))
    before = models.skill(models.exported(), "brief-one")
    found.load_skill(signed(before, ACME))
    path.write_text(text, "utf-8")
    found._trust = TrustPolicy.read(path)
    return found


def said(runtime: Runtime) -> list[tuple[int, ...]]:
    return [runtime.generate("is it so?", name, max_new_tokens=5).token_ids for name in (None, "brief-one")]


def test_a_signed_skill_is_taken_and_its_signer_named(made: Runtime, scene: Scene) -> None:
    runtime = under(made, usual(head=f"expires = {day(0)}", from_=day(0), until=day(0)), scene.folder)
    info = runtime.load_skill(scene.path)
    assert info.signer == Signer("acme", ACME.id)
    receipt = runtime.generate("x", "legal", max_new_tokens=1).receipt
    assert receipt["skills"][0]["signer"] == {"publisher": "acme", "key": ACME.id}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused(made: Runtime, scene: Scene, name: str) -> None:
    done, says = ATTACKS[name]
    text = done(scene)
    runtime = under(made, usual() if text is None else text, scene.folder)
    answers, skills, used = said(runtime), runtime.skills(), runtime._bank.in_use
    with pytest.raises(SkillTrustError) as caught:
        runtime.load_skill(scene.path)
    assert _found(says, str(caught.value)), caught.value
    assert (runtime.skills(), runtime._bank.in_use) == (skills, used)
    assert said(runtime) == answers


def _found(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, text) is not None


def test_nothing_is_parsed_before_the_signature_holds(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    def parsed(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr("lime_edge.trust.decode_skill", parsed)
    (scene.folder / "policy.toml").write_text(usual(), "utf-8")
    found = TrustPolicy.read(scene.folder / "policy.toml")
    with pytest.raises(SkillTrustError):
        found.admit(scene.data + b"x", scene.signature.read_bytes(), scene.path)
    with pytest.raises(AssertionError, match="parsed"):
        found.admit(scene.data, scene.signature.read_bytes(), scene.path)


def test_the_bytes_that_were_verified_are_the_bytes_that_are_loaded(
    monkeypatch: pytest.MonkeyPatch, made: Runtime, scene: Scene
) -> None:
    """The file is exchanged between every step: nothing reads it a second time."""
    from lime_edge import trust

    wanted = read_skill(scene.path).digest
    evil = models.skill(models.exported(), "legal", seed=666).read_bytes()
    vouch = TrustPolicy.vouch

    def exchanged(self: TrustPolicy, *args: Any) -> Signer | None:
        signer = vouch(self, *args)
        scene.path.write_bytes(evil)
        return signer

    runtime = under(made, usual(), scene.folder)
    monkeypatch.setattr(trust.TrustPolicy, "vouch", exchanged)
    assert runtime.load_skill(scene.path).digest == wanted != read_skill(scene.path).digest


def test_a_signed_skill_still_has_to_be_sound(made: Runtime, scene: Scene) -> None:
    scene.path.write_bytes(scene.data[:-2])
    scene.forge()
    with pytest.raises(SkillFormatError, match=r"not a sound skill package|not a skill package"):
        under(made, usual(), scene.folder).load_skill(scene.path)


def test_a_file_named_by_its_content_needs_no_name(made: Runtime, scene: Scene) -> None:
    import hashlib

    runtime = under(made, usual(), scene.folder)
    stored = scene.folder / f"{hashlib.sha256(scene.data).hexdigest()}.lime"
    scene.path.rename(stored)
    scene.signature.rename(signature_path(stored))
    assert runtime.load_skill(stored).signer == Signer("acme", ACME.id)
    other = stored.rename(scene.folder / f"{'0' * 64}.lime")
    signature_path(stored).rename(signature_path(other))
    with pytest.raises(SkillTrustError, match=r"it was signed as 'legal\.lime'"):
        runtime.load_skill(other, "other")


def test_every_fault_at_once(made: Runtime, scene: Scene) -> None:
    text = usual(f'[revoked]\nkeys = ["{ACME.id}"]', head=f"expires = {day(-2)}", until=day(-1))
    runtime = under(made, text, scene.folder)
    _flip(scene, -1)
    other = scene.path.rename(scene.folder / "other.lime")
    scene.signature.rename(signature_path(other))
    with pytest.raises(SkillTrustError) as caught:
        runtime.load_skill(other)
    wanted = ("policy expired", "is revoked", "of 'acme' expired", "over a file", "signed as 'legal.lime'")
    assert len(caught.value.faults) == len(wanted)
    assert all(any(one in fault for fault in caught.value.faults) for one in wanted)
    text = usual(f'[minimum]\nlegal = "2.0.0"\n[revoked]\nskills = ["{read_skill(_fresh(scene)).digest}"]')
    scene.forge(OTHER)
    with pytest.raises(SkillTrustError) as caught:
        under(made, text, scene.folder).load_skill(scene.path)
    assert len(caught.value.faults) == 3


def _fresh(scene: Scene) -> Path:
    shutil.copy(models.skill(models.exported(), "legal"), scene.path)
    return scene.path


# -- rotation and time -----------------------------------------------------------------------------


def test_keys_are_rotated(scene: Scene, tmp_path: Path) -> None:
    """Two keys of one publisher overlap; each signs while it is valid, whenever the signature was made."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    old = key_table(ACME, from_="2030-01-01", until="2030-03-31")
    new = key_table(NEXT, from_="2030-03-01")
    path = tmp_path / "policy.toml"
    path.write_text(policy(publisher("acme", ["legal"], old, new)), "utf-8")
    found = TrustPolicy.read(path)
    by_old, by_new = (bundle(key, statement(scene.data, "legal.lime")) for key in (ACME, NEXT))

    def taken(signature: bytes, days: float) -> bool:
        try:
            signer = found.admit(scene.data, signature, scene.path, start + timedelta(days=days)).signer
        except SkillTrustError:
            return False
        assert signer is not None
        return signer == Signer("acme", (ACME if signature == by_old else NEXT).id)

    days = (-0.1, 0, 58.9, 59, 89.9, 90)  # before, January, the last of February, March, its last day, April
    assert [taken(by_old, at) for at in days] == [False, True, True, True, True, False]
    assert [taken(by_new, at) for at in days] == [False, False, False, True, True, True]


def test_a_policy_expires_while_a_runtime_runs(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(usual(head="expires = 2030-06-30T12:00:00+02:00"), "utf-8")
    found, signature = TrustPolicy.read(path), scene.signature.read_bytes()
    end = datetime(2030, 6, 30, 10, tzinfo=UTC)
    found.admit(scene.data, signature, scene.path, end - timedelta(seconds=1))
    with pytest.raises(SkillTrustError, match="the trust policy expired at 2030-06-30"):
        found.admit(scene.data, signature, scene.path, end)


# -- versions --------------------------------------------------------------------------------------


def test_an_older_version_never_takes_the_place_of_a_newer_one(made: Runtime, tmp_path: Path) -> None:
    runtime = under(made, usual(), tmp_path)
    paths = {
        version: signed(models.skill(models.exported(), "legal", seed=number, version=version), ACME)
        for number, version in enumerate(("1.10.0", "1.9.0", "1.10.0-rc.1", "1.10.0+other", "2.0.0"))
    }
    runtime.load_skill(paths["1.10.0"])
    for older in ("1.9.0", "1.10.0-rc.1"):
        with pytest.raises(SkillVersionError, match=f"loaded in version 1.10.0, {older} is older: pass allow_downg"):
            runtime.load_skill(paths[older], replace=True)
        assert runtime.skills()[-1].version == "1.10.0"
    runtime.load_skill(paths["1.10.0+other"], replace=True)
    runtime.load_skill(paths["2.0.0"], replace=True)
    runtime.load_skill(paths["1.9.0"], replace=True, allow_downgrade=True)
    assert runtime.skills()[-1].version == "1.9.0"
    assert runtime._bank.in_use == 3


def test_without_a_policy_nothing_changes(made: Runtime, scene: Scene) -> None:
    runtime = Runtime(made._graph, made._text, {})
    scene.signature.write_bytes(b"no signature")
    assert runtime.load_skill(scene.path).signer is None
    older = models.skill(models.exported(), "legal", version="0.1.0")
    assert runtime.load_skill(older, replace=True).version == "0.1.0"


# -- policies that ask for little ------------------------------------------------------------------


def test_a_policy_without_keys_looks_at_no_signature(made: Runtime, scene: Scene) -> None:
    scene.signature.write_bytes(b"no signature")
    runtime = under(made, policy('[minimum]\nlegal = "1.0.0"', required=False), scene.folder)
    assert runtime.load_skill(scene.path).signer is None


def test_unsigned_skills_may_bear_names_that_nobody_claims(made: Runtime, scene: Scene) -> None:
    text = usual().replace("require_signatures = true", "require_signatures = false")
    free = models.skill(models.exported(), "free")
    runtime = under(made, text, scene.folder)
    assert runtime.load_skill(free).signer is None
    signature_path(free).write_bytes(bundle(STRANGER, statement(free.read_bytes(), free.name)))
    with pytest.raises(SkillTrustError, match="which is not trusted"):  # a signature that is there has to hold
        runtime.load_skill(free, "again")


def test_every_curve_is_verified_with_its_own_hash(scene: Scene, tmp_path: Path) -> None:
    for number, curve in enumerate((ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())):
        key = Pair(curve)
        path = tmp_path / f"{number}.toml"
        path.write_text(policy(publisher("acme", ["*"], key_table(key))), "utf-8")
        found = TrustPolicy.read(path).admit(scene.data, bundle(key, statement(scene.data, "legal.lime")), "legal.lime")
        assert found.signer == Signer("acme", key.id)
        assert np.isfinite(next(iter(found.skill.tensors.values()))).all()
