"""References: how they are parsed, and which are refused before anything is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.errors import ConfigError
from lime_edge.store.remote.references import parse

PIN = "#sha256=" + "0123456789abcdef" * 4
COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("text", "scheme", "place", "moving"),
    [
        ("file:///a/b%20c.lime", "file", "/a/b c.lime", True),
        ("file://localhost/a.lime", "file", "/a.lime", True),
        (f"file:///a.lime{PIN}", "file", "/a.lime", False),
        ("https://host/a.lime?x=1", "https", "https://host/a.lime?x=1", True),
        (f"https://host:8443/a.lime{PIN}", "https", "https://host:8443/a.lime", False),
        ("http://127.0.0.1:80/a", "https", "http://127.0.0.1:80/a", True),
        ("http://[::1]/a", "https", "http://[::1]/a", True),
        ("hf://org/repo/a/b.lime", "hf", "org/repo/a/b.lime", True),
        ("hf://org/repo/b.lime@v1.0", "hf", "org/repo/b.lime@v1.0", True),
        ("hf://org/repo/b.lime@refs/pr/1", "hf", "org/repo/b.lime@refs/pr/1", True),
        (f"hf://org/repo/b.lime@{COMMIT}", "hf", f"org/repo/b.lime@{COMMIT}", False),
        ("oci://ghcr.io/a/b:1.0.0", "oci", "ghcr.io/a/b:1.0.0", True),
        ("oci://localhost:5000/b:latest", "oci", "localhost:5000/b:latest", True),
        (f"oci://ghcr.io/a/b@sha256:{'a' * 64}", "oci", f"ghcr.io/a/b@sha256:{'a' * 64}", False),
    ],
)
def test_what_references_mean(text: str, scheme: str, place: str, moving: bool) -> None:
    found = parse(text)
    assert (str(found), found.scheme, found.place, found.moving) == (text, scheme, place, moving)
    assert found.sha256 == (PIN[8:] if PIN in text else "")


def test_parts_of_a_hub_and_of_a_registry_reference() -> None:
    found = parse("hf://org/repo/a/b.lime@v1")
    assert (found.repo, found.file, found.revision) == ("org/repo", "a/b.lime", "v1")
    assert parse("hf://org/repo/b.lime").revision == "main"
    found = parse("oci://h:5/a/b:1")
    assert (found.host, found.repo, found.revision) == ("h:5", "a/b", "1")


def test_a_path_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("a b#c.lime").place == str(tmp_path / "a b#c.lime")
    assert parse(f"a.lime{PIN}").sha256 == PIN[8:]
    assert parse("a.lime").text == (tmp_path / "a.lime").as_uri()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 2001,
        "a\nb",
        "ftp://host/a",
        "file://host/a",
        "file:///a%00b",
        "file:///a#sha256=12",
        f"https://host/a{PIN.upper()}",
        "https://host/a#md5=12",
        "http://example.org/a",
        "http://127.0.0.1.example.org/a",
        "http://localhost.example.org/a",
        "https://user@host/a",
        "https://user:word@host/a",
        "https:///a",
        "https://host:port/a",
        "https://[::1/a",
        "hf://repo/b.lime",
        "hf://org/repo",
        "hf://org/repo/../b.lime",
        "hf://org/repo/a//b.lime",
        "hf://org/repo/b.lime@",
        "hf://org/repo/b.lime@v?x",
        "oci://host/A:1",
        "oci://host/a",
        "oci://host/../a:1",
        "oci://user:word@host/a:1",
        "oci://host/a@sha256:12",
        "oci://host/a:1@sha256:" + "a" * 64,
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected|cannot be used|is not a path"):
        parse(text)


@given(st.text(max_size=40), st.sampled_from(["", "file://", "https://", "http://", "hf://", "oci://"]))
def test_nothing_but_a_config_error_escapes(text: str, scheme: str) -> None:
    try:
        found = parse(scheme + text)
    except ConfigError:
        return
    assert parse(found.text) == found
