"""Parses references: one line of text that says where a skill is.

    file:///path/legal.lime                     a file on this machine; a plain path means the same
    https://host/path/legal.lime                plain http only to this machine
    hf://organisation/repository/legal.lime@v1  the Hugging Face Hub; without a revision, main
    oci://registry/repository:1.0.0             an OCI registry; a tag, or @sha256:<hex> of the manifest

Each may end with a pin, ``#sha256=<hex>``: the SHA-256 that the bytes of the file must have. See docs/store.md.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError

Scheme = Literal["file", "https", "hf", "oci"]
MAIN = "main"  # the default revision on the Hub

_LONGEST = 2000  # characters
_PIN = re.compile(r"sha256=([0-9a-f]{64})")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"(?P<repo>{_WORD}/{_WORD})/(?P<file>{_WORD}(/{_WORD})*)(@(?P<revision>[A-Za-z0-9._/-]+))?")
_OCI = re.compile(
    r"(?P<host>[a-z0-9.-]+(:\d{1,5})?|\[[0-9a-f:]+\](:\d{1,5})?)/"
    r"(?P<repo>[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)"
    r"((:(?P<tag>\w[\w.-]{0,127}))|(@(?P<digest>sha256:[0-9a-f]{64})))",
    re.ASCII,
)
EXPECTED = (
    "expected a path, file://PATH, https://HOST/PATH, hf://ORG/REPO/FILE[@REVISION] or oci://HOST/REPO:TAG, "
    "each with #sha256=HEX if it is pinned"
)


@dataclass(frozen=True)
class Reference:
    """A parsed reference.

    Attributes:
        text: The reference as written; a plain path as a file: URL.
        place: A path, a URL, ``org/repo/file`` or ``host/repo:tag``, without the pin.
        sha256: The pin; empty if there is none.
        moving: Whether the reference may name other content later: it has no pin, commit or digest.
    """

    text: str
    scheme: Scheme
    place: str
    sha256: str = ""
    moving: bool = True
    repo: str = ""  # hf, oci
    file: str = ""  # hf: the path in the repository
    revision: str = ""  # hf: the revision; oci: the tag, or the digest of the manifest
    host: str = ""  # oci

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Reference:
    """Parse a reference.

    Raises:
        ConfigError: The text is not a reference.
    """
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise ConfigError(f"the reference {show(text)} cannot be used; {EXPECTED}")
    if "://" not in text:
        return _path(text)
    scheme, _, rest = text.partition("://")
    place, hashed, pin = rest.partition("#")
    match = _PIN.fullmatch(pin)
    if hashed and match is None:
        raise ConfigError(f"{show(text)} ends in {show('#' + pin)}; expected #sha256= and 64 lower-case hex digits")
    sha256 = match[1] if match else ""
    known = {"file": _file, "https": _url, "http": _url, "hf": _hub, "oci": _oci}
    if scheme not in known:
        raise ConfigError(f"{show(scheme)} is not a reference scheme; {EXPECTED}")
    return known[scheme](text, place, sha256)


def is_local(host: str | None) -> bool:
    """Whether a host is this machine: localhost or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def url_fault(parts: SplitResult) -> str:
    """Why a URL may not be fetched; empty if it may."""
    try:
        local = is_local(parts.hostname)
        _ = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("https", "http"):
        return f"{show(parts.scheme)} is not https"
    if not parts.hostname:
        return "it names no host"
    if parts.scheme == "http" and not local:
        return "plain http can be read and changed by anyone on the way; use https"
    if parts.username is not None or parts.password is not None:
        return "a password in an address ends up in logs; use ~/.netrc"
    return ""


def _path(text: str) -> Reference:
    name, _, pin = text.rpartition("#sha256=")
    if name and _PIN.fullmatch(f"sha256={pin}"):
        return parse(f"{Path(name).absolute().as_uri()}#sha256={pin}")
    return parse(Path(text).absolute().as_uri())


def _file(text: str, place: str, sha256: str) -> Reference:
    host, slash, path = place.partition("/")
    if not slash or host not in ("", "localhost"):
        raise ConfigError(f"{show(text)} names the host {show(host)}; expected file:///PATH")
    path = unquote(slash + path)
    if re.match(r"/[A-Za-z]:", path):  # a Windows drive
        path = path[1:]
    if "\0" in path:
        raise ConfigError(f"{show(text)} is not a path: it contains a null character")
    return Reference(text, "file", path, sha256, not sha256)


def _url(text: str, place: str, sha256: str) -> Reference:
    url = f"{text.partition('://')[0]}://{place}"
    try:
        fault = url_fault(urlsplit(url))
    except ValueError as error:
        fault = str(error)
    if fault:
        raise ConfigError(f"{show(text)} cannot be used: {fault}")
    return Reference(text, "https", url, sha256, not sha256)


def _hub(text: str, place: str, sha256: str) -> Reference:
    match = _HUB.fullmatch(place)
    if match is None:
        raise ConfigError(f"{show(text)} cannot be used; expected hf://ORG/REPO/FILE[@REVISION]")
    revision = match["revision"] or MAIN
    moving = not sha256 and not _COMMIT.fullmatch(revision)
    return Reference(text, "hf", place, sha256, moving, repo=match["repo"], file=match["file"], revision=revision)


def _oci(text: str, place: str, sha256: str) -> Reference:
    match = _OCI.fullmatch(place)
    if match is None:
        raise ConfigError(f"{show(text)} cannot be used; expected oci://HOST/REPO:TAG or oci://HOST/REPO@sha256:HEX")
    revision = match["tag"] or match["digest"]
    moving = not sha256 and not match["digest"]
    return Reference(text, "oci", place, sha256, moving, repo=match["repo"], revision=revision, host=match["host"])
