"""Catalogues: written, served as static files, searched, pulled from; tampered ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lime_edge.cli import main
from lime_edge.errors import ConfigError, FetchError, LimeError, SkillError, SkillTrustError
from lime_edge.store.catalogue import INDEX_FILE, read_catalogue, reference_of, search, write_catalogue
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull
from lime_edge.trust.policy import TrustPolicy
from lime_edge.trust.signature_file import signature_path
from lime_edge.trust.signing import sign_file
from tests.support.runtime_models import edit_json
from tests.support.servers.faulty_server import Server, file, serving
from tests.support.signatures import key_table, pair, policy, publisher
from tests.support.store_case import package, sha256


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A catalogue of three packages of two skills."""
    skills = tmp_path / "skills"
    (skills / "deeper").mkdir(parents=True)
    for name, version in (("a", "1.0.0"), ("a", "1.10.0"), ("b", "2.0.0")):
        (skills / "deeper" / f"{name}-{version}.lime").write_bytes(package(name, version))
    write_catalogue(skills, tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def host(site: Path) -> Iterator[Server]:
    """A static server of the catalogue; reads the files when they are asked for."""
    with serving() as running:
        running.rest = lambda request: _send(site, request)
        yield running


def _send(site: Path, request: Any) -> None:
    path = site / request.path.lstrip("/")
    if path.is_file():
        file(path.read_bytes())(request)
    else:
        request.answer(404)


def test_the_index_says_what_a_package_is(site: Path) -> None:
    found = read_catalogue(str(site))
    assert [(one.name, one.version) for one in found] == [("a", "1.0.0"), ("a", "1.10.0"), ("b", "2.0.0")]
    for one in found:
        data = (site / one.file).read_bytes()
        assert (one.sha256, one.bytes) == (sha256(data), len(data))
    assert (site / "index.html").read_text("utf-8").startswith("<!doctype html>")
    assert read_catalogue(str(site / INDEX_FILE)) == found


def test_search_finds_the_newest_version_that_has_all_words(site: Path) -> None:
    found = read_catalogue(str(site))
    assert [(one.name, one.version) for one in search(found, [])] == [("a", "1.10.0"), ("b", "2.0.0")]
    assert [one.name for one in search(found, ["TESTS", "umlaut"])] == ["a", "b"]
    assert not search(found, ["tests", "absent"])


def test_a_name_is_pulled_from_a_static_host(host: Server, store: Store) -> None:
    catalogue = read_catalogue(host.url)
    assert pull(store, reference_of(host.url, catalogue, "a")).version == "1.10.0"
    assert pull(store, reference_of(f"{host.url}/{INDEX_FILE}", catalogue, "b@2.0.0")).name == "b"
    with pytest.raises(ConfigError, match="has no skill 'c'; it has a, b"):
        reference_of(host.url, catalogue, "c")
    with pytest.raises(ConfigError, match=r"has no skill 'a@9.0.0'; it has a@1.0.0, a@1.10.0, b@2.0.0"):
        reference_of(host.url, catalogue, "a@9.0.0")


def test_a_package_that_was_exchanged_does_not_match_its_index(host: Server, site: Path, store: Store) -> None:
    catalogue = read_catalogue(host.url)
    (site / catalogue[-1].file).write_bytes(package("b", "2.0.1"))
    with pytest.raises(FetchError, match="does not match the pin"):
        pull(store, reference_of(host.url, catalogue, "b"))
    assert not store.list()


def test_a_signed_index_is_accepted_and_a_tampered_one_refused(host: Server, site: Path, tmp_path: Path) -> None:
    key = pair("first")
    secret, _ = key.write(tmp_path)
    rules = tmp_path / "policy.toml"
    rules.write_text(policy(publisher("us", ["*"], key_table(key))), "utf-8")
    trust = TrustPolicy.read(rules)
    with pytest.raises(SkillTrustError, match="there is no signature"):
        read_catalogue(host.url, trust)
    sign_file(site / INDEX_FILE, secret)
    assert len(read_catalogue(host.url, trust)) == 3
    edit_json(site / INDEX_FILE, lambda document: document["skills"].pop())
    with pytest.raises(SkillTrustError, match="changed or written again after it was signed"):
        read_catalogue(host.url, trust)
    assert len(read_catalogue(host.url)) == 2


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda d: d.update(format=2), "has format 2"),
        (lambda d: d.update(more=1), "unknown key 'more'"),
        (lambda d: d["skills"][0].update(file="../x.lime"), "a relative path"),
        (lambda d: d["skills"][0].update(file="https://other.example/x.lime"), "a relative path"),
        (lambda d: d["skills"][0].update(sha256="0"), "a SHA-256"),
        (lambda d: d["skills"][0].pop("license"), "lacks the key 'license'"),
    ],
)
def test_an_invalid_index_is_refused(site: Path, change: Callable[[Any], object], fault: str) -> None:
    def edit(document: Any) -> None:
        change(document)

    edit_json(site / INDEX_FILE, edit)
    with pytest.raises(FetchError, match=fault):
        read_catalogue(str(site))


def test_missing_catalogues_and_bad_addresses(host: Server, tmp_path: Path) -> None:
    for place in (f"{host.url}/elsewhere", str(tmp_path)):
        with pytest.raises(FetchError):
            read_catalogue(place)
    with pytest.raises(LimeError):
        read_catalogue("http://other.example/skills")


def test_invalid_and_repeated_skills_are_all_named_and_nothing_is_written(tmp_path: Path) -> None:
    skills, output = tmp_path / "skills", tmp_path / "site"
    skills.mkdir()
    with pytest.raises(ConfigError, match=r"has no \.lime files"):
        write_catalogue(skills, output)
    (skills / "bad.lime").write_bytes(b"no skill")
    for name in ("one", "two"):
        (skills / f"{name}.lime").write_bytes(package("a", "1.0.0"))
    with pytest.raises(SkillError) as caught:
        write_catalogue(skills, output)
    assert len(caught.value.faults) == 2
    assert not output.exists()


def test_a_renewed_index_loses_its_old_signature_and_keeps_old_packages(site: Path, tmp_path: Path) -> None:
    signature_path(site / INDEX_FILE).write_bytes(b"old")
    before = read_catalogue(str(site))
    skills = tmp_path / "newer"
    skills.mkdir()
    (skills / "a.lime").write_bytes(package("a", "2.0.0"))
    write_catalogue(skills, site)
    assert not signature_path(site / INDEX_FILE).exists()
    assert (site / before[0].file).is_file()


def test_the_commands(host: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIME_EDGE_STORE", str(tmp_path / "other"))
    skills = tmp_path / "skills"
    ran = CliRunner().invoke(main, ["index", str(skills), "-o", str(tmp_path / "again")])
    assert (ran.exit_code, "3 skills" in ran.output) == (0, True), ran.output
    target = tmp_path / "found.json"
    ran = CliRunner().invoke(main, ["search", "a", "--index", host.url, "--json", str(target)])
    assert ran.exit_code == 0, ran.output
    names = {one["name"] for one in json.loads(target.read_text("utf-8"))["skills"]}
    assert "a" in names
    ran = CliRunner().invoke(main, ["pull", "a", "--index", host.url])
    assert ran.exit_code == 0, ran.output
    assert Store(tmp_path / "other").get("a").is_file()
    assert CliRunner().invoke(main, ["pull", "nobody", "--index", host.url]).exit_code == 1
