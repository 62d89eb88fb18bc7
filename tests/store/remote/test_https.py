"""Downloads from a server on this machine that cuts, lies, drips and misleads."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lime_edge.errors import ConfigError, FetchError, SkillFormatError
from lime_edge.store.remote.https import Limits
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull
from tests.support.faulty_server import Request, Server, cut, dripping, endless, file, fixed, in_turn, serving
from tests.support.paths import ROOT
from tests.support.store_case import check, litter, package, sha256, signature_of

#: Small, so that a test takes well under a second; the real ones are `download.USUAL`.
QUICK = Limits(size=2**20, silence=0.4, rate=200.0, window=0.4, tries=3)
PATH = "/x.lime"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as book:
        yield book


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store")
    yield made
    check(made.path)
    assert not [path for path in (made.path / "blobs").glob("*") if path.name[:64] not in made_blobs(made)]


def made_blobs(store: Store) -> set[str]:
    return {held.blob for entry in store.list() for held in entry.versions.values()}


def big() -> bytes:
    """Larger than a few pieces of the network."""
    return package("big", description="x" * 3500, backbone_name="y" * 150)


def test_a_file_with_its_signature(server: Server, store: Store) -> None:
    data = package()
    server.routes = {PATH: file(data), f"{PATH}.sig": file(signature_of(data))}
    seen: list[tuple[int, int | None]] = []
    found = pull(store, f"{server.url}{PATH}", limits=QUICK, progress=lambda *now: seen.append(now))
    assert (found.name, found.version, found.changed, found.held.origin) == ("tiny", "1.0.0", True, server.url + PATH)
    assert found.path.read_bytes() == data
    assert (found.path.parent / f"{found.path.name}.sig").read_bytes() == signature_of(data)
    assert seen[-1] == (len(data), len(data))
    assert server.asked[0][1]["Accept-Encoding"] == "identity"


def test_the_query_stays_behind_the_name_of_the_signature(server: Server, store: Store) -> None:
    data = package()
    server.routes = {f"{PATH}?token=1": file(data), f"{PATH}.sig?token=1": file(signature_of(data))}
    found = pull(store, f"{server.url}{PATH}?token=1", limits=QUICK)
    assert (found.path.parent / f"{found.path.name}.sig").is_file()


def test_cut_connections_are_resumed_where_they_broke(server: Server, store: Store) -> None:
    data = big()
    server.routes[PATH] = cut(data, [100, 101, 1000, 4000, 4001])
    assert pull(store, f"{server.url}{PATH}#sha256={sha256(data)}", limits=QUICK).path.read_bytes() == data
    assert server.ranges(PATH) == [None, "bytes=100-", "bytes=101-", "bytes=1000-", "bytes=4000-", "bytes=4001-"]
    assert {headers.get("If-Range") for _, headers in server.asked[1:6]} == {'"v1"'}


def test_a_file_that_changes_between_two_parts_is_fetched_anew(server: Server, store: Store) -> None:
    old, new = package("big", description="a" * 3000), big()
    server.routes[PATH] = in_turn(cut(old, [2000], '"old"'), file(new, '"new"'))
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == new
    assert server.ranges(PATH) == [None, "bytes=2000-"]


def test_without_a_strong_tag_nothing_is_resumed(server: Server, store: Store) -> None:
    data = big()
    server.routes[PATH] = in_turn(cut(data, [2000], 'W/"weak"'), file(data, 'W/"weak"'))
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data
    assert server.ranges(PATH) == [None, None]


def test_an_answer_to_another_range_is_not_added(server: Server, store: Store) -> None:
    data = big()
    wrong = fixed(206, data[10:], Content_Range=f"bytes 10-{len(data) - 1}/{len(data)}", ETag='"v1"')
    server.routes[PATH] = in_turn(cut(data, [2000]), wrong, file(data))
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data


def test_a_range_that_the_server_does_not_know_is_fetched_anew(server: Server, store: Store) -> None:
    data = big()
    server.routes[PATH] = in_turn(cut(data, [2000]), fixed(416, Content_Range="bytes */7"), file(data))
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data


def test_a_server_that_is_busy_is_asked_again(server: Server, store: Store) -> None:
    server.routes[PATH] = in_turn(fixed(503), file(package()))
    assert pull(store, server.url + PATH, limits=QUICK).changed


def test_a_longer_length_than_there_are_bytes(server: Server, store: Store) -> None:
    """The connection seems cut; all of it is there, as the server then says itself."""
    data = package()

    def route(request: Request) -> None:
        if request.headers.get("Range"):
            return request.answer(416, Content_Range=f"bytes */{len(data)}")
        return request.answer(200, data, Content_Length=len(data) + 100, ETag='"v1"')

    server.routes[PATH] = route
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data
    server.routes["/always"] = fixed(200, data, Content_Length=len(data) + 100, ETag='"v1"')
    with pytest.raises(FetchError, match=f"{len(data)} bytes read|bytes of {len(data) + 100} came"):
        pull(store, f"{server.url}/always", limits=QUICK)


def test_a_shorter_length_than_there_are_bytes(server: Server, store: Store) -> None:
    data = package()
    server.routes[PATH] = fixed(200, data, Content_Length=len(data) - 10)
    with pytest.raises(SkillFormatError, match="cut short"):
        pull(store, server.url + PATH, limits=QUICK)
    with pytest.raises(FetchError, match=f"has SHA-256 {sha256(data[:-10])}; it is pinned to another"):
        pull(store, f"{server.url}{PATH}#sha256={sha256(data)}", limits=QUICK)


def test_other_content_than_the_reference_is_pinned_to(server: Server, store: Store) -> None:
    server.routes[PATH] = file(package())
    with pytest.raises(FetchError, match="pinned to another"):
        pull(store, f"{server.url}{PATH}#sha256={sha256(big())}", limits=QUICK)
    assert not store.list()


def test_a_signature_without_end(server: Server, store: Store) -> None:
    server.routes = {PATH: file(package()), f"{PATH}.sig": endless(b"x" * 2**16)}
    with pytest.raises(FetchError, match="more than 1048576 bytes came"):
        pull(store, server.url + PATH, limits=QUICK)


def silent(request: Request) -> None:
    request.book.closing.wait(5)


def no_http(request: Request) -> None:
    request.wfile.write(b"SSH-2.0-x\r\n")


REFUSED: dict[str, tuple[Callable[[Request], None], str]] = {
    "missing": (fixed(404), "answers 404"),
    "forbidden": (fixed(403), "answers 403"),
    "part that was not asked for": (fixed(206, b"x", Content_Range="bytes 0-0/1"), "answers 206"),
    "no content": (fixed(204), "answers 204"),
    "always cut at once": (cut(b"x" * 100, [0] * 99), "cannot be fetched"),
    "always cut after a byte, another file each time": (
        lambda request: request.answer(200, b"x", Content_Length=99, ETag=f'"{time.monotonic_ns()}"'),
        "cannot be fetched",
    ),
    "always busy": (fixed(500), "answers 500"),
    "declared too large": (fixed(200, b"x", Content_Length=2**20 + 1), "has 1048577 bytes; expected at most 1048576"),
    "without end": (endless(b"x" * 2**16), "is over 1048576 bytes"),
    "compressed bomb": (fixed(200, gzip.compress(bytes(2**24)), Content_Encoding="gzip"), "comes encoded as 'gzip'"),
    "to a file": (fixed(302, Location="file:///etc/passwd"), "leads to 'file:///etc/passwd': 'file' is not https"),
    "to plain http elsewhere": (fixed(301, Location="http://example.org/x"), "plain http can be read"),
    "to a password": (fixed(307, Location="https://a:b@example.org/x"), "a password in an address"),
    "to no host": (fixed(302, Location="https:///x"), "names no host"),
    "round in circles": (fixed(302, Location=PATH), "Exceeded 5 redirects"),
    "dripping": (dripping(b"x" * 10_000, 0.05, b"HTTP/1.1 200 OK\r\n\r\n"), "expected 200 a second"),
    "dripping headers": (dripping(b"X-A: b\r\n" * 1000, 0.01, b"HTTP/1.1 200 OK\r\n"), "nothing came for 0.4 s"),
    "dripping the length of a chunk": (
        dripping(b"0" * 1000, 0.01, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "nothing came for 0.4 s",
    ),
    "silent": (silent, "nothing came for 0.4 s"),
    "no HTTP": (no_http, "cannot be fetched"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(server: Server, store: Store, name: str) -> None:
    store.install(package(version="0.9.0"))
    server.routes[PATH], message = REFUSED[name]
    with pytest.raises(FetchError, match=message):
        pull(store, server.url + PATH, limits=QUICK)
    assert [(entry.name, entry.current) for entry in store.list()] == [("tiny", "0.9.0")]


def test_redirects_on_this_machine_are_followed(server: Server, store: Store) -> None:
    server.routes = {"/a": fixed(302, Location="/b"), "/b": fixed(308, Location=PATH), PATH: file(package())}
    assert pull(store, f"{server.url}/a", limits=QUICK).changed


def test_the_body_of_a_redirect_is_not_waited_for(server: Server, store: Store) -> None:
    def route(request: Request) -> None:
        request.answer(302, b"x", Content_Length=10**9, Location=PATH)
        request.book.closing.wait(5)

    server.routes = {"/a": route, PATH: file(package())}
    assert pull(store, f"{server.url}/a", limits=QUICK).changed


def test_nobody_listens(server: Server, store: Store) -> None:
    with pytest.raises(FetchError, match="Connection refused"):
        pull(store, "http://127.0.0.1:9/x.lime", limits=QUICK)


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "https://u:p@example.org/x", "ftp://example.org/x", "https:///x"]
)
def test_addresses_that_are_refused_before_anything_is_asked(store: Store, url: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used|not a scheme"):
        pull(store, url)


def test_what_a_failed_pull_has_is_kept_for_the_next_and_collected_by_gc(server: Server, store: Store) -> None:
    data = big()
    server.routes[PATH] = cut(data, [1000, 1000, 1000, 1000])
    with pytest.raises(FetchError, match="1000 bytes are kept: pull again"):
        pull(store, server.url + PATH, limits=QUICK)
    server.routes[PATH] = file(data)
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data
    assert server.ranges(PATH)[-1] == "bytes=1000-"
    server.routes["/other"] = cut(data, [10] * 9)
    with pytest.raises(FetchError, match="10 bytes are kept"):
        pull(store, f"{server.url}/other", limits=QUICK)
    assert store.gc().size == 10 + len('"v1"')
    assert not litter(store.path)


def test_a_pull_that_was_killed_is_resumed(server: Server, store: Store) -> None:
    """Another process, killed in the midst of it; `gc` leaves the download alone while it lives."""
    data = big()
    server.routes[PATH] = in_turn(dripping(data, 0.001, head(data)), file(data))
    code = "import sys; from lime_edge.cli import main; main()"
    command = [sys.executable, "-c", code, "pull", server.url + PATH]
    environment = {**os.environ, "LIME_EDGE_STORE": str(store.path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        folder = store.path / "partial"
        while not (parts := [path for path in folder.glob("*.part") if path.stat().st_size > 300]):
            assert process.poll() is None
            time.sleep(0.005)
        store.gc()
        assert parts[0].is_file()
        process.send_signal(signal.SIGKILL)
    had = parts[0].stat().st_size
    assert 300 < had < len(data)
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data
    assert server.ranges(PATH)[-1] == f"bytes={had}-"


def head(data: bytes) -> bytes:
    return f'HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\nETag: "v1"\r\n\r\n'.encode()


def test_the_usual_limits_take_the_largest_package() -> None:
    usual = Limits()
    assert usual.size == 256 * 2**20
    assert usual == replace(usual, redirects=5, tries=5)
