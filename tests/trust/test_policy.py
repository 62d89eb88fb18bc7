"""Trust policies in a runtime: every attack is refused with its own reason, and loaded skills are not affected."""

from __future__ import annotations

import hashlib
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import SkillFormatError, SkillTrustError, SkillVersionError
from lime_edge.runtime import Runtime
from lime_edge.skills.package import read_skill
from lime_edge.trust.policy import Signer, TrustPolicy
from lime_edge.trust.signature_file import signature_path
from tests.support import runtime_models as models
from tests.support.faults.attacks import ACME, ATTACKS, NEXT, OTHER, STRANGER, Scene, flip, usual
from tests.support.signatures import bundle, day, key_table, policy, publisher, signed, statement


@pytest.fixture(scope="module")
def made() -> Runtime:
    return models.runtime(models.exported())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    shutil.copy(models.skill(models.exported(), "legal", seed=1), tmp_path / "legal.lime")
    signed(tmp_path / "legal.lime", ACME)
    return Scene(tmp_path)


def under(made: Runtime, text: str, folder: Path) -> Runtime:
    """A runtime with the policy `text`, into which one skill was loaded before."""
    path = folder / "policy.toml"
    path.write_text(usual(), "utf-8")
    trust = TrustPolicy.read(path)
    runtime = Runtime(made._graph, made._text, {}, trust)
    runtime.load_skill(signed(models.skill(models.exported(), "brief-one"), ACME))
    path.write_text(text, "utf-8")
    vars(trust).update(vars(TrustPolicy.read(path)))  # the policy object of the runtime, with other content
    return runtime


def answers_of(runtime: Runtime) -> list[tuple[int, ...]]:
    return [runtime.generate("is it so?", name, max_new_tokens=5).token_ids for name in (None, "brief-one")]


def test_a_signed_skill_is_taken_and_its_signer_named(made: Runtime, scene: Scene) -> None:
    runtime = under(made, usual(head=f"expires = {day(0)}", from_=day(0), until=day(0)), scene.folder)
    info = runtime.load_skill(scene.path)
    assert info.signer == Signer("acme", ACME.id)
    receipt = runtime.generate("x", "legal", max_new_tokens=1).receipt
    assert receipt["skills"][0]["signer"] == {"publisher": "acme", "key": ACME.id}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused(made: Runtime, scene: Scene, name: str) -> None:
    change, message = ATTACKS[name]
    text = change(scene)
    runtime = under(made, usual() if text is None else text, scene.folder)
    answers, skills, used = answers_of(runtime), runtime.skills(), runtime._bank.in_use
    with pytest.raises(SkillTrustError) as caught:
        runtime.load_skill(scene.path)
    assert re.search(message, str(caught.value)), caught.value
    assert (runtime.skills(), runtime._bank.in_use) == (skills, used)
    assert answers_of(runtime) == answers


def test_nothing_is_parsed_before_the_signature_holds(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    def parsed(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr("lime_edge.trust.policy.decode_skill", parsed)
    (scene.folder / "policy.toml").write_text(usual(), "utf-8")
    found = TrustPolicy.read(scene.folder / "policy.toml")
    with pytest.raises(SkillTrustError):
        found.admit(scene.data + b"x", scene.signature.read_bytes(), scene.path)
    with pytest.raises(AssertionError, match="parsed"):
        found.admit(scene.data, scene.signature.read_bytes(), scene.path)


def test_the_bytes_that_were_verified_are_the_bytes_that_are_loaded(
    monkeypatch: pytest.MonkeyPatch, made: Runtime, scene: Scene
) -> None:
    """The file is replaced after the verification: it must not be read a second time."""
    from lime_edge.trust import policy

    wanted = read_skill(scene.path).digest
    evil = models.skill(models.exported(), "legal", seed=666).read_bytes()
    vouch = TrustPolicy.vouch

    def exchanged(self: TrustPolicy, *args: Any) -> Signer | None:
        signer = vouch(self, *args)
        scene.path.write_bytes(evil)
        return signer

    runtime = under(made, usual(), scene.folder)
    monkeypatch.setattr(policy.TrustPolicy, "vouch", exchanged)
    assert runtime.load_skill(scene.path).digest == wanted != read_skill(scene.path).digest


def test_a_signed_skill_still_has_to_be_sound(made: Runtime, scene: Scene) -> None:
    scene.path.write_bytes(scene.data[:-2])
    scene.forge()
    with pytest.raises(SkillFormatError, match=r"not a valid skill package|not a skill package"):
        under(made, usual(), scene.folder).load_skill(scene.path)


def test_a_file_named_by_its_content_needs_no_name(made: Runtime, scene: Scene) -> None:
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
    flip(scene, -1)
    other = scene.path.rename(scene.folder / "other.lime")
    scene.signature.rename(signature_path(other))
    with pytest.raises(SkillTrustError) as caught:
        runtime.load_skill(other)
    wanted = ("policy expired", "is revoked", "of 'acme' expired", "over a file", "signed as 'legal.lime'")
    assert len(caught.value.faults) == len(wanted)
    assert all(any(part in fault for fault in caught.value.faults) for part in wanted)
    text = usual(f'[minimum]\nlegal = "2.0.0"\n[revoked]\nskills = ["{read_skill(_fresh(scene)).digest}"]')
    scene.forge(OTHER)
    with pytest.raises(SkillTrustError) as caught:
        under(made, text, scene.folder).load_skill(scene.path)
    assert len(caught.value.faults) == 3


def _fresh(scene: Scene) -> Path:
    shutil.copy(models.skill(models.exported(), "legal"), scene.path)
    return scene.path


def test_keys_are_rotated(scene: Scene, tmp_path: Path) -> None:
    """The periods of two keys overlap; each is accepted within its own, whenever the signature was made."""
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


def test_an_older_version_never_takes_the_place_of_a_newer_one(made: Runtime, tmp_path: Path) -> None:
    runtime = under(made, usual(), tmp_path)
    paths = {
        version: signed(models.skill(models.exported(), "legal", seed=number, version=version), ACME)
        for number, version in enumerate(("1.10.0", "1.9.0", "1.10.0-rc.1", "1.10.0+other", "2.0.0"))
    }
    runtime.load_skill(paths["1.10.0"])
    for older in ("1.9.0", "1.10.0-rc.1"):
        with pytest.raises(SkillVersionError, match=f"loaded in version 1.10.0; {older} is older: pass allow_downg"):
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
    with pytest.raises(SkillTrustError, match="which is not trusted"):  # an optional signature must still be valid
        runtime.load_skill(free, "again")
